"""What a name's ledger leads to: begin, go on, nothing to do, or a named stop."""

from dataclasses import replace
from pathlib import Path

import pytest

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.ledger import Done, Published, parse
from producers.files.publish import file_identity
from producers.files.request import FileRequest, Parts, default_name
from producers.kafka.publish_progress import (
    Position,
    digest_of_files,
    earlier_runs,
    first_marker,
    next_marker,
    starting_point,
)
from schemas.values import Reading

IDENTITY = {"contents": "abc", "--key": "id"}
IDS = {"orders": "id-1"}
SCHEMA = '{"type": "record", "name": "R", "fields": [{"name": "id", "type": "string"}]}'


def run(name: str, **parts: str) -> Published:
    return replace(first_marker(IDENTITY | parts, name), topic_ids=IDS)


def test_where_nobody_has_begun_a_run_begins_with_the_first_row() -> None:
    start = starting_point(None, run("first"), "in")
    assert (start.read, start.id.batch, start.run, start.complete) == (0, 0, "first", False)
    assert earlier_runs(start, "in", "row") is None


def test_the_same_input_goes_on_after_what_is_published_and_belongs_to_the_newer_run() -> None:
    last = next_marker(run("first"), Position(12_000, 10), {"orders": 11_990}, complete=False)
    start = starting_point(last, run("second"), "in")
    assert (start.read, start.rejected, start.delivered) == (12_000, 10, {"orders": 11_990})
    assert (start.run, start.id.batch, start.n) == ("second", 2, 0)
    line = "exactly once: in goes on after row 12,000: 11,990 delivered, 10 rejected by earlier runs"
    assert earlier_runs(start, "in", "row") == line


def test_an_input_that_is_complete_leaves_nothing_to_do() -> None:
    last = next_marker(run("first"), Position(3), {"orders": 3}, complete=True)
    start = starting_point(last, run("second"), "in")
    assert start.complete
    line = "exactly once: in is complete since an earlier run, 3 events (3 delivered): nothing to do"
    assert earlier_runs(start, "in", "event") == line


def test_another_input_under_the_same_name_stops_and_says_what_is_other() -> None:
    last = next_marker(run("first"), Position(3), {"orders": 3}, complete=True)
    with pytest.raises(TidemarkError, match=r"INPUT_CHANGED: in was begun with other --key, and 3 rows .*restore"):
        starting_point(last, run("second", **{"--key": "name"}), "in")


def test_a_topic_that_was_created_again_stops_instead_of_leaving_out_what_was_in_it() -> None:
    recreated = replace(run("second"), topic_ids={"orders": "id-2"})
    with pytest.raises(TidemarkError, match="TOPIC_RECREATED: topic orders was deleted"):
        starting_point(run("first"), recreated, "in")


def test_counts_add_up_over_transactions_and_topics() -> None:
    first = next_marker(run("a"), Position(5), {"planes": 2, "orders": 3}, complete=False)
    second = next_marker(first, Position(9, 1), {"orders": 3}, complete=True)
    assert second.delivered == {"orders": 6, "planes": 2}
    assert (second.n, second.read, second.rejected, second.id.batch, second.complete) == (3, 9, 1, 2, True)


def test_a_marker_is_what_it_was_once_it_was_written_and_read() -> None:
    marker = next_marker(run("a"), Position(5, 1), {"orders": 4}, complete=True)
    assert parse(marker.to_json()) == marker
    assert parse(Done(marker.id, 0).to_json()) != marker


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["orders.csv.gz"], "orders"),
        (["Orders 2013 (1).csv"], "Orders-2013-1"),
        (["é.csv"], "file"),
        (["a.csv", "b.csv", "c.csv"], "a-and-2-more"),
        (["x" * 300], "x" * 60),
    ],
)
def test_the_default_name_is_the_files(names: list[str], name: str) -> None:
    assert default_name([Path("folder") / each for each in names]) == name


def test_the_identity_changes_with_contents_and_options_but_not_with_the_folder(tmp_path: Path) -> None:
    files = [tmp_path / folder / "in.csv" for folder in ("a", "b", "c")]
    for file, text in zip(files, ["id\n1\n", "id\n1\n", "id\n2\n"], strict=True):
        file.parent.mkdir()
        file.write_text(text)
    same, moved, other = (file_identity(FileRequest("t", [file], Parts("id")), 1, SCHEMA) for file in files)
    assert same == moved
    assert [name for name in same if same[name] != other[name]] == ["contents"]
    nulls = FileRequest("t", files[:1], Parts(None), reading=Reading(nulls=frozenset({"NA"})))
    changed = file_identity(nulls, 2, SCHEMA)
    assert [name for name in same if same[name] != changed[name]] == ["schema", "--key", "--null"]


def test_contents_know_where_one_file_ends_and_the_next_begins(tmp_path: Path) -> None:
    texts = ["ab", "c", "a", "bc"]
    for number, text in enumerate(texts):
        (tmp_path / str(number)).write_text(text)
    paths = [tmp_path / str(number) for number in range(4)]
    assert digest_of_files(paths[:2]) != digest_of_files(paths[2:])
