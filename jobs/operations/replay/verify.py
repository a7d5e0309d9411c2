"""Verifies a replay: compares its tables with an independent recomputation, one batch over the same records, and with
the live tables."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.settings import Settings
from jobs.connectors.delta import table as delta_table
from jobs.connectors.delta.log import snapshot
from jobs.connectors.exactly_once.fail_points import fail_point
from jobs.connectors.hadoop_files import Folders
from jobs.connectors.kafka import source_sink
from jobs.operations.replay.record import Part, Replacement, Replay, ReplayPaths
from jobs.operations.replay.row_comparison import (
    Difference,
    Fingerprint,
    align_all,
    differences,
    fingerprint,
    first_differences,
)
from jobs.operations.replay.side_run import BronzeSource
from jobs.pipeline import paths
from jobs.pipeline.outputs import RowSelector
from jobs.pipeline.run import Run
from jobs.pipeline.sources import Ranges


@dataclass(frozen=True)
class TableComparison:
    """The outcome of comparing one table, or output topic.

    Args:
        rows: that the replay has in the range.
        unlike_check: rows that differ from the recomputation; none in a right replay.
        unlike_live: rows that differ from the live table; `unexplained`: those without a known cause.
        shown: some of them: of the recomputation, if any, else of the live table.
        version: of the live table that was compared; None where there is none.
        live: the fingerprint of its rows in the range.
    """

    table: str
    rows: int = 0
    unlike_check: int = 0
    unlike_live: int = 0
    unexplained: int = 0
    shown: tuple[Difference, ...] = ()
    version: int | None = None
    live: Fingerprint = (0, 0)

    @property
    def is_wrong(self) -> bool:
        """Return whether it is unlike the recomputation, or unlike the live table for no known reason."""
        return bool(self.unlike_check or (self.unexplained and self.version is not None))

    def lines(self) -> Iterator[str]:
        """Say in lines what comparing found."""
        right = "as recomputed" if not self.unlike_check else f"{self.unlike_check:,} rows UNLIKE the recomputation"
        line = f"{self.table:<28} {self.rows:,} rows, {right}"
        if self.version is not None:
            known = self.unlike_live - self.unexplained
            line += f"; {self.unlike_live:,} unlike version {self.version} of the live table"
            line += f", {known:,} of them explained" if self.unlike_live else ""
        yield line
        for difference in self.shown:
            yield f"  {difference.line()}"

    def to_fields(self) -> dict[str, Any]:
        """Return the fields for the replay's record."""
        names = ("rows", "unlike_check", "unlike_live", "unexplained", "version")
        return {name: getattr(self, name) for name in names} | {"live": list(self.live)}


class Verifier:
    """Compares the tables of a replay."""

    def __init__(self, spark: SparkSession, settings: Settings, replay: Replay) -> None:
        self._spark, self._settings, self._replay = spark, settings, replay
        self._paths = ReplayPaths(settings, replay.id)

    def compare(self, build: Callable[[Run], None]) -> list[TableComparison]:
        """Recompute the range in one batch, by the outputs that `build` declares, and compare."""
        Folders(self._spark).remove(self._paths.recomputation)
        run = RecomputationRun(self._spark, self._settings, self._replay)
        build(run)
        run.write_range()
        fail_point("replay-recomputed", self._replay.job)
        comparisons = []
        for part in self._replay.parts:
            comparisons += [self._compare(part, table) for table in part.tables if table.rows.can_select]
            if part.topic:
                comparisons.append(self._compare_records(part, part.topic))
        return comparisons

    def _compare(self, part: Part, table: Replacement) -> TableComparison:
        rows = table.rows
        where = row_selection(self._replay, part, table)
        live_path = paths.table(self._settings.paths.tables, rows.table)
        exists = delta_table.exists(self._spark, live_path)
        version = snapshot(self._spark, live_path).version if exists else None
        live = read_rows(self._spark, live_path, where, version)
        recomputed = read_rows(self._spark, paths.table(self._paths.recomputation, rows.table), where)
        replayed = read_rows(self._spark, paths.table(self._paths.side_run, rows.table), where)
        if replayed is None and recomputed is None and live is None:
            return TableComparison(rows.table)
        in_replay, in_live, in_batch = align_all((replayed, live, recomputed), rows.stamps)
        wrong = self._differing(in_batch, in_replay, rows.keys)
        changed = self._differing(in_live, in_replay, rows.keys)
        unlike_live, unexplained, shown = 0, 0, first_differences(wrong, rows.keys) if wrong is not None else []
        if changed is not None:
            causes = with_causes(changed, self._late_rows(part), rows.event_time, part.back_s).cache()
            unlike_live, unexplained = causes.count(), causes.where(F.col("cause").isNull()).count()
            shown = shown or first_differences(causes, rows.keys)
        live_print = fingerprint(live) if live is not None else (0, 0)
        counts = in_replay.count(), wrong.count() if wrong is not None else 0, unlike_live, unexplained
        return TableComparison(rows.table, *counts, tuple(shown), version, live_print)

    def _compare_records(self, part: Part, topic: str) -> TableComparison:
        roots = (self._paths.side_run, self._paths.recomputation)
        replayed, recomputed = (read_records(self._spark, root, part) for root in roots)
        if replayed is None:
            return TableComparison(topic)
        replayed, recomputed = align_all((replayed, recomputed))
        wrong = self._differing(recomputed, replayed, ())
        if wrong is None:
            return TableComparison(topic, replayed.count())
        return TableComparison(topic, replayed.count(), wrong.count(), shown=tuple(first_differences(wrong, ())))

    def _differing(self, left: DataFrame, right: DataFrame, keys: tuple[str, ...]) -> DataFrame | None:
        """Return differing rows, None for none; rows are compared only where the fingerprints differ."""
        if fingerprint(left) == fingerprint(right):
            return None
        differing = differences(left, right, keys)
        return None if differing.isEmpty() else differing

    def _late_rows(self, part: Part) -> DataFrame | None:
        late = read_rows(self._spark, paths.table(self._settings.paths.tables, paths.LATE), "true")
        return late.where(F.col("query") == part.query) if late is not None else None


