"""Defines a replay's record: what was requested, what it reads in which slices, what it replaces, how far it is."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.files import listed, read_text, write_text
from jobs.connectors.kafka.offsets import Partitions
from jobs.pipeline import paths
from jobs.pipeline.outputs import RowSelector

FILE = "replay.json"
State = Literal["planned", "ran", "verified", "done", "undone", "abandoned"]
FINISHED: tuple[State, ...] = ("done", "undone", "abandoned")
WITHDRAWN: tuple[State, ...] = ("undone", "abandoned")  # after these, the same is planned as a further attempt
BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)  # far enough from the least datetime, however far an event reaches back
# Attributes that have another name in the records.
JSON_NAMES = {"request": "asked", "watermark_slice": "trusted"}


class ReplayPaths:
    """Where replay `id` keeps what it writes, under the roots of tables and of checkpoints.

    Attributes:
        side_run: the root of the tables that will take the place of live rows.
        recomputation: the root of the tables that the independent recomputation writes.
        restored: the root of the records that bronze supplies.
        temporary: the folders that can go once the replay is finished: all but the record's.
    """

    def __init__(self, settings: Settings, id: str) -> None:
        folder = paths.replay(settings.paths.tables, id)
        self.record = f"{folder}/{FILE}"
        self.side_run = f"{folder}/{paths.SHADOW}"
        self.recomputation = f"{folder}/{paths.CHECK}"
        self.restored = f"{folder}/{paths.RESTORED}"
        self.checkpoints = paths.replay(settings.paths.checkpoints, id)
        self.temporary = self.side_run, self.recomputation, self.restored, self.checkpoints


@dataclass(frozen=True)
class Slice:
    """Records that are read together: in each partition of each topic up to before `until`.

    Args:
        watermark_slice: the number of the last slice whose watermark is safe: no record up to its end is later, by
            record time, than one that is still to be read after this slice. -1: none, the watermark is held.
        ends_at: the record time up to which the slice reads, as text; empty for the last.
    """

    until: Mapping[str, Partitions]
    watermark_slice: int = -1
    ends_at: str = ""


@dataclass(frozen=True)
class Replacement:
    """The rows of a live table that the replay makes anew: those with an event time in [start, until).

    Args:
        start, until: None: from the first, to the last; in tables with coordinates for event times, the records read.
        version: of the live table when the replay was planned; None where there was no table.
        cut_over: the version that swapped them in; None for not yet.
    """

    rows: RowSelector
    start: datetime | None = None
    until: datetime | None = None
    version: int | None = None
    cut_over: int | None = None


@dataclass(frozen=True)
class Part:
    """One output of the job, as it is replayed.

    Args:
        back_s: how far before an event its window may begin, in seconds.
        sends_since, sends_until: the records for `topic` that the replay makes anew: those with an event time in
            [sends_since, sends_until), and those without any. None: from the first, to the last.
        watermark: of the live query when the replay was planned; None for none, or for a backfill.
    """

    query: str
    name: str
    topics: tuple[str, ...]
    tables: tuple[Replacement, ...]
    topic: str | None = None
    back_s: float = 0
    sends_since: datetime | None = None
    sends_until: datetime | None = None
    watermark: datetime | None = None


@dataclass(frozen=True)
class Replay:
    """A replay of one job.

    Args:
        id: names what is replayed by which code: the same request gives the same replay; -2, -3, … at its end count
            further attempts at it.
        kind: "range" replaces rows of live tables; "backfill" makes a new job's, and hands over to it.
        request: the positions as they were written, `from` and `to`.
        starts: where reading begins, by topic.
        records, bytes: that are to be read, about.
    """

    id: str
    job: str
    kind: Literal["range", "backfill"]
    request: Mapping[str, str]
    starts: Mapping[str, Partitions]
    slices: tuple[Slice, ...]
    parts: tuple[Part, ...]
    code: str
    planned_at: datetime
    records: int = 0
    bytes: int = 0
    state: State = "planned"
    findings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def untils(self) -> Mapping[str, Partitions]:
        """Return where reading ends, by topic."""
        return self.slices[-1].until

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED

    @property
    def span(self) -> str:
        """Return the requested range in words."""
        return f"{self.request['from']} to {self.request['to']}"

    def line(self) -> str:
        """Return the line of `replay list`."""
        planned = self.planned_at.isoformat(timespec="minutes")
        return f"{self.id}  {self.state:<10} {self.job:<28} {self.span:<48} planned {planned}"

    def summary(self) -> dict[str, object]:
        """Return the same for programs."""
        return {name: getattr(self, name) for name in ("id", "job", "kind", "state", "findings")} | dict(self.request)

    @property
    def command(self) -> str:
        """Return the command that replays the same as a further attempt, once this one is finished."""
        edges = [word for edge in ("from", "to") for word in (f"--{edge}", self.request[edge])]
        words = ["--backfill"] if self.kind == "backfill" else [*edges, *(["--again"] if self.state == "done" else [])]
        return f"local/tidemark replay run {self.job} {shlex.join(words)}"

    @property
    def table_versions(self) -> dict[str, int]:
        """Return the versions of live tables that the replay needs while it is open, by the tables' names."""
        tables = (table for part in self.parts for table in part.tables)
        return {table.rows.table: table.version for table in tables if table.version is not None}

    def start_of(self, number: int) -> Mapping[str, Partitions]:
        """Return where slice `number` begins."""
        return self.slices[number - 1].until if number else self.starts

    def to_json(self) -> str:
        """Return the record's text: readable, times as ISO texts."""
        versions = {name: {"version": version} for name, version in self.table_versions.items()}
        return json.dumps(_plain(self) | {"tables": versions}, indent=1)

    @classmethod
    def from_json(cls, text: str, path: str = FILE) -> Self:
        """Return the replay whose record has this text.

        Raises:
            TidemarkError: BAD_REPLAY, where it is no record of a replay.
        """
        try:
            record = json.loads(text)
            record.pop("tables", None)
            typed = {
                "request": record.pop("asked"),
                "starts": _offsets(record["starts"]),
                "slices": tuple(_slice(part) for part in record["slices"]),
                "parts": tuple(_part(part) for part in record["parts"]),
                "planned_at": datetime.fromisoformat(record["planned_at"]),
            }
            return cls(**record | typed)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            message = f"{path} is no record of a replay: {type(exc).__name__} {exc}"
            remedy = "mend it, or remove the replay's folder; until then no table is vacuumed"
            raise TidemarkError("BAD_REPLAY", message, remedy) from exc


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if is_dataclass(value):
        names = (field.name for field in fields(value))
        return {JSON_NAMES.get(name, name): _plain(getattr(value, name)) for name in names}
    return value


