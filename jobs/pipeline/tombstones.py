"""Finds which row a tombstone deletes: its record key is read as a value of the field that keys its compacted topic.

A tombstone has no event: nothing but the record key says whose it is. The key must be the text (of bytes: the bytes)
that our producers write for a value of the field's type, so that what is no such value is never taken for one. A key in
any other form, as in that of Java's LongSerializer, names no row.
"""

from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.errors import TidemarkError, nearest
from jobs.connectors.avro import decode
from jobs.connectors.avro.decode import ERA
from schemas.spark_limits import NamedTypes, event_schema
from schemas.wire import UUID

DELETED_KEY = "deleted_key"
BAD_KEY = "BAD_KEY"
WHOLE = r"(?:0|-?[1-9][0-9]*)"
DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
SECONDS = r"[0-9]{2}:[0-9]{2}:[0-9]{2}"
TIME = rf"{SECONDS}(?:\.[0-9]{{1,6}})?"
FIRST_DAY, LAST_DAY = (edge.partition(" ")[0] for edge in ERA)
# Java's and Python's texts of one double differ, so any that a JSON number may have stands for the double.
DOUBLE = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"


def with_deleted_keys(decoded: DataFrame, topic: str, schema: str, key: str) -> DataFrame:
    """Return `avro.decode`'s result of a compacted topic with DELETED_KEY, of the type of the event's field `key`: what
    a tombstone deletes, null for every other record. A tombstone whose key names nothing has the error BAD_KEY.

    Args:
        schema: the text of the schema that events come out in.

    Raises:
        TidemarkError: BAD_TOPICS, where `key` is no field of the event, or of a type that no record key can be read as.
    """
    is_tombstone = F.col("error").eqNullSafe(decode.NO_VALUE)
    named = decoded.withColumn(DELETED_KEY, F.when(is_tombstone, key_value(topic, event_schema(schema), key)))
    is_bad = is_tombstone & F.col(DELETED_KEY).isNull()
    return named.withColumn("error", F.when(is_bad, BAD_KEY).otherwise(F.col("error")))


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


def _read(declared: dict[str, Any]) -> Column | None:
    kind, logical = declared["type"], str(declared.get("logicalType"))
    text = F.col("key").cast("string")
    if kind in ("bytes", "fixed") and logical != "decimal":
        return F.when(F.length("key") == declared["size"], F.col("key")) if kind == "fixed" else F.col("key")
    if kind == "enum":
        return F.when(text.isin(declared["symbols"]), text)
    if kind == "string":
        return F.lower(_matching(UUID)) if logical == "uuid" else F.when(F.is_valid_utf8(text), text)
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
