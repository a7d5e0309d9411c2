"""Whole runs: streams into tables and topics, and bounded ranges."""

import json
import shutil
from functools import partial
from itertools import pairwise
from threading import Thread

import pytest
from delta.tables import DeltaTable
from pyspark import inheritable_thread_target
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.rules import Range
from jobs.connectors.avro.encode import encode
from jobs.connectors.delta import table as delta_table
from jobs.connectors.kafka import source_sink
from jobs.pipeline.outputs import Batch
from jobs.pipeline.run import Run
from jobs.pipeline.state_store import STATE_STORES
from jobs.pipeline.supervision import Failures, make_restart, supervise
from local.processes import wait_for
from schemas.codec import frame
from tests.jobs.scratch import TIME, Row, Scratch
from tests.sent import T0, Record

Readings = list[Row]


def send(scratch: Scratch, topic: str, *readings: Row) -> None:
    scratch.send(topic, *(scratch.reading(topic, id, level) for id, level in readings))


def test_a_stream_is_appended_once_over_several_runs(scratch: Scratch) -> None:
    topic, sent = scratch.topic(), [("a", 1), ("b", 2), ("a", 3)]
    for count in (2, 3, 3):
        send(scratch, topic, *sent[:2] if count == 2 else sent[2:] if not scratch.rows("levels")[2:] else ())
        run = scratch.run("source.max_offsets_per_trigger=1")
        run.append(run.read(topic), "levels")
        scratch.catch_up(run)
        assert scratch.rows("levels") == sorted(sent[:count], key=str)


def test_a_query_reads_two_types_of_events_of_one_topic_and_a_topic_twice(scratch: Scratch) -> None:
    several, one = scratch.topic(schemas=("departure", "arrival")), scratch.topic()
    send(scratch, one, ("a", 1), ("b", 2))
    scratch.send(one, Record(b"bad"))
    run = scratch.run()
    departed, arrived = (run.read(several, event=event).select("flight_id") for event in ("departure", "arrival"))
    pairs = run.read(one).alias("one").join(run.read(one).alias("other"), F.expr("one.id = other.id"))
    run.append(departed.union(arrived).union(pairs.select("one.id")), "ids")
    (query,) = run.start(continuous=False)
    query.awaitTermination()
    assert scratch.rows("ids") == [("a",), ("b",)]
    assert [dict(row["observedMetrics"]).keys() for row in query.recentProgress][:1] == [
        {f"decode {several}", f"decode {several} 2", f"decode {one}", f"decode {one} 2"}
    ]


@pytest.mark.slow
def test_a_stream_is_merged_and_an_event_that_comes_late_loses(scratch: Scratch) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 5), ("b", 1), ("a", 4), ("b", 2), ("a", 4))
    run = scratch.run("source.max_offsets_per_trigger=2")
    run.upsert(run.read(topic), "levels", keys=("id",), newest_by=("level",))
    scratch.catch_up(run)
    assert scratch.rows("levels") == [("a", 5), ("b", 2)]


@pytest.mark.slow
def test_of_a_key_that_comes_twice_in_a_micro_batch_the_event_of_the_last_offset_stays(scratch: Scratch) -> None:
    topic = scratch.topic()
    for readings in ([("a", 1), ("b", 1), ("a", 9), ("a", 3), ("c", 1), ("b", 2)], [("a", 2), ("a", 1)]):
        send(scratch, topic, *readings)
        run = scratch.run()
        run.upsert(run.read(topic), "levels", keys=("id",))
        scratch.catch_up(run)
    assert scratch.rows("levels") == [("a", 1), ("b", 2), ("c", 1)]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_key_that_comes_twice_in_no_order_stops_the_query_which_goes_on_once_the_newest_is_told(
    scratch: Scratch,
) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 5), ("b", 1), ("a", 4))
    for newest_by in ((), ("level",)):
        run = scratch.run()
        read = run.read(topic)
        run.upsert(read.repartition(2), "levels", keys=("id",), newest_by=newest_by)
        if newest_by:
            scratch.catch_up(run)
            continue
        with pytest.raises(TidemarkError, match=r'KEY_REPEATED: .* 2 rows of the key \{"id":"a"\}') as stopped:
            scratch.catch_up(run)
        assert "newest_by" in stopped.value.remedy
        assert scratch.rows("levels") == []
    assert scratch.rows("levels") == [("a", 5), ("b", 1)]


