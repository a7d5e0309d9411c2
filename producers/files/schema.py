"""Finds the schema of a file's records: given, declared with the topic, inferred earlier, or inferred now."""

import copy
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from conf.errors import TidemarkError
from conf.topics import Topic
from producers.files.avro_fields import Field, avro_fields, event, renamed, require_precision, type_name
from producers.files.avro_rows import AvroInput
from producers.files.csv_rows import CsvInput
from producers.files.json_rows import JsonInput
from producers.files.json_types import JsonTypes
from producers.files.parquet_rows import ParquetInput
from producers.files.rows import SAY_ENCODING, Input
from producers.files.text_types import CellTypes
from schemas.contracts import FOLDER, contract, contract_path
from schemas.validity import NAME, load_schema, without_unfit_defaults

NAMESPACE = "tidemark.inferred"
# What this project understands by attributes that are nobody else's; of a file, they are its author's own.
OF_FIELDS, OF_TYPES = "source", "json"


@dataclass(frozen=True)
class Inferred:
    """The schema's text, and what the person who reviews it should know."""

    text: str
    notes: list[str]


def find_schema(topic: str, schema_file: Path | None, declared: Topic | None, folder: Path = FOLDER) -> str | None:
    """Return the schema's text, None where it is still to be inferred.

    The first of: `schema_file`; the contract of a declared topic; `<topic>.avsc` in `folder`.

    Raises:
        TidemarkError: NO_SCHEMA_FILE, where it cannot be read; UNKNOWN_CONTRACT; UNKNOWN_EVENT, where the topic has
            several and no file is named.
    """
    if schema_file is not None:
        try:
            return schema_file.read_text(encoding="utf-8")
        except (OSError, ValueError) as exc:
            remedy = "check the path; to infer the schema and write it there, add --infer-only"
            raise TidemarkError("NO_SCHEMA_FILE", f"the schema {schema_file} cannot be read: {exc}", remedy) from exc
    if declared is not None and declared.schemas:
        what = f"topic {topic} has events of several types: {', '.join(declared.schemas)}"
        raise TidemarkError("UNKNOWN_EVENT", what, f"name one: --schema {folder / declared.schemas[0]}.avsc")
    if declared is not None:
        declared.require_contract()
        return contract(declared.schema)
    path = contract_path(topic, folder)
    if not path.is_file():
        return None
    print(f"schema: {path}, which was there; remove it to have it inferred anew")
    return path.read_text(encoding="utf-8")


