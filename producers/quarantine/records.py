"""Defines rejected records: rows of the table `quarantine`, and the envelopes that the work queue holds."""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC
from typing import Any, NamedTuple, Self

# What a redriven record carries besides its own headers.
OF = "tidemark.redrive.of"  # the record it is sent again for, as topic/partition/offset
ORIGIN = "tidemark.redrive.origin"  # the first one of that chain
ATTEMPT = "tidemark.redrive.attempt"  # how often the event was sent again, 1 for the first time
ID = "tidemark.redrive.id"  # the run of `quarantine redrive`
REDRIVE_HEADERS = (OF, ORIGIN, ATTEMPT, ID)

LAST_PARTITION, LAST_OFFSET = 2**31 - 1, 2**63 - 1
Headers = tuple[tuple[str, bytes | None], ...]


class Coordinates(NamedTuple):
    """Where a record lies; as text: topic/partition/offset."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read such a text; raises ValueError, also for numbers that no partition and no offset can have."""
        topic, partition, offset = text.rsplit("/", 2)
        at = cls(topic, int(partition), int(offset))
        if not (0 <= at.partition <= LAST_PARTITION and 0 <= at.offset <= LAST_OFFSET):
            raise ValueError(f"{text} is no record's place")
        return at


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

    @property
    def attempt(self) -> int:
        """Return how often it was sent again before it came here."""
        text = self._header(ATTEMPT, "0")
        return int(text) if text.isdigit() else 0

    @property
    def origin(self) -> str:
        """Return the first record of its chain, itself where it was never redriven."""
        return self._header(ORIGIN, str(self.at))

    def _header(self, name: str, default: str) -> str:
        headers = dict(self.headers)
        return (headers[name] or b"").decode(errors="replace") if name in headers else default

    def redrive_headers(self, redrive: str) -> list[tuple[str, str | bytes | None]]:
        """Return the headers to send it again with: its own, then what leads back to it."""
        kept = [(name, value) for name, value in self.headers if name not in REDRIVE_HEADERS]
        return [*kept, (OF, str(self.at)), (ORIGIN, self.origin), (ATTEMPT, str(self.attempt + 1)), (ID, redrive)]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read a row of the table (`timestamp` in milliseconds since 1970), whichever of the newer columns it lacks."""
        headers = tuple((header["key"], header["value"]) for header in row["headers"] or ())
        quarantined_at = row.get("quarantined_at")
        return cls(
            Coordinates(row["topic"], row["partition"], row["offset"]),
            row["key"],
            row["value"],
            headers,
            max(0, row["timestamp"] or 0),
            row["schema_id"],
            row["error"],
            row.get("rule"),
            row["reason"] or "",
            row.get("code_version") or "",
            quarantined_at.astimezone(UTC).isoformat() if quarantined_at else "",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the envelope: bytes in base64, coordinates as `topic`, `partition`, `offset`."""
        values = {name: value for name, value in asdict(self).items() if name != "at"}
        return {
            **self.at._asdict(),
            **values,
            "key": _encoded(self.key),
            "value": _encoded(self.value),
            "headers": [[name, _encoded(value)] for name, value in self.headers],
            "attempt": self.attempt,
            "origin": self.origin,
        }

    @classmethod
    def from_json(cls, envelope: Mapping[str, Any]) -> Self:
        """Read an envelope; what it says beyond the fields is passed over."""
        values = {field.name: envelope[field.name] for field in fields(cls) if field.name in envelope}
        parts = {"key": _decoded(envelope["key"]), "value": _decoded(envelope["value"])}
        headers = tuple((name, _decoded(value)) for name, value in envelope["headers"])
        at = Coordinates(envelope["topic"], envelope["partition"], envelope["offset"])
        return cls(**{**values, **parts, "headers": headers, "at": at})


def _encoded(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
