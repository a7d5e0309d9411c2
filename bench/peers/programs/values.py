"""Reads and writes the framed Avro values of the question, as fastavro's documentation does it for single records."""

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer

HEADER_LENGTH = 5


class Reader:
    """Makes the dict of a framed value."""

    def __init__(self, schema: str) -> None:
        self._schema = _plain(schema)

    def __call__(self, value: bytes) -> Any:
        buffer = BytesIO(value)
        buffer.seek(HEADER_LENGTH)
        return schemaless_reader(buffer, self._schema, None)


class Writer:
    """Makes the framed value of a dict."""

    def __init__(self, schema: str, schema_id: int) -> None:
        self._schema, self._header = _plain(schema), schema_id.to_bytes(HEADER_LENGTH, "big")

    def __call__(self, record: Mapping[str, Any]) -> bytes:
        buffer = BytesIO()
        buffer.write(self._header)
        schemaless_writer(buffer, self._schema, record)
        return buffer.getvalue()


def _plain(text: str) -> Any:
    """The schema with times as the numbers they are, which spares making a datetime of each."""
    schema = json.loads(text)
    for field in schema["fields"]:
        if isinstance(field["type"], dict):
            field["type"] = field["type"]["type"]
    return parse_schema(schema)
