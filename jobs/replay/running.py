"""Runs a replay, slice by slice, each as one micro-batch of the job's own queries.

A slice begins at the same time in all partitions, and the watermark waits until nothing before it is still to come:
so nothing is late, however unequal the partitions are. What was cut short goes on with the slice that was cut.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from jobs import state_store
from jobs.connectors.ledger.failpoints import reach
from jobs.failures import await_all, in_one_line
from jobs.folders import Folders
from jobs.outputs import Batch, Output
from jobs.plans import Source, keeps_state, sources
from jobs.replay.ahead import OffsetLog, delta_position, kafka_position
from jobs.replay.record import Partitions
from jobs.replay.shadow import ShadowRun

DATA_LOST = "DATA_LOST"
ATTEMPTS = 3  # at a slice whose records retention takes while it is read
Show = Callable[[str], None]


class LateRowsError(Exception):
    """Spark dropped rows of a slice: the watermark was trusted too early."""


@dataclass
class Speed:
    """Of what one run of a replay has read."""

    records: int = 0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return self.records / self.seconds if self.seconds else 0.0


@dataclass
class SliceRunner:
    """Runs the query of one output of a replay.

    Args:
        show: takes a line for each slice.
        hold: trust no watermark before all is read.
        alive: raises, where the right to run the replay is lost.
    """

    run: ShadowRun
    output: Output
    show: Show
    alive: Callable[[], None]
    hold: bool = False
    speed: Speed = field(default_factory=Speed)

    def __post_init__(self) -> None:
        self._folder = self.run.checkpoint(self.output)
        self._sources = sources(self.output.frame)
        name = f"{self.run.replay.id}/{self.output.query}"
        self._log = OffsetLog(self.run.spark, self._folder, name, self._sources)
        self._slices = self.run.replay.slices
        self._keeps_state = keeps_state(self.output.frame)
        self._topics = list(dict.fromkeys(each.topic for each in self._sources if each.topic))

    def complete(self) -> None:
        """Run what is not done yet.

        Raises:
            LateRowsError: start over with `hold`.
            TidemarkError: what the job's query ends with; RANGE_GONE.
        """
        done = self._log.last_commit()
        # Batch 0 is empty and makes the state; another empty one at the end closes what the watermark has passed.
        last = len(self._slices) + (1 if self._keeps_state else 0)
        for batch in range(0 if done is None else done + 1, last + 1):
            self.alive()
            self._attempt(batch)

    def start_over(self) -> None:
        """Forget what has been done, and hold the watermark from now on; the tables of the output go with it."""
        self.hold = True
        Folders(self.run.spark).remove(self._folder)
        for each in self.output.tables:
            Folders(self.run.spark).remove(f"{self.run.tables_root}/{each.table}")
        self.__post_init__()

    def _attempt(self, batch: int) -> None:
        for attempt in range(ATTEMPTS):
            try:
                return self._run_batch(batch)
            except TidemarkError as error:
                if error.code != DATA_LOST or attempt + 1 == ATTEMPTS:
                    raise

    def _run_batch(self, batch: int) -> None:
        began = time.monotonic()
        starts, untils = self._edges(batch)
        self._put_in(batch, starts, untils)
        since = {topic: self.run.replay.starts[topic] for topic in self._topics}
        offsets = {"from": _entries(starts), "until": _entries(untils), "since": _entries(since)}
        reach("replay-slice-put-in", self.run.replay.job, batch=batch)
        query = self._start(partial(self._write, batch, offsets))
        await_all(self.run.spark, [query])
        self._require_done(batch)
        progress = query.lastProgress
        dropped = sum(state.numRowsDroppedByWatermark for state in progress.stateOperators) if progress else 0
        if dropped:
            raise LateRowsError
        count = sum(until - starts[topic][number] for topic, of in untils.items() for number, until in of.items())
        self._tell(batch, count, time.monotonic() - began)

    def _edges(self, batch: int) -> tuple[Mapping[str, Partitions], Mapping[str, Partitions]]:
        number = batch - 1
        replay = self.run.replay
        edges = (replay.at(max(number, 0)), replay.at(min(batch, len(self._slices))))
        if number >= len(self._slices):
            edges = replay.untils, replay.untils
        starts, untils = edges if batch else (replay.starts, replay.starts)
        return {topic: starts[topic] for topic in self._topics}, {topic: untils[topic] for topic in self._topics}

    def _put_in(self, batch: int, starts: Mapping[str, Partitions], untils: Mapping[str, Partitions]) -> None:
        begins: dict[Source, Any] = {}
        ends: dict[Source, Any] = {}
        for topic in self._topics:
            supply = self.run.supplies[topic]
            kept: Partitions = starts[topic]
            if supply.has_bronze:
                kept = supply.earliest(starts[topic], untils[topic])
                restored, before = Source(path=supply.path), supply.version()
                begins[restored] = delta_position(supply.table_id(), before)
                ends[restored] = delta_position(supply.table_id(), supply.restore(starts[topic], kept))
            begins[Source(topic)] = kafka_position(topic, kept)
            ends[Source(topic)] = kafka_position(topic, untils[topic])
        clock = int(self.run.replay.planned_at.timestamp() * 1000)
        state_store.configure(self.run.spark, self.run.settings.spark, self.run.job_settings(self.output.job))
        self._log.begin(batch, begins, ends, clock, self._watermark(batch))

    def _watermark(self, batch: int) -> int:
        """What `batch` may run with: Spark's own, after the last slice whose records come before all others."""
        if batch > len(self._slices):
            trusted = len(self._slices) - 1
        else:
            trusted = -1 if self.hold or batch < 2 else self._slices[batch - 2].trusted
        return max((self._log.watermark_after(slice + 1) for slice in range(trusted + 1)), default=0)

    def _start(self, write: Callable[[DataFrame, int], None]) -> StreamingQuery:
        writer = self.output.frame.writeStream.queryName(self.output.query)
        writer = writer.option("checkpointLocation", self._folder).outputMode(self.output.mode)
        # `availableNow` would go on past the slice.
        return writer.foreachBatch(write).trigger(once=True).start()

    def _write(self, batch: int, offsets: Mapping[str, object], frame: DataFrame, version: int) -> None:
        if version != batch:
            raise TidemarkError("REPLAY_ASTRAY", f"{self.output.query} ran batch {version}, not {batch}", "start over")
        named = self.output.query, self._log.query_id, version, self.run.replay.planned_at, offsets
        written = Batch(frame, *named, keeps_state=self._keeps_state)
        in_one_line(lambda: self.output.write(written))
        reach("replay-slice-written", self.run.replay.job, batch=batch)

    def _require_done(self, batch: int) -> None:
        if self._log.last_commit() != batch:
            message = f"{self.output.query} did not run batch {batch} of replay {self.run.replay.id}"
            raise TidemarkError("REPLAY_ASTRAY", message, "read the log; abandon the replay and plan it again")

    def _tell(self, batch: int, count: int, seconds: float) -> None:
        self.speed.records += count
        self.speed.seconds += seconds
        if not 0 < batch <= len(self._slices):
            return
        left = sum(
            until - self._slices[batch - 1].until[topic][number]
            for topic in self._topics
            for number, until in self.run.replay.untils[topic].items()
        )
        parts = [f"slice {batch} of {len(self._slices)}", f"{count:,} records", f"{count / seconds:,.0f} records/s"]
        until = self._slices[batch - 1].ends_at
        parts += [f"to {until[:16].replace('T', ' ')}"] if until else []
        parts += [f"about {left / self.speed.per_second:,.0f} s left"] if left and self.speed.records else []
        self.show(f"{self.output.query:<28} " + "  ".join(parts))


def _entries(at: Mapping[str, Partitions]) -> list[dict[str, dict[int, int]]]:
    """As a commit's metadata has them: an entry a topic."""
    return [{topic: dict(partitions)} for topic, partitions in at.items()]
