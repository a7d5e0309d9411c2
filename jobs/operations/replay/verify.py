"""Verifies a replay: compares its tables with an independent recomputation, and with the live ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.settings import Settings
from jobs.connectors.delta import table as delta_table
from jobs.connectors.delta.log import snapshot
from jobs.connectors.exactly_once.fail_points import fail_point
from jobs.connectors.hadoop_files import Folders
from jobs.operations.replay import compare
from jobs.operations.replay.compare import (
    Difference,
    differences,
    first_differences,
    read_records,
    read_rows,
    row_selection,
    with_causes,
)
from jobs.operations.replay.record import Part, Replacement, Replay, ReplayPaths
from jobs.operations.replay.row_identity import Fingerprint, align_all, fingerprint
from jobs.operations.replay.side_run import RecomputationRun
from jobs.pipeline import paths
from jobs.pipeline.paths import LATE


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
    rows: int
    unlike_check: int
    unlike_live: int
    unexplained: int
    shown: tuple[Difference, ...]
    version: int | None
    live: Fingerprint

    def to_fields(self) -> dict[str, Any]:
        """Return the fields for the replay's record."""
        names = ("rows", "unlike_check", "unlike_live", "unexplained", "version")
        return {name: getattr(self, name) for name in names} | {"live": list(self.live)}


class Verifier:
    """Compares the tables of a replay.

    Args:
        build: declares the job's outputs.
    """

    def __init__(
        self, spark: SparkSession, settings: Settings, replay: Replay, build: Callable[[RecomputationRun], None]
    ) -> None:
        self._spark, self._settings, self._replay, self._build = spark, settings, replay, build
        self._paths = ReplayPaths.of(settings, replay.id)

    def verify(self) -> list[TableComparison]:
        """Recompute the range in one batch, and compare."""
        Folders(self._spark).remove(self._paths.recomputation)
        run = RecomputationRun(self._spark, self._settings, self._replay)
        self._build(run)
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
        live_path = compare.live_path(self._settings, rows.table)
        exists = delta_table.exists(self._spark, live_path)
        version = snapshot(self._spark, live_path).version if exists else None
        live = read_rows(self._spark, live_path, where, version)
        recomputed = read_rows(self._spark, paths.table(self._paths.recomputation, rows.table), where)
        replayed = read_rows(self._spark, paths.table(self._paths.side_run, rows.table), where)
        if replayed is None and recomputed is None and live is None:
            return TableComparison(rows.table, 0, 0, 0, 0, (), None, (0, 0))
        in_replay, in_live, in_batch = align_all((replayed, live, recomputed), rows.stamps)
        wrong = self._differing(in_batch, in_replay, rows.keys)
        changed = self._differing(in_live, in_replay, rows.keys)
        unlike_live, unexplained, shown = 0, 0, _first_differences(wrong, rows.keys)
        if changed is not None:
            causes = with_causes(changed, self._late_rows(part), rows.event_time, part.back_s).cache()
            unlike_live, unexplained = causes.count(), causes.where(F.col("cause").isNull()).count()
            shown = shown or tuple(first_differences(causes, rows.keys))
        unlike_check = wrong.count() if wrong is not None else 0
        live_print = fingerprint(live) if live is not None else (0, 0)
        counts = in_replay.count(), unlike_check, unlike_live, unexplained
        return TableComparison(rows.table, *counts, shown, version, live_print)

    def _compare_records(self, part: Part, topic: str) -> TableComparison:
        roots = (self._paths.side_run, self._paths.recomputation)
        replayed, recomputed = (read_records(self._spark, root, part) for root in roots)
        if replayed is None:
            return TableComparison(topic, 0, 0, 0, 0, (), None, (0, 0))
        replayed, recomputed = align_all((replayed, recomputed))
        wrong = self._differing(recomputed, replayed, ())
        unlike_check = wrong.count() if wrong is not None else 0
        return TableComparison(topic, replayed.count(), unlike_check, 0, 0, _first_differences(wrong, ()), None, (0, 0))

    def _differing(self, left: DataFrame, right: DataFrame, keys: tuple[str, ...]) -> DataFrame | None:
        """Return differing rows, None for none; rows are compared only where the fingerprints differ."""
        if fingerprint(left) == fingerprint(right):
            return None
        differing = differences(left, right, keys)
        return None if differing.isEmpty() else differing

    def _late_rows(self, part: Part) -> DataFrame | None:
        late = read_rows(self._spark, compare.live_path(self._settings, LATE), "true")
        return late.where(F.col("query") == part.query) if late is not None else None


def _first_differences(differing: DataFrame | None, keys: tuple[str, ...]) -> tuple[Difference, ...]:
    if differing is None:
        return ()
    return tuple(first_differences(differing.withColumn("cause", F.lit("")), keys))


def comparisons_as_fields(comparisons: list[TableComparison]) -> Mapping[str, Any]:
    """Return the comparisons for the replay's record, by table."""
    return {comparison.table: comparison.to_fields() for comparison in comparisons}
