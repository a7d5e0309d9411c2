"""Says what is to be published of files, and how: the request, and the arguments of `publish file` that make one."""

import argparse
import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

from conf.command_line import count_up_to, whole_number
from conf.topics import MOST, load_topics
from producers.files.inputs import Format, Opening
from producers.files.rejects import RejectLimit
from schemas.timestamps import Ambiguous
from schemas.values import Reading, source_name

# No dot: in a ledger's name it parts topic and name, and no file `in.csv` is taken for a name.
RUN_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
# Units of a number that stands for a time, in nanoseconds: whole numbers all the way, so that none is a little short.
NUMBER_UNIT_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
DEFAULT_UNIT = "ms"
FILE = """\
Any CSV, JSON (also .gz, .zip), Parquet or Avro file into a topic: one record a row. Without a schema, one is
inferred from all rows and written to schemas/TOPIC.avsc for review. A row that does not fit is written to the reject
file with its file, line and reason, and the rest goes on.
"""


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


@dataclass(frozen=True)
class FileRequest:
    """A request to publish files; `parts` and `reading` say how rows are read, `opening` how files are.

    `exactly_once`: the name under which each row is published once, whatever happens; None: at least once.
    """

    topic: str
    paths: Sequence[Path]
    parts: Parts
    schema: Path | None = None
    reading: Reading = field(default_factory=Reading)
    opening: Opening = field(default_factory=Opening)
    rejects: Path | None = None
    limit: RejectLimit = field(default_factory=RejectLimit)
    create_partitions: int | None = None
    exactly_once: str | None = None


def add_file_arguments(parser: argparse.ArgumentParser, run: Callable[..., Any]) -> None:
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files, published one after the other")
    parser.add_argument("--topic", required=True, help="the topic; it must exist, or see --create-topic")
    parser.add_argument("--create-topic", action="store_true", help="create it, records kept forever, if it is missing")
    parser.add_argument(
        "--partitions",
        type=count_up_to(MOST["partitions"]),
        default=1,
        metavar="N",
        help="of a topic that is created; default 1",
    )
    add_exactly_once(parser, "the files' names")
    group = parser.add_argument_group("schema")
    group.add_argument(
        "--schema",
        type=Path,
        metavar="FILE",
        help="an .avsc file; otherwise the declared topic's, or schemas/TOPIC.avsc",
    )
    group.add_argument("--infer-only", action="store_true", help="infer the schema, write it, publish nothing")
    group.add_argument("--ignore-extra", action="store_true", help="leave out fields that the schema does not have")
    group = parser.add_argument_group("records")
    group.add_argument(
        "--key",
        metavar="FIELD",
        help="its text is the key: same key, same partition, order kept; a row where it is null is rejected",
    )
    group.add_argument("--no-key", action="store_true", help="publish without keys, in no order")
    group.add_argument(
        "--event-time", metavar="FIELD", help="its time is the record's timestamp; without it, the time of publishing"
    )
    group.add_argument(
        "--event-time-unit",
        choices=[*NUMBER_UNIT_NS],
        help="of numbers of the file that are the event time; default ms, or of a timestamp the unit of its type",
    )
    group.add_argument(
        "--header", action="append", default=[], type=_header, metavar="NAME=VALUE", help="may be repeated"
    )
    group.add_argument(
        "--header-field",
        action="append",
        default=[],
        metavar="FIELD",
        help="a header with the field's name and text; may be repeated",
    )
    group = parser.add_argument_group("reading the files")
    group.add_argument("--format", choices=get_args(Format), help="default: by the file's name")
    group.add_argument("--delimiter", type=_delimiter, metavar="C", help="of CSV; default: by the first rows")
    group.add_argument(
        "--quote",
        choices=["double", "none"],
        default="double",
        help="of CSV: none where no cell is quoted, and a quote is a character like any other; default double",
    )
    group.add_argument(
        "--encoding",
        type=_encoding,
        metavar="NAME",
        help="of CSV and JSON: cp1252 (Excel in Western Europe), latin-1, utf-16-le; default UTF-8, or by its mark",
    )
    group.add_argument(
        "--null",
        action="append",
        default=[],
        metavar="TEXT",
        help="CSV cells that mean null, besides empty ones: NA; may be repeated",
    )
    group.add_argument(
        "--empty-text",
        action="store_true",
        help="an empty CSV cell is the empty text where its field is a string, and null elsewhere",
    )
    group.add_argument(
        "--time-zone",
        type=_zone,
        default=ZoneInfo("UTC"),
        metavar="ZONE",
        help="of times without an offset; default UTC. A time that its clocks never showed is rejected",
    )
    group.add_argument(
        "--ambiguous",
        choices=get_args(Ambiguous),
        default="earlier",
        help="which is meant of a time that the clocks showed twice, when they were put back; default earlier",
    )
    group = parser.add_argument_group("bad rows")
    group.add_argument(
        "--rejects", type=Path, metavar="FILE", help="default: rejects/TOPIC-N.jsonl in the state folder"
    )
    group.add_argument(
        "--max-rejects",
        type=_limit,
        default=RejectLimit(),
        metavar="LIMIT",
        help="stop past this share (0.1, from the 100th row on; the default), this many (50), or never (none)",
    )


