"""A rejected record, as a row of the table `quarantine` and as the envelope that the work queue holds."""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

# What a redriven record carries besides its own headers.
OF = "tidemark.redrive.of"  # the record it is sent again for, as topic/partition/offset
ORIGIN = "tidemark.redrive.origin"  # the first one of that chain
ATTEMPT = "tidemark.redrive.attempt"  # how often the event was sent again, 1 for the first time
ID = "tidemark.redrive.id"  # the run of `quarantine redrive`
OWN_HEADERS = (OF, ORIGIN, ATTEMPT, ID)

Headers = tuple[tuple[str, bytes | None], ...]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Coordinates(NamedTuple):
    """Where a record lies; as text: topic/partition/offset."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of that text; raises ValueError."""
        topic, partition, offset = text.rsplit("/", 2)
        return cls(topic, int(partition), int(offset))


@dataclass(frozen=True)
class Rejected:
    """One rejected record; `timestamp_ms` is since 1970, 0 for none; `quarantined_at` ISO 8601, "" if not recorded."""

    at: Coordinates
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()
    timestamp_ms: int = 0
    schema_id: int | None = None
    error: str = ""
    rule: str | None = None
    reason: str = ""
    code_version: str = ""
    quarantined_at: str = ""
    names: dict[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        own = {name: (value or b"").decode(errors="replace") for name, value in self.headers if name in OWN_HEADERS}
        self.names.update(own)

    @property
    def attempt(self) -> int:
        """How often it was sent again before it came here."""
        text = self.names.get(ATTEMPT, "0")
        return int(text) if text.isdigit() else 0

    @property
    def origin(self) -> str:
        """The first record of its chain, itself where it was never redriven."""
        return self.names.get(ORIGIN, str(self.at))

    def redrive_headers(self, redrive: str) -> list[tuple[str, str | bytes | None]]:
        """The headers to send it again with: its own, then what leads back to it."""
        kept = [(name, value) for name, value in self.headers if name not in OWN_HEADERS]
        return [*kept, (OF, str(self.at)), (ORIGIN, self.origin), (ATTEMPT, str(self.attempt + 1)), (ID, redrive)]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Of a row of the table, whichever of the newer columns it lacks."""
        headers = tuple((each["key"], each["value"]) for each in row["headers"] or ())
        told, timestamp = row.get("quarantined_at"), row["timestamp"]
        return cls(
            Coordinates(row["topic"], row["partition"], row["offset"]),
            row["key"],
            row["value"],
            headers,
            max(0, milliseconds(timestamp)) if timestamp else 0,
            row["schema_id"],
            row["error"],
            row.get("rule"),
            row["reason"] or "",
            row.get("code_version") or "",
            told.astimezone(UTC).isoformat() if told else "",
        )

    def to_json(self) -> dict[str, Any]:
        """The envelope: bytes in base64, coordinates as `topic`, `partition`, `offset`."""
        told = {name: value for name, value in asdict(self).items() if name not in ("at", "names")}
        return {
            **self.at._asdict(),
            **told,
            "key": _encoded(self.key),
            "value": _encoded(self.value),
            "headers": [[name, _encoded(value)] for name, value in self.headers],
            "attempt": self.attempt,
            "origin": self.origin,
        }

    @classmethod
    def from_json(cls, envelope: Mapping[str, Any]) -> Self:
        """Of an envelope; what it says beyond the fields is passed over."""
        known = {each.name: envelope[each.name] for each in fields(cls) if each.init and each.name in envelope}
        parts = {"key": _decoded(envelope["key"]), "value": _decoded(envelope["value"])}
        headers = tuple((name, _decoded(value)) for name, value in envelope["headers"])
        at = Coordinates(envelope["topic"], envelope["partition"], envelope["offset"])
        return cls(**{**known, **parts, "headers": headers, "at": at})


def milliseconds(at: datetime) -> int:
    """Since 1970, rounded down."""
    return (at - EPOCH) // (datetime.resolution * 1000)


def _encoded(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
