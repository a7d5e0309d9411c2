"""Finds which row a tombstone deletes: its record key is read as a value of the field that keys its compacted topic.

A tombstone has no event: nothing but the record key says whose it is. The key must be the text (of bytes: the bytes)
that our producers write for a value of the field's type, or Avro in Confluent's framing, by a schema that is registered
for the topic's keys; so what is no such value is never taken for one. A key in any other form, as in that of Java's
LongSerializer, names no row. Text that is of another form by chance nothing can tell from a key: so the keys of events
are held against their key fields.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.errors import TidemarkError, nearest
from jobs.connectors.avro import decode
from jobs.connectors.avro.decode import ERA
from schemas.compatibility import conflicts
from schemas.registry import RegisteredSchema
from schemas.spark_limits import NamedTypes, event_schema
from schemas.validity import parse_text
from schemas.wire import UUID

DELETED_KEY, OTHER_KEY = "deleted_key", "other_key"
BAD_KEY = "BAD_KEY"
NAMED, FRAMED = "tidemark_named_key", "tidemark_framed_key"
WHOLE = r"(?:0|-?[1-9][0-9]*)"
DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
SECONDS = r"[0-9]{2}:[0-9]{2}:[0-9]{2}"
TIME = rf"{SECONDS}(?:\.[0-9]{{1,6}})?"
FIRST_DAY, LAST_DAY = (edge.partition(" ")[0] for edge in ERA)
# A text of these is a number in bytes, or framed: Java's serializers of numbers begin with them nearly always.
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
# Java's and Python's texts of one double differ, so any that a JSON number may have stands for the double.
DOUBLE = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
KEY = "key"
DECODED = ("value", "schema_id", "event", "error")
# The one type that keeps its values as another one: a key that was rounded would be another row's.
WIDENED = ("int", "long")
MEANING = ("type", "logicalType", "precision", "scale", "size")


def with_deleted_keys(
    decoded: DataFrame, topic: str, schema: str, key: str, of_keys: Sequence[RegisteredSchema] = ()
) -> DataFrame:
    """Return `avro.decode`'s result of a compacted topic with DELETED_KEY, of the type of the event's field `key`: what
    a tombstone deletes, null for every other record; and OTHER_KEY, boolean: whether the key of an event's record is
    none that its key field has. A tombstone whose key names nothing has the error BAD_KEY.

    Args:
        schema: the text of the schema that events come out in.
        of_keys: the versions of the topic's record keys.

    Raises:
        TidemarkError: BAD_TOPICS, where `key` is no field of the event, or of a type that no record key can be read as.
    """
    event = event_schema(schema)
    is_framed, text_value = decode.carries(of_keys, "key"), key_value(topic, event, key)
    framed = _with_framed_keys(decoded, _key_type(topic, event, key), of_keys)
    named = framed.withColumn(NAMED, F.when(is_framed, F.col(FRAMED)).otherwise(text_value))
    is_tombstone, field = F.col("error").eqNullSafe(decode.NO_VALUE), F.col("event").getField(key)
    is_other = F.col("error").isNull() & field.isNotNull() & ~field.eqNullSafe(F.col(NAMED))
    is_bad = is_tombstone & F.col(NAMED).isNull()
    columns = {
        DELETED_KEY: F.when(is_tombstone, F.col(NAMED)),
        OTHER_KEY: F.coalesce(is_other, F.lit(False)),
        "error": F.when(is_bad, BAD_KEY).otherwise(F.col("error")),
    }
    return named.withColumns(columns).drop(NAMED, FRAMED)


def key_value(topic: str, schema: dict[str, Any], key: str) -> Column:
    """Return the column `key` (binary) of a record as a value of the field `key` of `schema`, in fastavro's parsed
    form; null where it is none. Raises TidemarkError BAD_TOPICS, as `with_deleted_keys`."""
    declared = _key_type(topic, schema, key)
    value = _read(declared) if declared is not None else None
    if value is None:
        what = f"topic {topic} is compacted by `{key}`, whose type no record key can be read as"
        remedy = "name a field in conf/topics.toml that is a string, a number, a time, a boolean or bytes"
        raise TidemarkError("BAD_TOPICS", what, remedy)
    return value


def _key_type(topic: str, schema: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Return the type of the field `key`, without null; None where it has several."""
    names, fields = NamedTypes(schema), {field["name"]: field["type"] for field in schema["fields"]}
    if key not in fields:
        what = f"topic {topic} is compacted by `{key}`, and its events have no such field"
        raise TidemarkError("BAD_TOPICS", what, f"mend its key in conf/topics.toml; {nearest(key, [*fields])}")
    branches = names.branches(fields[key])
    return names.of(branches[0]) if len(branches) == 1 else None


def _read(declared: dict[str, Any]) -> Column | None:
    kind, logical = declared["type"], str(declared.get("logicalType"))
    text = F.col("key").cast("string")
    if kind in ("bytes", "fixed") and logical != "decimal":
        return F.when(F.length("key") == declared["size"], F.col("key")) if kind == "fixed" else F.col("key")
    if kind == "enum":
        return F.when(text.isin(declared["symbols"]), text)
    if kind == "string":
        return (
            F.lower(_matching(UUID))
            if logical == "uuid"
            else F.when(F.is_valid_utf8(text) & ~text.rlike(CONTROL), text)
        )
    if kind == "boolean":
        return _matching("true|false").try_cast("boolean")
    if logical == "decimal":
        scale = declared.get("scale", 0)
        fraction = rf"(?:\.[0-9]{{1,{scale}}})?" if scale else ""
        number = _matching(rf"-?(?:0|[1-9][0-9]*){fraction}")
        return number.try_cast(f"decimal({declared['precision']},{scale})")
    if kind in ("float", "double"):
        number = _matching(DOUBLE).try_cast(kind)
        return F.when(F.abs(number) < F.lit(float("inf")), number)
    return _whole_or_moment(kind, logical)


