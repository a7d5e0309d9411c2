"""What real runs leave behind is covered: each record once, and whatever is done to it named to the offset."""

import json
import shutil
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.connectors.kafka.consumer import ReadCommittedConsumer
from jobs.ingest import job
from jobs.operations.coverage.holdings import sink_coverages
from jobs.pipeline.run import Run
from local.processes import wait_for
from tests.jobs.operations.coverage.holdings import Holdings, send_in_transaction
from tests.jobs.scratch import Scratch
from tests.sent import Record

LIMIT = "source.max_offsets_per_trigger=6"


@pytest.fixture
def here(scratch: Scratch, capsys: pytest.CaptureFixture[str]) -> Holdings:
    """The command, on what `scratch` runs, in an installation apart from those of other tests."""
    scratch.application = scratch.folder.name
    holdings = Holdings(scratch.folder, scratch.settings().kafka.bootstrap_servers, capsys)
    holdings.application = scratch.application
    return holdings


def readings(scratch: Scratch, topic: str, count: int, partitions: int = 2) -> None:
    scratch.send(topic, *(scratch.reading(topic, f"{n}", n, partition=n % partitions) for n in range(count)))


def shown(here: Holdings, table: str) -> set[tuple[int, int, int]]:
    """Partition, from and to, of the command's lines on a table."""
    _, lines = here.command("show", table, "--json")
    found = [json.loads(line) for line in lines]
    return {(each["partition"], each["from"], each["to"]) for each in found if each["table"] == table}


def as_records(readings: DataFrame) -> DataFrame:
    return readings.select(F.col("id").alias("key"), F.col("level").cast("string").alias("value"))


def publishing(scratch: Scratch, source: str, target: str) -> Run:
    run = scratch.run(LIMIT)
    run.publish(as_records(run.read(source)), target)
    return run


@pytest.mark.slow
def test_a_table_that_is_gone_is_named_and_goes_with_its_checkpoint(scratch: Scratch, here: Holdings) -> None:
    topic, rejected = scratch.topic(2), scratch.topic(2)
    readings(scratch, topic, 3)
    scratch.send(rejected, Record(b"no event"))
    scratch.ingest(topic, rejected)
    assert here.check() == (0, [])
    for layer in ("silver", "bronze"):
        shutil.rmtree(scratch.folder / "tables" / layer / topic)
        code, found = here.check()
        assert code == 1
        assert any(line.startswith(f"TABLE_MISSING: {layer}/{topic}: ") for line in found), found
        code, [line] = here.check(f"{layer}/{topic}")
        assert (code, line.partition(":")[0]) == (1, "TABLE_MISSING")
    shutil.rmtree(scratch.folder / "checkpoints")
    assert here.check() == (0, [])


@pytest.mark.slow
def test_an_ingest_in_several_batches_holds_each_record_once(scratch: Scratch, here: Holdings) -> None:
    topic = scratch.topic(2)
    readings(scratch, topic, 10)
    scratch.ingest(topic, overrides=[LIMIT])
    assert here.check() == (0, [])
    for table in (f"bronze/{topic}", f"silver/{topic}"):
        assert shown(here, table) == {(0, 0, 5), (1, 0, 5)}
    chains = here.coverage(f"bronze/{topic}", verify=True).chains
    assert [(chain.key.statement, chain.commits) for chain in chains] == [("bronze", chains[0].newest.batch + 1)]
    scratch.spark.sql(f"DELETE FROM delta.`{here.path(f'bronze/{topic}')}` WHERE partition = 1 AND offset IN (1, 2)")
    code, lines = here.check()
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith(f"MISSING: {topic} partition 1: offsets 1 to 2 missing in bronze/{topic}; version ")


@pytest.mark.slow
def test_tables_and_checkpoint_that_were_deleted_together_are_whole_again(scratch: Scratch, here: Holdings) -> None:
    topic = scratch.topic(2)
    readings(scratch, topic, 10)
    scratch.ingest(topic, overrides=[LIMIT])
    before = here.coverage(f"bronze/{topic}").chains[0].key.query_id
    scratch.forget(topic)
    scratch.ingest(topic)
    (chain,) = here.coverage(f"bronze/{topic}").chains
    assert chain.key.query_id != before
    assert here.check() == (0, [])


