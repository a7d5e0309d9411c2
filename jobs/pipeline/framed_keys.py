"""Reads record keys in Confluent's framing, as its AvroSerializer, Connect and Debezium write them, as key fields.

Such a key is Avro by a schema of the subject `<topic>-key`: a value of the key field's type, or a record with one field
of that type, whatever that is called. Keys by any other schema, as of a record with two fields, are not read.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs.connectors.avro import decode
from schemas.codec import parsed
from schemas.compatibility import conflicts
from schemas.registry import RegisteredSchema
from schemas.spark_limits import NamedTypes

VALUE = "tidemark_framed_key"
KEY = "key"
DECODED = ("value", "schema_id", "event", "error")
# Which types keep their values as another one: a key that was rounded would be another row's.
WIDENED = {("int", "long")}
MEANING = ("logicalType", "precision", "scale", "size")


def with_values(decoded: DataFrame, schema: dict[str, Any], key: str, of_keys: Sequence[RegisteredSchema]) -> DataFrame:
    """Return `avro.decode`'s result with VALUE: what the column `key` (binary) says by one of the schemas `of_keys`, of
    the type of the event's field `key`; null where it says nothing.

    Args:
        schema: of the event, in fastavro's parsed form; `key` is a field of it.
    """
    declared = _declared(schema, key)
    writers = _writers(json.dumps(declared), tuple(of_keys)) if declared is not None else ()
    if not writers:
        return decoded.withColumn(VALUE, F.lit(None))
    aside = {name: f"tidemark_aside_{name}" for name in DECODED}
    read = decode.decode(
        decoded.withColumnsRenamed(aside).withColumn("value", F.col("key")), writers, _wrapped(["null", declared])
    )
    value = F.when(F.col("error").isNull(), F.col("event").getField(KEY))
    back = {name: plain for plain, name in aside.items()}
    return read.withColumn(VALUE, value).drop(*DECODED).withColumnsRenamed(back)


def is_framed(of_keys: Sequence[RegisteredSchema]) -> Column:
    """Return whether the column `key` begins as a key by one of the schemas `of_keys` does, whether or not that can be
    read; boolean, never null."""
    return decode.carries(of_keys, "key")


def _declared(schema: dict[str, Any], key: str) -> dict[str, Any] | None:
    names = NamedTypes(schema)
    field = next((field for field in schema["fields"] if field["name"] == key), None)
    branches = names.branches(field["type"]) if field else []
    return names.of(branches[0]) if len(branches) == 1 else None


@lru_cache(maxsize=256)
def _writers(declared: str, of_keys: tuple[RegisteredSchema, ...]) -> tuple[RegisteredSchema, ...]:
    """Return the schemas that can be read as the key field's type, each as a record with that field: the bytes of a
    record with one field are those of the field."""
    wanted = json.loads(declared)
    reader = _wrapped(["null", wanted])
    found = []
    for version in of_keys:
        try:
            text = _as_record(version, wanted)
            if text is None:
                continue
            writer = RegisteredSchema(version.id, version.subject, version.version, text)
            if not conflicts(reader, [writer], "backward"):
                found.append(writer)
        except TidemarkError:
            continue  # no valid schema: keys by it are kept in quarantine
    return tuple(found)


def _as_record(version: RegisteredSchema, wanted: dict[str, Any]) -> str | None:
    if not version.is_avro:
        return None
    schema = parsed(version.text)
    names = NamedTypes(schema)
    if isinstance(schema, dict) and schema["type"] == "record":
        if len(schema["fields"]) != 1:
            return None
        schema = schema["fields"][0]["type"]
    branches = names.branches(schema)
    one = names.of(branches[0]) if len(branches) == 1 else {"type": ""}
    is_wider = (one["type"], wanted["type"]) in WIDENED and "logicalType" not in one and "logicalType" not in wanted
    is_same = one["type"] == wanted["type"] and all(one.get(part) == wanted.get(part) for part in MEANING)
    if not (is_same or is_wider):
        return None
    # Types that have names are the same where they hold the same, whatever each schema calls its own.
    plain = {name: value for name, value in (one | {"name": wanted.get("name", "")}).items() if value != ""}
    return _wrapped(
        [plain if branch in branches else "null" for branch in schema] if isinstance(schema, list) else plain
    )


def _wrapped(kind: Any) -> str:
    return json.dumps(
        {"type": "record", "name": "Key", "namespace": "tidemark", "fields": [{"name": KEY, "type": kind}]}
    )
