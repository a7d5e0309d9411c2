"""Everything that decides on an input's records, by the option or the part of it that does; default names."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

from conf.errors import TidemarkError
from producers.file_rows import FileRequest
from producers.nycflights import package_data
from producers.timeline import Timeline
from schemas.registry import fingerprint

# No dot: in a ledger's name it parts topic and name, and no file `in.csv` is taken for a name.
NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")


def default_name(paths: Sequence[Path]) -> str:
    """After the files: orders.csv.gz, more.csv -> orders-and-1-more."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", paths[0].name.partition(".")[0]).strip("-")[:60] or "file"
    return stem if len(paths) == 1 else f"{stem}-and-{len(paths) - 1}-more"


def range_name(first: date, end: date) -> str:
    """After the days: 2013-01-01_2014-01-01."""
    return f"{first}_{end}"


def file_facts(request: FileRequest, schema_id: int, text: str) -> dict[str, str]:
    """Of files; raises TidemarkError BAD_FILE, where one cannot be read."""
    parts, reading, opening = request.parts, request.reading, request.opening
    return {
        "topic": request.topic,
        "files": json.dumps([path.name for path in request.paths]),
        "contents": contents(request.paths),
        "schema": f"{schema_id} {fingerprint(text)}",
        "--key": json.dumps(parts.key),
        "--event-time": json.dumps([parts.event_time, parts.unit]),
        "--time-zone": json.dumps([str(parts.zone), str(reading.zone)]),
        "--header": hashlib.sha256(json.dumps(parts.headers).encode()).hexdigest(),
        "--header-field": json.dumps(parts.header_fields),
        "--null": json.dumps(sorted(reading.nulls)),
        "--ignore-extra": json.dumps(reading.ignore_extra),
        "--format": json.dumps([opening.format, opening.delimiter]),
    }


def flight_facts(
    first: date, end: date, disorder: tuple[int, int, float], timeline: Timeline, schema_ids: Mapping[str, int]
) -> dict[str, str]:
    """Of flights; `disorder`: seed, delay in ms, share of duplicates."""
    seed, delay_ms, duplicates = disorder
    order = hashlib.sha256()
    for column in (timeline.topic, timeline.row, timeline.event_time):
        order.update(column.tobytes())
    return {
        "--from": str(first),
        "--to": str(end),
        "--seed": str(seed) if delay_ms or duplicates else "",
        "--disorder": str(delay_ms),
        "--duplicates": str(duplicates),
        "data set": contents(sorted(package_data().glob("*.csv*"))),
        "order": order.hexdigest(),
        "schemas": json.dumps(schema_ids, sort_keys=True),
    }


def contents(paths: Iterable[Path]) -> str:
    """SHA-256 over the files, one after the other, in hexadecimal; raises TidemarkError BAD_FILE."""
    whole = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as exc:
            raise TidemarkError("BAD_FILE", f"{path}: {exc.strerror}", "mend or leave out the file") from exc
    return whole.hexdigest()
