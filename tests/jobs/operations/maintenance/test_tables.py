"""Tables are compacted and vacuumed, and nothing that a reader or a replay needs is lost."""

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark import inheritable_thread_target
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.settings import Maintenance, Settings, load
from jobs.connectors.delta import table as delta_table
from jobs.connectors.hadoop_files import Folders
from jobs.operations.maintenance.tables import SLACK, TableMaintenance, TableReport, longest_retention, table_names
from jobs.operations.replay.record import Replay
from local.processes import wait_for
from tests.jobs.operations.maintenance.test_checkpoints import replay

NOW = datetime(2026, 1, 31, tzinfo=UTC)
WEEK = timedelta(days=7)
LIMITS = Maintenance(keep="7 days", allow_short_keep=False, small_file_mb=16, small_files=4, target_file_mb=128)


def settings(folder: Path, *more: str) -> Settings:
    return load("local", [f"paths.tables={folder}", "maintenance.small_files=4", *more])


def append(spark: SparkSession, path: Path, times: int) -> None:
    for number in range(times):
        spark.range(number, number + 1).coalesce(1).write.format("delta").mode("append").save(str(path))


def upkeep(spark: SparkSession, settings: Settings, *replays: Replay, dry_run: bool = False) -> dict[str, TableReport]:
    return {each.table: each for each in TableMaintenance(spark, settings, list(replays), dry_run).reports()}


def data_files(table: Path) -> int:
    return len(list(table.glob("*.parquet")))


@pytest.fixture
def aged(spark: SparkSession, tmp_path: Path) -> Iterator[Path]:
    """A table of four small files."""
    append(spark, tmp_path / "silver" / "a", 4)
    yield tmp_path / "silver" / "a"


@pytest.mark.slow
def test_small_files_become_one_and_the_table_reads_the_same(spark: SparkSession, aged: Path, tmp_path: Path) -> None:
    first = upkeep(spark, settings(tmp_path), dry_run=True)["silver/a"]
    assert first.compaction == "would compact 4 small files"
    assert (first.before.count, first.after.count) == (4, 4)
    done = upkeep(spark, settings(tmp_path))["silver/a"]
    assert (done.before.count, done.after.count, done.failed) == (4, 1, "")
    assert done.compaction == "compacted 4 small files"
    assert sorted(row.id for row in spark.read.format("delta").load(str(aged)).collect()) == [0, 1, 2, 3]
    assert data_files(aged) == 5  # the old ones stay for a week
    again = upkeep(spark, settings(tmp_path))["silver/a"]
    assert again.compaction == "left alone: 1 small files in a partition, 4 are worth it"


def test_tables_of_replays_and_ranges_are_left_out_and_nested_ones_found(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("a", "silver/t/e", "replays/r/a", "range-1/a", "_x/a"):
        (tmp_path / name / "_delta_log").mkdir(parents=True)
    (tmp_path / "a" / "day=1").mkdir()
    assert list(table_names(Folders(spark), str(tmp_path))) == ["a", "silver/t/e"]


@pytest.mark.parametrize(
    ("own", "replays", "keep", "why"),
    [
        (WEEK, {}, WEEK, "maintenance.keep"),
        (2 * WEEK, {}, 2 * WEEK, "the table's own retention"),
        (WEEK, {"r": NOW - 3 * WEEK, "s": NOW - 5 * WEEK}, 5 * WEEK + SLACK, "replay s"),
        (WEEK, {"r": NOW - timedelta(days=1)}, WEEK, "maintenance.keep"),
    ],
)
def test_who_wants_files_kept_longest_decides(
    own: timedelta, replays: dict[str, datetime], keep: timedelta, why: str
) -> None:
    assert longest_retention(LIMITS, own, replays, NOW) == (keep, why)


def test_a_short_keep_is_taken_only_where_it_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"BAD_SETTING.*keep is 1 day, less than 7 days.*allow_short_keep"):
        settings(tmp_path, "maintenance.keep=1 day")
    short = settings(tmp_path, "maintenance.keep=1 day", "maintenance.allow_short_keep=true").maintenance
    assert longest_retention(short, WEEK, {}, NOW) == (timedelta(days=1), "maintenance.keep")


def as_of(table: Path, age: timedelta) -> Path:
    """A copy of a table as if all had happened so long before now."""
    copy = table.with_name(f"{table.name}-aged")
    shutil.copytree(table, copy, ignore=shutil.ignore_patterns("*.crc"))
    for path in copy.rglob("*"):
        if path.suffix == ".json":
            path.write_text("\n".join(json.dumps(aged_action(json.loads(line), age)) for line in path.open()))
        then = path.stat().st_mtime - age.total_seconds()
        os.utime(path, (then, then))
    return copy