def test_a_table_that_is_merged_by_no_column_is_refused_while_the_job_is_declared(scratch: Scratch) -> None:
    run = scratch.run()
    for keys, newest_by in ((("idd",), ()), (("id",), ("idd",))):
        with pytest.raises(TidemarkError, match=r"BAD_KEYS: table levels is to be merged by `idd`.*did you mean `id`"):
            run.upsert(run.read(scratch.topic()), "levels", keys, newest_by)


@pytest.mark.slow
def test_every_commit_of_a_stream_names_the_query_its_batch_and_its_source_offsets(scratch: Scratch) -> None:
    topic = scratch.topic()
    run = scratch.run("source.max_offsets_per_trigger=2")
    run.upsert(run.read(topic), "levels", keys=("id",), newest_by=("level",))
    send(scratch, topic, ("a", 1), ("b", 1), ("c", 1))
    scratch.catch_up(run)
    history = DeltaTable.forPath(scratch.spark, str(scratch.folder / "tables" / "levels")).history()
    rows = history.where("operation != 'CREATE TABLE'").orderBy("version").collect()
    metadata = [json.loads(row.userMetadata) for row in rows]
    checkpoint = json.loads((scratch.folder / "checkpoints" / "probe" / "levels" / "metadata").read_text())
    assert {commit["query_id"] for commit in metadata} == {checkpoint["id"]}
    assert {commit["sink"] for commit in metadata} == {"probe.levels"}
    assert metadata[0]["offsets"]["from"] == [{topic: {"0": 0}}]
    assert metadata[-1]["offsets"]["until"] == [{topic: {"0": 3}}]
    for before, after in pairwise(metadata):
        assert after["batch"] == before["batch"] + 1
        assert after["offsets"]["from"] == before["offsets"]["until"]


@pytest.mark.slow
def test_a_batch_whose_write_was_not_recorded_is_not_written_twice(scratch: Scratch) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 1), ("b", 2))

    def declare(crash: bool) -> Run:
        run = scratch.run()

        def write(batch: Batch) -> None:
            delta_table.write(batch.frame, run.table("levels"), batch.commit("write"))
            if crash:
                raise OSError("power cut")

        run.write(run.read(topic), "levels", write)
        return run

    with pytest.raises(TidemarkError, match=r"QUERY_FAILED.*probe\.levels.*power cut"):
        scratch.catch_up(declare(crash=True))
    assert len(scratch.rows("levels")) == 2
    send(scratch, topic, ("c", 3))
    scratch.catch_up(declare(crash=False))
    assert scratch.rows("levels") == [("a", 1), ("b", 2), ("c", 3)]


def append_levels(scratch: Scratch, topic: str) -> None:
    run = scratch.run()
    run.append(run.read(topic), "levels")
    scratch.catch_up(run)


@pytest.mark.slow
def test_a_deleted_checkpoint_stops_the_query_until_the_table_is_deleted_too(scratch: Scratch) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 1))
    append_levels(scratch, topic)
    shutil.rmtree(scratch.folder / "checkpoints")
    with pytest.raises(TidemarkError, match=r"QUERY_FAILED.*probe\.levels.*CHECKPOINT_REPLACED"):
        append_levels(scratch, topic)
    assert scratch.rows("levels") == [("a", 1)]
    shutil.rmtree(scratch.folder / "checkpoints")
    shutil.rmtree(scratch.folder / "tables")
    append_levels(scratch, topic)
    assert scratch.rows("levels") == [("a", 1)]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_deleted_table_stops_the_query_until_the_checkpoint_is_deleted_too(scratch: Scratch) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 1))
    append_levels(scratch, topic)
    shutil.rmtree(scratch.folder / "tables")
    send(scratch, topic, ("b", 2))
    with pytest.raises(TidemarkError, match=r"TABLE_BEHIND.*lacks batch 0 of probe\.levels"):
        append_levels(scratch, topic)
    assert scratch.rows("levels") == []
    shutil.rmtree(scratch.folder / "checkpoints")
    append_levels(scratch, topic)
    assert scratch.rows("levels") == [("a", 1), ("b", 2)]


