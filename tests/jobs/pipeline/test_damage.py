"""Every file that a run needs, lost or damaged: the stop names it, and what the stop says to do makes the job go on."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from zipfile import ZipFile

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pytest import TempPathFactory

from conf.errors import TidemarkError
from jobs.connectors.spark_internals import jvm
from jobs.ingest import job as ingest_job
from jobs.pipeline.run import Run
from local.broker import Cluster
from local.processes import wait_for
from tests.jobs.scratch import Scratch
from tests.kinds import of_a_kind
from tests.sent import Record

Damage = Callable[[Path], object]
NewTopicOf = Callable[[int], str]
SECONDS = 60
# A snapshot of each version, uploaded soon.
UPLOADS = {
    "spark.sql.streaming.stateStore.minDeltasForSnapshot": "1",
    "spark.sql.streaming.stateStore.maintenanceInterval": "200ms",
}


@dataclass
class Pipeline:
    """Two jobs on one topic: `ingest`, and `probe`, whose query has state and merges into the table `totals`.

    Args:
        folder: of its tables and checkpoints.
        store: where `probe` keeps its state.
    """

    scratch: Scratch
    topic: str
    folder: Path
    store: str = "heap"

    def run(self, job: str) -> None:
        """Run a job until it has caught up."""
        self.scratch.catch_up(self._declared(job))

    def run_until_there(self, job: str, *files: str) -> None:
        """Run a job until these files are there."""
        (query,) = self._declared(job).start(continuous=True)
        try:
            late = AssertionError(f"no {' and '.join(files)}")
            wait_for(lambda: all((self.folder / file).exists() for file in files), SECONDS, lambda: late)
        finally:
            query.stop()

    def _declared(self, job: str) -> Run:
        folders = f"paths.tables={self.folder}/tables", f"paths.checkpoints={self.folder}/checkpoints"
        own = f"ingest.topics={self.topic}", f"spark.state_store={self.store}"
        run = self.scratch.run(*own, *folders, job=job)
        if job == "ingest":
            ingest_job.build(run)
        else:
            totals = run.read(self.topic).groupBy("id").agg(F.sum("level").alias("total"))
            run.upsert(totals, "totals", keys=("id",))
        return run

    def stopped(self, job: str) -> TidemarkError:
        with pytest.raises(TidemarkError) as stopped:
            self.run(job)
        return stopped.value

    def rows(self, job: str) -> list[tuple[object, ...]]:
        table = {"ingest": f"silver/{self.topic}", "probe": "totals"}[job]
        rows = self.scratch.spark.read.format("delta").load(f"{self.folder}/tables/{table}")
        columns = ("id", "level") if job == "ingest" else ("id", "total")
        return sorted(tuple(row) for row in rows.select(*columns).collect())

    def find(self, pattern: str) -> Path:
        """The newest file of a pattern, by the number in its name; of data files one that the newest version has."""
        if pattern.endswith(".parquet"):
            return Path(DeltaTable((self.folder / pattern).parent).file_uris()[0])
        found = (file for file in self.folder.glob(pattern.format(topic=self.topic)) if not file.name.startswith("."))
        return max(found, key=lambda file: (len(file.name), file.name))


@pytest.fixture(scope="module")
def made(spark: SparkSession, broker: Cluster, new_topic: NewTopicOf, tmp_path_factory: TempPathFactory) -> Pipeline:
    """What both jobs have left of two batches, before two more records came."""
    scratch = Scratch(spark, broker, new_topic, tmp_path_factory.mktemp("damage"))
    return two_batches(scratch, "heap", ("ingest", "probe"))


@pytest.fixture(scope="module")
def made_in_rocksdb(
    spark: SparkSession, broker: Cluster, new_topic: NewTopicOf, tmp_path_factory: TempPathFactory
) -> Pipeline:
    """`made`, of `probe` alone, with its state in RocksDB."""
    scratch = Scratch(spark, broker, new_topic, tmp_path_factory.mktemp("damage"))
    return two_batches(scratch, "rocksdb", ("probe",))


@pytest.fixture(scope="module")
def made_with_snapshot(
    spark: SparkSession, broker: Cluster, new_topic: NewTopicOf, tmp_path_factory: TempPathFactory
) -> Iterator[Pipeline]:
    """`made_in_rocksdb`, with snapshots of the state, which a query that goes on uploads between its batches."""
    scratch = Scratch(spark, broker, new_topic, tmp_path_factory.mktemp("damage"))
    stores = jvm(spark).org.apache.spark.sql.execution.streaming.state.StateStore
    stores.stop()  # the first query of a JVM says how often it uploads
    for name, value in UPLOADS.items():
        spark.conf.set(name, value)
    pipeline = two_batches(scratch, "rocksdb", ("probe",), uploading=True)
    for name in UPLOADS:
        spark.conf.unset(name)
    stores.stop()
    yield pipeline


def two_batches(scratch: Scratch, store: str, jobs: tuple[str, ...], uploading: bool = False) -> Pipeline:
    pipeline = Pipeline(scratch, scratch.topic(), scratch.folder, store)
    for batch, levels in enumerate(((1, 2), (3, 4)), start=1):
        scratch.send(pipeline.topic, *(scratch.reading(pipeline.topic, f"k{level % 3}", level) for level in levels))
        for job in jobs:
            if uploading:
                pipeline.run_until_there(job, f"{STATE}/state/0/0/{batch}.zip", f"{STATE}/state/0/1/{batch}.zip")
            else:
                pipeline.run(job)
    scratch.send(pipeline.topic, *(scratch.reading(pipeline.topic, f"k{level % 3}", level) for level in (5, 6)))
    return pipeline


RIGHT = {
    "ingest": [("k0", 3), ("k0", 6), ("k1", 1), ("k1", 4), ("k2", 2), ("k2", 5)],
    "probe": [("k0", 9), ("k1", 5), ("k2", 7)],
}


@pytest.fixture
def pipeline(made: Pipeline, tmp_path: Path) -> Pipeline:
    """A copy, to be damaged."""
    return copied(made, tmp_path)


def copied(made: Pipeline, folder: Path) -> Pipeline:
    for name in ("tables", "checkpoints"):
        shutil.copytree(made.folder / name, folder / name)
    return replace(made, folder=folder)


def without_sum(file: Path) -> None:
    (file.parent / f".{file.name}.crc").unlink(missing_ok=True)


def empty(file: Path) -> None:
    file.write_bytes(b"")
    without_sum(file)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    without_sum(file)


def cut_beside_its_sum(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def cut_behind_the_metadata(file: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    without_sum(file)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for at in range(len(content) // 4, len(content) // 4 + 8):
        content[at] ^= 0xFF
    file.write_bytes(bytes(content))
    without_sum(file)


def flip_a_bit(file: Path) -> None:
    """Flip a bit of a brace amid the state's schema, whose framing stays whole: what it frames is no JSON any more."""
    content = bytearray(file.read_bytes())
    content[content.rindex(b"{")] ^= 1
    file.write_bytes(bytes(content))
    without_sum(file)