def _offsets(record: Mapping[str, Mapping[str, int]]) -> dict[str, dict[int, int]]:
    return {
        topic: {int(partition): offset for partition, offset in partitions.items()}
        for topic, partitions in record.items()
    }


def _slice(record: dict[str, Any]) -> Slice:
    return Slice(_offsets(record["until"]), int(record["trusted"]), str(record["ends_at"]))


def _part(record: dict[str, Any]) -> Part:
    tables = tuple(_replacement(table) for table in record["tables"])
    edges = _times(record, "sends_since", "sends_until", "watermark")
    return Part(**{**record, **edges, "topics": tuple(record["topics"]), "tables": tables})


def _replacement(record: dict[str, Any]) -> Replacement:
    rows = RowSelector.from_fields(record["rows"])
    return Replacement(**{**record, **_times(record, "start", "until"), "rows": rows})


def _times(record: Mapping[str, Any], *names: str) -> dict[str, datetime | None]:
    return {name: datetime.fromisoformat(record[name]) if record.get(name) else None for name in names}


class Replays:
    """The replays whose records lie under the tables root, a folder each.

    What reads them raises TidemarkError BAD_REPLAY, where a record is damaged.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def find(self, id: str) -> Replay | None:
        """Return the replay with that id."""
        path = ReplayPaths(self._settings, id).record
        text = read_text(path)
        return None if text is None else Replay.from_json(text, path)

    def begin(self, planned: Replay, again: bool = False) -> Replay:
        """Return `planned` as far as it was carried out before, or keep its first record.

        One that was taken back or given up stays so: a further attempt is planned.

        Args:
            again: whether a further attempt is planned after one that is done, too.
        """
        attempt, number = planned, 1
        while (known := self.find(attempt.id)) is not None:
            if known.state not in WITHDRAWN and not (again and known.is_finished):
                return known
            number += 1
            attempt = replace(planned, id=f"{planned.id}-{number}")
        return self.keep(attempt)

    def require(self, id: str) -> Replay:
        """Return the replay with that id; UNKNOWN_REPLAY for none."""
        replay = self.find(id)
        if replay is None:
            raise TidemarkError("UNKNOWN_REPLAY", f"there is no replay `{id}`", "`local/tidemark replay list` has them")
        return replay

    def all(self) -> list[Replay]:
        """Return every replay, the oldest first."""
        replays = (self.find(id) for id in listed(paths.replays(self._settings.paths.tables)))
        return sorted((replay for replay in replays if replay), key=lambda replay: replay.planned_at)

    def speed(self, job: str) -> float | None:
        """Return how many records a second the job's newest replay has read; None where none has run."""
        runs = [replay.findings["run"] for replay in self.all() if replay.job == job and "run" in replay.findings]
        return runs[-1]["records"] / runs[-1]["seconds"] if runs and runs[-1]["seconds"] else None

    def keep(self, replay: Replay, **changes: Any) -> Replay:
        """Write the record of `replay`, with `changes`, and return it."""
        changed = replace(replay, **changes)
        write_text(ReplayPaths(self._settings, replay.id).record, changed.to_json())
        return changed
