"""What no query needs any more goes once it is old enough; what a query needs stays, and its state is told."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Settings, load
from jobs.connectors.hadoop_files import Entry, Folders
from jobs.operations.maintenance.checkpoints import (
    CheckpointCleanup,
    CleanupReport,
    StateReport,
    find_checkpoints,
    is_left_over,
    read_replays,
    state_reports,
)
from jobs.operations.replay.record import Part, Replacement, Replay, Slice, State
from jobs.pipeline.outputs import RowSelector
from jobs.pipeline.paths import STARTED_FILE
from tests.jobs.feed import Feed

NOW = datetime(2026, 1, 31, tzinfo=UTC)
OLD, YOUNG = timedelta(days=8), timedelta(days=3)


def settings(folder: Path) -> Settings:
    return load("local", [f"paths.tables={folder / 'tables'}", f"paths.checkpoints={folder / 'checkpoints'}"])


def file(path: Path, age: timedelta = timedelta(), text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    then = path.stat().st_mtime - age.total_seconds()
    os.utime(path, (then, then))
    return path


def clean(spark: SparkSession, folder: Path, dry_run: bool = False) -> dict[str, CleanupReport]:
    known = read_replays(spark, Folders(spark), str(folder / "tables"))
    found = CheckpointCleanup(spark, settings(folder), known, dry_run).reports()
    return {each.what.removeprefix(f"{folder}/"): each for each in found}


def replay(id: str, state: State, versions: Mapping[str, int]) -> Replay:
    """A replay that was planned when the tables had those versions."""
    tables = tuple(Replacement(RowSelector(name), version=version) for name, version in versions.items())
    part = Part("ingest.a", "a", ("a",), tables)
    return Replay(id, "ingest", "range", {}, {}, (Slice({}),), (part,), "code", NOW, state=state)


def write_replay(folder: Path, id: str, state: State, age: timedelta) -> None:
    file(folder / "tables" / "replays" / id / "shadow" / "silver" / "a" / "part-0.parquet", age)
    file(folder / "tables" / "replays" / id / "replay.json", age, replay(id, state, {"silver/a": 3}).to_json())
    file(folder / "checkpoints" / "replays" / id / "ingest" / "a" / "metadata", age)


def test_what_is_old_goes_and_what_is_young_or_in_use_stays(spark: SparkSession, tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    old = ("a", "a~replaced-1", "a.replaced-1", "a.replaced-3", "a.replaced-4", "silver/deep")
    for name, age in (*((name, OLD) for name in old), ("a~replaced-2", YOUNG)):
        file(root / "ingest" / name / "metadata", age)
        file(root / "ingest" / name / "offsets" / "0", age)
    # Two were moved aside; one is that of an output of this very name.
    for name, query in (("a~replaced-1", "a"), ("a.replaced-1", "a"), ("a.replaced-3", "a.replaced-3")):
        file(root / "ingest" / name / STARTED_FILE, OLD, json.dumps({"query": f"ingest.{query}"}))
    write_replay(tmp_path, "done-long-ago", "done", OLD)
    write_replay(tmp_path, "done", "abandoned", YOUNG)
    write_replay(tmp_path, "open", "ran", OLD)
    planned = clean(spark, tmp_path, dry_run=True)
    gone = {name for name, each in planned.items() if each.action == "would remove"}
    assert gone == {
        "checkpoints/ingest/a~replaced-1",
        "checkpoints/ingest/a.replaced-1",
        "checkpoints/ingest/a.replaced-4",
        "tables/replays/done-long-ago/shadow",
        "checkpoints/replays/done-long-ago",
    }
    assert all((tmp_path / name).exists() for name in planned)
    done = clean(spark, tmp_path)
    assert {name for name in done if not (tmp_path / name).exists()} == gone
    assert (tmp_path / "tables" / "replays" / "done-long-ago" / "replay.json").exists()
    assert "replay open is ran" in done["tables/replays/open/shadow"].why
    assert done["checkpoints/ingest/silver/deep"].why == "1 batches in its log, Spark keeps 100"


def test_leftovers_of_writes_go_after_a_day(spark: SparkSession, tmp_path: Path) -> None:
    offsets = tmp_path / "checkpoints" / "gone.job" / "a" / "offsets"
    for name in ("0", ".0.crc", ".1.crc", ".2.2f1c.tmp", "..2.2f1c.tmp.crc"):
        file(offsets / name, OLD)
    file(offsets / ".3.aa.tmp")
    found = clean(spark, tmp_path)
    assert sorted(path.name for path in offsets.iterdir()) == [".0.crc", ".3.aa.tmp", "0"]
    assert "there is no job gone.job" in found["checkpoints/gone.job/a"].why


@pytest.mark.parametrize(
    ("name", "beside", "is_one"),
    [
        (".0.crc", {"f/0"}, False),
        (".0.crc", set(), True),
        ("0", set(), False),
        (".x.tmp", set(), True),
        ("1.delta", set(), False),
    ],
)
def test_a_leftover_is_known_by_its_name(name: str, beside: set[str], is_one: bool) -> None:
    assert is_left_over(Entry(f"f/{name}", name, False, 1, NOW), beside) is is_one


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tables": {}}', '{"state": "done", "tables": {"a": 3}}'])
def test_a_record_of_a_replay_that_cannot_be_read_stops_everything(text: str) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_REPLAY: t/r/replay\.json"):
        Replay.from_json(text, "t/r/replay.json")


def test_checkpoints_are_known_by_what_lies_in_them(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("j/a/metadata", "j/s/b/offsets/0", "replays/r/j/a/metadata", "j/empty/x/y"):
        file(tmp_path / name)
    found = list(find_checkpoints(Folders(spark), str(tmp_path)))
    assert [(each.job, each.output, each.query) for each in found] == [("j", "a", "j.a"), ("j", "s/b", "j.s/b")]


def counted(feed: Feed, root: Path) -> None:
    rows = feed.rows("at timestamp, id string", [("2026-01-31 12:00", "a"), ("2026-01-31 12:01", "b")])
    unique = rows.withWatermark("at", "1 hour").dropDuplicatesWithinWatermark(["id"])
    writer = unique.groupBy("id").count().writeStream.outputMode("update")
    query = writer.option("checkpointLocation", str(root / "probe" / "counts")).trigger(availableNow=True)
    query.foreachBatch(lambda batch, number: batch.show()).start().awaitTermination()


def by_name(spark: SparkSession, root: Path) -> dict[str, StateReport]:
    return {each.name: each for each in state_reports(spark, str(root))}


@pytest.mark.slow
def test_every_operator_is_told_with_its_rows_and_schemas(stream: Feed, spark: SparkSession, tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    counted(stream, root)
    found = by_name(spark, root)
    assert set(found) == {"stateStoreSave", "dedupeWithinWatermark"}
    count = found["stateStoreSave"]
    assert (count.query, count.rows, count.partitions, count.problem) == ("probe.counts", 2, 1, "")
    assert count.schemas == ({"family": "default", "key": "struct<id:string>", "value": "struct<count:bigint>"},)
    assert count.bytes > 0
    assert count.batch is not None
    line, schema = count.lines()
    assert line.startswith("probe.counts                 0 stateStoreSave")
    assert "2 rows" in line
    assert schema.strip() == "default: struct<id:string> -> struct<count:bigint>"


def test_no_checkpoint_has_no_state(spark: SparkSession, tmp_path: Path) -> None:
    assert by_name(spark, tmp_path) == {}
