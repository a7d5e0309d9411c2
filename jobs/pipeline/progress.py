"""Prints a line a micro-batch: rows, speed, lag, watermark, state, and what was dropped or rejected; times are UTC."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StateOperatorProgress,
    StreamingQueryListener,
    StreamingQueryProgress,
)

from jobs.pipeline.checkpoint_format import topic_offsets

SIZE = "bytes"  # of keys and values
REJECTED = "rejected"
REJECTED_AS = "rejected_"  # begins the name of the count of a code
PUBLISHED, PUBLISH = "published", "publish "  # the count of records, and what begins its name, before that of the topic
OF_DECODING = "decode "  # begins the name of what is counted where a topic is decoded, before that of the topic
NO_WATERMARK = "1970-01-01T00:00:00.000Z"
SAY_IDLE_EVERY = timedelta(minutes=1)


@dataclass(frozen=True)
class Counted:
    """Records of a micro-batch and how many of them were rejected, each once, however often an output reads its batch.

    Spark's count of input rows grows with every reading: it holds where there is one.

    Args:
        failed: how many records fail each rule, by its name; rules that none fails are left out.
        codes: how many records were rejected by each code; codes of none are left out.
        size: bytes of the records' keys and values; None where they were not counted.
    """

    records: int
    rejected: int
    failed: Mapping[str, int] = field(default_factory=dict)
    codes: Mapping[str, int] = field(default_factory=dict)
    size: int | None = None


class ProgressLines(StreamingQueryListener):
    """Prints `progress_line` for every micro-batch of every query of the session; once a minute, that one is idle.
    `counted`: what outputs counted themselves, by query id and batch."""

    def __init__(self, counted: Mapping[tuple[str, int], Counted]) -> None:
        self._counted = counted
        self._queries: dict[UUID, _Idleness] = {}

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        self._queries[event.runId] = _Idleness(event.name or str(event.id), datetime.now(UTC))

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        counted = self._counted.get((str(event.progress.id), event.progress.batchId))
        now = datetime.now(UTC)
        self._queries[event.progress.runId] = _Idleness(event.progress.name or str(event.progress.id), now)
        _print(now, progress_line(event.progress, counted))

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        now = datetime.now(UTC)
        query = self._queries.get(event.runId)
        if query and now >= query.said + SAY_IDLE_EVERY:
            query.said = now
            # Its lag is not known here: it may wait for more records (`source.min_offsets_per_trigger`).
            _print(now, f"{query.name:<28} idle since {query.since:%H:%M:%S}Z")

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        """Forget the query: the code that awaits it reports how it ended."""
        self._queries.pop(event.runId, None)


class _Idleness:
    """Since when a query has had no batch, and when that was last said."""

    def __init__(self, name: str, since: datetime) -> None:
        self.name, self.since, self.said = name, since, since


def _print(at: datetime, line: str) -> None:
    print(f"{at:%H:%M:%S}Z {line}", file=sys.stderr, flush=True)


def progress_line(progress: StreamingQueryProgress, counted: Counted | None = None) -> str:
    """Return the micro-batch in one line, without what does not apply (no watermark yet, no state) or is not known."""
    counted = counts_of(progress, counted)
    count = counted.records
    seconds = progress.durationMs.get("triggerExecution", 0) / 1000
    rate = count / seconds if seconds else 0.0
    parts = [f"batch {progress.batchId}", f"{count:,} rows", f"{rate:,.0f} rows/s"]
    if is_real_time(progress):
        parts.append("real-time, at least once")
    if (behind := lag(progress)) is not None:
        parts.append(f"lag {behind:,}")
    if text := watermark_text(progress):
        watermark = watermark_of(progress)
        parts.append(f"watermark {f'{watermark:%Y-%m-%d %H:%M}' if watermark else text}")
    if progress.stateOperators:
        parts.append(f"state {_state(progress.stateOperators)}")
        parts.append(f"late {sum(op.numRowsDroppedByWatermark for op in progress.stateOperators):,}")
    parts.append(f"rejected {counted.rejected:,}")
    if counted.failed:
        parts.append("rules " + ", ".join(f"{name} {failed:,}" for name, failed in counted.failed.items()))
    return f"{progress.name:<28} " + "  ".join(parts)


def counts_of(progress: StreamingQueryProgress, counted: Counted | None) -> Counted:
    """Take the counts of the output itself, else Spark's: rows read, and those rejected that were observed."""
    observed = [row.asDict() for row in progress.observedMetrics.values()]
    return counted or counted_by_spark(progress.numInputRows, observed)


def counted_by_spark(records: int, observed: Sequence[Mapping[str, Any]]) -> Counted:
    """Return the counts of a batch in which Spark has read `records`, and observed what `Sources.decode` counts."""
    sizes = [int(counts[SIZE] or 0) for counts in observed if SIZE in counts]
    size = sum(sizes) if sizes else None
    return Counted(records, count_rejected(observed), {}, rejects_by_code(observed), size)


