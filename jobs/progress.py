"""One line per micro-batch: rows, speed, lag, watermark, state, and what was dropped or rejected."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
    StreamingQueryProgress,
)

REJECTED = "rejected"


@dataclass(frozen=True)
class Counted:
    """Records of a micro-batch and how many of them were rejected, by an output's own count.

    An output that reads its batch more than once needs one: Spark's count of input rows grows with every reading.

    Args:
        failed: how many records fail each rule, by its name; rules that none fails are left out.
    """

    records: int
    rejected: int
    failed: Mapping[str, int] = field(default_factory=dict)


class ProgressLines(StreamingQueryListener):
    """Prints `progress_line` for every micro-batch of every query of the session.

    Args:
        counted: what outputs counted themselves, by query id and batch.
    """

    def __init__(self, counted: Mapping[tuple[str, int], Counted]) -> None:
        self._counted = counted

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        """Nothing to say yet."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        own = self._counted.get((str(event.progress.id), event.progress.batchId))
        print(progress_line(event.progress, own), file=sys.stderr, flush=True)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        """An idle query has no news."""

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        """How a query ended is said by the one who awaits it."""


def progress_line(progress: StreamingQueryProgress, counted: Counted | None = None) -> str:
    """The micro-batch in one line; what does not apply (no watermark, no state) is left out."""
    counted = counted or Counted(progress.numInputRows, rejected(progress.observedMetrics))
    count = counted.records
    seconds = progress.durationMs.get("triggerExecution", 0) / 1000
    rate = count / seconds if seconds else 0.0
    parts = [
        f"batch {progress.batchId}",
        f"{count:,} rows",
        f"{rate:,.0f} rows/s",
        f"lag {lag(progress):,}",
    ]
    if "watermark" in (progress.eventTime or {}):
        parts.append(f"watermark {progress.eventTime['watermark'][:16].replace('T', ' ')}")
    if progress.stateOperators:
        parts.append(f"state {sum(op.numRowsTotal for op in progress.stateOperators):,} rows")
        parts.append(f"late {sum(op.numRowsDroppedByWatermark for op in progress.stateOperators):,}")
    parts.append(f"rejected {counted.rejected:,}")
    if counted.failed:
        parts.append("rules " + ", ".join(f"{name} {failed:,}" for name, failed in counted.failed.items()))
    return f"{progress.name:<28} " + "  ".join(parts)


def lag(progress: StreamingQueryProgress) -> int:
    """Records that are in the topics and not in this or an earlier micro-batch."""
    behind = 0
    for source in progress.sources:
        end, latest = _offsets(source.endOffset), _offsets(source.latestOffset)
        behind += sum(offset - end.get(partition, 0) for partition, offset in latest.items())
    return max(behind, 0)


def rejected(observed: Mapping[str, Any]) -> int:
    """Records that could not be decoded, over all topics of the query."""
    return sum(int(row[REJECTED] or 0) for row in observed.values() if REJECTED in row.asDict())


def _offsets(text: str | None) -> dict[tuple[str, str], int]:
    if not text or not text.startswith("{"):
        return {}
    found = json.loads(text)
    tables = ((topic, partitions) for topic, partitions in found.items() if isinstance(partitions, dict))
    return {(topic, partition): int(offset) for topic, partitions in tables for partition, offset in partitions.items()}
