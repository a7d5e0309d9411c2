"""Finds which row a tombstone deletes: its record key is read as a value of the field that keys its compacted topic.

A tombstone has no event: nothing but the record key says whose it is. The key must be the text (of bytes: the bytes)
that our producers write for a value of the field's type, or Avro in Confluent's framing, by a schema that is registered
for the topic's keys; so what is no such value is never taken for one. A key in any other form, as in that of Java's
LongSerializer, names no row. Text that is of another form by chance nothing can tell from a key: so the keys of events
are held against their key fields.
"""

from collections.abc import Sequence
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.errors import TidemarkError, nearest
from jobs.connectors.avro import decode
from jobs.connectors.avro.decode import ERA
from jobs.pipeline import framed_keys
from schemas.registry import RegisteredSchema
from schemas.spark_limits import NamedTypes, event_schema
from schemas.wire import UUID

DELETED_KEY, OTHER_KEY = "deleted_key", "other_key"
BAD_KEY = "BAD_KEY"
NAMED = "tidemark_named_key"
WHOLE = r"(?:0|-?[1-9][0-9]*)"
DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
SECONDS = r"[0-9]{2}:[0-9]{2}:[0-9]{2}"
TIME = rf"{SECONDS}(?:\.[0-9]{{1,6}})?"
FIRST_DAY, LAST_DAY = (edge.partition(" ")[0] for edge in ERA)
# A text of these is a number in bytes, or framed: Java's serializers of numbers begin with them nearly always.
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
# Java's and Python's texts of one double differ, so any that a JSON number may have stands for the double.
DOUBLE = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"


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
    parsed = event_schema(schema)
    named = framed_keys.with_values(decoded, parsed, key, of_keys).withColumn(
        NAMED, F.when(framed_keys.is_framed(of_keys), F.col(framed_keys.VALUE)).otherwise(key_value(topic, parsed, key))
    )
    is_tombstone, field = F.col("error").eqNullSafe(decode.NO_VALUE), F.col("event").getField(key)
    is_other = F.col("error").isNull() & field.isNotNull() & ~field.eqNullSafe(F.col(NAMED))
    is_bad = is_tombstone & F.col(NAMED).isNull()
    columns = {
        DELETED_KEY: F.when(is_tombstone, F.col(NAMED)),
        OTHER_KEY: F.coalesce(is_other, F.lit(False)),
        "error": F.when(is_bad, BAD_KEY).otherwise(F.col("error")),
    }
    return named.withColumns(columns).drop(NAMED, framed_keys.VALUE)


def key_value(topic: str, schema: dict[str, Any], key: str) -> Column:
    """Return the column `key` (binary) of a record as a value of the field `key` of `schema`, in fastavro's parsed
    form; null where it is none.

    Raises:
        TidemarkError: BAD_TOPICS, as `with_deleted_keys`.
    """
    names, fields = NamedTypes(schema), {field["name"]: field["type"] for field in schema["fields"]}
    if key not in fields:
        what = f"topic {topic} is compacted by `{key}`, and its events have no such field"
        raise TidemarkError("BAD_TOPICS", what, f"mend its key in conf/topics.toml; {nearest(key, [*fields])}")
    branches = names.branches(fields[key])
    value = _read(names.of(branches[0])) if len(branches) == 1 else None
    if value is None:
        what = f"topic {topic} is compacted by `{key}`, whose type no record key can be read as"
        remedy = "name a field in conf/topics.toml that is a string, a number, a time, a boolean or bytes"
        raise TidemarkError("BAD_TOPICS", what, remedy)
    return value


def is_text(key: Column) -> Column:
    """Return whether a record key, cast to text, was text: UTF-8 without control characters."""
    return F.is_valid_utf8(key) & ~key.rlike(CONTROL)


def _read(declared: dict[str, Any]) -> Column | None:
    kind, logical = declared["type"], str(declared.get("logicalType"))
    text = F.col("key").cast("string")
    if kind in ("bytes", "fixed") and logical != "decimal":
        return F.when(F.length("key") == declared["size"], F.col("key")) if kind == "fixed" else F.col("key")
    if kind == "enum":
        return F.when(text.isin(declared["symbols"]), text)
    if kind == "string":
        return F.lower(_matching(UUID)) if logical == "uuid" else F.when(is_text(text), text)
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