def _whole_or_moment(kind: str, logical: str) -> Column | None:
    if (kind, logical) == ("int", "date"):
        day = _matching(DAY).try_cast("date")
        return F.when(day.between(*(F.lit(edge).cast("date") for edge in (FIRST_DAY, LAST_DAY))), day)
    if kind == "long" and logical.endswith(("timestamp-millis", "timestamp-micros")):
        is_local = logical.startswith("local")
        moment = _matching(f"(?!0000){DAY}T{TIME}" + ("" if is_local else "Z"))
        return moment.try_cast("timestamp_ntz" if is_local else "timestamp")
    if kind not in ("int", "long"):
        return None
    whole = _matching(WHOLE).try_cast({"int": "int", "long": "bigint"}[kind])
    is_fine = kind == "long" and logical in ("timestamp-nanos", "local-timestamp-nanos")
    return F.coalesce(whole, _nanoseconds("" if logical.startswith("local") else "Z")) if is_fine else whole


def _nanoseconds(offset: str) -> Column:
    """The key, a time, as nanoseconds since 1970: a table has a long for a time so fine."""
    text = _matching(rf"(?!0000){DAY}T{SECONDS}(?:\.[0-9]{{6}}(?:[0-9]{{3}})?)?{offset}")
    in_micros = F.concat(F.regexp_extract(text, r"^(.{19}(?:\.[0-9]{6})?)", 1), F.lit("Z")).try_cast("timestamp")
    finer = F.coalesce(F.regexp_extract(text, r"\.[0-9]{6}([0-9]{3})", 1).try_cast("bigint"), F.lit(0))
    return F.try_add(F.try_multiply(F.unix_micros(in_micros), F.lit(1000)), finer)


def _matching(pattern: str) -> Column:
    """Return the key as text, null where it is not as a whole what `pattern` says, which is ASCII alone."""
    text = F.col("key").cast("string")
    return F.when(text.rlike(rf"\A(?:{pattern})\z"), text)


def _with_framed_keys(
    decoded: DataFrame, declared: dict[str, Any] | None, of_keys: Sequence[RegisteredSchema]
) -> DataFrame:
    """Return `avro.decode`'s result with FRAMED, of the type `declared`: what the column `key` (binary) says by one of
    the schemas `of_keys`; null where it says nothing.

    Confluent's AvroSerializer, Connect and Debezium write such keys, by a schema of the subject `<topic>-key`: a value
    of the key field's type, or a record with one field of that type, whatever that is called. Keys by any other schema,
    as of a record with two fields, are not read.
    """
    writers = _key_writers(json.dumps(declared), tuple(of_keys)) if declared is not None else ()
    if not writers:
        return decoded.withColumn(FRAMED, F.lit(None))
    aside = {name: f"tidemark_aside_{name}" for name in DECODED}
    keys = decoded.withColumnsRenamed(aside).withColumn("value", F.col("key"))
    read = decode.decode(keys, writers, _as_record(["null", declared]))
    value = F.when(F.col("error").isNull(), F.col("event").getField(KEY))
    back = {name: plain for plain, name in aside.items()}
    return read.withColumn(FRAMED, value).drop(*DECODED).withColumnsRenamed(back)


@lru_cache(maxsize=256)
def _key_writers(declared: str, of_keys: tuple[RegisteredSchema, ...]) -> tuple[RegisteredSchema, ...]:
    """Return those that can be read as the key field's type (JSON), as records with it: these have the same bytes."""
    key_type = json.loads(declared)
    reader, writers = _as_record(["null", key_type]), []
    for version in of_keys:
        try:
            text = _key_schema(version, key_type)
            writer = text and RegisteredSchema(version.id, version.subject, version.version, text)
            if writer and not conflicts(reader, [writer], "backward"):
                writers.append(writer)
        except TidemarkError:
            continue  # no valid schema: keys by it are kept in quarantine
    return tuple(writers)


def _key_schema(version: RegisteredSchema, key_type: dict[str, Any]) -> str | None:
    """Return the text of a registered schema as a record with the field KEY; None where it is not of that type."""
    if not version.is_avro:
        return None
    schema = parse_text(version.text)
    names = NamedTypes(schema)
    if isinstance(schema, dict) and schema["type"] == "record":
        if len(schema["fields"]) != 1:
            return None
        schema = schema["fields"][0]["type"]
    branches = names.branches(schema)
    written = names.of(branches[0]) if len(branches) == 1 else {"type": ""}
    is_plain = "logicalType" not in written and "logicalType" not in key_type
    is_wider = (written["type"], key_type["type"]) == WIDENED and is_plain
    is_same = all(written.get(part) == key_type.get(part) for part in MEANING)
    if not (is_same or is_wider):
        return None
    # Types that have names are the same where they hold the same, whatever each schema calls its own.
    plain = {name: value for name, value in (written | {"name": key_type.get("name", "")}).items() if value != ""}
    if isinstance(schema, list):
        return _as_record([plain if branch in branches else "null" for branch in schema])
    return _as_record(plain)


def _as_record(kind: Any) -> str:
    fields = [{"name": KEY, "type": kind}]
    return json.dumps({"type": "record", "name": "Key", "namespace": "tidemark", "fields": fields})
