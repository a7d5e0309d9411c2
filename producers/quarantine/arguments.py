"""The options that select rejected records, the same for every `quarantine` command."""

import argparse
from datetime import UTC, datetime

from producers.quarantine.records import Coordinates
from producers.quarantine.selection import Selection

TIMES = "when they were put into quarantine, ISO 8601 (UTC where no zone is named)"


def add_selection(parser: argparse.ArgumentParser, record: bool = True) -> None:
    """Add them to a command."""
    group = parser.add_argument_group("selection", "all conditions must hold; an option that is repeated gives choices")
    if record:
        group.add_argument("record", nargs="?", type=_coordinates, help="one record: TOPIC/PARTITION/OFFSET")
    group.add_argument("--topic", action="append", default=[], help="the topic they came from")
    group.add_argument("--partition", type=int, metavar="N")
    group.add_argument("--from-offset", type=int, metavar="N", help="the first offset")
    group.add_argument("--to-offset", type=int, metavar="N", help="the first offset that is left out")
    group.add_argument("--error", action="append", default=[], metavar="CODE", help="for example UNKNOWN_SCHEMA_ID")
    group.add_argument("--rule", action="append", default=[], metavar="NAME", help="the data rule that failed")
    group.add_argument("--since", type=_time, metavar="TIME", help=TIMES)
    group.add_argument("--until", type=_time, metavar="TIME", help="the first time that is left out")


def add_into_compacted(parser: argparse.ArgumentParser) -> None:
    """Add the option of commands that redrive."""
    told = "redrive into compacted topics too, where a record becomes the newest of its key"
    parser.add_argument("--into-compacted", action="store_true", help=told)


def selection(options: argparse.Namespace) -> Selection:
    """What the options select."""
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


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 2013-01-31T12:00") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
