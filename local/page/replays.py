"""Reads the replays: what each runs again, how far it is, and what comparing it gave."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conf.settings import Settings
from jobs.operations.replay.record import Replay, Replays

NEXT = {"planned": "run", "ran": "verify", "verified": "cutover", "done": "undo"}


@dataclass(frozen=True)
class ReplayRow:
    """One replay; `tables` has what comparing gave, by table, and is empty before it was compared."""

    replay: Replay
    tables: Mapping[str, Mapping[str, Any]]

    @property
    def span(self) -> str:
        whole = self.replay.kind == "backfill"
        return "the whole history" if whole else f"{self.replay.request['from']} to {self.replay.request['to']}"

    @property
    def is_wrong(self) -> bool:
        """Return whether rows differ from an independent recomputation."""
        return any(table["unlike_check"] for table in self.tables.values())

    @property
    def unexplained(self) -> int:
        """Count rows that differ from live tables for no known reason."""
        compared = [table for table in self.tables.values() if table["version"] is not None]
        return sum(int(table["unexplained"]) for table in compared)

    @property
    def verdict(self) -> str:
        if not self.tables:
            return "not compared yet"
        if self.is_wrong:
            return "unlike its recomputation"
        if self.unexplained:
            return f"as recomputed; {self.unexplained:,} rows differ from the live tables for no known reason"
        return "as recomputed; every difference from the live tables is explained"

    @property
    def next(self) -> str:
        """Return the command of the next step; empty where there is none."""
        step = NEXT.get(self.replay.state, "")
        is_last = self.replay.state == "done" and self.replay.kind == "backfill"
        return f"local/tidemark replay {step} {self.replay.id}" if step and not is_last else ""


def read_replays(settings: Settings) -> tuple[ReplayRow, ...]:
    """Return every replay, the newest first; raises TidemarkError BAD_REPLAY."""
    replays = reversed(Replays(settings).all())
    return tuple(ReplayRow(replay, replay.findings.get("tables", {})) for replay in replays)