def lose(file: Path) -> None:
    file.unlink()
    without_sum(file)


def write_id(said: TidemarkError, file: Path) -> None:
    """What the stop of a damaged `metadata` says."""
    found = re.search(r'write (\{"id":"[^"]+"\}) into it and remove (\S+?):', said.remedy)
    assert found, said
    file.write_text(found[1])
    (file.parent / found[2]).unlink(missing_ok=True)


def remove(said: TidemarkError, file: Path) -> None:
    """What the stop of a file that the query can do without says."""
    found = re.search(r"or remove it and (\S+) beside it", said.remedy)
    assert found, said
    file.unlink()
    (file.parents[1] / found[1]).unlink(missing_ok=True)


def tear_checkpoint(table: Path) -> None:
    """Let the log of a table have a checkpoint of Delta's, which was cut short."""
    DeltaTable(table).create_checkpoint()
    cut(max(table.glob("_delta_log/*.checkpoint.parquet")))


def remove_checkpoint(said: TidemarkError, table: Path) -> None:
    """What the stop of a damaged checkpoint of Delta's says: the file that it names goes, and the one that leads to it.

    Beside both lie the sums that Hadoop keeps on a local disk, where Spark wrote them.
    """
    named = re.search(r"(/\S+\.checkpoint\.parquet) is lost or damaged", said.message)
    leading = re.search(r"remove it and (/\S+/_last_checkpoint):", said.remedy)
    assert named, said
    assert leading, said
    for file in (named[1], leading[1]):
        Path(file).unlink()


