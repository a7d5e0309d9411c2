"""Takes a record's key, event time and headers out of the fields of a converted value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

from conf.errors import TidemarkError, nearest
from producers.kafka.publisher import Headers
from schemas.conversions import MISFITS
from schemas.timestamps import EPOCH, EPOCH_DAY, LOCAL_EPOCH, Ambiguous, WallClock, nanoseconds
from schemas.values import UnfitError, branches, source_name

# Units of a number that stands for a time, in nanoseconds: whole numbers all the way, so that none is a little short.
NUMBER_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
MS_NS = NUMBER_UNIT_NS["ms"]
DEFAULT_UNIT = "ms"
# Beyond this no file means a time, and arithmetic of 64 bits would not be exact.
LAST_MS = 1 << 52
LOGICAL_PER_MS = {"millis": 1, "micros": 1_000, "nanos": 1_000_000}


@dataclass(frozen=True)
class Parts:
    """Which fields make a record's key, timestamp and headers; by their names in the schema or in the input.

    `key` None: no key. `event_time` None: the record's timestamp is the time of publishing. `unit`: what a number
    means that is to be the event time: s, ms, us or ns; None: milliseconds, or the unit of its field's type.
    `headers`: the same for all records.
    """

    key: str | None
    event_time: str | None = None
    unit: str | None = None
    zone: tzinfo = UTC
    ambiguous: Ambiguous = "earlier"
    headers: Sequence[tuple[str, str]] = ()
    header_fields: Sequence[str] = ()

    def number_ns(self, schema: Mapping[str, Any]) -> dict[str, int]:
        """Return the nanoseconds in the unit that was named for numbers, by the event time's name in the schema."""
        names = [field["name"] for field in schema["fields"] if self.event_time in (source_name(field), field["name"])]
        return dict.fromkeys(names[:1], NUMBER_UNIT_NS[self.unit]) if self.unit else {}


class PartsReader:
    """Takes the parts out of values of one schema."""

    def __init__(self, parts: Parts, schema: Mapping[str, Any], notes: list[str] | None = None) -> None:
        """Raises TidemarkError UNKNOWN_FIELD or UNFIT_FIELD, where a field cannot be what it is to be.

        `notes` takes a line for each event time that the clocks showed twice.
        """
        fields = {name: field for field in schema["fields"] for name in (source_name(field), field["name"])}
        self._key = _Part("key", parts.key, fields, _key_text) if parts.key else None
        clock = WallClock(parts.zone, parts.ambiguous, [] if notes is None else notes)
        in_milliseconds = _event_time(clock, parts.unit or DEFAULT_UNIT)
        self._event_time = _Part("event time", parts.event_time, fields, in_milliseconds) if parts.event_time else None
        self._headers = [(name, text) for name, text in parts.headers]
        self._header_fields = [(name, _Part("header", name, fields, _text)) for name in parts.header_fields]

    def key(self, value: Mapping[str, Any]) -> str | bytes | None:
        """Return the key, None where the topic has none; raises UnfitError where the field is null."""
        return self._key.required(value) if self._key else None

    def timestamp(self, value: Mapping[str, Any]) -> int:
        """Return milliseconds since 1970, 0 for now; raises UnfitError where the field is null, or not after 1970."""
        if self._event_time is None:
            return 0
        timestamp = int(self._event_time.required(value))
        if timestamp <= 0:
            raise UnfitError("a record's timestamp must lie after 1970-01-01T00:00Z", self._event_time.name)
        if timestamp > LAST_MS:
            what = f"{timestamp:.3g} ms after 1970 are no record's timestamp: what unit are its numbers in"
            raise UnfitError(f"{what}? (--event-time-unit)", self._event_time.name)
        return timestamp

    def headers(self, value: Mapping[str, Any]) -> Headers:
        """Return the headers; a field that is null gives a header that is null."""
        if not self._headers and not self._header_fields:
            return None
        of_fields = [(name, part.optional(value)) for name, part in self._header_fields]
        return [*self._headers, *of_fields]


