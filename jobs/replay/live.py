"""The live queries of a job, as their checkpoints and tables tell: how far they are, what they still hold open."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs import catalog, manifest
from jobs.connectors.files import listed, read_text, table_uri
from jobs.manifest import Manifest
from jobs.offset_log import entry_file, source_offsets


@dataclass(frozen=True)
class Live:
    """A query with a checkpoint.

    Args:
        until: where its last finished micro-batch ended, by topic and partition.
        watermark: None for a query without one, or that has none yet.
    """

    manifest: Manifest
    until: Mapping[str, Mapping[int, int]]
    watermark: datetime | None


def live_queries(settings: Settings, job: str) -> list[Live]:
    """The queries of `job` that have a checkpoint, by their names."""
    root = f"{settings.paths.checkpoints}/{job}"
    found = (_live(f"{root}/{name}") for name in listed(root))
    return [each for each in found if each]


def require_live(settings: Settings, job: str) -> list[Live]:
    """`live_queries`; UNKNOWN_JOB or NEVER_RUN where there are none."""
    found = live_queries(settings, job)
    if not found:
        catalog.require(job)
        remedy = "run it, or begin it with its whole history by --backfill; jobs that it runs have names of their own"
        raise TidemarkError("NEVER_RUN", f"job {job} has no checkpoint to take its topics and tables from", remedy)
    return found


def _live(folder: str) -> Live | None:
    text = read_text(f"{folder}/{manifest.FILE}")
    if text is None:
        return None
    kept = Manifest.from_json(text)
    done = max((int(name) for name in listed(f"{folder}/commits") if name.isdecimal()), default=None)
    if done is None:
        return Live(kept, {}, None)
    sources = source_offsets(read_text(f"{folder}/{entry_file(done)}")) or ()
    until = {topic: at for source in sources for topic, at in _partitions(source).items()}
    return Live(kept, until, _watermark(read_text(f"{folder}/commits/{done}") or ""))


def _partitions(source: Any) -> dict[str, dict[int, int]]:
    """The offsets of a Kafka source; other kinds have none by topic."""
    topics = {topic: at for topic, at in source.items() if isinstance(at, dict)} if isinstance(source, dict) else {}
    return {topic: {int(number): int(offset) for number, offset in at.items()} for topic, at in topics.items()}


def _watermark(commit: str) -> datetime | None:
    lines = commit.splitlines()
    at = json.loads(lines[1]).get("nextBatchWatermarkMs", 0) if len(lines) > 1 else 0
    return datetime.fromtimestamp(at / 1000, UTC) if at > 0 else None


def table_version(settings: Settings, table: str) -> int | None:
    """The newest version of a table under the tables root; None where there is no such table."""
    path = f"{settings.paths.tables}/{table}"
    if "://" not in path and not Path(path, "_delta_log").is_dir():
        return None
    try:
        return int(DeltaTable(table_uri(path)).version())
    except TableNotFoundError:
        return None
