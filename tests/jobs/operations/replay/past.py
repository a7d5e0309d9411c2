"""A job on readings, its live table, and replays of it, in surroundings of the test's own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.settings import Settings
from jobs.operations.replay.commands import Steps
from jobs.operations.replay.plan import ReplayRequest, plan_range
from jobs.operations.replay.record import Replay, Replays
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from tests.jobs.scratch import Row, Scratch

BEGAN = datetime(2013, 1, 1, tzinfo=UTC)
JOB = "probe"
TABLE = "hourly"


def hourly(readings: DataFrame) -> DataFrame:
    """Readings and their sum, by hour and id."""
    hours = readings.withWatermark("at", "1 hour").groupBy(F.window("at", "1 hour"), "id")
    measured = hours.agg(F.count("*").alias("readings"), F.sum("level").alias("level"))
    return measured.select(F.col("window.start").alias("hour"), "id", "readings", "level")


class Past:
    """Readings at minutes after BEGAN in a topic of two partitions, and a job on them."""

    def __init__(self, scratch: Scratch, *overrides: str) -> None:
        self.scratch, self._overrides = scratch, overrides
        self.topic = scratch.topic(partitions=2, event_time="at")
        self.slice_records = 40
        self.shown: list[str] = []
        self.declare: Callable[[Run], None] = lambda run: run.upsert(
            hourly(run.read(self.topic)), TABLE, keys=("hour", "id")
        )

    def build(self, run: Run) -> None:
        """The job: `declare`, with the topic known."""
        run.topics |= self.scratch.declared
        self.declare(run)

    def send(self, *readings: tuple[str, int, int, int]) -> None:
        """Readings as (id, level, partition, minute)."""
        records = []
        for id, level, partition, minute in readings:
            at = int((BEGAN + timedelta(minutes=minute)).timestamp() * 1000)
            record = self.scratch.reading(self.topic, id, level, partition, at=at)
            records.append(replace(record, timestamp=at))
        self.scratch.send(self.topic, *records)

    def live(self, *overrides: str) -> None:
        """Run the job until it has caught up."""
        run = Run(self.scratch.spark, self.settings(*overrides), JOB)
        self.build(run)
        await_all(self.scratch.spark, run.start(continuous=False))
        run.settle()

    def settings(self, *overrides: str) -> Settings:
        """The test's own, with small slices."""
        return self.scratch.settings(f"replay.slice_records={self.slice_records}", *self._overrides, *overrides)

    def plan(self, start: str | int = "earliest", end: str | int = "latest", hold: bool = False) -> Replay:
        """A replay from one minute to another."""
        first, last = (minute if isinstance(minute, str) else text(minute) for minute in (start, end))
        planned = plan_range(self.settings(), ReplayRequest(JOB, first, last, hold_watermark=hold))
        return Replays(self.settings()).begin(planned)

    def steps(self, alive: Callable[[], None] = lambda: None) -> Steps:
        """What carries replays out."""
        return Steps(self.scratch.spark, self.settings(), self.build, self.shown.append, alive)

    def replayed(self, start: str | int = "earliest", end: str | int = "latest") -> Replay:
        """A replay that has run and is verified."""
        steps = self.steps()
        replay, found = steps.verify(steps.run(self.plan(start, end)))
        assert [each.unlike_check for each in found] == [0] * len(found), [each.shown for each in found]
        return replay

    def rows(self, table: str = TABLE) -> list[Row]:
        """The live table."""
        return self.scratch.rows(table)

    def truth(self, readings: Sequence[tuple[str, int, int, int]]) -> list[Row]:
        """What the table should hold, computed by hand."""
        sums: dict[tuple[datetime, str], list[int]] = {}
        for id, level, _, minute in readings:
            hour = (BEGAN + timedelta(hours=minute // 60)).replace(tzinfo=None)
            sums.setdefault((hour, id), []).append(level)
        return sorted(((hour, id, len(levels), sum(levels)) for (hour, id), levels in sums.items()), key=str)


def text(minute: int) -> str:
    """As a position."""
    return (BEGAN + timedelta(minutes=minute)).isoformat()
