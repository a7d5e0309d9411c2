"""Runs on a real S3 server; a pytest process of their own has them, whose session has S3A on its class path.

local/tidemark test tests/object_store/stored.py
"""

import json
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyarrow import fs
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.arguments import parse_maintain
from jobs.connectors.files import read_text, table_uri, write_text
from jobs.connectors.hadoop_files import Folders
from jobs.operations.coverage import cli as coverage
from jobs.operations.maintenance import commands as maintain
from jobs.operations.replay.plan import ReplayRequest
from jobs.operations.replay.record import Replays
from jobs.pipeline import checkpoint
from local.broker import Cluster
from local.processes import wait_for
from tests.faults.scene import Scene
from tests.jobs.operations.replay.past import JOB, Past
from tests.object_store.conftest import Stored
from tests.object_store.s3proxy import BUCKET, S3Proxy

LIMIT = "source.max_offsets_per_trigger=12"
AT_ONCE = ("maintenance.keep=1 second", "maintenance.allow_short_keep=true")
READINGS = [(f"{n % 3}", n, n % 2, n * 10) for n in range(20)]


def as_records(readings: DataFrame) -> DataFrame:
    return readings.select(F.col("id").alias("key"), F.col("level").cast("string").alias("value"))


def words(stored: Stored, *more: str) -> list[str]:
    settings = stored.settings()
    own = {"kafka.bootstrap_servers": settings.kafka.bootstrap_servers, "ledger.application": stored.application}
    own |= {f"paths.{name}": getattr(settings.paths, name) for name in ("tables", "checkpoints", "logs")}
    return [*more, *(word for key, value in own.items() for word in ("--set", f"{key}={value}"))]


def assert_no_rename_and_no_key(stored: Stored, store: S3Proxy) -> None:
    """No checkpoint was written under another name first, and no object, plan or option holds the key."""
    selector = fs.FileSelector(stored.root.removeprefix("s3a://"), recursive=True)
    objects = [info for info in store.files().get_file_info(selector) if info.type == fs.FileType.File]
    in_checkpoints = [info.path for info in objects if "/checkpoints/" in info.path]
    assert in_checkpoints and not [path for path in in_checkpoints if path.endswith((".tmp", ".crc"))]
    for info in objects:
        with store.files().open_input_stream(info.path) as stream:
            assert store.secret.encode() not in stream.read(), info.path
    spark = stored.spark
    plan = spark.read.format("delta").load(f"{stored.root}/tables/hourly")._jdf.queryExecution().toString()
    assert store.secret not in plan
    assert store.secret not in json.dumps(dict(spark.sparkContext.getConf().getAll()))


def test_what_jobs_write_is_covered(stored: Stored, store: S3Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    past = Past(stored)
    past.send(*READINGS)
    stored.ingest(past.topic, overrides=[LIMIT])
    assert len(stored.rows(f"bronze/{past.topic}")) == len(stored.rows(f"silver/{past.topic}")) == len(READINGS)

    past.live(LIMIT)
    assert past.rows() == past.truth(READINGS)

    target = stored.topic()
    for _ in range(2):  # the second one finds nothing to do
        publishing = stored.run(job="publishing")
        publishing.publish(as_records(publishing.read(past.topic)), target)
        stored.catch_up(publishing)
    assert coverage.main(words(stored, "check")) == 0, capsys.readouterr()
    capsys.readouterr()
    assert coverage.main(words(stored, "show", "--json")) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(each.get("table"), each["partition"], each["from"], each["to"]) for each in shown} >= {
        (f"bronze/{past.topic}", 0, 0, 10),
        (f"silver/{past.topic}", 1, 0, 10),
    }
    assert_no_rename_and_no_key(stored, store)