@pytest.mark.slow
def test_a_restore_of_bronze_is_named_and_silver_stays_well(scratch: Scratch, here: Holdings) -> None:
    topic = scratch.topic()
    for _ in range(2):
        readings(scratch, topic, 4, partitions=1)
        scratch.ingest(topic)
    path = here.path(f"bronze/{topic}")
    newest = here.coverage(f"bronze/{topic}").version
    scratch.spark.sql(f"RESTORE TABLE delta.`{path}` TO VERSION AS OF {newest - 1}")
    code, lines = here.check()
    assert code == 1
    assert lines[0].startswith(f"TAKEN_BACK: {topic} partition 0: offsets 4 to 7 taken back: version {newest} of")
    assert shown(here, f"silver/{topic}") == {(0, 0, 8)}
    scratch.spark.sql(f"RESTORE TABLE delta.`{path}` TO VERSION AS OF {newest}")
    assert here.check() == (0, [])


@pytest.mark.exhaustive
@pytest.mark.slow
def test_transactions_in_a_topic_leave_no_holes(scratch: Scratch, here: Holdings) -> None:
    topic = scratch.topic()
    for commit in (True, False, True):
        send_in_transaction(here.servers, topic, 3, commit)
    readings(scratch, topic, 2, partitions=1)
    scratch.ingest(topic)
    assert len(scratch.rows(f"bronze/{topic}")) == 8
    assert here.check() == (0, [])
    scratch.spark.sql(f"DELETE FROM delta.`{here.path('quarantine')}` WHERE offset = 2")
    code, lines = here.check()
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith(f"MISSING: {topic} partition 0: offset 2 missing in silver/{topic} and quarantine")


@pytest.mark.slow
def test_a_compacted_topic_and_one_of_several_events_are_well(scratch: Scratch, here: Holdings) -> None:
    compacted = scratch.topic(compacted=True)
    newer = [scratch.reading(compacted, id, level) for id, level in (("a", 1), ("b", 1), ("a", 2))]
    scratch.send(compacted, *newer, Record(None, b"a"), Record(b"bad", b"c"))
    scratch.ingest(compacted)
    assert here.check() == (0, [])


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_table_whose_types_were_widened_and_whose_rows_are_deleted_by_vectors_is_read(
    scratch: Scratch, here: Holdings
) -> None:
    topic = scratch.topic(2)
    readings(scratch, topic, 6)
    scratch.ingest(topic)
    scratch.register(topic, {"name": "level", "type": "long"})
    readings(scratch, topic, 6)
    scratch.ingest(topic)
    assert here.check() == (0, [])
    deletion_by_vectors(scratch, here, f"bronze/{topic}", "partition = 1 AND offset = 2")
    scratch.spark.sql(f"DELETE FROM delta.`{here.path(f'silver/{topic}')}` WHERE _partition = 0 AND _offset = 3")
    code, lines = here.check()
    assert (code, len(lines)) == (1, 2)
    assert lines[0].startswith(f"MISSING: {topic} partition 1: offset 2 missing in bronze/{topic};")
    assert lines[1].startswith(f"MISSING: {topic} partition 0: offset 3 missing in silver/{topic} and quarantine;")
    deletion_by_vectors(scratch, here, f"silver/{topic}", "_offset = 4")
    code, lines = here.check(f"silver/{topic}")
    assert (code, [line.split(";")[0] for line in lines]) == (
        1,
        [f"NOT_COMPARED: silver/{topic}: its rows are not compared: it has both widened types and deletion vectors"],
    )


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_bounded_range_is_checked_within_its_bounds(scratch: Scratch, here: Holdings) -> None:
    topic = scratch.topic(2)
    readings(scratch, topic, 10)
    run = scratch.run(f"ingest.topics={topic}", bounds=({topic: {0: 1, 1: 2}}, {topic: {0: 3, 1: 5}}), job="ingest")
    job.build(run)
    run.write_range()
    folder = run.tables_root.rsplit("/", 1)[1]
    assert shown(here, f"{folder}/bronze/{topic}") == {(0, 1, 3), (1, 2, 5)}
    assert here.check() == (0, [])
    scratch.spark.sql(f"DELETE FROM delta.`{here.path(f'{folder}/silver/{topic}')}` WHERE _offset = 4")
    code, lines = here.check()
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith(f"MISSING: {topic} partition 1: offset 4 missing in {folder}/silver/{topic}")


