"""One line per micro-batch: rows, speed, lag, watermark, state, and what was dropped or rejected."""

import json
import sys
from collections.abc import Mapping
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


class ProgressLines(StreamingQueryListener):
    """Prints `progress_line` for every micro-batch of every query of the session.

    Args:
        rejected: records that outputs rejected by their own count, by query id and batch.
    """

    def __init__(self, rejected: Mapping[tuple[str, int], int]) -> None:
        self._rejected = rejected

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        """Nothing to say yet."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        own = self._rejected.get((str(event.progress.id), event.progress.batchId), 0)
        print(progress_line(event.progress, own), file=sys.stderr, flush=True)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        """An idle query has no news."""

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        """How a query ended is said by the one who awaits it."""


def progress_line(progress: StreamingQueryProgress, also_rejected: int = 0) -> str:
    """The micro-batch in one line; what does not apply (no watermark, no state) is left out."""
    rate = progress.processedRowsPerSecond or 0.0
    parts = [
        f"batch {progress.batchId}",
        f"{progress.numInputRows:,} rows",
        f"{rate:,.0f} rows/s",
        f"lag {lag(progress):,}",
    ]
    if "watermark" in (progress.eventTime or {}):
        parts.append(f"watermark {progress.eventTime['watermark'][:16].replace('T', ' ')}")
    if progress.stateOperators:
        parts.append(f"state {sum(op.numRowsTotal for op in progress.stateOperators):,} rows")
        parts.append(f"late {sum(op.numRowsDroppedByWatermark for op in progress.stateOperators):,}")
    parts.append(f"rejected {rejected(progress.observedMetrics) + also_rejected:,}")
    return f"{progress.name:<28} " + "  ".join(parts)


def lag(progress: StreamingQueryProgress) -> int:
    """Records that are in the topics and not in this or an earlier micro-batch."""
    behind = 0
    for source in progress.sources:
        latest, end = _offsets(source.latestOffset), _offsets(source.endOffset)
        behind += sum(offset - end.get(partition, 0) for partition, offset in latest.items())
    return max(behind, 0)


def rejected(observed: Mapping[str, Any]) -> int:
    """Records that could not be decoded, over all topics of the query."""
    return sum(int(row[REJECTED] or 0) for row in observed.values() if REJECTED in row.asDict())


def _offsets(text: str | None) -> dict[tuple[str, str], int]:
    if not text or not text.startswith("{"):
        return {}
    found = json.loads(text)
    return {
        (topic, p): int(o)
        for topic, partitions in found.items()
        if isinstance(partitions, dict)
        for p, o in partitions.items()
    }
