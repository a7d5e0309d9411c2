"""Rejected records go back to their topic as they came, each once, and everybody can see that they did."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.transaction import Transaction, Writer
from local.processes import wait_for
from producers.quarantine import marker_log, records, redrive
from producers.quarantine.redrive import Redrive
from producers.quarantine.selection import Selection
from producers.quarantine.table import Quarantine
from tests.producers.quarantine.ward import EVENT_TIME, NOON, OLD_SCHEMA, Ward, header_list, headers
from tests.sent import T0

pytestmark = pytest.mark.slow


def numbered(*offsets: int, **more: object) -> list[dict[str, object]]:
    return [{"offset": offset, "value": b"%d" % offset, **more} for offset in offsets]


def test_a_record_is_sent_as_it_came_with_headers_that_lead_back(ward: Ward) -> None:
    own = [{"key": "trace", "value": b"\x01"}, {"key": "empty", "value": None}]
    ward.reject({"offset": 7, "partition": 1, "key": b"\xff", "value": b"\x00bad", "headers": own})
    assert ward.run("redrive", "--topic", ward.topic) == 0
    [message] = ward.records()
    assert (message.partition(), message.key(), message.value()) == (1, b"\xff", b"\x00bad")
    assert message.timestamp()[1] == T0
    [audit] = ward.table("redrives")
    assert message.headers() == [
        ("trace", b"\x01"),
        ("empty", None),
        (records.OF, f"{ward.topic}/1/7".encode()),
        (records.ORIGIN, f"{ward.topic}/1/7".encode()),
        (records.ATTEMPT, b"1"),
        (records.ID, audit["run"].encode()),
    ]


def test_redriving_twice_changes_nothing(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    ward.reject(*numbered(1, 2, 3))
    assert ward.run("redrive", "--all") == 0
    capsys.readouterr()
    assert ward.run("redrive", "--all") == 0
    assert "left out 3 that were redriven before" in capsys.readouterr().out
    assert ward.values() == [b"1", b"2", b"3"]
    assert len(ward.table("redrives")) == 3


def test_a_record_that_stands_in_the_table_twice_is_sent_once(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    ward.reject(*numbered(1, 1))
    ward.reject(*numbered(1))
    monkeypatch.setattr(redrive, "MOST_RECORDS", 1)
    ward.run("redrive", "--all")
    assert ward.values() == [b"1"]


def test_records_without_value_or_key_are_sent_so(ward: Ward) -> None:
    ward.reject({"offset": 1, "key": None, "value": None, "error": "NO_VALUE"})
    ward.run("redrive", "--all")
    [message] = ward.records()
    assert (message.key(), message.value()) == (None, None)


def test_only_what_is_selected_is_sent(ward: Ward) -> None:
    ward.reject(*numbered(1, 2, error="UNDECODABLE"), *numbered(3, error="RULE_FAILED", rule="range"))
    ward.reject(*numbered(4, quarantined_at=NOON + timedelta(hours=1)), *numbered(5, partition=1))
    sent = []
    for option, expected in (
        (["--error", "UNDECODABLE", "--from-offset", "2"], [b"2"]),
        (["--rule", "range"], [b"3"]),
        (["--since", "2026-03-01T12:30"], [b"4"]),
        (["--partition", "1"], [b"5"]),
        ([f"{ward.topic}/0/1"], [b"1"]),
    ):
        ward.run("redrive", *option)
        sent += expected
        assert sorted(value or b"" for value in ward.values()) == sorted(sent)


def test_records_keep_the_order_of_their_offsets_over_files_and_transactions(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive, "MOST_RECORDS", 2)
    ward.reject(*numbered(5, 1, 3))
    ward.reject(*numbered(4, 2, 6))
    ward.run("redrive", "--all")
    assert ward.values() == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_a_record_that_comes_back_may_be_redriven_again_and_names_its_origin(ward: Ward) -> None:
    ward.reject(*numbered(1))
    ward.run("redrive", "--all")
    [first] = ward.records()
    again = [{"key": name, "value": value} for name, value in header_list(first)]
    ward.reject(*numbered(int(first.offset() or 0) + 100, headers=again))
    ward.run("redrive", "--all")
    second = headers(ward.records()[-1])
    assert (second[records.ATTEMPT], second[records.ORIGIN]) == (b"2", f"{ward.topic}/0/1".encode())
    assert len(ward.records()[-1].headers() or ()) == len(records.REDRIVE_HEADERS)
    assert sorted(row["attempt"] for row in ward.table("redrives")) == [1, 2]


def test_the_audit_tells_where_each_record_went_and_is_made_again_from_the_topic(ward: Ward) -> None:
    ward.reject(*numbered(1, error="RULE_FAILED", rule="range"), *numbered(2))
    table = Quarantine(ward.settings)
    assert Redrive(ward.settings, "killed before its audit").send(table, Selection()).complete
    assert ward.run("audit") == 0
    rows = sorted(ward.table("redrives"), key=lambda row: int(row["offset"]))
    places = [(message.partition(), message.offset()) for message in ward.records()]
    assert [(row["to_partition"], row["to_offset"]) for row in rows] == places
    assert [(row["offset"], row["error"], row["rule"]) for row in rows] == [
        (1, "RULE_FAILED", "range"),
        (2, "BAD_FRAMING", None),
    ]
    assert ward.run("audit") == 0
    assert len(ward.table("redrives")) == 2


def test_audits_of_many_marks_are_committed_part_by_part_and_two_at_a_time_add_each_once(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marker_log, "COMMIT_ROWS", 2)
    ward.reject(*numbered(*range(5)))
    assert Redrive(ward.settings, "run").send(Quarantine(ward.settings), Selection()).complete
    read, other = marker_log.read_markers, threading.Event()

    def overtaken(*arguments: Any) -> int:
        if not other.is_set():
            other.set()
            ward.run("audit")
        return read(*arguments)

    monkeypatch.setattr(marker_log, "read_markers", overtaken)
    ward.run("audit")
    assert sorted(row["offset"] for row in ward.table("redrives")) == list(range(5))


def test_a_transaction_that_is_left_open_holds_up_neither_lists_nor_audits(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ward.reject(*numbered(1, 2))
    ward.run("redrive", f"{ward.topic}/0/1")
    monkeypatch.setattr(marker_log, "SETTLE_SECONDS", 0.2)
    register = marker_log.redriven_topic(ward.settings)
    writer = Writer(f"{ward.topic}-hangs", register, 0, ward.settings.kafka.client_config(), 60_000)
    with Transaction(writer) as hangs:
        hangs.read(0, lambda message: None)
        ward.run("audit")
        capsys.readouterr()
        ward.run("list")
        assert capsys.readouterr().out.splitlines()[1].split()[2:5] == ["2", "1", "1"]
    ward.run("redrive", "--all")
    assert sorted(row["offset"] for row in ward.table("redrives")) == [1, 2]


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    ward.reject(*numbered(1, 2, 3))
    ward.run("redrive", f"{ward.topic}/0/2")
    capsys.readouterr()
    assert ward.run("redrive", "--all", "--dry-run", "--rate", "0.1") == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 were redriven before, and would be left out",
        f"  {ward.topic}  BAD_FRAMING  2",
        "would redrive 2 records, 4 bytes, in about 20 s; nothing was sent",
        f"first: {ward.topic}/0/1, {ward.topic}/0/3",
    ]
    assert ward.values() == [b"2"]


def test_a_rate_holds_records_back(ward: Ward) -> None:
    ward.reject(*numbered(*range(9)))
    started = time.monotonic()
    ward.run("redrive", "--all", "--rate", "4")
    assert time.monotonic() - started >= 2.0
    assert len(ward.values()) == 9


def test_an_interrupted_run_counts_what_is_committed_and_the_next_one_goes_on(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrive, "MOST_RECORDS", 2)
    ward.reject(*numbered(*range(6)))
    asked = iter([False, False])
    run = Redrive(ward.settings, "run", stopped=lambda: next(asked, True))
    report = run.send(Quarantine(ward.settings), Selection())
    assert report.interrupted
    assert len(ward.values()) == report.delivered_count < 6
    ward.run("redrive", "--all")
    assert sorted(value or b"" for value in ward.values()) == [b"%d" % number for number in range(6)]


def test_a_commit_whose_answer_was_lost_is_counted_and_not_repeated(
    ward: Ward, lose_an_answer: Callable[[], threading.Event]
) -> None:
    ward.reject(*numbered(1, 2))
    lost = lose_an_answer()
    report = Redrive(ward.settings, "run").send(Quarantine(ward.settings), Selection())
    assert (lost.is_set(), report.complete, report.delivered) == (True, True, {ward.topic: 2})
    assert ward.values() == [b"1", b"2"]


def test_what_was_redriven_into_a_topic_that_was_made_again_does_not_count(ward: Ward) -> None:
    ward.reject(*numbered(1))
    ward.run("redrive", "--all")
    admin = AdminClient({"bootstrap.servers": ward.servers})
    admin.delete_topics([ward.topic])[ward.topic].result()
    wait_for(lambda: ward.topic not in admin.list_topics(timeout=10).topics, 30, TimeoutError)
    admin.create_topics([NewTopic(ward.topic, 1, 1)])[ward.topic].result()
    wait_for(lambda: ward.topic in admin.list_topics(timeout=10).topics, 30, TimeoutError)
    ward.run("redrive", "--all")
    assert ward.values() == [b"1"]


def test_a_table_without_the_newer_columns_is_redriven_too(ward: Ward) -> None:
    ward.reject({"offset": 3}, schema=OLD_SCHEMA)
    ward.run("redrive", "--all")
    assert ward.values() == [b"v"]
    with pytest.raises(TidemarkError, match="NO_SUCH_COLUMN: the table quarantine has no column rule"):
        ward.run("redrive", "--rule", "range")


def test_a_topic_that_is_gone_is_named_and_the_others_are_not_held_up_by_it_next_time(ward: Ward) -> None:
    ward.reject(*numbered(1), {"offset": 2, "topic": "a-topic-that-is-gone"})
    with pytest.raises(TidemarkError, match="NO_TOPIC: no topic a-topic-that-is-gone"):
        ward.run("redrive", "--all")
    ward.run("redrive", "--topic", ward.topic)
    assert ward.values() == [b"1"]


def test_into_a_compacted_topic_nothing_is_sent_unless_that_is_asked_for(ward: Ward) -> None:
    ward.topic = f"{ward.topic}-compacted"
    admin = AdminClient({"bootstrap.servers": ward.servers})
    admin.create_topics([NewTopic(ward.topic, 1, 1, config={"cleanup.policy": "compact"})])[ward.topic].result()
    wait_for(lambda: ward.topic in admin.list_topics(timeout=10).topics, 30, TimeoutError)
    ward.reject(*numbered(1))
    with pytest.raises(TidemarkError, match="COMPACTED_TOPIC"):
        ward.run("redrive", "--all")
    assert ward.values() == []
    ward.run("redrive", "--all", "--into-compacted")
    assert ward.values() == [b"1"]


def test_nothing_is_sent_without_a_selection(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    ward.reject(*numbered(1))
    with pytest.raises(SystemExit, match="2"):
        ward.run("redrive")
    assert "say which records: a selection, or --all" in capsys.readouterr().err
    assert ward.values() == []


def test_without_a_quarantine_that_is_said(ward: Ward) -> None:
    with pytest.raises(TidemarkError, match="NO_QUARANTINE"):
        ward.run("redrive", "--all")


def test_the_event_time_of_the_rows_is_the_one_that_is_sent(ward: Ward) -> None:
    ward.reject({"offset": 1, "timestamp": EVENT_TIME + timedelta(milliseconds=1)})
    ward.run("redrive", "--all")
    assert ward.records()[0].timestamp()[1] == T0 + 1
