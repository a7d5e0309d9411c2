"""Every record of a topic is in bronze once, and in silver or quarantine once, whatever happens on the way."""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs.connectors.avro import decode as avro_decode
from jobs.connectors.delta import table as delta_table
from jobs.connectors.delta.table import Commit, Table
from jobs.connectors.kafka import source_sink
from jobs.ingest import job
from jobs.ingest.quarantine import REASONS
from jobs.ingest.silver import CompactedTable
from jobs.pipeline import tombstones
from jobs.pipeline.pii import Protection
from schemas.codec import frame
from schemas.pii_marks import PiiFields
from schemas.registry import FileRegistry, RegisteredSchema
from tests.jobs.scratch import Row, Scratch
from tests.kinds import of_a_kind
from tests.sent import T0, Record


def coordinates(scratch: Scratch, table: str, prefix: str = "") -> list[Row]:
    return scratch.rows(table, f"{prefix}partition", f"{prefix}offset")


def test_bronze_keeps_the_record_as_it_came_and_silver_has_the_event_with_its_coordinates(scratch: Scratch) -> None:
    topic = scratch.topic()
    reading = scratch.reading(topic, "a", 5)
    scratch.send(topic, Record(reading.value, b"a", headers=[("h", b"1")]))
    scratch.ingest(topic)
    bronze = scratch.spark.read.format("delta").load(str(scratch.folder / "tables" / "bronze" / topic))
    assert tuple(bronze.columns) == source_sink.COLUMNS
    assert (bytes(bronze.collect()[0].value), bronze.collect()[0].headers[0].key) == (reading.value, "h")
    silver = scratch.spark.read.format("delta").load(str(scratch.folder / "tables" / "silver" / topic))
    expected = ["id", "level", "_topic", "_partition", "_offset", "_timestamp", "_schema_id"]
    assert silver.columns == expected
    row = silver.withColumn("_timestamp", F.unix_millis("_timestamp")).collect()[0]
    assert tuple(row) == ("a", 5, topic, 0, 0, T0, 1)


def test_corrupt_records_go_to_quarantine_with_bytes_coordinates_and_reason_and_the_rest_goes_on(
    scratch: Scratch,
) -> None:
    topic = scratch.topic(2)
    good = scratch.reading(topic, "a", 1)
    assert good.value
    bad: dict[bytes | None, str] = {
        b"{}": avro_decode.BAD_FRAMING,
        frame(99, b"x"): avro_decode.UNKNOWN_SCHEMA_ID,
        good.value[:-1]: avro_decode.UNDECODABLE,
    }
    sent = scratch.send(topic, *(Record(value, b"k", 1) for value in bad), Record(None, b"gone", 1), good)
    scratch.ingest(topic)
    columns = ("partition", "offset", "value", "key", "error", "reason", "topic")
    found = scratch.rows("quarantine", *columns)
    rejects = bad | {None: avro_decode.NO_VALUE}
    assert [(row[0], row[1], row[2] and bytes(row[2]), row[4]) for row in found] == [
        (*place, value, error) for place, (value, error) in zip(sent, rejects.items(), strict=False)
    ]
    assert [row[5] for row in found] == [REASONS[error] for error in rejects.values()]
    assert {row[6] for row in found} == {topic}
    assert coordinates(scratch, f"silver/{topic}", "_") == [sent[-1]]
    assert coordinates(scratch, f"bronze/{topic}") == sorted(sent, key=str)


@pytest.mark.slow
def test_topics_that_reject_together_share_one_quarantine(scratch: Scratch) -> None:
    topics = [scratch.topic() for _ in range(3)]
    for topic in topics:
        scratch.send(topic, Record(b"bad"), scratch.reading(topic, "a", 1))
    scratch.ingest(*topics)
    assert scratch.rows("quarantine", "topic") == sorted((topic,) for topic in topics)
    assert all(len(scratch.rows(f"silver/{topic}")) == 1 for topic in topics)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_topics_of_one_range_share_one_quarantine_too(scratch: Scratch) -> None:
    topics = [scratch.topic() for _ in range(2)]
    for topic in topics:
        scratch.send(topic, Record(b"bad"))
    for _ in range(2):
        run = scratch.run(f"ingest.topics={','.join(topics)}", bounds=("earliest", "latest"), job="ingest")
        job.build(run)
        run.write_range()
        folder = run.tables_root.rsplit("/", 1)[1]
        assert scratch.rows(f"{folder}/quarantine", "topic") == sorted((topic,) for topic in topics)


