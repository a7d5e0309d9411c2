"""Selects rejected records by topic, partition, offsets, error code, rule and time: as options and as a condition."""

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import and_
from typing import Any

import pyarrow.compute as pc
from pyarrow import Schema

from conf.command_line import whole_number
from conf.errors import TidemarkError
from producers.quarantine.records import LAST_PARTITION, Coordinates


@dataclass(frozen=True)
class Selection:
    """Conditions on records; an empty field takes all. The first offset and time are included, the last are not."""

    topics: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    partition: int | None = None
    first_offset: int | None = None
    end_offset: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    record: Coordinates | None = None

    @property
    def is_everything(self) -> bool:
        """Return whether nothing was asked for."""
        return self == Selection()

    def condition(self, schema: Schema) -> Any:
        """Return a pyarrow expression over the table's columns; None for all rows.

        Raises:
            TidemarkError: NO_SUCH_COLUMN, where an older table cannot answer.
        """
        terms: list[Any] = []
        for column, values in (("topic", self.topics), ("error", self.errors), ("rule", self.rules)):
            if values:
                terms.append(column_of(schema, column).isin(values))
        if self.partition is not None:
            terms.append(column_of(schema, "partition") == self.partition)
        if self.record:
            terms += [column_of(schema, name) == value for name, value in self.record._asdict().items()]
        for column, first, end in (
            ("offset", self.first_offset, self.end_offset),
            ("quarantined_at", self.since, self.until),
        ):
            if first is not None:
                terms.append(column_of(schema, column) >= first)
            if end is not None:
                terms.append(column_of(schema, column) < end)
        return reduce(and_, terms) if terms else None

    def within(self, schema: Schema, topic: str, partition: int, first: int, last: int) -> Any:
        """Return the condition of those that lie between two offsets of one partition, both taken in."""
        offset = pc.field("offset")
        condition = (pc.field("topic") == topic) & (pc.field("partition") == partition)
        condition = condition & (offset >= first) & (offset <= last)
        selected = self.condition(schema)
        return condition if selected is None else selected & condition


def column_of(schema: Schema, name: str) -> Any:
    """Return the column for an expression; raises TidemarkError NO_SUCH_COLUMN, where an older table lacks it."""
    if name not in schema.names:
        what = f"the table quarantine has no column {name}: it was written by an older version"
        raise TidemarkError("NO_SUCH_COLUMN", what, "select by topic, offsets or error, or run ingest once more")
    return pc.field(name)


TIMES = "when they were put into quarantine, ISO 8601 (UTC where no zone is named)"


def add_selection(parser: argparse.ArgumentParser, record: bool = True) -> None:
    """Add the options of a selection to a command."""
    group = parser.add_argument_group("selection", "all conditions must hold; an option that is repeated gives choices")
    if record:
        group.add_argument("record", nargs="?", type=_coordinates, help="one record: TOPIC/PARTITION/OFFSET")
    group.add_argument("--topic", action="append", default=[], help="the topic they came from")
    group.add_argument("--partition", type=_partition, metavar="N")
    group.add_argument("--from-offset", type=whole_number, metavar="N", help="the first offset")
    group.add_argument("--to-offset", type=whole_number, metavar="N", help="the first offset that is left out")
    group.add_argument("--error", action="append", default=[], metavar="CODE", help="for example UNKNOWN_SCHEMA_ID")
    group.add_argument("--rule", action="append", default=[], metavar="NAME", help="the data rule that failed")
    group.add_argument("--since", type=_time, metavar="TIME", help=TIMES)
    group.add_argument("--until", type=_time, metavar="TIME", help="the first time that is left out")


def add_into_compacted(parser: argparse.ArgumentParser) -> None:
    """Add the option of commands that redrive."""
    text = "redrive into compacted topics too, where a record becomes the newest of its key"
    parser.add_argument("--into-compacted", action="store_true", help=text)


def selection(options: argparse.Namespace) -> Selection:
    """Return what the options select; raises TidemarkError BAD_ARGUMENTS for a range without anything in it."""
    for first, start, end, stop in (
        ("--from-offset", options.from_offset, "--to-offset", options.to_offset),
        ("--since", options.since, "--until", options.until),
    ):
        if start is not None and stop is not None and start >= stop:
            what = f"{first} {start} is not before {end} {stop}: nothing lies between"
            raise TidemarkError("BAD_ARGUMENTS", what, f"give a {first} that is less than {end}")
    return Selection(
        tuple(options.topic),
        tuple(options.error),
        tuple(options.rule),
        options.partition,
        options.from_offset,
        options.to_offset,
        options.since,
        options.until,
        getattr(options, "record", None),
    )


def _coordinates(text: str) -> Coordinates:
    try:
        return Coordinates.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no record like departures/0/42") from None


def _partition(text: str) -> int:
    number = whole_number(text)
    if number > LAST_PARTITION:
        raise argparse.ArgumentTypeError(f"{text!r} is no partition: the last one is {LAST_PARTITION}")
    return number


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 2013-01-31T12:00") from None
