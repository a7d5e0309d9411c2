"""Is a replay right? Its tables against an independent recomputation, and against the live ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.settings import Settings
from jobs.connectors import delta
from jobs.connectors.delta_history import snapshot
from jobs.connectors.ledger.failpoints import reach
from jobs.folders import Folders
from jobs.late.listing import TABLE as LATE
from jobs.replay import extents
from jobs.replay.comparing import Difference, Fingerprint, differences, explained, fingerprint, listed
from jobs.replay.record import Part, Replacement, Replay
from jobs.replay.shadow import CheckRun


@dataclass(frozen=True)
class Finding:
    """About one table.

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
        """For the replay's record."""
        names = ("rows", "unlike_check", "unlike_live", "unexplained", "version")
        return {name: getattr(self, name) for name in names} | {"live": list(self.live)}


class Verifier:
    """Compares the tables of a replay.

    Args:
        build: declares the job's outputs.
    """

    def __init__(
        self, spark: SparkSession, settings: Settings, replay: Replay, build: Callable[[CheckRun], None]
    ) -> None:
        self._spark, self._settings, self._replay, self._build = spark, settings, replay, build

    def verify(self) -> list[Finding]:
        """Recompute the range in one batch, and compare."""
        root = extents.check_path(self._settings, self._replay, "")
        Folders(self._spark).remove(root.rstrip("/"))
        run = CheckRun(self._spark, self._settings, self._replay)
        self._build(run)
        run.write_range()
        reach("replay-recomputed", self._replay.job)
        found = []
        for part in self._replay.parts:
            found += [self._compare(part, each) for each in part.tables if each.rows.is_told]
            if part.topic:
                found.append(self._compare_records(part.topic))
        return found

    def _compare(self, part: Part, each: Replacement) -> Finding:
        rows = each.rows
        where = extents.condition(self._replay, part, each)
        path = extents.live_path(self._settings, rows.table)
        version = int(snapshot(self._spark, path).version()) if delta.exists(self._spark, path) else None
        live = extents.rows_of(self._spark, path, where, version)
        check = extents.rows_of(self._spark, extents.check_path(self._settings, self._replay, rows.table), where)
        shadow = extents.rows_of(self._spark, extents.shadow_path(self._settings, self._replay, rows.table), where)
        like = next((frame for frame in (shadow, live, check) if frame is not None), None)
        if like is None:
            return Finding(rows.table, 0, 0, 0, 0, (), None, (0, 0))
        ours, recomputed, theirs = (extents.aligned(frame, like, rows.stamps) for frame in (shadow, check, live))
        wrong = self._differing(recomputed, ours, rows.keys)
        changed = self._differing(theirs, ours, rows.keys)
        count, unexplained, shown = 0, 0, _shown(wrong, rows.keys)
        if changed is not None:
            told = explained(changed, self._late(part), rows.event_time, part.back_s).cache()
            count, unexplained = told.count(), told.where(F.col("cause").isNull()).count()
            shown = shown or tuple(listed(told, rows.keys))
        unlike = wrong.count() if wrong is not None else 0
        return Finding(rows.table, ours.count(), unlike, count, unexplained, shown, version, _fingerprint(live))

    def _compare_records(self, topic: str) -> Finding:
        paths = (path(self._settings, self._replay, topic) for path in (extents.shadow_path, extents.check_path))
        shadow, check = (extents.rows_of(self._spark, path, "true") for path in paths)
        if shadow is None:
            return Finding(topic, 0, 0, 0, 0, (), None, (0, 0))
        wrong = self._differing(extents.aligned(check, shadow), shadow, ())
        unlike = wrong.count() if wrong is not None else 0
        return Finding(topic, shadow.count(), unlike, 0, 0, _shown(wrong, ()), None, (0, 0))

    def _differing(self, left: DataFrame, right: DataFrame, keys: tuple[str, ...]) -> DataFrame | None:
        """None where the two are the same; row by row only where their fingerprints differ."""
        if fingerprint(left) == fingerprint(right):
            return None
        found = differences(left, right, keys)
        return None if found.isEmpty() else found

    def _late(self, part: Part) -> DataFrame | None:
        late = extents.rows_of(self._spark, extents.live_path(self._settings, LATE), "true")
        return late.where(F.col("query") == part.query) if late is not None else None


def _shown(differing: DataFrame | None, keys: tuple[str, ...]) -> tuple[Difference, ...]:
    return tuple(listed(differing.withColumn("cause", F.lit("")), keys)) if differing is not None else ()


def _fingerprint(frame: DataFrame | None) -> Fingerprint:
    return fingerprint(frame) if frame is not None else (0, 0)


def findings_of(found: list[Finding]) -> Mapping[str, Any]:
    """For the replay's record, by table."""
    return {each.table: each.to_fields() for each in found}