def failing(statement: str, when: str, write: Callable[..., bool]) -> Callable[..., bool]:
    """`delta.write` that fails once a run, before or after the write of `statement`."""

    def write_or_fail(frame: DataFrame, table: Table, commit: Commit) -> bool:
        if commit.statement == statement and when == "before":
            raise OSError("the machine is gone")
        done = write(frame, table, commit)
        if commit.statement == statement:
            raise OSError("the machine is gone")
        return done

    return write_or_fail


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "statement"),
    of_a_kind(
        [("before", "bronze"), ("before", "silver"), ("before", "quarantine"), ("after", "quarantine")],
        [("before", "silver"), ("after", "quarantine")],
    ),
)
def test_a_run_that_dies_between_its_writes_loses_and_doubles_nothing(
    when: str, statement: str, scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = scratch.topic(2)
    sent = scratch.send(topic, scratch.reading(topic, "a", 1), Record(b"bad", partition=1))
    with monkeypatch.context() as patched:
        patched.setattr(delta_table, "write", failing(statement, when, delta_table.write))
        with pytest.raises(TidemarkError, match=r"QUERY_FAILED.*the machine is gone"):
            scratch.ingest(topic)
    more = scratch.send(topic, Record(b"bad"), scratch.reading(topic, "b", 2, partition=1))
    for _ in range(2):
        scratch.ingest(topic)
        assert coordinates(scratch, f"bronze/{topic}") == sorted([*sent, *more], key=str)
        assert coordinates(scratch, f"silver/{topic}", "_") == [sent[0], more[1]]
        assert coordinates(scratch, "quarantine") == [more[0], sent[1]]


@pytest.mark.slow
def test_a_backlog_in_small_batches_is_each_record_once_and_every_commit_names_its_offsets(scratch: Scratch) -> None:
    topic = scratch.topic(2)
    sent = scratch.send(topic, *(scratch.reading(topic, f"{n}", n, partition=n % 2) for n in range(10)))
    scratch.ingest(topic, overrides=["source.max_offsets_per_trigger=4"])
    for table, prefix in ((f"bronze/{topic}", ""), (f"silver/{topic}", "_")):
        assert coordinates(scratch, table, prefix) == sorted(sent, key=str)
        path = str(scratch.folder / "tables" / table)
        history = DeltaTable.forPath(scratch.spark, path).history().where("operation = 'WRITE'").orderBy("version")
        until = [
            row[0] for row in history.select(F.get_json_object("userMetadata", f"$.offsets.until[0].{topic}")).collect()
        ]
        assert len(until) >= 3
        assert until[-1] == '{"0":5,"1":5}'


@pytest.mark.slow
def test_an_empty_topic_ends_well_and_leaves_no_row(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.ingest(topic)
    assert scratch.rows(f"bronze/{topic}") == []
    scratch.send(topic, scratch.reading(topic, "a", 1))
    scratch.ingest(topic)
    assert len(scratch.rows(f"silver/{topic}")) == 1


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_version_registered_later_adds_its_column(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, scratch.reading(topic, "a", 1))
    scratch.ingest(topic)
    scratch.register(topic, {"name": "note", "type": ["null", "string"], "default": None})
    scratch.send(topic, scratch.reading(topic, "b", 2, note="new"))
    scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}", "id", "level", "note") == [("a", 1, None), ("b", 2, "new")]


@pytest.mark.slow
def test_a_wider_type_reaches_silver_and_old_rows_stay(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, scratch.reading(topic, "a", 1))
    scratch.ingest(topic)
    scratch.register(topic, {"name": "level", "type": "long"})
    scratch.send(topic, scratch.reading(topic, "b", 2**40))
    scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}", "id", "level") == [("a", 1), ("b", 2**40)]
    assert scratch.rows("quarantine") == []


@pytest.mark.slow
def test_a_version_registered_while_the_job_runs_needs_no_restart(scratch: Scratch) -> None:
    topic = scratch.topic()
    run = scratch.run(f"ingest.topics={topic}", job="ingest")
    job.build(run)
    scratch.register(topic, {"name": "note", "type": ["null", "string"], "default": None})
    scratch.send(topic, scratch.reading(topic, "b", 2, note="new"))
    scratch.catch_up(run)
    assert scratch.rows(f"silver/{topic}", "id", "note") == [("b", "new")]


@pytest.mark.slow
def test_of_a_compacted_topic_the_newest_record_of_a_key_stays_and_a_tombstone_marks_it_deleted(
    scratch: Scratch,
) -> None:
    topic = scratch.topic(compacted=True)
    tombstone = Record(None, b"a")
    records = [scratch.reading(topic, id, level) for id, level in (("a", 1), ("b", 1), ("a", 2), ("c", 1), ("b", 2))]
    scratch.send(topic, *records, tombstone, Record(b"bad", b"c"))
    scratch.ingest(topic, overrides=["source.max_offsets_per_trigger=2"])
    expected = [("a", None, 5, True), ("b", 2, 4, False), ("c", 1, 3, False)]
    columns = ("id", "level", "_offset", "_deleted")
    assert scratch.rows(f"silver/{topic}", *columns) == expected
    assert scratch.rows("quarantine", "offset", "error") == [(6, avro_decode.BAD_FRAMING)]
    assert len(scratch.rows(f"bronze/{topic}")) == 7
    scratch.send(topic, scratch.reading(topic, "a", 3))
    scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}", *columns)[0] == ("a", 3, 7, False)
    # A key that goes to another partition since the topic grew: offsets count anew there.
    scratch.grow(topic, 2)
    scratch.send(topic, scratch.reading(topic, "a", 4, partition=1), Record(None, b"b", 1))
    scratch.ingest(topic)
    moved = [("a", 4, 0, False), ("b", None, 1, True), ("c", 1, 3, False)]
    assert scratch.rows(f"silver/{topic}", *columns) == moved