def move_away(said: TidemarkError, file: Path) -> None:
    """What the stop of a table that many queries write says."""
    assert "without one, move the table away: it is begun anew, and its queries go on" in said.remedy, said
    table = file.parents[1]
    table.rename(table.with_name(f"{table.name}-moved"))


def delete_all(said: TidemarkError, file: Path) -> None:
    """What the stop says where topics are to be read again: delete every folder that it names."""
    assert "read the topics again" in said.remedy, said
    folders = {Path(name) for name in re.findall(r"/[^\s,;()]+", said.remedy)}
    assert folders, said
    for folder in folders:
        shutil.rmtree(folder)


pytestmark = pytest.mark.slow

CHECKPOINT, STATE = "checkpoints/ingest/{topic}", "checkpoints/probe/totals"
CASES = [
    ("ingest", f"{CHECKPOINT}/metadata", cut, "CHECKPOINT_DAMAGED", write_id),
    ("probe", f"{STATE}/state/0/0/*.delta", flip, "STATE_DAMAGED", delete_all),
    ("probe", "tables/totals/_delta_log/*.json", cut, "TABLE_LOG_DAMAGED", delete_all),
    ("ingest", f"{CHECKPOINT}/commits/*", cut_beside_its_sum, "CHECKPOINT_DAMAGED", remove),
    ("probe", "tables/totals/*.parquet", lose, "DATA_FILE_DAMAGED", delete_all),
    ("ingest", "tables/silver/{topic}", tear_checkpoint, "TABLE_LOG_DAMAGED", remove_checkpoint),
]
# Other files with the same remedy, the same ones of the other job, or damaged in another way.
MORE = [
    ("probe", f"{STATE}/state/0/0/_metadata/schema", flip_a_bit, "STATE_DAMAGED", delete_all),
    ("ingest", f"{CHECKPOINT}/sources/0/0", cut, "CHECKPOINT_DAMAGED", remove),
    ("ingest", f"{CHECKPOINT}/offsets/*", empty, "CHECKPOINT_DAMAGED", delete_all),
    ("ingest", f"{CHECKPOINT}/offsets/*", cut_behind_the_metadata, "CHECKPOINT_DAMAGED", delete_all),
    ("ingest", "tables/silver/{topic}/_delta_log/*.json", lose, "TABLE_BEHIND", delete_all),
    ("ingest", f"{CHECKPOINT}/metadata", lose, "CHECKPOINT_DAMAGED", write_id),
    ("probe", f"{STATE}/offsets/*", lose, "CHECKPOINT_DAMAGED", delete_all),
    ("probe", f"{STATE}/commits/*", empty, "CHECKPOINT_DAMAGED", remove),
    ("probe", f"{STATE}/state/0/0/*.delta", lose, "STATE_DAMAGED", delete_all),
    ("ingest", "tables/bronze/{topic}/_delta_log/*0.json", lose, "TABLE_LOG_DAMAGED", delete_all),
    ("probe", "tables/totals", tear_checkpoint, "TABLE_LOG_DAMAGED", remove_checkpoint),
]


