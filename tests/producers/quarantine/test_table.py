"""Counts by topic, error and rule, with what was sent again and what came back."""

from datetime import timedelta

import pytest

from conf.errors import TidemarkError
from producers.quarantine.records import OF
from tests.producers.quarantine.ward import NOON, OLD_SCHEMA, Ward, printed_objects


def test_records_are_counted_by_topic_error_and_rule_with_their_first_and_last_time(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    later = NOON + timedelta(minutes=5)
    back = [{"key": OF, "value": b"somewhere/0/1"}, {"key": "other", "value": b""}]
    ward.reject({"offset": 1}, {"offset": 2, "quarantined_at": later}, {"offset": 3, "partition": 1, "headers": back})
    ward.reject({"offset": 4, "error": "RULE_FAILED", "rule": "range"}, {"offset": 4, "topic": "another"})
    ward.run("redrive", f"{ward.topic}/0/2")
    capsys.readouterr()
    assert ward.run("list", "--json") == 0
    at, until = "2026-03-01T12:00:00Z", "2026-03-01T12:05:00Z"
    names = ("topic", "error", "rule", "records", "redriven", "open", "came_back", "first", "last")
    assert [tuple(each[name] for name in names) for each in printed_objects(capsys.readouterr().out)] == [
        ("another", "BAD_FRAMING", "", 1, 0, 1, 0, at, at),
        (ward.topic, "BAD_FRAMING", "", 3, 1, 2, 1, at, until),
        (ward.topic, "RULE_FAILED", "range", 1, 0, 1, 0, at, at),
    ]


def test_people_get_a_table(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    ward.reject({"offset": 1, "topic": "t"})
    ward.run("list")
    assert capsys.readouterr().out.splitlines() == [
        "topic  error        rule  records  redriven  open  came back  first                 last",
        "t      BAD_FRAMING              1         0     1          0  2026-03-01T12:00:00Z  2026-03-01T12:00:00Z",
    ]


def test_what_is_not_selected_is_not_counted(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    ward.reject({"offset": 1}, {"offset": 2, "error": "UNDECODABLE"})
    ward.run("list", "--error", "UNDECODABLE", "--json")
    assert [each["error"] for each in printed_objects(capsys.readouterr().out)] == ["UNDECODABLE"]
    ward.run("list", "--topic", "departures")
    assert capsys.readouterr().out == "nothing is in quarantine there\n"


def test_an_older_table_is_counted_by_the_records_own_times(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    ward.reject({"offset": 1}, schema=OLD_SCHEMA)
    ward.run("list", "--json")
    [found] = printed_objects(capsys.readouterr().out)
    assert (found["rule"], found["first"]) == ("", "2013-01-01T06:00:00Z")


def test_without_a_broker_the_counts_are_there_and_what_was_redriven_is_said_to_be_unknown(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    ward.reject({"offset": 1})
    ward.servers = "127.0.0.1:1"
    assert ward.run("list", "--json") == 0
    out, err = capsys.readouterr()
    [found] = printed_objects(out)
    assert (found["records"], found["redriven"], found["open"]) == (1, None, None)
    assert err.startswith("what was redriven is not known: BROKER_UNREACHABLE")


def test_where_ingest_never_ran_that_is_said(ward: Ward) -> None:
    with pytest.raises(TidemarkError, match="NO_QUARANTINE: there is no table"):
        ward.run("list")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("list",), "nothing is in quarantine"),
        (("list", "--topic", "departures"), "nothing is in quarantine"),
        (("list", "--json"), ""),
        (("inspect",), "nothing is in quarantine"),
        (("redrive", "--all"), "redriven 0"),
        (("redrive", "--all", "--dry-run"), "would redrive 0 records"),
        (("queue", "fill", "--all"), "queued 0"),
        (("queue", "status"), "queued 0"),
        (("audit",), "nothing was redriven or resolved yet"),
    ],
)
def test_where_ingest_rejected_nothing_every_command_is_content(
    command: tuple[str, ...], said: str, ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    ward.ingest_nothing_bad()
    assert ward.run(*command) == 0
    out, err = capsys.readouterr()
    assert said in out if said else out == "", out
    assert "NO_QUARANTINE" not in err


COMMANDS = [("list",), ("inspect",), ("redrive",), ("redrive", "--dry-run"), ("queue", "fill")]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--topic", "departurse"), "UNKNOWN_TOPIC: .*did you mean `departures`"),
        (("--error", "BAD_FRAMNG"), "BAD_ARGUMENTS: .*error `BAD_FRAMNG`.*did you mean `BAD_FRAMING`"),
        (("--rule", "rnage"), "BAD_ARGUMENTS: .*rule `rnage`.*did you mean `range`"),
        (("--from-offset", "5", "--to-offset", "5"), "BAD_ARGUMENTS: --from-offset 5 is not before --to-offset 5"),
        (("--since", "2026-12-02", "--until", "2026-12-01"), "BAD_ARGUMENTS: --since 2026-12-02"),
    ],
)
def test_a_selection_that_no_record_can_be_in_is_refused(
    ward: Ward, command: tuple[str, ...], words: tuple[str, ...], told: str
) -> None:
    ward.reject({"offset": 1, "error": "RULE_FAILED", "rule": "range"})
    with pytest.raises(TidemarkError, match=told):
        ward.run(*command, *words)


def test_what_is_declared_or_ingested_is_known_though_nothing_of_it_was_rejected(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    ward.ingest_nothing_bad()
    ward.reject({"offset": 1, "topic": "other"})
    for words in (("--topic", ward.topic), ("--topic", "departures"), ("--error", "VERDICT_CHANGED")):
        assert ward.run("list", *words) == 0
        assert capsys.readouterr().out == "nothing is in quarantine there\n"
    assert ward.run("list", "--topic", "other", "--error", "UNDECODABLE") == 0


def test_a_page_behind_the_end_is_refused_and_one_at_the_end_is_empty(
    ward: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    ward.reject({"offset": 1}, {"offset": 2})
    assert ward.run("inspect", "--skip", "2") == 0
    assert capsys.readouterr().out == "there are no more than 2\n"
    assert ward.run("inspect", "--skip", "2", "--json") == 0
    assert capsys.readouterr().out == ""
    with pytest.raises(TidemarkError, match="BAD_ARGUMENTS: --skip 3 is behind the end: 2 records"):
        ward.run("inspect", "--skip", "3")
    for command in (("inspect", "--limit", "0"), ("queue", "work", "--limit", "0")):
        with pytest.raises(SystemExit) as stopped:
            ward.run(*command)
        assert stopped.value.code == 2