@pytest.mark.slow
def test_a_batch_whose_offsets_were_changed_after_it_was_written_stops_the_query(scratch: Scratch) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 1), ("b", 2))
    append_levels(scratch, topic)
    send(scratch, topic, ("c", 3))
    checkpoint = scratch.folder / "checkpoints" / "probe" / "levels"
    for file in ("commits/0", "commits/.0.crc", "offsets/.0.crc"):
        (checkpoint / file).unlink()
    entry = checkpoint / "offsets" / "0"
    entry.write_text(entry.read_text().replace('{"0":2}', '{"0":3}'))
    with pytest.raises(TidemarkError, match=r"BATCH_CHANGED.*holds batch 0 of probe\.levels until .*2.* until .*3"):
        append_levels(scratch, topic)
    assert scratch.rows("levels") == [("a", 1), ("b", 2)]


@pytest.mark.slow
def test_events_are_published_with_key_and_headers_framed_by_the_newest_schema(scratch: Scratch) -> None:
    source, target = scratch.topic(), scratch.topic()
    send(scratch, source, ("a", 1), ("b", 2))
    run = scratch.run()
    schema = run.registry.latest(f"{target}-value")
    value = encode(F.struct("id", "level"), schema)
    run.publish(run.read(source).select(F.col("id").alias("key"), value.alias("value")), target)
    scratch.catch_up(run)
    scratch.ingest(target)
    assert scratch.rows(f"silver/{target}", "id", "level") == [("a", 1), ("b", 2)]
    assert scratch.rows(f"bronze/{target}", "key") == [(bytearray(b"a"),), (bytearray(b"b"),)]


@pytest.mark.slow
def test_a_continuous_run_takes_what_comes_later_until_it_is_stopped(scratch: Scratch) -> None:
    topic = scratch.topic()
    run = scratch.run("jobs.probe.trigger=100 milliseconds")
    run.append(run.read(topic), "levels")
    (query,) = run.start(continuous=True)
    try:
        for count, reading in enumerate((("a", 1), ("b", 2)), start=1):
            send(scratch, topic, reading)
            late = TimeoutError(f"{count} rows did not arrive")
            wait_for(lambda count=count: len(scratch.rows("levels")) == count, 120, lambda late=late: late)  # type: ignore[misc]
        assert query.isActive
    finally:
        query.stop()


