"""Runs a replay as streams, slice by slice, each as one micro-batch of the job's own queries.

A slice begins at the same time in all partitions, and the watermark waits until nothing before it is still to come:
so nothing is late, however unequal the partitions are. A run that was cut short goes on with the slice that was cut.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.fail_points import fail_point
from jobs.connectors.hadoop_files import Folders
from jobs.connectors.spark_internals import offset_log_metadata
from jobs.operations.replay.record import Partitions
from jobs.operations.replay.side_run import SideRun
from jobs.pipeline import checkpoint, paths, state_store
from jobs.pipeline.checkpoint_format import METADATA, commit_file, entry_file, next_watermark_ms
from jobs.pipeline.outputs import Batch, Output
from jobs.pipeline.plan_analysis import Source, keeps_state, sources
from jobs.pipeline.supervision import await_all
from jobs.pipeline.termination import batch_errors, single_line_errors

STATE_PARTITIONS = "spark.sql.streaming.internal.stateStore.partitions"
QUERY_IDS = uuid.UUID("7c0c9a5e-5f53-4a55-9d43-7a6f8b3f9b11")  # the namespace of the query ids of replays
DATA_LOST = "DATA_LOST"
ATTEMPTS = 3  # at a slice, if retention deletes records meanwhile
Show = Callable[[str], None]


def retry_after_data_loss(run_slice: Callable[[], None]) -> None:
    """Run a slice, and again if its query stopped by DATA_LOST: then bronze gives what retention has deleted."""
    for _ in range(ATTEMPTS - 1):
        try:
            return run_slice()
        except TidemarkError as error:
            stop = error.__cause__
            if not (isinstance(stop, TidemarkError) and stop.code == DATA_LOST):
                raise
    run_slice()


class LateRowsError(Exception):
    """Spark dropped rows of a slice: the watermark was trusted too early."""


@dataclass
class ReadSpeed:
    """How fast one run of a replay has read."""

    records: int = 0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return self.records / self.seconds if self.seconds else 0.0


class OffsetLogWriter:
    """Writes the offset log of a query ahead of Spark: which offsets a batch takes, and its watermark.

    Args:
        folder: the query's checkpoint.
        name: gives the query its id, the same wherever and however often the replay is run.
    """

    def __init__(self, spark: SparkSession, folder: str, name: str, sources: Sequence[Source]) -> None:
        self._spark, self._folder, self._sources = spark, folder, sources
        self._watermarks: dict[int, int] = {}
        self.query_id = str(uuid.uuid5(QUERY_IDS, name))

    def last_commit(self) -> int | None:
        """Return the last batch that Spark took for done."""
        return checkpoint.last_commit(self._spark, self._folder)

    def watermark_after(self, batch: int) -> int:
        """Return where Spark put the watermark after `batch`, ms since 1970; 0 where it does not say."""
        if batch not in self._watermarks:
            text = checkpoint.read(self._spark, f"{self._folder}/{commit_file(batch)}")
            self._watermarks[batch] = next_watermark_ms(text or "")
        return self._watermarks[batch]

    def write_batch(
        self, batch: int, starts: Mapping[Source, Any], ends: Mapping[Source, Any], clock_ms: int, watermark_ms: int
    ) -> None:
        """Write the entry of `batch`, from `starts` to before `ends`; the batch before it then ended at `starts`."""
        if batch == 0:
            self._begin_log(starts)
        else:
            self._write(entry_file(batch - 1), [self._head(batch - 1), *self._offset_lines(starts)])
        self._write(entry_file(batch), [self._metadata(watermark_ms, clock_ms), *self._offset_lines(ends)])

    def _begin_log(self, starts: Mapping[Source, Any]) -> None:
        checkpoint.write(self._spark, f"{self._folder}/{METADATA}", json.dumps({"id": self.query_id}))
        for number, source in enumerate(self._sources):
            if source.topic:
                checkpoint.set_initial_offsets(self._spark, self._folder, number, starts[source])

    def _head(self, batch: int) -> str:
        return (checkpoint.entry(self._spark, self._folder, batch) or "").splitlines()[1]

    def _metadata(self, watermark_ms: int, clock_ms: int) -> str:
        """Return the head of an entry, with the settings of this session that a checkpoint freezes."""
        # A running query has this one from its shuffle partitions; it is frozen under their name.
        self._spark.conf.set(STATE_PARTITIONS, str(self._spark.conf.get("spark.sql.shuffle.partitions")))
        try:
            return offset_log_metadata(self._spark, watermark_ms, clock_ms)
        finally:
            self._spark.conf.unset(STATE_PARTITIONS)

    def _offset_lines(self, offsets: Mapping[Source, Any]) -> list[str]:
        return [json.dumps(offsets[source]) for source in self._sources]

    def _write(self, file: str, lines: Sequence[str]) -> None:
        checkpoint.write(self._spark, f"{self._folder}/{file}", "\n".join(["v1", *lines]))


def delta_offset(table_id: str, version: int) -> dict[str, Any]:
    """Return where a stream is in a Delta table once it has read all up to `version`."""
    position = {"reservoirId": table_id, "reservoirVersion": version + 1, "index": -1}
    return {"sourceVersion": 1, **position, "isStartingVersion": False}


def kafka_offset(topic: str, offsets: Mapping[int, int]) -> dict[str, Any]:
    """Return where a stream is in a topic before these offsets."""
    return {topic: {str(partition): offset for partition, offset in sorted(offsets.items())}}


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
    show: Show
    require_lock: Callable[[], None]
    hold_watermark: bool = False
    speed: ReadSpeed = field(default_factory=ReadSpeed)

    def __post_init__(self) -> None:
        self._folder = self.run.checkpoint(self.output)
        self._sources = sources(self.output.frame)
        name = f"{self.run.replay.id}/{self.output.query}"
        self._log = OffsetLogWriter(self.run.spark, self._folder, name, self._sources)
        self._slices = self.run.replay.slices
        self._keeps_state = keeps_state(self.output.frame)
        self._topics = list(dict.fromkeys(source.topic for source in self._sources if source.topic))

    def complete(self) -> None:
        """Run what is not done yet.

        Raises:
            LateRowsError: start over with the watermark held.
            TidemarkError: what the job's query ends with; RANGE_GONE.
        """
        done = self._log.last_commit()
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
        starts, untils = self._edges(batch)
        self._write_offsets(batch, starts, untils)
        since = {topic: self.run.replay.starts[topic] for topic in self._topics}
        offsets = {"from": _entries(starts), "until": _entries(untils), "since": _entries(since)}
        fail_point("replay-slice-put-in", self.run.replay.job, batch=batch)
        query = self._start(partial(self._write, batch, offsets))
        await_all(self.run.spark, [query])
        self._require_done(batch)
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

    def _edges(self, batch: int) -> tuple[Mapping[str, Partitions], Mapping[str, Partitions]]:
        number = batch - 1
        replay = self.run.replay
        edges = (replay.start_of(max(number, 0)), replay.start_of(min(batch, len(self._slices))))
        if number >= len(self._slices):
            edges = replay.untils, replay.untils
        starts, untils = edges if batch else (replay.starts, replay.starts)
        return {topic: starts[topic] for topic in self._topics}, {topic: untils[topic] for topic in self._topics}

    def _write_offsets(self, batch: int, starts: Mapping[str, Partitions], untils: Mapping[str, Partitions]) -> None:
        begins: dict[Source, Any] = {}
        ends: dict[Source, Any] = {}
        for topic in self._topics:
            bronze = self.run.bronze[topic]
            kept: Partitions = starts[topic]
            if bronze.has_bronze:
                kept = bronze.earliest(starts[topic], untils[topic])
                restored, before = Source(path=bronze.path), bronze.version()
                begins[restored] = delta_offset(bronze.table_id(), before)
                ends[restored] = delta_offset(bronze.table_id(), bronze.restore(starts[topic], kept))
            begins[Source(topic)] = kafka_offset(topic, kept)
            ends[Source(topic)] = kafka_offset(topic, untils[topic])
        clock = round(self.run.replay.planned_at.timestamp() * 1000)
        state_store.configure(self.run.spark, self.run.settings.spark, self.run.job_settings(self.output.job))
        self._log.write_batch(batch, begins, ends, clock, self._watermark(batch))

    def _watermark(self, batch: int) -> int:
        """Return the watermark that `batch` runs with: Spark's own after the last safe slice (`Slice.watermark_slice`).

        The last batch also closes the windows that the live query has closed, by events that the range does not reach.
        """
        is_last = batch > len(self._slices)
        if is_last:
            newest = len(self._slices) - 1
        else:
            newest = -1 if self.hold_watermark or batch < 2 else self._slices[batch - 2].watermark_slice
        own = max((self._log.watermark_after(number + 1) for number in range(newest + 1)), default=0)
        return max(own, self._live_watermark_ms()) if is_last else own

    def _live_watermark_ms(self) -> int:
        parts = (part for part in self.run.replay.parts if part.query == self.output.query)
        return max((round(part.watermark.timestamp() * 1000) for part in parts if part.watermark), default=0)

    def _start(self, write: Callable[[DataFrame, int], None]) -> StreamingQuery:
        checkpoint.choose_file_manager(self.run.spark, self._folder)
        writer = self.output.frame.writeStream.queryName(self.output.query)
        writer = writer.option("checkpointLocation", self._folder).outputMode(self.output.mode)
        # `availableNow` would go on past the slice.
        return writer.foreachBatch(write).trigger(once=True).start()

    def _write(self, batch: int, offsets: Mapping[str, object], frame: DataFrame, version: int) -> None:
        with batch_errors(frame.sparkSession):
            if version != batch:
                what = f"{self.output.query} ran batch {version}, not {batch}"
                raise TidemarkError("REPLAY_ASTRAY", what, "start over")
            identity = self.output.query, self._log.query_id, version, self.run.replay.planned_at, self.run.tables_root
            slice = Batch(frame, *identity, offsets, keeps_state=self._keeps_state)
            with self.run.recording(slice), single_line_errors():
                self.output.write(slice)
            fail_point("replay-slice-written", self.run.replay.job, batch=batch)

    def _require_done(self, batch: int) -> None:
        if self._log.last_commit() != batch:
            message = f"{self.output.query} did not run batch {batch} of replay {self.run.replay.id}"
            raise TidemarkError(
                "REPLAY_ASTRAY",
                message,
                "read the log; abandon the replay, then plan it again: that is a further attempt",
            )

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
        parts += [f"about {left / self.speed.per_second:,.0f} s left"] if left and self.speed.records else []
        self.show(f"{self.output.query:<28} " + "  ".join(parts))


def _entries(offsets: Mapping[str, Partitions]) -> list[dict[str, dict[int, int]]]:
    """Return the offsets as a commit's metadata has them: an entry a topic."""
    return [{topic: dict(partitions)} for topic, partitions in offsets.items()]