def file_request(arguments: argparse.Namespace) -> FileRequest:
    """Return the request that the arguments make; ends with a usage error where they make none."""
    declared = load_topics().get(arguments.topic)
    key = arguments.key or (declared.key if declared and not arguments.no_key else None)
    if not (key or arguments.no_key or arguments.infer_only):
        arguments.parser.error("name the key's field with --key FIELD, or say --no-key: the key decides on the order")
    event_time = arguments.event_time or (declared.event_time if declared else None)
    zone, ambiguous = arguments.time_zone, arguments.ambiguous
    parts = Parts(key, event_time, arguments.event_time_unit, zone, ambiguous, arguments.header, arguments.header_field)
    return FileRequest(
        topic=arguments.topic,
        paths=arguments.paths,
        parts=parts,
        schema=arguments.schema,
        reading=Reading(
            zone=zone,
            nulls=frozenset({"", *arguments.null}),
            ignore_extra=arguments.ignore_extra,
            ambiguous=ambiguous,
            empty_is_text=arguments.empty_text,
        ),
        opening=Opening(arguments.format, arguments.delimiter, arguments.encoding, quoted=arguments.quote != "none"),
        rejects=arguments.rejects,
        limit=arguments.max_rejects,
        create_partitions=arguments.partitions if arguments.create_topic else None,
        exactly_once=default_name(arguments.paths) if arguments.exactly_once == "" else arguments.exactly_once,
    )


def default_name(paths: Sequence[Path]) -> str:
    """Return the name of a run after its files: orders.csv.gz, more.csv -> orders-and-1-more."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", paths[0].name.partition(".")[0]).strip("-")[:60] or "file"
    return stem if len(paths) == 1 else f"{stem}-and-{len(paths) - 1}-more"


def add_exactly_once(parser: argparse.ArgumentParser, default: str) -> None:
    """Declare the option, whose value is None without it, and empty for the default name."""
    parser.add_argument(
        "--exactly-once",
        nargs="?",
        const="",
        type=_name,
        metavar="NAME",
        help="publish in transactions; a run that was cut short goes on where the last one under NAME ended "
        f"(after the PATHs; default: after {default})",
    )


def _name(text: str) -> str:
    if text and not RUN_NAME.fullmatch(text):  # empty: the default name
        raise argparse.ArgumentTypeError(f"{text!r} is no name of letters, digits, - and _, 80 at most")
    if text and Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is a file: put the option behind all PATHs, or give it a NAME")
    return text


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _delimiter(text: str) -> str:
    delimiter = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(delimiter) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character (write tab for a tab)")
    return delimiter


def _encoding(text: str) -> str:
    try:
        "".encode(text)  # which takes encodings of text alone, not `hex`
        codecs.lookup(text).incrementaldecoder(errors="surrogateescape").decode(b"a")
        return codecs.lookup(text).name
    except (LookupError, TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no encoding of text like cp1252") from None


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise argparse.ArgumentTypeError(f"{text!r} is no IANA time zone like America/New_York") from None


def _limit(text: str) -> RejectLimit:
    if text == "none":
        return RejectLimit(share=None)
    if text.isdecimal():
        return RejectLimit(share=None, count=whole_number(text))
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no share like 0.1, no number like 50, and not none")
    return RejectLimit(share=share)
