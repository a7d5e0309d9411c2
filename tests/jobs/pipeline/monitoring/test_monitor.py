"""What a run of real queries tells: a row for each micro-batch, a group that shows its lag, and why it stopped."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from jobs.connectors.delta import table as delta_table
from jobs.ingest import job as ingest_job
from jobs.operations import history
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.lag import Positions
from jobs.pipeline.monitoring.monitor import Monitor
from jobs.pipeline.outputs import Batch
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import supervise
from tests.jobs.scratch import Scratch
from tests.sent import Record

SIZE = 9  # bytes of the key and the value of a reading with a name of one letter
GROUP = "tidemark.probe.readings"


def declared(scratch: Scratch, topic: str, write: Callable[[Batch], None] | None = None) -> Run:
    run = scratch.run("source.max_offsets_per_trigger=2")
    if write is None:
        run.append(run.read(topic), "readings")
    else:
        run.write(run.read(topic), "readings", write)
    return run


def watch(run: Run) -> None:
    with Monitor(run) as monitor:
        supervise(run.spark, run.starts(continuous=False), on_stop=monitor.stopped)


def rows(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = micro_batch_table.micro_batches(run.settings).to_pylist(maps_as_pydicts="strict")
    return found


def committed(run: Run, topic: str) -> int:
    admin = AdminClient(run.settings.kafka.client_config())
    request = [ConsumerGroupTopicPartitions(GROUP, [TopicPartition(topic, 0)])]
    [future] = admin.list_consumer_group_offsets(request).values()
    return int(future.result().topic_partitions[0].offset)


def test_each_batch_leaves_a_row_and_the_group_is_where_the_query_is(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, *(scratch.reading(topic, str(number), number) for number in range(3)))
    run = declared(scratch, topic)
    listeners = scratch.spark._jsparkSession.streams().listListeners
    others = len(listeners())
    watch(run)
    assert len(listeners()) == others
    found = rows(run)
    assert [(row["query"], row["batch"], row["outcome"], row["rows_in"]) for row in found] == [
        ("probe.readings", 0, "done", 2),
        ("probe.readings", 1, "done", 1),
    ]
    spans = [(span["topic"], span["partition"], span["start"], span["end"]) for row in found for span in row["offsets"]]
    assert spans == [(topic, 0, 0, 2), (topic, 0, 2, 3)]
    assert found[0]["phases"]["addBatch"] > 0
    assert {"check topics", "check schemas", "write readings"} <= found[0]["write_phases"].keys()
    assert [(row["run"], row["rows_out"], row["bytes_in"]) for row in found] == [
        ("stream", {"readings": 2}, 2 * SIZE),
        ("stream", {"readings": 1}, SIZE),
    ]
    assert found[0]["job"] == "probe"
    assert committed(run, topic) == 3
    text = "\n".join([*history.lines(found), *history.explained(found[1])])
    assert f'./spark-submit.sh probe --from \'{{"{topic}": {{"0": 2}}}}\' --to \'{{"{topic}": {{"0": 3}}}}\'' in text


@pytest.mark.slow
def test_rejects_are_told_by_code_and_rows_by_the_table_that_they_went_to(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, scratch.reading(topic, "a", 1), Record(b"bad"), Record(b"bad"))
    run = scratch.run(f"ingest.topics={topic}", job="ingest")
    ingest_job.build(run)
    watch(run)
    [row] = rows(run)
    assert row["rejected_by_code"] == {"BAD_FRAMING": 2}
    assert row["rows_out"] == {f"bronze/{topic}": 3, f"silver/{topic}": 1, "quarantine": 2}
    assert not run.counted  # a driver may run for months


@pytest.mark.slow
def test_records_that_are_published_at_least_once_are_counted(scratch: Scratch) -> None:
    topic, target = scratch.topic(), scratch.topic()
    scratch.send(topic, *(scratch.reading(topic, str(number), number) for number in range(5)), Record(b"bad"))
    run = scratch.run("source.max_offsets_per_trigger=4")
    records = run.read(topic).where("level > 0").selectExpr("id AS key", "cast(level AS string) AS value")
    run.publish(records, target, delivery="at-least-once")
    watch(run)
    assert [(row["rows_in"], row["rejected"], row["rows_out"]) for row in rows(run)] == [
        (4, 0, {target: 3}),
        (2, 1, {target: 1}),
    ]


@pytest.mark.slow
def test_a_batch_that_is_written_to_several_places_was_read_once(scratch: Scratch) -> None:
    topic, target = scratch.topic(), scratch.topic()
    scratch.send(topic, *(scratch.reading(topic, str(number), number) for number in range(3)), Record(b"bad"))
    run = scratch.run()

    def write(batch: Batch) -> None:
        for name in ("one", "other"):
            delta_table.write(batch.frame, run.table(name), batch.commit(name))

    run.write(run.read(topic), "tables", write)
    run.write_and_publish(run.read(topic), "both", target, lambda rows: rows.selectExpr("id AS key", "id AS value"))
    watch(run)
    counted = {row["query"]: (row["rows_in"], row["rejected"], row["rows_out"]) for row in rows(run)}
    assert counted == {
        "probe.tables": (4, 1, {"one": 3, "other": 3}),
        "probe.both": (4, 1, {"both": 3, target: 3}),
    }
    assert not run.counted


def test_a_range_leaves_a_row_and_so_does_one_that_fails(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, *(scratch.reading(topic, str(number), number) for number in range(3)))
    for write in (None, lambda batch: stop()):
        run = scratch.run(bounds=("earliest", "latest"))
        frame = run.read(topic)
        run.write(frame, "readings", write) if write else run.append(frame, "readings")
        with Monitor(run), suppress(TidemarkError):
            run.write_range()
    done, failed = rows(run)
    assert (done["run"], done["outcome"], done["rows_in"], done["rows_out"]) == ("range", "done", 3, {"readings": 3})
    assert done["offsets"] == [{"topic": topic, "partition": 0, "start": 0, "end": 3}]
    assert (failed["outcome"], failed["error"]) == ("failed", "DISK_FULL: no space is left")


def stop() -> None:
    raise TidemarkError("DISK_FULL", "no space is left", "make room")


@pytest.mark.slow
def test_a_falsified_group_changes_nothing_but_what_it_shows(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, *(scratch.reading(topic, str(number), number) for number in range(2)))
    run = declared(scratch, topic)
    watch(run)
    admin = AdminClient(run.settings.kafka.client_config())
    false = [ConsumerGroupTopicPartitions(GROUP, [TopicPartition(topic, 0, 0)])]
    for future in admin.alter_consumer_group_offsets(false).values():
        future.result()
    scratch.send(topic, scratch.reading(topic, "new", 9))
    watch(declared(scratch, topic))
    assert len(scratch.rows("readings", "id")) == 3
    assert committed(run, topic) == 3


def test_a_batch_that_fails_leaves_its_cause(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, scratch.reading(topic, "a", 1))
    run = declared(scratch, topic, lambda batch: stop())
    with pytest.raises(TidemarkError, match="DISK_FULL"):
        watch(run)
    [row] = rows(run)
    assert (row["outcome"], row["error"]) == ("failed", "DISK_FULL: no space is left")
    assert row["offsets"] == [{"topic": topic, "partition": 0, "start": 0, "end": 1}]
    assert "DISK_FULL: no space is left" in "\n".join(history.lines([row]))


def test_a_stop_before_a_batch_is_written_leaves_the_one_before_as_done(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = scratch.topic()
    scratch.send(topic, *(scratch.reading(topic, str(number), number) for number in range(3)))
    run = declared(scratch, topic)
    checked: list[object] = []

    def check(topics: object) -> None:
        checked.append(topics)
        if len(checked) == 2:
            raise TidemarkError("TOPIC_RECREATED", "another topic", "")

    monkeypatch.setattr(run.schemas, "check", check)
    with pytest.raises(TidemarkError, match="TOPIC_RECREATED"):
        watch(run)
    assert [row["outcome"] for row in rows(run) if row["batch"] == 0] == ["done"]


def test_lag_is_asked_of_the_brokers(scratch: Scratch) -> None:
    topic = scratch.topic(partitions=2)
    scratch.send(topic, *(scratch.reading(topic, str(number), number) for number in range(5)))
    scratch.send(topic, *(scratch.reading(topic, str(number), number, partition=1) for number in range(4)))
    scratch.delete_records(topic, {1: 1})
    positions = Positions(scratch.settings().kafka)
    positions.advance("probe", "probe", {(topic, 0): 3})
    lag, of_added = sorted(positions.measure(), key=lambda lag: lag.partition)
    assert (lag.position, lag.records, lag.unstable) == (3, 2, 0)
    assert lag.seconds > 0
    assert (of_added.position, of_added.records) == (1, 3)
    positions.advance("probe", "probe", {(topic, 0): 5, (topic, 1): 4})
    assert [(lag.records, lag.seconds) for lag in positions.measure()] == [(0, 0.0), (0, 0.0)]


@pytest.mark.slow
def test_a_query_that_was_started_again_and_waits_has_a_lag(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, measured = scratch.topic(), list[tuple[int, int]]()
    for _ in range(2):
        scratch.send(topic, *(scratch.reading(topic, str(number), number) for number in range(2)))
        run = declared(scratch, topic)
        monitor = Monitor(run)

        def check(topics: object, monitor: Monitor = monitor) -> None:
            monitor._find_positions()
            measured.extend((lag.position, lag.records) for lag in monitor._positions.measure())

        monkeypatch.setattr(run.schemas, "check", check)
        with monitor:
            supervise(run.spark, run.starts(continuous=False), on_stop=monitor.stopped)
    assert measured == [(0, 2), (2, 2)]