@pytest.mark.slow
def test_a_version_registered_while_a_stream_runs_is_read_without_a_restart_of_the_job(
    scratch: Scratch, capfd: pytest.CaptureFixture[str]
) -> None:
    topic, other = scratch.topic(), scratch.topic()
    send(scratch, topic, ("a", 1))
    send(scratch, other, ("a", 1), ("b", 2), ("c", 3))

    def build(run: Run) -> None:
        run.upsert(run.read(topic).groupBy("id").agg(F.sum("level").alias("sum")), "sums", keys=("id",))
        run.append(run.read(topic).dropDuplicates(["id"]), "firsts")
        both = run.read(topic).join(run.read(other).withColumnRenamed("level", "other"), "id")
        run.append(both.select("id", "level", "other"), "both")

    run = scratch.run("jobs.probe.trigger=100 milliseconds")
    build(run)
    spark, tables = scratch.spark, ("sums", "firsts", "both")
    waiting = Thread(
        target=inheritable_thread_target(spark)(supervise),
        args=(spark, run.starts(True), Failures(run.settings.run).decide, make_restart(run, build, True)),
    )
    waiting.start()
    try:
        wait_for(lambda: all(scratch.rows(table) for table in tables), 120, lambda: TimeoutError("no first rows"))
        scratch.register(topic, {"name": "note", "type": ["null", "string"], "default": None})
        scratch.send(topic, *(scratch.reading(topic, id, 5, note="new") for id in ("a", "b")))
        scratch.send(topic, Record(frame(99, b"x")))
        send(scratch, topic, ("c", 7))
        arrived = lambda: all(len(scratch.rows(table)) >= 3 for table in tables)  # noqa: E731
        wait_for(arrived, 120, lambda: TimeoutError("the new version's rows did not arrive"))
    finally:
        for query in spark.streams.active:
            query.stop()
        waiting.join(60)
    assert scratch.rows("sums") == [("a", 6), ("b", 5), ("c", 7)]
    assert scratch.rows("firsts", "id", "level") == [("a", 1), ("b", 5), ("c", 7)]
    assert scratch.rows("both") == [("a", 1, 1), ("a", 5, 1), ("b", 5, 2), ("c", 7, 3)]
    assert capfd.readouterr().err.count("starts again") == len(tables)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_jobs_included_in_one_run_keep_their_names_checkpoints_and_settings(scratch: Scratch) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 1), ("b", 2), ("c", 3))

    def build(run: Run) -> None:
        run.append(run.read(topic), "levels")

    run = scratch.run("jobs.lakes.tides.max_offsets_per_trigger=1", job="everything")
    run.under_name("lakes.levels", build)
    run.under_name("lakes.tides", lambda inner: inner.append(inner.read(topic), "tides"))
    assert [output.query for output in run.outputs] == ["lakes.levels", "lakes.tides"]
    scratch.catch_up(run)
    folders = scratch.folder / "checkpoints"
    assert (folders / "lakes.levels" / "levels" / "commits" / "0").exists()
    assert (folders / "lakes.tides" / "tides" / "commits" / "2").exists()
    assert scratch.rows("levels") == scratch.rows("tides") == [("a", 1), ("b", 2), ("c", 3)]


def test_a_run_that_is_to_catch_up_leaves_no_records_because_they_are_few(scratch: Scratch) -> None:
    topic = scratch.topic()
    waiting = scratch.run("jobs.probe.min_offsets_per_trigger=5")
    waiting.append(waiting.read(topic), "levels")
    with pytest.raises(TidemarkError, match=r"probe .* its batches wait for 5 \(min_offsets_per_trigger\)"):
        waiting.starts(continuous=False)


def test_several_tasks_for_a_partition_are_refused_where_its_order_would_be_lost(scratch: Scratch) -> None:
    topic, target = scratch.topic(), scratch.topic()
    run = scratch.run("source.min_partitions=4")
    run.publish(run.read(topic).selectExpr("CAST(id AS BINARY) AS value"), target)
    with pytest.raises(TidemarkError, match=r"min_partitions = 4 .* set jobs\.probe\.min_partitions to 0"):
        run.starts(continuous=True)


@pytest.mark.slow
def test_a_job_has_the_state_store_and_partitions_that_it_is_given(scratch: Scratch) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 1), ("b", 2))
    run = scratch.run("jobs.probe.state_store=rocksdb", "jobs.probe.shuffle_partitions=3")
    run.upsert(run.read(topic).groupBy("id").count(), "counts", keys=("id",))
    scratch.catch_up(run)
    offsets = (scratch.folder / "checkpoints" / "probe" / "counts" / "offsets" / "0").read_text()
    conf = json.loads(offsets.splitlines()[1])["conf"]
    assert conf["spark.sql.streaming.stateStore.providerClass"] == STATE_STORES["rocksdb"]
    assert conf["spark.sql.shuffle.partitions"] == "3"


