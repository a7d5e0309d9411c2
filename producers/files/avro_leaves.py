"""Turns values of an Avro file that hold no others into values for a field of another type: exactly, or not at all.

A logical type says what a stored number means. So a number goes over as it is only where both types say the same of it;
otherwise it becomes what it stands for, and the field takes that, or refuses it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from schemas.numbers import Convert, stored_decimal
from schemas.timestamps import DAY_NS, EPOCH, EPOCH_DAY, LOCAL_EPOCH, UNIT_NS

NUMBERS = ("int", "long", "float", "double")
TIMES = ("timestamp", "local-timestamp", "time")
OUTSIDE = "it is outside of what a time holds, the years 1 to 9999"


@dataclass(frozen=True)
class Leaf:
    """A type that holds no others: Avro's name of it, and its logical type."""

    kind: str
    logical: str = ""
    scale: int = 0

    @staticmethod
    def of(declared: Mapping[str, Any], logical: str) -> "Leaf":
        """Return what a schema declares."""
        return Leaf(str(declared["type"]), logical, declared.get("scale", 0) if logical == "decimal" else 0)

    @property
    def family(self) -> str:
        """What it stands for, in whatever unit."""
        base, _, unit = self.logical.rpartition("-")
        return base if unit in UNIT_NS and base in TIMES else self.logical

    @property
    def unit_ns(self) -> int:
        """Nanoseconds in the unit of a time."""
        return UNIT_NS[self.logical.rpartition("-")[2]]

    def __str__(self) -> str:
        return self.logical or self.kind


def conversion(written: Leaf, wanted: Leaf, note: Callable[[str], None]) -> Convert | None:
    """Return how a value of one type becomes one for another; None where it is taken as it is.

    The callable raises ValueError. `note` takes a line for each value whose meaning is lost on the way.
    """
    if not written.logical or not wanted.logical:
        return _of_plain(written, wanted) if not written.logical else _into_plain(written, wanted, note)
    if written.family != wanted.family:
        return meaning(written) or _refused(written, wanted)
    if written.family in TIMES:
        return _rescaled(written, wanted) if written.unit_ns != wanted.unit_ns else None
    if written.family == "decimal":
        return meaning(written) if written.scale != wanted.scale else None
    if written.family == "uuid" and written.kind != wanted.kind:
        return meaning(written) if wanted.kind == "string" else lambda value: UUID(value).bytes
    return None


def meaning(leaf: Leaf) -> Convert | None:
    """Return the conversion of a stored value into what it stands for, as Python has it; None where it has nothing.

    A time that Python would cut is text.
    """
    if leaf.family == "decimal":
        return lambda value: stored_decimal(value, leaf.scale)
    if leaf.family == "date":
        return _day
    if leaf.family == "time":
        return lambda value: _time_of_day(value * leaf.unit_ns)
    if leaf.family in TIMES:
        epoch = EPOCH if leaf.family == "timestamp" else LOCAL_EPOCH
        return lambda value: _moment(epoch, value * leaf.unit_ns)
    return (lambda value: UUID(bytes=value)) if leaf.family == "uuid" and leaf.kind == "fixed" else None


def _of_plain(written: Leaf, wanted: Leaf) -> Convert | None:
    """Return the conversion from a type whose values stand for themselves; Avro's promotions of text are made here."""
    if (written.kind, wanted.kind) == ("bytes", "string"):
        return _text
    if (written.kind, wanted.kind) == ("string", "bytes") and not wanted.logical:
        return str.encode
    return None


def _into_plain(written: Leaf, wanted: Leaf, note: Callable[[str], None]) -> Convert | None:
    if written.family == "uuid":
        if wanted.kind == "string" and written.kind == "fixed":
            return lambda value: str(UUID(bytes=value))
        return _of_plain(Leaf(written.kind), wanted)
    is_number = written.kind in NUMBERS and wanted.kind in NUMBERS
    if not is_number and not (written.kind in ("bytes", "fixed") and wanted.kind in ("bytes", "fixed")):
        return meaning(written)
    line = f"a {written} of the file taken as it is stored, where the schema has {wanted}"

    def noted(value: Any) -> Any:
        note(line)
        return value

    return noted


def _refused(written: Leaf, wanted: Leaf) -> Convert:
    def refuse(value: Any) -> Any:
        raise ValueError(f"the file has a {written}, which is no {wanted}")

    return refuse


def _rescaled(written: Leaf, wanted: Leaf) -> Convert:
    from_ns, to_ns = written.unit_ns, wanted.unit_ns

    def rescale(value: int) -> int:
        count, lost = divmod(value * from_ns, to_ns)
        if lost:
            raise ValueError(f"{value:,} as {written} is finer than its type, which holds {wanted}")
        return count

    return rescale


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise ValueError("its bytes are no text in UTF-8") from exc


def _day(value: int) -> date:
    try:
        return EPOCH_DAY + timedelta(days=value)
    except OverflowError as exc:
        raise ValueError(OUTSIDE) from exc


def _time_of_day(nanoseconds: int) -> time:
    if not 0 <= nanoseconds < DAY_NS:
        raise ValueError("it is outside of a day")
    return (LOCAL_EPOCH + timedelta(microseconds=nanoseconds // 1000)).time()


def _moment(epoch: datetime, nanoseconds: int) -> Any:
    micros, finer = divmod(nanoseconds, 1000)
    try:
        moment = epoch + timedelta(microseconds=micros)
    except OverflowError as exc:
        raise ValueError(OUTSIDE) from exc
    if not finer:
        return moment
    return time_text(nanoseconds) + ("Z" if moment.tzinfo else "")


def time_text(nanoseconds: int) -> str:
    """Return a time without its offset: with six digits behind its seconds, nine where it needs them, or none."""
    micros, finer = divmod(nanoseconds, 1000)
    moment = LOCAL_EPOCH + timedelta(microseconds=micros)
    return f"{moment.isoformat(timespec='microseconds')}{finer:03}" if finer else moment.isoformat()