def test_of_a_compacted_topic_what_lost_to_another_partition_was_accepted(spark: SparkSession) -> None:
    held = spark.sql(
        "SELECT * FROM VALUES ('a', 1, 0L, timestamp_seconds(9)), ('b', 1, 0L, timestamp_seconds(5)), "
        "('c', 0, 7L, timestamp_seconds(5)) AS held(id, _partition, _offset, _timestamp)"
    )
    validated = spark.sql(
        "SELECT named_struct('id', id) AS event, CAST(NULL AS STRING) AS error, CAST(NULL AS STRING) AS "
        f"{tombstones.DELETED_KEY}, 0 AS partition, offset, timestamp_seconds(at) AS timestamp FROM VALUES "
        "('a', 3L, 8), ('b', 4L, 8), ('c', 6L, 8), ('c', 8L, 1) AS validated(id, offset, at)"
    )
    missing = CompactedTable("t", (), "id").rows_missing_from(held, validated, Protection(PiiFields({})))
    assert missing.columns == validated.columns
    assert sorted(row["offset"] for row in missing.collect()) == [4, 8]


@pytest.mark.slow
def test_a_tombstone_whose_key_names_no_row_goes_to_quarantine_and_the_rest_goes_on(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = scratch.topic(compacted=True)
    scratch.register(topic, {"name": "id", "type": "long"})
    events = [scratch.reading(topic, id, 0) for id in (1, 2)]
    bad = [struct.pack(">q", 2), b"abc", b"\xff", b" 1", b"\xd9\xa1", b"9223372036854775808", b""]
    scratch.send(topic, *events, Record(None, b"1"), *(Record(None, key) for key in bad), scratch.reading(topic, 3, 0))
    with monkeypatch.context() as patched:
        patched.setattr(delta_table, "write", failing("quarantine", "before", delta_table.write))
        with pytest.raises(TidemarkError, match="the machine is gone"):
            scratch.ingest(topic)
    scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}", "id", "_deleted") == [(1, True), (2, False), (3, False)]
    assert scratch.rows("quarantine", "key", "error") == sorted(((key, tombstones.BAD_KEY) for key in bad), key=str)
    assert len(scratch.rows(f"bronze/{topic}")) == 4 + len(bad)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_an_older_event_does_not_bring_a_deleted_key_back(scratch: Scratch) -> None:
    topic = scratch.topic(compacted=True)
    scratch.send(topic, scratch.reading(topic, "a", 1), Record(None, b"a"))
    scratch.ingest(topic)
    run = scratch.run(job="ingest")
    read = source_sink.read_batch(
        scratch.spark, run.settings.kafka, run.settings.source, source_sink.Subscription((topic,)), end={topic: {0: 1}}
    )
    again = CompactedTable(topic, (), "id").accepted(run.decode(read, topic), Protection(PiiFields({})))
    assert again.count() == 1
    table = run.table(f"silver/{topic}", keys=("id",), newest_by=("_offset",))
    assert delta_table.write(again, table, Commit("another sink", "another query", "silver", 0))
    assert scratch.rows(f"silver/{topic}", "id", "level", "_deleted") == [("a", None, True)]


@pytest.mark.slow
def test_rows_that_go_missing_between_bronze_and_silver_stop_the_query(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = scratch.topic()
    scratch.send(topic, scratch.reading(topic, "a", 1), scratch.reading(topic, "b", 1))
    decode = avro_decode.decode

    def decode_less(records: DataFrame, *arguments: Any, **more: Any) -> DataFrame:
        return decode(records.where("offset > 0"), *arguments, **more)

    monkeypatch.setattr(avro_decode, "decode", decode_less)
    with pytest.raises(TidemarkError, match=r"UNACCOUNTED: batch 0 of .* 2 records went to bronze, 1 to silver"):
        scratch.ingest(topic)


@pytest.mark.slow
def test_one_answer_of_the_registry_is_for_the_whole_of_a_micro_batch(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = scratch.topic()
    scratch.send(topic, scratch.reading(topic, "a", 1), Record(b"{}"))
    answer, asked = FileRegistry.all_versions, []

    def counted(registry: FileRegistry, subject: str) -> list[RegisteredSchema]:
        asked.append(subject)
        return answer(registry, subject)

    monkeypatch.setattr(FileRegistry, "all_versions", counted)
    scratch.ingest(topic)
    assert asked == [f"{topic}-value"] * 2  # when the query was declared, and when the batch was there


def test_a_topic_without_a_schema_stops_before_anything_is_read(scratch: Scratch) -> None:
    with pytest.raises(TidemarkError, match="UNKNOWN_SUBJECT"):
        scratch.ingest("departuers")