class RecomputationRun(Run):
    """The job of a replay as one batch over the same records, into tables of its own."""

    def __init__(self, spark: SparkSession, settings: Settings, replay: Replay) -> None:
        super().__init__(spark, settings, replay.job)
        self.replay = replay
        self._ranges = _ReplayRanges(settings, replay)

    @property
    def tables_root(self) -> str:
        """Return the root of its tables, beside those of the side run."""
        return ReplayPaths(self.settings, self.replay.id).recomputation

    def records(self, topic: str) -> DataFrame:
        """Return the records that the topic still has, and the rest from bronze."""
        starts, untils = self.replay.starts[topic], self.replay.untils[topic]
        bronze = BronzeSource(self.spark, self.settings, self.replay.id, topic)
        kept = bronze.earliest(starts, untils)
        edges = {topic: kept}, {topic: untils}
        subscription = source_sink.Subscription((topic,))
        in_topic = source_sink.read_batch(self.spark, self.settings.kafka, self._source(), subscription, *edges)
        return in_topic if kept == starts else in_topic.unionByName(bronze.batch(starts, kept))


class _ReplayRanges(Ranges):
    """The offsets of a replay, whether or not the topics still have them."""

    def __init__(self, settings: Settings, replay: Replay) -> None:
        super().__init__(settings.kafka, "earliest", "latest")
        for topic in replay.starts:
            self._offsets[topic] = {topic: replay.starts[topic]}, {topic: replay.untils[topic]}


def row_selection(replay: Replay, part: Part, replacement: Replacement) -> str:
    """Return the condition, as SQL, that selects the rows of a table that a replay replaces;
    `true` for all of its rows."""
    rows = replacement.rows
    if rows.coordinates:
        return _of_records(replay, part, rows)
    if rows.event_time is None:
        return "true"
    everything = f"(`{rows.event_time}` IS NOT NULL OR `{rows.event_time}` IS NULL)"
    return _between(rows.event_time, replacement.start, replacement.until) or everything


def _between(column: str, start: datetime | None, until: datetime | None) -> str:
    edges = ((">=", start), ("<", until))
    return " AND ".join(f"`{column}` {sign} TIMESTAMP '{edge.isoformat(sep=' ')}'" for sign, edge in edges if edge)


def read_records(spark: SparkSession, root: str, part: Part) -> DataFrame | None:
    """Return the records for the topic of `part` that the replay makes anew, from the table under `root`;
    None for no table.

    Records without an event time are always among them.
    """
    records = read_rows(spark, paths.table(root, str(part.topic)), "true")
    span = _between(source_sink.TIMESTAMP, part.sends_since, part.sends_until)
    if records is None or not span or source_sink.TIMESTAMP not in records.columns:
        return records
    return records.where(f"`{source_sink.TIMESTAMP}` IS NULL OR ({span})")


def _of_records(replay: Replay, part: Part, rows: RowSelector) -> str:
    topic, partition, offset = (f"`{name}`" for name in rows.coordinates or ())
    spans = (
        f"({topic} = '{name}' AND {partition} = {number} AND {offset} >= {start}"
        f" AND {offset} < {replay.untils[name][number]})"
        for name in part.topics
        for number, start in replay.starts[name].items()
    )
    return " OR ".join(spans)


def read_rows(spark: SparkSession, path: str, where: str, version: int | None = None) -> DataFrame | None:
    """Return the rows of the table at `path` that meet `where`, of a version of it; None where there is no table."""
    if not delta_table.exists(spark, path):
        return None
    reader = spark.read.format("delta")
    return (reader if version is None else reader.option("versionAsOf", version)).load(path).where(where)


def with_causes(differing: DataFrame, late: DataFrame | None, event_time: str | None, back_s: float) -> DataFrame:
    """Return what `differences` gave with a column `cause` string: how many late rows fall into the row's window; null
    for no cause.

    Args:
        late: of the query, column `event_time` timestamp; None where no row was late.
        event_time: the column that tells where a window begins; `back_s`: how long it is.
    """
    if late is None or event_time is None:
        return differing.withColumn("cause", F.lit(None).cast("string"))
    began = F.coalesce(F.col(f"left.`{event_time}`"), F.col(f"right.`{event_time}`")).cast("timestamp")
    spans = differing.withColumn("began", began)
    ends = F.col("began") + F.make_dt_interval(secs=F.lit(back_s))
    in_window = (F.col("late_at") >= F.col("began")) & (F.col("late_at") <= ends)
    rows = late.select(F.col("event_time").alias("late_at"))
    counts = (
        spans.select("began").distinct().join(rows, in_window).groupBy("began").agg(F.count("*").alias("late_rows"))
    )
    cause = F.when(F.col("late_rows") > 0, F.format_string("%d rows were late for the live job", F.col("late_rows")))
    return spans.join(counts, "began", "left").select("left", "right", cause.alias("cause"))
