"""Reads what the files of a query's checkpoint say of a micro-batch, by their names and texts. No JVM."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

METADATA, OFFSETS, COMMITS = "metadata", "offsets", "commits"  # Spark's own, in the folder of a checkpoint
NO_OFFSET = "-"  # what Spark writes for a source that has not begun yet


def entry_file(batch: int) -> str:
    """Return where a checkpoint keeps the offsets of micro-batch `batch`."""
    return f"{OFFSETS}/{batch}"


def commit_file(batch: int) -> str:
    return f"{COMMITS}/{batch}"


def next_watermark_ms(commit: str) -> int:
    """Return the watermark after the micro-batch of a commit file, ms since 1970; 0 where it does not say."""
    lines = commit.splitlines()
    return int(json.loads(lines[1]).get("nextBatchWatermarkMs", 0)) if len(lines) > 1 else 0


def start_file(source: int) -> str:
    """Return where a checkpoint keeps what source number `source` began with."""
    return f"sources/{source}/0"


def batch_offsets(files: Mapping[str, str], batch: int) -> dict[str, Any]:
    """Return the source offsets of micro-batch `batch`, an entry a source: from `from` to before `until`.

    `from` is where the batch before ended; if a source had not begun then, its initial offsets (null, where it has
    none). It is null as a whole where Spark no longer keeps the batch before. `since` is where the query's very first
    batch began: null for sources that do not say, or no longer.

    Args:
        files: the batch's `checkpoint.opening`.
    """
    before = before_batch(files, batch)
    if before is not None:
        before = [initial_offsets(files.get(start_file(n))) if at is None else at for n, at in enumerate(before)]
    until = source_offsets(files.get(entry_file(batch)))
    since = None if until is None else [initial_offsets(files.get(start_file(n))) for n in range(len(until))]
    return {"from": before, "until": until, "since": since}


def planned_at(files: Mapping[str, str], batch: int) -> datetime:
    """Return when Spark fixed the offsets of a micro-batch: `current_timestamp()` in its plan is the same. `files`: the
    batch's `checkpoint.opening`."""
    metadata = json.loads(files[entry_file(batch)].splitlines()[1])
    return datetime.fromtimestamp(metadata["batchTimestampMs"] / 1000, UTC)


def late_watermark_ms(files: Mapping[str, str], batch: int) -> int | None:
    """Return the watermark, ms since 1970, that event times of micro-batch `batch` are compared with: that before it.

    0 for a first batch; None where Spark no longer keeps the batch before. `files`: as `planned_at`.
    """
    if not batch:
        return 0
    text = files.get(entry_file(batch - 1))
    return int(json.loads(text.splitlines()[1])["batchWatermarkMs"]) if text else None


def before_batch(files: Mapping[str, str], batch: int) -> list[Any] | None:
    """Return where each source was before the batch; None for one that had not begun."""
    if batch:
        return source_offsets(files.get(entry_file(batch - 1)))
    return [None for _ in source_offsets(files.get(entry_file(batch))) or ()]


def source_offsets(text: str | None) -> list[Any] | None:
    """Return the offsets of each source in an entry of the offset log."""
    if text is None:
        return None
    # Line 1 is the format's version, line 2 the batch's metadata, then one line a source.
    return [_offsets(line) for line in text.splitlines()[2:]]


def topic_offsets(source: Any) -> dict[str, dict[int, int]]:
    """Return the offsets of a Kafka source, as a batch's offsets have them, by topic and partition; {} of others."""
    topics = source.items() if isinstance(source, Mapping) else ()
    return {
        topic: {int(partition): int(offset) for partition, offset in offsets.items()}
        for topic, offsets in topics
        if isinstance(offsets, Mapping)
    }


def initial_offsets(text: str | None) -> dict[str, dict[str, int]] | None:
    """Return where a source of Kafka's began, by topic and partition, by its start file; None for another's."""
    # Line 1 is the format's version, behind a zero byte for a Spark of long ago.
    lines = text.splitlines()[1:] if text else []
    offsets = json.loads(lines[0]) if len(lines) == 1 and lines[0].startswith("{") else None
    # Other sources keep files of their own there, a file source JSON too: only Kafka's has a table for every key.
    return offsets if offsets is not None and all(isinstance(value, dict) for value in offsets.values()) else None


def _offsets(line: str) -> Any:
    if line == NO_OFFSET:
        return None
    return json.loads(line) if line.startswith("{") else line