@pytest.mark.parametrize(
    ("job", "pattern", "damage", "code", "follow"),
    of_a_kind([*CASES, *MORE], CASES),
)
def test_a_damaged_file_is_named_and_what_the_stop_says_lets_the_job_go_on(
    job: str,
    pattern: str,
    damage: Damage,
    code: str,
    follow: Callable[[TidemarkError, Path], None],
    pipeline: Pipeline,
) -> None:
    file = pipeline.find(pattern)
    damage(file)

    said = pipeline.stopped(job)

    assert code in str(said)
    # Of a file that is missing in a log Delta names the log alone.
    named = file.parent if damage is lose and file.suffix == ".json" else file
    assert code == "TABLE_BEHIND" or str(named.relative_to(pipeline.folder)) in said.message
    follow(said, file)
    pipeline.run(job)
    assert pipeline.rows(job) == RIGHT[job]


@pytest.mark.parametrize("damage", of_a_kind([lose, flip], [flip]))
def test_a_damaged_changelog_of_rocksdb_is_named_too(damage: Damage, made_in_rocksdb: Pipeline, tmp_path: Path) -> None:
    pipeline = copied(made_in_rocksdb, tmp_path)
    file = pipeline.find(f"{STATE}/state/0/0/*.changelog")
    damage(file)

    said = pipeline.stopped("probe")

    assert "STATE_DAMAGED" in str(said)
    assert str(file.relative_to(pipeline.folder)) in said.message
    delete_all(said, file)
    pipeline.run("probe")
    assert pipeline.rows("probe") == RIGHT["probe"]


SNAPSHOTS = list(product(["zip", "sst"], [cut, flip, lose]))


@pytest.mark.parametrize(("kind", "damage"), of_a_kind(SNAPSHOTS, [("sst", flip)]))
@pytest.mark.parametrize("has_older", [True, False], ids=["older files are there", "older files are gone"])
def test_a_damaged_snapshot_of_rocksdb_is_made_up_for_by_older_files_and_is_told_where_there_are_none(
    kind: str, damage: Damage, has_older: bool, made_with_snapshot: Pipeline, tmp_path: Path
) -> None:
    pipeline = copied(made_with_snapshot, tmp_path)
    file = snapshot_file(pipeline, kind)
    for older in pipeline.folder.glob(f"{STATE}/state/0/*/1.*") if not has_older else ():
        older.unlink()
    damage(file)

    if not has_older:
        said = pipeline.stopped("probe")
        assert "STATE_DAMAGED" in str(said)
        delete_all(said, file)
    pipeline.run("probe")

    assert pipeline.rows("probe") == RIGHT["probe"]


def snapshot_file(pipeline: Pipeline, kind: str) -> Path:
    """The newest snapshot of a store of the state (zip), or a file of tables that it is made of (sst)."""
    archive = pipeline.folder / f"{STATE}/state/0/0/2.zip"
    if kind == "zip":
        return archive
    [name, *_] = re.findall(r"\d+-[0-9a-f-]+\.sst", ZipFile(archive).read("metadata").decode())
    return archive.parent / "SSTs" / str(name)


@pytest.mark.slow
@pytest.mark.parametrize("is_moved", of_a_kind([False, True], [False]), ids=["its log is damaged", "it was moved away"])
def test_a_table_of_all_topics_can_be_moved_away_and_the_queries_go_on(is_moved: bool, scratch: Scratch) -> None:
    pipeline = Pipeline(scratch, scratch.topic(), scratch.folder)
    for level in (1, 2):
        scratch.send(pipeline.topic, Record(b"bad"), scratch.reading(pipeline.topic, "a", level))
        if level == 1:
            pipeline.run("ingest")
    file = pipeline.find("tables/quarantine/_delta_log/*.json")
    if is_moved:
        file.parents[1].rename(scratch.folder / "moved")
    else:
        cut(file)
        said = pipeline.stopped("ingest")
        assert "TABLE_LOG_DAMAGED" in str(said)
        move_away(said, file)

    pipeline.run("ingest")

    assert pipeline.rows("ingest") == [("a", 1), ("a", 2)]
    # What was rejected before is in the table that was moved away, and in bronze.
    assert scratch.rows("quarantine", "offset") == [(2,)]
    assert scratch.rows(f"bronze/{pipeline.topic}", "offset") == [(0,), (1,), (2,), (3,)]