def aged_action(action: dict[str, Any], age: timedelta) -> dict[str, Any]:
    for of, name in (("remove", "deletionTimestamp"), ("commitInfo", "timestamp"), ("add", "modificationTime")):
        if of in action:
            action[of][name] -= int(age.total_seconds() * 1000)
    return action


@pytest.mark.slow
def test_files_that_an_open_replay_needs_outlive_a_vacuum_and_go_with_it(
    spark: SparkSession, aged: Path, tmp_path: Path
) -> None:
    upkeep(spark, settings(tmp_path))
    old = as_of(aged, timedelta(days=10))
    name = "silver/a-aged"
    kept_long = upkeep(spark, settings(tmp_path, "maintenance.keep=2 weeks"))[name]
    assert (kept_long.failed, data_files(old)) == ("", 5)
    of_replay = upkeep(spark, settings(tmp_path), replay("r", "ran", {name: 3}))[name]
    assert (of_replay.failed, data_files(old)) == ("", 5)
    assert "(replay r)" in of_replay.vacuum
    assert spark.read.format("parquet").load([str(file) for file in old.glob("*.parquet")]).count() == 8
    dry = upkeep(spark, settings(tmp_path), dry_run=True)[name]
    assert dry.vacuum == "would vacuum 4 files, kept 7.0 days (maintenance.keep)"
    done = upkeep(spark, settings(tmp_path))[name]
    assert (done.failed, data_files(old)) == ("", 1)
    assert spark.read.format("delta").load(str(old)).count() == 4


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_short_keep_that_is_allowed_is_taken(spark: SparkSession, aged: Path, tmp_path: Path) -> None:
    upkeep(spark, settings(tmp_path))
    old = as_of(aged, timedelta(days=2))
    upkeep(spark, settings(tmp_path))
    assert data_files(old) == 5
    short = settings(tmp_path, "maintenance.keep=1 day", "maintenance.allow_short_keep=true")
    done = upkeep(spark, short)["silver/a-aged"]
    assert (done.failed, data_files(old)) == ("", 1)


@pytest.mark.slow
def test_a_replay_that_needs_what_the_log_no_longer_has_is_named_and_holds_nothing_up(
    spark: SparkSession, aged: Path, tmp_path: Path
) -> None:
    of_replay = replay("r", "ran", {"silver/a": 99})
    done = upkeep(spark, settings(tmp_path), of_replay, dry_run=True)["silver/a"]
    assert done.vacuum.startswith("would vacuum ")
    assert done.vacuum.endswith("; replay r needs a version that the log no longer has: abandon it")


@pytest.mark.slow
def test_a_damaged_table_fails_alone(spark: SparkSession, aged: Path, tmp_path: Path) -> None:
    (tmp_path / "broken" / "_delta_log").mkdir(parents=True)
    (tmp_path / "broken" / "_delta_log" / "00000000000000000000.json").write_text("{")
    done = upkeep(spark, settings(tmp_path), dry_run=True)
    assert done["broken"].failed
    assert next(iter(done["broken"].lines())).startswith("broken                       FAILED ")
    assert not done["silver/a"].failed
    assert json.dumps(asdict(done["silver/a"]))


@pytest.mark.slow
def test_a_merge_whose_files_are_compacted_while_it_runs_is_made_again(
    spark: SparkSession, aged: Path, tmp_path: Path
) -> None:
    begun, compacted = tmp_path / "begun", tmp_path / "compacted"

    @F.udf("long")
    def held_up(id: int) -> int:
        begun.touch()
        late = TimeoutError("nothing was compacted")
        wait_for(compacted.exists, 60, lambda: late)
        return id

    source = spark.range(3, 5).coalesce(1).select(held_up("id").alias("id"))
    table = delta_table.Table("a", str(aged), keys=("id",))
    merge = inheritable_thread_target(spark)(
        lambda: delta_table.write(source, table, delta_table.Commit("q", "1", "write", 0))
    )
    with ThreadPoolExecutor(1) as pool:
        merging = pool.submit(merge)
        wait_for(begun.exists, 60, lambda: TimeoutError("the merge did not begin"))
        done = upkeep(spark, settings(tmp_path))["silver/a"]
        compacted.touch()
        assert merging.result(60)
    assert done.compaction == "compacted 4 small files"
    assert sorted(row.id for row in spark.read.format("delta").load(str(aged)).collect()) == [0, 1, 2, 3, 4]