@pytest.mark.slow
def test_an_output_topic_holds_what_its_ledger_says(scratch: Scratch, here: Holdings) -> None:
    source, target = scratch.topic(2), scratch.topic()
    readings(scratch, source, 10)
    scratch.catch_up(publishing(scratch, source, target))
    assert here.check(target) == (0, [])
    _, lines = here.command("show", target, "--json")
    found = [json.loads(line) for line in lines]
    assert [(each["output_topics"], each["partition"], each["from"], each["to"]) for each in found] == [
        ([target], 0, 0, 5),
        ([target], 1, 0, 5),
    ]
    assert found[0]["commits"] == found[0]["begun_batch"] + 1
    admin = AdminClient({"bootstrap.servers": here.servers, "log_level": 0})
    recreate(admin, target)
    code, lines = here.check(target)
    assert code == 1
    assert lines[0].startswith(
        f"TOPIC_RECREATED: {here.application}.probe.{target}: its output topic {target} was deleted and created again"
    )


@pytest.mark.slow
def test_a_source_topic_that_was_created_again_is_named_for_tables_and_output_topics(
    scratch: Scratch, here: Holdings
) -> None:
    source, target = scratch.topic(), scratch.topic()
    readings(scratch, source, 4, partitions=1)
    scratch.catch_up(publishing(scratch, source, target))
    scratch.ingest(source)
    recreate(AdminClient({"bootstrap.servers": here.servers, "log_level": 0}), source)
    readings(scratch, source, 6, partitions=1)
    code, lines = here.check(source)
    assert code == 1
    named = {line.split(" ")[1]: line for line in lines if line.startswith("TOPIC_RECREATED")}
    sink = f"{here.application}.probe.{target}:"
    assert named.keys() == {f"bronze/{source}:", f"silver/{source}:", sink}
    assert [name for name, line in named.items() if "--until-caught-up --skip-lost" in line] == [sink]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_an_adopted_checkpoint_still_says_where_its_reading_began(scratch: Scratch, here: Holdings) -> None:
    source, target = scratch.topic(), scratch.topic()
    readings(scratch, source, 6, partitions=1)
    scratch.catch_up(publishing(scratch, source, target))
    shutil.rmtree(scratch.folder / "checkpoints" / "probe" / target)
    readings(scratch, source, 6, partitions=1)
    run = publishing(scratch, source, target)
    run.adopt()
    scratch.catch_up(run)
    assert here.check(target) == (0, [])
    admin = AdminClient({"bootstrap.servers": here.servers, "log_level": 0})
    with ReadCommittedConsumer({"bootstrap.servers": here.servers}) as reader:
        (sink,) = [each for each in sink_coverages(admin, reader, scratch.application) if target in each.topics]
    assert sink.chain is not None
    assert [(span.start, span.end) for span in sink.chain.spans] == [(0, 12)]


def deletion_by_vectors(scratch: Scratch, here: Holdings, table: str, rows: str) -> None:
    name = f"delta.`{here.path(table)}`"
    scratch.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('delta.enableDeletionVectors' = true)")
    scratch.spark.sql(f"DELETE FROM {name} WHERE {rows}")


def recreate(admin: Any, topic: str) -> None:
    admin.delete_topics([topic])[topic].result()
    late = TimeoutError(f"{topic} did not go")
    wait_for(lambda: topic not in admin.list_topics(timeout=10).topics, 30, lambda: late)
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    wait_for(lambda: topic in admin.list_topics(timeout=10).topics, 30, lambda: late)
