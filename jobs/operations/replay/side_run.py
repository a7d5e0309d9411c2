"""Runs the job of a replay as streams beside its live tables, slice by slice, each as one micro-batch of its queries.

A slice begins at the same time in all partitions, and the watermark waits until nothing before it is still to come:
so nothing is late, however unequal the partitions are. A run that was cut short goes on with the slice that was cut.
What retention has removed from a topic comes from bronze.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.delta import table as delta_table
from jobs.connectors.delta.log import snapshot
from jobs.connectors.exactly_once.fail_points import fail_point
from jobs.connectors.hadoop_files import Folders
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.offsets import OffsetLookup, Partitions
from jobs.connectors.spark_internals import offset_log_metadata
from jobs.operations.replay.record import Replay, ReplayPaths
from jobs.pipeline import checkpoint, paths, state_store
from jobs.pipeline.checkpoint_format import METADATA, commit_file, entry_file, next_watermark_ms
from jobs.pipeline.outputs import Batch, Output
from jobs.pipeline.plan_analysis import Source, keeps_state, sources
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from jobs.pipeline.termination import batch_errors, single_line_errors

STATE_PARTITIONS = "spark.sql.streaming.internal.stateStore.partitions"
QUERY_IDS = uuid.UUID("7c0c9a5e-5f53-4a55-9d43-7a6f8b3f9b11")  # the namespace of the query ids of replays
ATTEMPTS = 3  # at a slice, if retention deletes records meanwhile
SCHEMA = (
    "key binary, value binary, topic string, partition int, offset long, timestamp timestamp, timestampType int, "
    f"headers {source_sink.HEADERS}"
)


class SideRun(Run):
    """The job of a replay as streams, into tables of its own."""

    def __init__(self, spark: SparkSession, settings: Settings, replay: Replay) -> None:
        places = ReplayPaths(settings, replay.id)
        roots = {"tables": places.side_run, "checkpoints": places.checkpoints}
        own_paths = settings.paths.model_copy(update=roots)
        super().__init__(spark, settings.model_copy(update={"paths": own_paths}), replay.job)
        self.replay = replay
        self.bronze = {topic: BronzeSource(spark, settings, replay.id, topic) for topic in replay.starts}

    @property
    def is_apart(self) -> bool:
        """Return True: the past is not tried out in a live topic."""
        return True

    def records(self, topic: str) -> DataFrame:
        """Return the topic's records, and from bronze those that the topic no longer has."""
        start = json.dumps({topic: self.replay.starts[topic]})
        source = self._source().model_copy(update={"starting_offsets": start})
        in_topic = source_sink.read_stream(self.spark, self.settings.kafka, source, source_sink.Subscription((topic,)))
        bronze = self.bronze[topic]
        return bronze.stream().unionByName(in_topic) if bronze.has_bronze else in_topic


class BronzeSource:
    """Supplies records of one topic to the replay `id`: as a batch, or copied to a table that a stream reads."""

    def __init__(self, spark: SparkSession, settings: Settings, id: str, topic: str) -> None:
        self._spark, self._kafka, self.topic = spark, settings.kafka, topic
        self._bronze = paths.table(settings.paths.tables, paths.bronze(topic))
        self.path = paths.table(ReplayPaths(settings, id).restored, topic)
        self.has_bronze = delta_table.exists(spark, self._bronze)

    def earliest(self, starts: Partitions, untils: Partitions) -> dict[int, int]:
        """Return the first offset that the topic itself still holds of [starts, untils), by partition."""
        with OffsetLookup(self._kafka) as lookup:
            first, _ = lookup.edges(self.topic)
        return {partition: min(max(start, first[partition]), untils[partition]) for partition, start in starts.items()}

    def stream(self) -> DataFrame:
        """Read the records that bronze supplies, as they come, in the columns of a topic's records."""
        table = delta_table.Table("restored", self.path)
        delta_table.create_if_missing(self._spark.createDataFrame([], SCHEMA), table)
        stream = self._spark.readStream.format("delta").option("startingVersion", "0").load(self.path)
        return stream.select(*source_sink.COLUMNS)

    def batch(self, starts: Partitions, untils: Partitions) -> DataFrame:
        """Return the records [starts, untils) of bronze.

        Raises:
            TidemarkError: RANGE_GONE, where bronze is not there.
        """
        if not self.has_bronze:
            partition = next(partition for partition, until in untils.items() if until > starts[partition])
            where = f"{self.topic} partition {partition}: offsets {starts[partition]} to {untils[partition] - 1}"
            what = f"{where} are gone from the topic, and there is no bronze"
            raise TidemarkError("RANGE_GONE", what, "begin later")
        in_ranges = (
            (F.col("partition") == partition) & (F.col("offset") >= start) & (F.col("offset") < untils[partition])
            for partition, start in starts.items()
            if untils[partition] > start
        )
        rows = self._spark.read.format("delta").load(self._bronze).select(*source_sink.COLUMNS)
        return rows.where(reduce(or_, in_ranges, F.lit(False)))

    def restore(self, starts: Partitions, untils: Partitions) -> None:
        """Copy the records [starts, untils) from bronze to the table of `stream`.

        Raises:
            TidemarkError: RANGE_GONE, where bronze is not there.
        """
        if any(until > starts[partition] for partition, until in untils.items()):
            self.batch(starts, untils).write.format("delta").mode("append").save(self.path)

    def position(self) -> dict[str, Any]:
        """Return where `stream` is once it has read all that its table holds now, as Spark's offset log has it."""
        table = snapshot(self._spark, self.path)
        position = {"reservoirId": table.table_id(), "reservoirVersion": table.version + 1, "index": -1}
        return {"sourceVersion": 1, **position, "isStartingVersion": False}