def test_the_first_failure_stops_the_other_queries_and_is_told_in_one_line(scratch: Scratch) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 1))
    run = scratch.run()
    run.append(run.read(topic), "levels")
    fails = run.read(topic).select(F.raise_error(F.lit("no such gauge")).cast("int").alias("x"))
    run.append(fails, "broken")
    queries = run.start(continuous=True)
    with pytest.raises(TidemarkError, match="no such gauge") as failed:
        supervise(
            scratch.spark, {query.name: partial(next, iter([query])) for query in queries}, before_stop=run.ending.set
        )
    assert failed.value.code == "QUERY_FAILED"
    assert run.ending.is_set()
    assert "probe.broken" in failed.value.message
    assert "\n" not in str(failed.value)
    assert not any(query.isActive for query in queries)


def test_a_job_that_declares_nothing_is_told_so(scratch: Scratch) -> None:
    with pytest.raises(TidemarkError, match="NO_OUTPUT"):
        scratch.run().start(continuous=False)


def test_a_missing_topic_and_a_topic_without_a_schema_stop_the_job_while_it_is_declared(scratch: Scratch) -> None:
    topic = scratch.topic()
    with pytest.raises(TidemarkError, match=f"TOPIC_MISSING.*did you mean `{topic}`"):
        scratch.run().records(f"{topic}s")
    with pytest.raises(TidemarkError, match="UNKNOWN_SUBJECT"):
        scratch.run().decode(scratch.run().records(topic), "another")


RANGE = ({"TOPIC": {0: 1}}, {"TOPIC": {0: 3}})


def bounded(scratch: Scratch, topic: str) -> Run:
    start, end = ({topic: offsets["TOPIC"]} for offsets in RANGE)
    return scratch.run(bounds=(start, end))


@pytest.mark.slow
def test_a_range_is_exactly_its_records_in_a_folder_of_its_own_however_often_it_runs(scratch: Scratch) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 1), ("b", 2), ("c", 3), ("d", 4))
    live = scratch.run()
    live.append(live.read(topic), "levels")
    scratch.catch_up(live)
    lines = []
    for _ in range(2):
        run = bounded(scratch, topic)
        run.append(run.read(topic), "levels")
        run.upsert(run.read(topic), "latest", keys=("id",))
        lines.append(run.write_range())
        assert run.tables_root.startswith(f"{scratch.folder / 'tables'}/range-")
        folder = run.tables_root.rsplit("/", 1)[1]
        assert scratch.rows(f"{folder}/levels") == scratch.rows(f"{folder}/latest") == [("b", 2), ("c", 3)]
    assert [path.name for path in (scratch.folder / "tables").glob("range-*")] == [folder]
    assert len(scratch.rows("levels")) == 4
    first, again = lines
    assert first[0].split()[:3] == [topic, "2", "offsets"]
    assert first[0].endswith("rejected 0")
    assert first[1].split() == ["levels", "2", "rows", f"{run.tables_root}/levels"]
    assert again[1:] == first[1:]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_outputs_that_read_different_topics_lie_in_one_range(scratch: Scratch) -> None:
    topics = [scratch.topic(), scratch.topic()]
    for topic in topics:
        send(scratch, topic, ("a", 1))
    run = scratch.run(bounds=("earliest", "latest"))
    for topic in topics:
        run.append(run.read(topic), topic)
    send(scratch, topics[0], ("b", 2))
    run.append(run.read(topics[0]), "again")
    run.write_range()
    (folder,) = (scratch.folder / "tables").glob("range-*")
    for table in (*topics, "again"):
        assert scratch.rows(f"{folder.name}/{table}") == [("a", 1)]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_of_two_outputs_into_one_table_of_a_range_the_second_stops_instead_of_vanishing(scratch: Scratch) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 1))
    run = scratch.run(bounds=("earliest", "latest"))
    for _ in range(2):
        run.append(run.read(topic), "levels")
    with pytest.raises(TidemarkError, match=r"STATEMENT_REPEATED.*probe\.levels"):
        run.write_range()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_range_counts_its_rejects_and_puts_what_it_would_publish_into_a_table(scratch: Scratch) -> None:
    topic = scratch.topic()
    send(scratch, topic, ("a", 1))
    broken = scratch.reading(topic, "b", 2)
    scratch.send(topic, type(broken)(b"bad"))
    run = scratch.run(bounds=("earliest", "latest"))
    run.publish(run.read(topic).select(F.col("id").alias("key"), F.col("id").alias("value")), topic)
    line, table = run.write_range()
    assert line.endswith("rejected 1")
    assert scratch.rows(f"{run.tables_root.rsplit('/', 1)[1]}/{topic}") == [("a", "a")]
    assert "1 rows" in table
    settings = scratch.settings()
    records = source_sink.read_batch(scratch.spark, settings.kafka, settings.source, source_sink.Subscription((topic,)))
    assert records.count() == 2