def test_a_replay_is_swapped_in_and_taken_back_and_old_files_are_cleaned_away(
    stored: Stored, store: S3Proxy, capfd: pytest.CaptureFixture[str]
) -> None:
    past, late, end = Past(stored), [("0", 1000, 0, 5)], [("z", 0, 0, 3 * 24 * 60), ("z", 0, 1, 3 * 24 * 60)]
    past.send(*READINGS, *end)
    past.live(LIMIT)
    past.send(*late, *end)
    past.live(LIMIT)
    without, closed = past.rows(), {id for id, *_ in READINGS}
    replay = past.replayed(0, 60)
    assert past.steps().cut_over(replay, accept=False).state == "done"
    within = [row for row in past.rows() if row[1] in closed]
    assert within == past.truth([*READINGS, *late])

    def files(table: str) -> list[str]:
        selector = fs.FileSelector(f"{stored.root.removeprefix('s3a://')}/tables/{table}", recursive=True)
        return [each.path for each in store.files().get_file_info(selector) if each.path.endswith(".parquet")]

    count, settings = len(files("hourly")), past.settings("maintenance.small_files=2", *AT_ONCE)

    def maintained(action: str) -> str:
        assert maintain.run(stored.spark, settings, parse_maintain([action])) == 0
        return capfd.readouterr().out

    assert count > 1
    # What a compaction has replaced goes once it is a second old.
    wait_for(lambda: "vacuumed" in maintained("tables") and len(files("hourly")) == 1, 60, lambda: AssertionError())
    assert "removed" in maintained("checkpoints")
    assert "probe" in maintained("state")
    assert [row for row in past.rows() if row[1] in closed] == within

    # What the table was before is gone with its files: a replay after that is taken back.
    past.send(("1", 500, 0, 65), *end)
    past.live(LIMIT)
    again = past.replayed(60, 120)
    before = past.rows()
    past.steps().cut_over(again, accept=False)
    assert past.rows() != before
    undone = past.steps().undo(Replays(past.settings()).require(again.id))
    assert (undone.state, past.rows()) == ("undone", before)
    assert without != before


def test_a_backfill_brings_its_checkpoint_and_the_job_goes_on(stored: Stored) -> None:
    past, more = Past(stored), [("0", 5, 0, 24 * 60 + 1), ("1", 6, 1, 23 * 60)]
    past.send(*READINGS)
    replays = Replays(past.settings())
    replay, _ = past.steps().verify(past.steps().run(replays.keep(past.steps().plan_backfill(ReplayRequest(JOB)))))
    past.steps().cut_over(replay, accept=False)
    assert past.rows() == past.truth(READINGS)
    past.send(*more)
    past.live()
    assert past.rows() == past.truth([*READINGS, *more])


def test_a_folder_whose_move_was_cut_short_is_moved_when_asked_again(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, old, new = Folders(stored.spark), f"{stored.root}/old", f"{stored.root}/new"
    for number in range(5):
        write_text(f"{old}/a/{number}", f"{number}")

    def cut(after: int, method: str) -> None:
        calls, whole = iter(range(100)), getattr(Folders, method)

        def some(self: Folders, *arguments: str) -> None:
            if next(calls) == after:
                raise KeyboardInterrupt
            whole(self, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(Folders, method, some)
            with pytest.raises(KeyboardInterrupt):
                folders.move(old, new)
        assert folders.is_moving(old, new)

    cut(3, "copy")
    assert [read_text(f"{old}/a/{number}") for number in range(5)] == [f"{number}" for number in range(5)]
    cut(1, "remove")
    folders.move(old, new)
    assert [read_text(f"{new}/a/{number}") for number in range(5)] == [f"{number}" for number in range(5)]
    assert [entry.name for entry in folders.files(new)] == [f"{number}" for number in range(5)]
    assert not folders.exists(old)
    write_text(f"{old}/b", "another")
    with pytest.raises(OSError, match="cannot be renamed"):
        folders.move(old, new)


def test_a_replaced_checkpoint_is_kept_beside(stored: Stored) -> None:
    folder = f"{stored.root}/checkpoints/job/output"
    checkpoint.rebuild(stored.spark, folder, "an-id", 0, {})
    aside = checkpoint.move_aside(stored.spark, folder)
    assert aside == f"{folder}~replaced-1"
    assert checkpoint.query_id(stored.spark, aside) == "an-id"
    assert checkpoint.query_id(stored.spark, folder) is None


class Killed:
    """A driver of its own that brings numbers from a topic into a table and a topic, and is killed."""

    def __init__(self, broker: Cluster, folder: Path) -> None:
        root = f"s3a://{BUCKET}/{folder.name}"
        roots = [f"paths.{name}={root}/{name}" for name in ("tables", "checkpoints")]
        self.scene = Scene(broker, folder / "scene", settings=[*roots, "source.max_offsets_per_trigger=100"])
        self.root = root

    def assert_clean(self) -> None:
        verdict = self.scene.verdict()
        assert verdict.clean, verdict
        rows = DeltaTable(table_uri(f"{self.root}/tables/{self.scene.target}")).to_pyarrow_table()["value"].to_pylist()
        assert sorted(map(int, rows)) == list(range(self.scene.filled))


def test_a_driver_killed_between_its_commits_leaves_each_record_once(
    store: S3Proxy, broker: Cluster, tmp_path: Path
) -> None:
    killed = Killed(broker, tmp_path)
    scene = killed.scene
    scene.fill(200)
    step = "batch-between-table-and-topic"
    scene.arm(step, batch=1)
    driver = scene.start(table=scene.target)
    try:
        scene.held(step, driver)
        driver.kill()
        scene.finish(table=scene.target)
    finally:
        scene.close()
    killed.assert_clean()