class LateRowsError(Exception):
    """Spark dropped rows of a slice: the watermark was trusted too early."""


@dataclass
class ReadSpeed:
    """How fast one run of a replay has read."""

    records: int = 0
    seconds: float = 0.0


@dataclass
class SliceRunner:
    """Runs the query of one output of a replay.

    Args:
        show: takes a line for each slice.
        require_lock: raises, where the right to run the replay is lost.
        hold_watermark: let the watermark wait until all is read.
    """

    run: SideRun
    output: Output
    show: Callable[[str], None]
    require_lock: Callable[[], None]
    speed: ReadSpeed
    hold_watermark: bool

    def __post_init__(self) -> None:
        self._folder = self.run.checkpoint(self.output)
        self._sources = sources(self.output.frame)
        # The same id, wherever and however often the replay is run.
        self._query_id = str(uuid.uuid5(QUERY_IDS, f"{self.run.replay.id}/{self.output.query}"))
        self._watermarks: dict[int, int] = {}
        self._slices = self.run.replay.slices
        self._keeps_state = keeps_state(self.output.frame)
        self._topics = list(dict.fromkeys(source.topic for source in self._sources if source.topic))

    def complete(self) -> None:
        """Run what is not done yet.

        Raises:
            LateRowsError: start over with the watermark held.
            TidemarkError: what the job's query ends with; RANGE_GONE.
        """
        done = checkpoint.last_commit(self.run.spark, self._folder)
        # Batch 0 is empty and makes the state; another empty one at the end closes what the watermark has passed.
        last = len(self._slices) + (1 if self._keeps_state else 0)
        for batch in range(0 if done is None else done + 1, last + 1):
            self.require_lock()
            retry_after_data_loss(partial(self._run_batch, batch))

    def start_over(self) -> None:
        """Forget what has been done, remove the output's tables, and hold the watermark from now on."""
        self.hold_watermark = True
        Folders(self.run.spark).remove(self._folder)
        for rows in self.output.tables:
            Folders(self.run.spark).remove(paths.table(self.run.tables_root, rows.table))
        self.__post_init__()

    def _run_batch(self, batch: int) -> None:
        began = time.monotonic()
        replay = self.run.replay
        edges = replay.start_of(max(batch - 1, 0)), replay.start_of(min(batch, len(self._slices))), replay.starts
        starts, untils, since = ({topic: edge[topic] for topic in self._topics} for edge in edges)
        self._write_offset_log(batch, starts, untils)
        offsets = {"from": topic_entries(starts), "until": topic_entries(untils), "since": topic_entries(since)}
        fail_point("replay-slice-put-in", replay.job, batch=batch)
        checkpoint.choose_file_manager(self.run.spark, self._folder)
        writer = self.output.frame.writeStream.queryName(self.output.query).outputMode(self.output.mode)
        writer = writer.option("checkpointLocation", self._folder).foreachBatch(partial(self._write, batch, offsets))
        query = writer.trigger(once=True).start()  # `availableNow` would go on past the slice
        await_all(self.run.spark, [query])
        if checkpoint.last_commit(self.run.spark, self._folder) != batch:
            message = f"{self.output.query} did not run batch {batch} of replay {replay.id}"
            remedy = "read the log; abandon the replay, then plan it again: that is a further attempt"
            raise TidemarkError("REPLAY_ASTRAY", message, remedy)
        progress = query.lastProgress
        dropped = sum(state.numRowsDroppedByWatermark for state in progress.stateOperators) if progress else 0
        if dropped:
            raise LateRowsError
        count = sum(
            until - starts[topic][partition]
            for topic, partitions in untils.items()
            for partition, until in partitions.items()
        )
        self._show_progress(batch, count, time.monotonic() - began)

    def _write_offset_log(self, batch: int, starts: Mapping[str, Partitions], untils: Mapping[str, Partitions]) -> None:
        """Write ahead of Spark which offsets `batch` takes, and its watermark; the batch before it ends at `starts`."""
        begins: dict[Source, Any] = {}
        ends: dict[Source, Any] = {}
        for topic in self._topics:
            bronze = self.run.bronze[topic]
            kept: Partitions = starts[topic]
            if bronze.has_bronze:
                kept = bronze.earliest(starts[topic], untils[topic])
                restored = Source(path=bronze.path)
                begins[restored] = bronze.position()
                bronze.restore(starts[topic], kept)
                ends[restored] = bronze.position()
            begins[Source(topic)] = kafka_offset(topic, kept)
            ends[Source(topic)] = kafka_offset(topic, untils[topic])
        spark = self.run.spark
        state_store.configure(spark, self.run.settings.spark, self.run.job_settings(self.output.job))
        if batch:
            head = (checkpoint.entry(spark, self._folder, batch - 1) or "").splitlines()[1]
            self._write_entry(batch - 1, head, begins)
        else:
            checkpoint.write(spark, f"{self._folder}/{METADATA}", json.dumps({"id": self._query_id}))
            for number, source in enumerate(self._sources):
                if source.topic:
                    checkpoint.set_initial_offsets(spark, self._folder, number, begins[source])
        # A running query has this one from its shuffle partitions; the entry's head has it frozen under their name.
        spark.conf.set(STATE_PARTITIONS, str(spark.conf.get("spark.sql.shuffle.partitions")))
        try:
            clock = round(self.run.replay.planned_at.timestamp() * 1000)
            head = offset_log_metadata(spark, self._watermark(batch), clock)
        finally:
            spark.conf.unset(STATE_PARTITIONS)
        self._write_entry(batch, head, ends)

    def _write_entry(self, batch: int, head: str, offsets: Mapping[Source, Any]) -> None:
        lines = ["v1", head, *(json.dumps(offsets[source]) for source in self._sources)]
        checkpoint.write(self.run.spark, f"{self._folder}/{entry_file(batch)}", "\n".join(lines))

    def _watermark(self, batch: int) -> int:
        """Return the watermark that `batch` runs with: Spark's own after the last safe slice (`Slice.watermark_slice`).

        The last batch also closes the windows that the live query has closed, by events that the range does not reach.
        """
        is_last = batch > len(self._slices)
        if is_last:
            newest = len(self._slices) - 1
        else:
            newest = -1 if self.hold_watermark or batch < 2 else self._slices[batch - 2].watermark_slice
        watermarks = [0, *(self._watermark_after(number + 1) for number in range(newest + 1))]
        if is_last:
            parts = (part for part in self.run.replay.parts if part.query == self.output.query)
            watermarks += [round(part.watermark.timestamp() * 1000) for part in parts if part.watermark]
        return max(watermarks)

    def _watermark_after(self, batch: int) -> int:
        """Return where Spark put the watermark after `batch`, ms since 1970; 0 where it does not say."""
        if batch not in self._watermarks:
            text = checkpoint.read(self.run.spark, f"{self._folder}/{commit_file(batch)}")
            self._watermarks[batch] = next_watermark_ms(text or "")
        return self._watermarks[batch]

    def _write(self, batch: int, offsets: Mapping[str, object], frame: DataFrame, version: int) -> None:
        with batch_errors(frame.sparkSession):
            if version != batch:
                what = f"{self.output.query} ran batch {version}, not {batch}"
                raise TidemarkError("REPLAY_ASTRAY", what, "start over")
            identity = self.output.query, self._query_id, version, self.run.replay.planned_at, self.run.tables_root
            slice = Batch(frame, *identity, offsets, keeps_state=self._keeps_state)
            with self.run.recording(slice), single_line_errors():
                self.output.write(slice)
            fail_point("replay-slice-written", self.run.replay.job, batch=batch)

    def _show_progress(self, batch: int, count: int, seconds: float) -> None:
        self.speed.records += count
        self.speed.seconds += seconds
        if not 0 < batch <= len(self._slices):
            return
        left = sum(
            until - self._slices[batch - 1].until[topic][partition]
            for topic in self._topics
            for partition, until in self.run.replay.untils[topic].items()
        )
        parts = [f"slice {batch} of {len(self._slices)}", f"{count:,} records", f"{count / seconds:,.0f} records/s"]
        until = self._slices[batch - 1].ends_at
        parts += [f"to {until[:16].replace('T', ' ')}"] if until else []
        parts += (
            [f"about {left * self.speed.seconds / self.speed.records:,.0f} s left"]
            if left and self.speed.records
            else []
        )
        self.show(f"{self.output.query:<28} " + "  ".join(parts))


def topic_entries(offsets: Mapping[str, Partitions]) -> list[dict[str, dict[int, int]]]:
    """Return the offsets as a commit's metadata has them: an entry a topic."""
    return [{topic: dict(partitions)} for topic, partitions in offsets.items()]


def retry_after_data_loss(run_slice: Callable[[], None]) -> None:
    """Run a slice, and again if its query stopped by DATA_LOST: then bronze gives what retention has deleted."""
    for _ in range(ATTEMPTS - 1):
        try:
            return run_slice()
        except TidemarkError as error:
            stop = error.__cause__
            if not (isinstance(stop, TidemarkError) and stop.code == "DATA_LOST"):
                raise
    run_slice()


def kafka_offset(topic: str, offsets: Mapping[int, int]) -> dict[str, Any]:
    """Return where a stream is in a topic before these offsets."""
    return {topic: {str(partition): offset for partition, offset in sorted(offsets.items())}}