def test_fields_that_are_wanted_come_alone_and_rules_see_theirs_too(scratch: Scratch) -> None:
    topic = scratch.topic(event_time="at")
    scratch.register(topic, {"name": "at", "type": ["null", TIME], "default": None}, {"name": "note", "type": "string"})
    scratch.declare(topic, Range(field="level", max=5, name="low", on_failure="quarantine"))
    sound = scratch.reading(topic, "a", 1, at=T0, note="x" * 9)
    assert sound.value
    broken_note, cut_short = Record(sound.value[:-9] + b"\xff" * 9, b"a"), Record(sound.value[:-1], b"a")
    scratch.send(topic, sound, scratch.reading(topic, "b", 6, at=T0, note=""), broken_note, cut_short)
    for fields, expected in ((("id",), [("a",), ("a",)]), (("note", "id"), [("x" * 9, "a")])):
        events = scratch.run(bounds=("earliest", "latest")).read(topic, fields=fields)
        assert [tuple(row) for row in events.collect()] == expected


def test_a_field_that_no_event_has_is_named_with_the_nearest(scratch: Scratch) -> None:
    with pytest.raises(TidemarkError, match=r"UNKNOWN_FIELD: events of Reading have no field `levl`; .*level"):
        scratch.run().read(scratch.topic(), fields=("levl",))


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), ("id",)], ids=["append", "upsert"])
def test_a_query_with_state_goes_on_after_a_crash_between_its_table_and_the_commit_log(
    scratch: Scratch, keys: tuple[str, ...]
) -> None:
    topic = scratch.topic(event_time="at")
    moments = [1_357_000_000_000 + 60_000 * minute for minute in range(6)]
    scratch.send(topic, *(scratch.reading(topic, str(number % 4), 1, at=at) for number, at in enumerate(moments)))

    def declare(crash: bool) -> Run:
        run = scratch.run("source.max_offsets_per_trigger=2")
        once = run.read(topic).withWatermark("at", "1 hour").dropDuplicatesWithinWatermark(["id"])
        table = run.table("once", keys)

        def write(batch: Batch) -> None:
            delta_table.write(batch.frame, table, batch.commit("write"))
            if crash and batch.version == 1:
                raise ValueError("the driver dies")

        run.write(once, "once", write)
        return run

    with pytest.raises(TidemarkError, match="the driver dies"):
        scratch.catch_up(declare(crash=True))
    scratch.catch_up(declare(crash=False))
    assert [row[0] for row in scratch.rows("once")] == ["0", "1", "2", "3"]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_range_whose_records_are_all_rejected_merges_nothing_and_says_what_it_read(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, *(Record(b"no Avro", b"k") for _ in range(3)))
    run = scratch.run(bounds=("earliest", "latest"))
    run.upsert(run.read(topic), "levels", keys=("id",))
    read, written = run.write_range()
    assert "3 offsets" in read
    assert "0 rows" in written
