"""What a file's rows come to: inferred, converted, encoded and decoded again, without a broker."""

import json
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from fastavro import schemaless_reader

from conf.errors import TidemarkError
from jobs.connectors.kafka.refusals import Limits
from producers.files.inputs import Opening, open_inputs
from producers.files.records import Codec, FileRows
from producers.files.rejects import RejectLimit, Rejects
from producers.files.request import FileRequest, Parts
from producers.files.row_reader import RowReader
from producers.files.schema import infer_schema
from schemas.codec import HEADER, CodecError, Encoder, reader
from schemas.validity import parse_text
from schemas.values import Reading, UnfitError

NULLS = frozenset({""})


def inferred(path: Path, opening: Opening | None = None) -> str:
    return infer_schema("t", open_inputs([path], opening or Opening()), NULLS).text


def read_back(
    path: Path, schema: str | None = None, opening: Opening | None = None, named: bool = False, **reading: Any
) -> list[Any]:
    """Each row as its record decodes, or the reason (a string) for which it was rejected.

    `named`: a record, enum or fixed of a union comes as a pair of its type's name and itself.
    """
    text = schema or inferred(path, opening)
    return [result for _, result in rows_back(path, text, opening, named, **reading)]


def rows_back(
    path: Path, schema: str, opening: Opening | None = None, named: bool = False, **reading: Any
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    request = FileRequest("t", [path], Parts(None), reading=Reading(nulls=NULLS, **reading))
    rows, encode, decode = RowReader(schema, request), Encoder(1, schema), reader(schema)
    by_name = parse_text(schema)
    for each in open_inputs([path], replace(opening or Opening(), exact=rows.exact)):
        rows.check_columns(each)
        for row in each.rows():
            try:
                payload = encode(rows.value(row, each))[HEADER.size :]
                decoded: Any = decode(payload)
                if named:
                    decoded = schemaless_reader(BytesIO(payload), by_name, None, return_named_type=True)
                yield row.line, decoded
            except UnfitError as exc:
                yield row.line, str(exc)
            except CodecError as exc:
                yield row.line, exc.message


def both_ways(
    path: Path, schema: str | None = None, opening: Opening | None = None, **reading: Any
) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    """Return what is published, and line and reason of what is rejected: the same by columns and row by row."""
    text = schema or inferred(path, opening)
    by_columns, by_rows = (_accounts(path, text, opening, way, **reading) for way in (True, False))
    assert by_columns == by_rows
    decode = reader(text)
    return [decode(value[HEADER.size :]) for value in by_rows[0]], by_rows[1]


def _accounts(
    path: Path, text: str, opening: Opening | None, by_columns: bool, **reading: Any
) -> tuple[list[Any], list[tuple[int, str]]]:
    rejected = path.with_suffix(f".{by_columns}")
    rejected.unlink(missing_ok=True)
    read = Reading(nulls=NULLS, **reading)
    limit = RejectLimit(share=None)
    request = FileRequest("t", [path], Parts(None), reading=read, opening=opening or Opening(), limit=limit)
    rejects = Rejects(iter([rejected]), limit, reported=0)
    codec = Codec(RowReader(text, request), 1, text, Limits(), by_columns)
    values: list[Any] = []
    try:
        for batch in FileRows(request, codec, rejects).batches():
            values += batch.values
    except TidemarkError as error:
        if error.code != "TOO_MANY_REJECTS":  # all of them
            raise
    rejects.close()
    lines = rejected.read_text().splitlines() if rejected.exists() else []
    return values, [(entry["line"], entry["reason"]) for entry in map(json.loads, lines)]
