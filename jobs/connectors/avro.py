"""Avro in the Confluent framing, decoded and encoded on the JVM.

A framed value is a zero byte, the schema id (4 bytes, big-endian) and the Avro binary body. Each id is decoded by its
own writer schema into the reader schema. Spark's `from_avro` stops reading where the schema ends and turns a short body
into nulls, so both schemas get one more field at their end, a sentinel that is appended to each body: where a body is
too long or too short, it is not found in its place, and the record is rejected instead of passing with wrong values.
"""

import json
from collections.abc import Sequence
from functools import reduce
from typing import Any, cast

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro, to_avro
from pyspark.sql.types import ArrayType, DataType, MapType, StringType, StructType

from conf.errors import TidemarkError
from schemas.framing import HEADER_LENGTH, frame
from schemas.registry import RegisteredSchema

END_FIELD = "tidemark_end"
# Long enough that bytes left over after an event begin with it by chance once in four billion.
SENTINEL = b"\xa5\xc3\x96\xf1"
WHOLE_REST = 2**31 - 1

NO_VALUE = "NO_VALUE"
BAD_FRAMING = "BAD_FRAMING"
UNKNOWN_SCHEMA_ID = "UNKNOWN_SCHEMA_ID"
UNDECODABLE = "UNDECODABLE"


def decode(records: DataFrame, writers: Sequence[RegisteredSchema], reader: str) -> DataFrame:
    """Decode `value` and keep all rows: accepted ones have `event`, rejected ones an `error`.

    Args:
        records: any columns, among them `value` binary.
        writers: the schemas that values may carry, by id.
        reader: the schema text that events come out in; every writer must be resolvable to it.

    Returns:
        the columns of `records`, then `schema_id` int (null without framing), `event` struct (its columns: see
        `event_fields`) and `error` string: null, NO_VALUE (a tombstone), BAD_FRAMING, UNKNOWN_SCHEMA_ID or UNDECODABLE.
    """
    framed = F.col("value").startswith(F.lit(bytearray(b"\0"))) & (F.length("value") >= HEADER_LENGTH)
    schema_id = F.when(framed, F.conv(F.hex(F.substring("value", 2, 4)), 16, 10).try_cast("int"))
    body = F.concat(F.substring("value", HEADER_LENGTH + 1, WHOLE_REST), F.lit(bytearray(SENTINEL)))
    decoded = _by_id(body, writers, _with_sentinel(reader))
    # The optimizer copies the decoding into every filter on its result, but pushes none through a generator.
    exploded = records.select("*", schema_id.alias("schema_id"), F.explode(F.array(decoded)).alias("decoded"))
    complete = F.col(f"decoded.{END_FIELD}") == F.lit(bytearray(SENTINEL))
    complete &= _is_text(F.col("decoded"), exploded.schema["decoded"].dataType)
    known = F.col("schema_id").isin([writer.id for writer in writers])
    error = (
        F.when(complete, F.lit(None))
        .when(F.col("value").isNull(), NO_VALUE)
        .when(F.col("schema_id").isNull(), BAD_FRAMING)
        .when(~known, UNKNOWN_SCHEMA_ID)
        .otherwise(UNDECODABLE)
    )
    return exploded.select(
        *records.columns, "schema_id", F.col("decoded").alias("event"), error.cast("string").alias("error")
    )


def event_fields(decoded: DataFrame) -> dict[str, Column]:
    """The fields of `event` in `decode`'s result, as columns by name; null where nothing was decoded."""
    kind = cast(StructType, decoded.schema["event"].dataType)
    return {name: F.col("event").getField(name).alias(name) for name in kind.fieldNames() if name != END_FIELD}


def accepted(decoded: DataFrame, *beside: Column) -> DataFrame:
    """The events of `decode`'s result: the fields of `event` as columns, then the columns `beside`."""
    return decoded.where(F.col("error").isNull()).select(*event_fields(decoded).values(), *beside)


def rejected(decoded: DataFrame) -> DataFrame:
    """The rows of `decode`'s result that have an error, without `event`."""
    return decoded.where(F.col("error").isNotNull()).drop("event")


def encode(event: Column, schema: RegisteredSchema) -> Column:
    """A framed value (binary) of the struct `event`, written by `schema`."""
    header = F.lit(bytearray(frame(schema.id, b"")))
    return F.concat(header, to_avro(event, schema.text))


def _is_text(value: Column, kind: DataType) -> Column:
    """Whether all strings in `value` are UTF-8: Spark takes any bytes for one, at which readers of the table stop."""
    if isinstance(kind, StringType):
        return F.coalesce(F.is_valid_utf8(value), F.lit(True))
    if isinstance(kind, StructType):
        return reduce(Column.__and__, (_is_text(value.getField(f.name), f.dataType) for f in kind.fields), F.lit(True))
    if isinstance(kind, ArrayType):
        return F.coalesce(F.forall(value, lambda item: _is_text(item, kind.elementType)), F.lit(True))
    if isinstance(kind, MapType):
        entries = ArrayType(StructType().add("key", kind.keyType).add("value", kind.valueType))
        return _is_text(F.map_entries(value), entries)
    return F.lit(True)


def _by_id(body: Column, writers: Sequence[RegisteredSchema], reader: str) -> Column:
    options = {"avroSchema": reader, "mode": "PERMISSIVE"}
    header = F.substring("value", 1, HEADER_LENGTH)
    branches = [
        (header == F.lit(bytearray(frame(writer.id, b""))), from_avro(body, _with_sentinel(writer.text), options))
        for writer in writers
    ]
    if not branches:
        raise TidemarkError(
            "UNKNOWN_SUBJECT", "no writer schema is registered for this topic", "run `local/tidemark schemas register`"
        )
    (condition, value), *others = branches
    return reduce(lambda chain, branch: chain.when(*branch), others, F.when(condition, value))


def _with_sentinel(text: str) -> str:
    schema = _record(text)
    end = {"name": END_FIELD, "type": {"type": "fixed", "name": "TidemarkEnd", "size": len(SENTINEL)}}
    return json.dumps({**schema, "fields": [*schema["fields"], end]})


def _record(text: str) -> dict[str, Any]:
    schema = json.loads(text)
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise TidemarkError(
            "BAD_SCHEMA",
            f"an event schema must be a record, not {text[:60]}",
            "wrap the type into a record with one field",
        )
    return schema