class _Part:
    """One field's value, put into another form."""

    def __init__(
        self, role: str, name: str, fields: Mapping[str, Any], form: Callable[[Any], Callable[[Any], Any] | None]
    ) -> None:
        if name not in fields:
            raise TidemarkError(
                "UNKNOWN_FIELD", f"the schema has no field `{name}` for the {role}", nearest(name, [*fields])
            )
        self.name = str(fields[name]["name"])
        self._default = fields[name].get("default")
        avro_type = fields[name]["type"]
        kinds = branches(avro_type)
        shape = form(kinds[0]) if len(kinds) == 1 else None
        if shape is None:
            what = f"field `{name}` is {avro_type}, which cannot be the {role}"
            raise TidemarkError("UNFIT_FIELD", what, "name another field")
        self._form = shape

    def required(self, value: Mapping[str, Any]) -> Any:
        part = self.optional(value)
        if part is None:
            raise UnfitError("it is null, and a record needs it", self.name)
        return part

    def optional(self, value: Mapping[str, Any]) -> Any:
        field_value = value.get(self.name, self._default)
        try:
            return None if field_value is None else self._form(field_value)
        except MISFITS as exc:
            raise UnfitError(str(exc), self.name) from exc


def _key_text(avro_type: Any) -> Callable[[Any], str | bytes] | None:
    # Doubles make bad keys: 0.0 and -0.0 are equal, NaN is not even itself.
    kind = avro_type["type"] if isinstance(avro_type, dict) else avro_type
    return None if kind in ("double", "float") else _text(avro_type)


def _text(avro_type: Any) -> Callable[[Any], str | bytes] | None:
    declared = avro_type if isinstance(avro_type, dict) else {"type": avro_type}
    logical, kind = str(declared.get("logicalType")), declared["type"]
    base, _, unit = logical.rpartition("-")
    if base in ("timestamp", "local-timestamp"):
        return lambda value: _time_text(value, unit) + ("Z" if base == "timestamp" else "")
    if logical == "date":
        return lambda value: (EPOCH_DAY + timedelta(days=value)).isoformat()
    if logical == "decimal":
        return lambda value: f"{value:f}"
    if kind == "boolean":
        return lambda value: "true" if value else "false"
    if kind in ("bytes", "fixed"):
        return bytes
    return str if kind in ("string", "int", "long", "enum", "double", "float") else None


def _event_time(clock: WallClock, unit: str) -> Callable[[Any], Callable[[Any], int] | None]:
    """Return milliseconds since 1970; a time that is finer is cut off to the millisecond that it lies in."""

    def form(avro_type: Any) -> Callable[[Any], int] | None:
        declared = avro_type if isinstance(avro_type, dict) else {"type": avro_type}
        logical = str(declared.get("logicalType"))
        base, _, logical_unit = logical.rpartition("-")
        if base == "timestamp":
            return lambda value: int(value // LOGICAL_PER_MS[logical_unit])
        if base == "local-timestamp":
            return lambda value: _ms(clock.instant(_time_of(LOCAL_EPOCH, value, logical_unit)))
        if logical == "date":
            # A midnight that was skipped is the first time of its day, one shown twice the earlier: that is fold 0.
            return lambda value: _ms(
                datetime.combine(EPOCH_DAY + timedelta(days=value), datetime.min.time(), clock.zone)
            )
        if declared["type"] == "string":
            return lambda value: nanoseconds(value, clock) // MS_NS
        unit_ns = NUMBER_UNIT_NS[unit]
        if logical == "decimal" or declared["type"] == "double":
            # A double stands for the shortest decimal that reads back as it, which is what its file showed.
            return lambda value: Fraction(Decimal(str(value))) * unit_ns // MS_NS
        return (lambda value: value * unit_ns // MS_NS) if declared["type"] in ("int", "long") else None

    return form


def _time_text(value: int, unit: str) -> str:
    """Return a time without its offset: with six digits behind its seconds, nine where it needs them, or none."""
    micros, finer = divmod(value * (MS_NS // LOGICAL_PER_MS[unit]), 1_000)
    text = (LOCAL_EPOCH + timedelta(microseconds=micros)).isoformat()
    return f"{text}{'' if '.' in text else '.000000'}{finer:03}" if finer else text


def _time_of(epoch: datetime, value: int, unit: str) -> datetime:
    return epoch + timedelta(microseconds=value * 1_000 // LOGICAL_PER_MS[unit])


def _ms(time: datetime) -> int:
    return (time - EPOCH) // timedelta(milliseconds=1)
