"""What a file's rows come to: inferred, converted, encoded and decoded again, without a broker."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from fastavro import schemaless_reader

from producers.files.inputs import Opening, open_inputs
from producers.files.record_parts import Parts
from producers.files.records import FileRequest, RowReader
from producers.files.schema import infer_schema
from schemas.codec import HEADER, CodecError, Encoder, parsed, reader
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
    by_name = parsed(schema)
    for each in open_inputs([path], replace(opening or Opening(), exact=rows.exact)):
        rows.check_columns(each)
        for row in each.rows():
            try:
                payload = encode(rows.value(row, each.from_text))[HEADER.size :]
                decoded: Any = decode(payload)
                if named:
                    decoded = schemaless_reader(BytesIO(payload), by_name, None, return_named_type=True)
                yield row.line, decoded
            except UnfitError as exc:
                yield row.line, str(exc)
            except CodecError as exc:
                yield row.line, exc.message