def write_schema(inferred: Inferred, path: Path) -> None:
    """Write an inferred schema to `path` for review; raises TidemarkError SCHEMA_EXISTS or SCHEMA_NOT_WRITTEN."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(inferred.text)
    except FileExistsError as exc:
        raise TidemarkError("SCHEMA_EXISTS", f"{path} is there already", "remove it to infer the schema anew") from exc
    except OSError as exc:
        remedy = "name another place with --schema PATH --infer-only"
        raise TidemarkError("SCHEMA_NOT_WRITTEN", f"{path}: {exc.strerror}", remedy) from exc
    print(f"schema: inferred, and written to {path} for review")
    for note in inferred.notes:
        print(f"note: {note}", file=sys.stderr)


def infer_schema(topic: str, inputs: Iterable[Input], nulls: frozenset[str]) -> Inferred:
    """Return the schema for all of `inputs`; `nulls`: the cells that mean null.

    Raises:
        TidemarkError: NO_ROWS, where there is nothing to infer from; MIXED_FILES, where the files are of different
            kinds; UNSUPPORTED_TYPE; BAD_FILE.
    """
    types: Types | None = None
    first: Input | None = None
    names, notes = [], []
    for file in inputs:
        if first is None or types is None:
            first = file
            types = CellTypes(nulls) if isinstance(file, CsvInput) else TYPES[type(file)]()
        if type(file) is not type(first):
            raise _mixed(f"{file.name} is of another kind than {first.name}")
        types.add(file)
        names.append(file.name)
        notes += file.notes
    problems = types.problems if types else []
    if types and not types.count and problems:
        what, of_encoding, _ = problems[0].partition(f": {SAY_ENCODING}")
        remedy = f"{SAY_ENCODING}, as in --encoding cp1252" if of_encoding else "mend the file"
        raise TidemarkError("BAD_FILE", f"no row can be read: {what}", remedy)
    if types is None or not types.count:
        what = f"there is no row to infer a schema from in {', '.join(names) or 'no file'}"
        raise TidemarkError("NO_ROWS", what, "give the schema with --schema")
    if isinstance(types, AvroTypes):
        return types.inferred(names[0], notes)
    described = _described(topic, types, names)
    if problems:
        notes.append(f"{len(problems):,} rows cannot be read, and will be rejected; the first: {problems[0]}")
    return Inferred(described.text, notes + described.notes)


class ArrowTypes:
    """The columns of Parquet files, which must be the same in all."""

    count = 1

    def __init__(self) -> None:
        self._schema: pa.Schema | None = None
        self.problems: list[str] = []

    def add(self, file: Input) -> None:
        assert isinstance(file, ParquetInput)
        if self._schema is not None and not self._schema.equals(file.schema):
            raise _mixed(f"{file.name} has other columns than the files before it")
        self._schema = file.schema

    def fields(self, name: str) -> list[Field]:
        return avro_fields(self._schema, name)

    def notes(self) -> list[str]:
        return []


class AvroTypes:
    """The schema of Avro files, which must be the same in all."""

    count = 1

    def __init__(self) -> None:
        self.schema: Any = None
        self.problems: list[str] = []

    def add(self, file: Input) -> None:
        assert isinstance(file, AvroInput)
        if self.schema not in (None, file.schema):
            raise _mixed(f"{file.name} has another schema than the files before it")
        self.schema = file.schema
        _check_decimals(file.schema, "")

    def inferred(self, name: str, notes: list[str]) -> Inferred:
        """Return the schema of all files, the first of which is named; raises TidemarkError INVALID_SCHEMA."""
        try:
            schema, left_out = topic_schema(self.schema)
            load_schema(pretty(schema))
        except TidemarkError as exc:
            remedy = "give another for its records with --schema"
            raise TidemarkError(exc.code, f"{name}: its own is {exc.message}", remedy) from exc
        return Inferred(pretty(schema), [*notes, *left_out])


def topic_schema(header: Any) -> tuple[Any, list[str]]:
    """Return the schema of the records of an Avro file, and a note on each thing of its header that is not in it;
    raises TidemarkError INVALID_SCHEMA."""
    schema = copy.deepcopy(header)
    notes = [*_without_own_attributes(schema)]
    return schema, notes + [f"{what}: it is left out" for what in without_unfit_defaults(schema)]


def _without_own_attributes(schema: Any) -> Iterator[str]:
    for part in schema if isinstance(schema, list) else [schema]:
        if not isinstance(part, dict):
            continue
        if OF_TYPES in part:
            yield _left_out(part, OF_TYPES, f"type {part.get('type')}")
        for inner in (part.get("items"), part.get("values")):
            yield from _without_own_attributes(inner)
        fields = part.get("fields")
        for field in fields if isinstance(fields, list) else ():
            if isinstance(field, dict) and OF_FIELDS in field:
                yield _left_out(field, OF_FIELDS, f"field `{field.get('name')}`")
            yield from _without_own_attributes(field.get("type") if isinstance(field, dict) else None)


def _left_out(declared: dict[str, Any], attribute: str, of: str) -> str:
    value = _json(declared.pop(attribute))
    return f"{of}: the file's own attribute `{attribute}`, {value}, has another meaning here: it is left out"


Types = ArrowTypes | AvroTypes | CellTypes | JsonTypes
"""The types of one kind of files. `problems`: one for each row that cannot be read; the first says where, and why."""

TYPES: dict[type[Input], type[ArrowTypes] | type[AvroTypes] | type[JsonTypes]] = {
    ParquetInput: ArrowTypes,
    AvroInput: AvroTypes,
    JsonInput: JsonTypes,
}


def pretty(schema: Mapping[str, Any]) -> str:
    """Return the schema's text with one field a line, so that a change shows as one."""
    attributes = [f"  {_json(name)}: {_json(value)}" for name, value in schema.items() if name != "fields"]
    fields = ",\n".join(f"    {_json(field)}" for field in schema["fields"])
    return "{\n" + ",\n".join([*attributes, f'  "fields": [\n{fields}\n  ]']) + "\n}\n"


def _mixed(what: str) -> TidemarkError:
    return TidemarkError("MIXED_FILES", what, "publish them one at a time, or give the schema with --schema")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _check_decimals(schema: Any, path: str) -> None:
    """Raise TidemarkError UNSUPPORTED_TYPE for a decimal of more digits than a table holds."""
    if isinstance(schema, list):
        for branch in schema:
            _check_decimals(branch, path)
    elif isinstance(schema, dict):
        if schema.get("logicalType") == "decimal" and isinstance(schema.get("precision"), int):
            require_precision(schema["precision"], path)
        for inner in ("items", "values", "type"):
            _check_decimals(schema.get(inner), path)
        for field in schema.get("fields", ()):
            _check_decimals(field["type"], f"{path}.{field['name']}".lstrip("."))


def _described(topic: str, types: ArrowTypes | CellTypes | JsonTypes, names: list[str]) -> Inferred:
    name = type_name(topic)
    files = ", ".join(Path(path).name for path in names)
    doc = f"Inferred from {files}. Review it: names, types, docs, and which fields may be null."
    schema = event(name, types.fields(name), namespace=NAMESPACE, doc=doc)
    text = pretty(schema)
    load_schema(text)
    notes = []
    for source, field in renamed(schema):
        why = "is another column's name, whatever the case" if NAME.fullmatch(source) else "is no Avro name"
        notes.append(f"{source!r} {why}: the field is `{field}`")
    return Inferred(text, notes + types.notes())
