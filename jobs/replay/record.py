"""A replay as it is kept: what was asked for, what it reads, in which slices, what it replaces, and how far it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Self

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.delta_commit import REPLAYS
from jobs.connectors.files import listed, read_text, write_text
from jobs.outputs import Replaceable

FOLDER = REPLAYS  # below the roots of tables and of checkpoints
FILE = "replay.json"
SHADOW, CHECK, RESTORED = WORKPLACES = ("shadow", "check", "restored")  # folders of tables beside the record
State = Literal["planned", "ran", "verified", "done", "undone", "abandoned"]
FINISHED: tuple[State, ...] = ("done", "undone", "abandoned")
Partitions = Mapping[int, int]


@dataclass(frozen=True)
class Slice:
    """Records that are read together: in each partition of each topic up to before `until`.

    Args:
        trusted: the number of the slice after which the watermark may stand where Spark put it: all event times up to
            then come before all that are still to be read. -1: none, the watermark is held.
        ends_at: the record time up to which the slice reads, as text; empty for the last.
    """

    until: Mapping[str, Partitions]
    trusted: int = -1
    ends_at: str = ""


@dataclass(frozen=True)
class Replacement:
    """The rows of a live table that the replay makes anew: those with an event time in [start, until).

    Args:
        start, until: None: from the first, to the last; in tables told by coordinates, the records that are read.
        version: of the live table when the replay was planned; None where there was no table.
        cut_over: the version that swapped them in; None for not yet.
    """

    rows: Replaceable
    start: datetime | None = None
    until: datetime | None = None
    version: int | None = None
    cut_over: int | None = None


@dataclass(frozen=True)
class Part:
    """One output of the job."""

    query: str
    name: str
    topics: tuple[str, ...]
    tables: tuple[Replacement, ...]
    topic: str | None = None
    back_s: float = 0


@dataclass(frozen=True)
class Replay:
    """Of one job.

    Args:
        id: names what is replayed by which code: asked for again, it is the same replay.
        kind: "range" replaces rows of live tables; "backfill" makes a new job's, and hands over to it.
        asked: the positions as they were written.
        starts: where reading begins, by topic.
        records, bytes: that are to be read, about.
    """

    id: str
    job: str
    kind: Literal["range", "backfill"]
    asked: Mapping[str, str]
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
        """Where reading ends, by topic."""
        return self.slices[-1].until

    def at(self, number: int) -> Mapping[str, Partitions]:
        """Where slice `number` begins."""
        return self.slices[number - 1].until if number else self.starts

    def to_json(self) -> str:
        """Readable text; times as ISO texts."""
        return json.dumps(_plain(self) | {"tables": self._versions()}, indent=1)

    def _versions(self) -> dict[str, dict[str, int]]:
        """The versions of live tables that must be kept while the replay is open, for maintenance."""
        pairs = ((each.rows.table, each.version) for part in self.parts for each in part.tables)
        return {table: {"version": version} for table, version in pairs if version is not None}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Of what `to_json` gave."""
        fields = json.loads(text)
        fields.pop("tables")
        return cls(
            **{
                **fields,
                "starts": _offsets(fields["starts"]),
                "slices": tuple(Slice(**{**each, "until": _offsets(each["until"])}) for each in fields["slices"]),
                "parts": tuple(_part(each) for each in fields["parts"]),
                "planned_at": datetime.fromisoformat(fields["planned_at"]),
            }
        )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def _offsets(fields: Mapping[str, Mapping[str, int]]) -> dict[str, dict[int, int]]:
    return {topic: {int(partition): at for partition, at in of.items()} for topic, of in fields.items()}


def _part(fields: dict[str, Any]) -> Part:
    tables = tuple(_replacement(each) for each in fields["tables"])
    return Part(**{**fields, "topics": tuple(fields["topics"]), "tables": tables})


def _replacement(fields: dict[str, Any]) -> Replacement:
    kept = Replaceable.from_fields(fields["rows"])
    edges = {edge: datetime.fromisoformat(fields[edge]) if fields[edge] else None for edge in ("start", "until")}
    return Replacement(**{**fields, **edges, "rows": kept})


class Replays:
    """The replays whose records lie under the tables root, a folder each."""

    def __init__(self, settings: Settings) -> None:
        self._root = f"{settings.paths.tables}/{FOLDER}"

    def find(self, id: str) -> Replay | None:
        """The replay with that id."""
        text = read_text(f"{self._root}/{id}/{FILE}")
        return Replay.from_json(text) if text else None

    def require(self, id: str) -> Replay:
        """The replay with that id; UNKNOWN_REPLAY for none."""
        found = self.find(id)
        if found is None:
            raise TidemarkError("UNKNOWN_REPLAY", f"there is no replay `{id}`", "`local/tidemark replay list` has them")
        return found

    def all(self) -> list[Replay]:
        """Every replay, the oldest first."""
        found = (self.find(id) for id in listed(self._root))
        return sorted((each for each in found if each), key=lambda each: each.planned_at)

    def speed(self, job: str) -> float | None:
        """Of the job's newest replay that ran, records/s; None for none."""
        runs = [each.findings["run"] for each in self.all() if each.job == job and "run" in each.findings]
        return runs[-1]["records"] / runs[-1]["seconds"] if runs and runs[-1]["seconds"] else None

    def keep(self, replay: Replay, **changes: Any) -> Replay:
        """Write the record of `replay`, with `changes`, and return it."""
        changed = replace(replay, **changes)
        write_text(f"{self._root}/{replay.id}/{FILE}", changed.to_json())
        return changed
