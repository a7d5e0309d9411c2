"""Which Avro schema do these files need? Every row is looked at, so that none is refused by what was inferred.

Text becomes a narrower type only where every value of its column reads back as the same: 007 stays text, and so do
whole numbers of more than 18 digits. Numbers of CSV and JSON are long or double, never int or float, so that later
files fit too; Parquet and Avro keep their own types. Every field may be null, except in Avro files.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from conf.errors import TidemarkError
from producers.arrow_types import avro_fields
from producers.avro_records import Field, record, renamed, type_name
from producers.binary_rows import AvroInput, ParquetInput
from producers.cell_types import CellTypes
from producers.csv_rows import CsvInput
from producers.json_types import JsonTypes
from producers.rows import Input
from schemas.validity import load_schema

NAMESPACE = "tidemark.inferred"


@dataclass(frozen=True)
class Inferred:
    """The schema's text, and what the person who reviews it should know."""

    text: str
    notes: list[str]


class Types(Protocol):
    """What is known of one kind of files."""

    count: int

    def add(self, each: Input) -> None:
        """Look at one more file."""

    def fields(self, name: str) -> list[Field]:
        """The fields of the record `name`."""

    def notes(self) -> list[str]:
        """What a reviewer should know."""


def infer_schema(topic: str, inputs: Iterable[Input], nulls: frozenset[str]) -> Inferred:
    """The schema for all of `inputs`; `nulls`: the cells that mean null.

    Raises:
        TidemarkError: NO_ROWS, where there is nothing to infer from; MIXED_FILES, where the files are of different
            kinds; UNSUPPORTED_TYPE; BAD_FILE.
    """
    types: Types | AvroTypes | None = None
    first: Input | None = None
    names, notes = [], []
    for each in inputs:
        first, types = first or each, types or _types_for(each, nulls)
        if type(each) is not type(first):
            raise mixed(f"{each.name} is of another kind than {first.name}")
        types.add(each)
        names.append(each.name)
        notes += each.notes
    if types is None or not types.count:
        what = f"there is no row to infer a schema from in {', '.join(names) or 'no file'}"
        raise TidemarkError("NO_ROWS", what, "give the schema with --schema")
    if isinstance(types, AvroTypes):
        return Inferred(pretty(types.schema), notes)
    described = _described(topic, types, names)
    return Inferred(described.text, notes + described.notes)


def pretty(schema: Mapping[str, Any]) -> str:
    """The schema's text with one field a line, so that a change shows as one."""
    attributes = [f"  {_json(name)}: {_json(value)}" for name, value in schema.items() if name != "fields"]
    fields = ",\n".join(f"    {_json(field)}" for field in schema["fields"])
    return "{\n" + ",\n".join([*attributes, f'  "fields": [\n{fields}\n  ]']) + "\n}\n"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def mixed(what: str) -> TidemarkError:
    """Files for which there is no one schema."""
    return TidemarkError("MIXED_FILES", what, "publish them one at a time, or give the schema with --schema")


class ArrowTypes:
    """The columns of Parquet files, which must be the same in all."""

    def __init__(self) -> None:
        self._schema: pa.Schema | None = None
        self.count = 1

    def add(self, each: Input) -> None:
        """Read the file's own schema."""
        assert isinstance(each, ParquetInput)
        if self._schema is not None and not self._schema.equals(each.schema):
            raise mixed(f"{each.name} has other columns than the files before it")
        self._schema = each.schema

    def fields(self, name: str) -> list[Field]:
        """The columns."""
        return avro_fields(self._schema, name)

    def notes(self) -> list[str]:
        """Nothing to be said: the types are the file's."""
        return []


class AvroTypes:
    """The schema of Avro files, which must be the same in all."""

    def __init__(self) -> None:
        self.schema: Any = None
        self.count = 1

    def add(self, each: Input) -> None:
        """Read the file's own schema."""
        assert isinstance(each, AvroInput)
        if self.schema not in (None, each.schema):
            raise mixed(f"{each.name} has another schema than the files before it")
        self.schema = each.schema


def _types_for(each: Input, nulls: frozenset[str]) -> Types | AvroTypes:
    if isinstance(each, AvroInput):
        return AvroTypes()
    if isinstance(each, ParquetInput):
        return ArrowTypes()
    return CellTypes(nulls) if isinstance(each, CsvInput) else JsonTypes()


def _described(topic: str, types: Types, names: list[str]) -> Inferred:
    name = type_name(topic)
    files = ", ".join(Path(each).name for each in names)
    doc = f"Inferred from {files}. Review it: names, types, docs, and which fields may be null."
    schema = record(name, types.fields(name), namespace=NAMESPACE, doc=doc)
    text = pretty(schema)
    load_schema(text)
    notes = [f"{source!r} is no Avro name: the field is `{field}`" for source, field in renamed(schema)]
    return Inferred(text, notes + types.notes())