def counting_published(records: DataFrame, topic: str) -> DataFrame:
    """Return `records` of a stream, which Spark counts while it publishes them: its own sink does not say how many."""
    return records.observe(f"{PUBLISH}{topic}", F.count("*").alias(PUBLISHED))


def count_published(progress: StreamingQueryProgress) -> dict[str, int]:
    """Return the records that were published, by topic, as `counting_published` has counted them."""
    metrics = progress.observedMetrics.items()
    return {name.removeprefix(PUBLISH): int(row[PUBLISHED]) for name, row in metrics if name.startswith(PUBLISH)}


def is_real_time(progress: StreamingQueryProgress) -> bool:
    """Return whether Spark's real-time trigger published the batch: functions of ours write all others."""
    return "KafkaTable" in progress.sink.description


def watermark_of(progress: StreamingQueryProgress) -> datetime | None:
    """Return the query's watermark; None before there is one, and past the year 9999, which Python does not have."""
    return _time_of(watermark_text(progress))


def watermark_text(progress: StreamingQueryProgress) -> str:
    """Return the query's watermark as Spark says it; empty before there is one."""
    watermark = str((progress.eventTime or {}).get("watermark", NO_WATERMARK))
    return "" if watermark == NO_WATERMARK else watermark


def newest_event_time(progress: StreamingQueryProgress) -> datetime | None:
    """Return the newest event time of the micro-batch; None without a watermark, and past the year 9999."""
    return _time_of(str((progress.eventTime or {}).get("max", "")))


def _time_of(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def lag(progress: StreamingQueryProgress) -> int | None:
    """Count records that are in the topics and not in this or an earlier micro-batch; None where that is not known.

    A batch that is run again has its offsets from the checkpoint: Spark has not asked for the topics' ends then. In
    real time it has asked before the batch, which has gone past them.
    """
    # A topic that is joined with itself is several sources: its records are those of the source that is behind most.
    behind: dict[tuple[str, int], int] = {}
    for source in progress.sources:
        end, latest = _offsets(source.endOffset), _offsets(source.latestOffset)
        if end and (not latest or any(end.get(partition, 0) > offset for partition, offset in latest.items())):
            return None
        for partition, offset in latest.items():
            behind[partition] = max(behind.get(partition, 0), offset - end.get(partition, 0))
    return sum(behind.values())


def _state(operators: Sequence[StateOperatorProgress]) -> str:
    """Return the rows that are kept, or, where the store does not count them, the memory they take."""
    rows = sum(operator.numRowsTotal for operator in operators)
    is_counted = not any(name.startswith("rocksdb") for operator in operators for name in operator.customMetrics)
    if rows or is_counted:
        return f"{rows:,} rows"
    return f"{sum(operator.memoryUsedBytes for operator in operators) / 1e6:,.1f} MB"


def count_rejected(observed: Sequence[Mapping[str, Any]]) -> int:
    """Count records that were rejected, over all topics of the query."""
    return sum(int(counts[REJECTED] or 0) for counts in observed if REJECTED in counts)


def rejects_by_code(observed: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the rejected records by code, of counts named REJECTED_AS and the code; codes of none are left out."""
    codes: Counter[str] = Counter()
    for counts in observed:
        names = (name for name in counts if name.startswith(REJECTED_AS))
        codes.update({name.removeprefix(REJECTED_AS): int(counts[name] or 0) for name in names})
    return dict(+codes)


def _offsets(text: str | None) -> dict[tuple[str, int], int]:
    return by_partition(json.loads(text)) if text and text.startswith("{") else {}


def by_partition(offsets: Mapping[str, Any]) -> dict[tuple[str, int], int]:
    """Return the offsets as Spark has them (`{"topic": {"0": 12}}`) by topic and partition;
    other sources' are left out."""
    topics = topic_offsets(offsets).items()
    return {(topic, number): offset for topic, partitions in topics for number, offset in partitions.items()}


def offsets_of_batch(offsets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return `Batch.offsets` as the column `offsets`; sources that are no topics are left out.

    Of a partition that several sources read, all have read what is before `end`.
    """
    starts, ends = (_least(offsets.get(side) or ()) for side in ("from", "until"))
    return [
        {"topic": topic, "partition": partition, "start": starts.get((topic, partition)), "end": end}
        for (topic, partition), end in ends.items()
    ]


def _least(sources: Iterable[Mapping[str, Any] | None]) -> dict[tuple[str, int], int]:
    least: dict[tuple[str, int], int] = {}
    for at in sources:
        for place, offset in by_partition(at or {}).items():
            least[place] = min(offset, least.get(place, offset))
    return least
