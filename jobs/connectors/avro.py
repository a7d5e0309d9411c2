"""Avro in the Confluent framing, decoded and encoded on the JVM.

A framed value is a zero byte, the schema id (4 bytes, big-endian) and the Avro binary body. Each id is decoded by its
own writer schema into the reader schema. Spark's `from_avro` stops reading where the schema ends and turns a short body
into nulls, so both schemas get one more field at their end, a sentinel that is appended to each body: where a body is
too long or too short, it is not found in its place, and the record is rejected instead of passing with wrong values.
"""

import json
import struct
from collections.abc import Sequence
from functools import lru_cache, reduce
from typing import Any, NamedTuple, cast

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro, to_avro
from pyspark.sql.types import StructType

from conf.errors import TidemarkError
from jobs.connectors.avro_columns import plain_fields, sound, sound_ints
from jobs.connectors.avro_pairs import paired_ints
from jobs.connectors.avro_schema import event_schema
from jobs.connectors.avro_wire import Names, wire_schema
from jobs.connectors.fence import fenced
from schemas.codec import parsed
from schemas.framing import HEADER_LENGTH, frame
from schemas.registry import RegisteredSchema

READ = "tidemark_read"
END_FIELD = "tidemark_end"
# Long enough that bytes left over after an event begin with it by chance once in four billion.
SENTINEL = b"\xa5\xc3\x96\xf1"
# Read as a number, for which Avro and Spark make no arrays.
END = {"name": END_FIELD, "type": "float"}
# The reader has no such field: Avro skips the header, which is quicker than to cut it off.
HEADER = {"name": "tidemark_header", "type": {"type": "fixed", "name": "tidemark.wire.Header", "size": HEADER_LENGTH}}

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

    Raises:
        TidemarkError: UNKNOWN_SUBJECT, where there is no writer; BAD_SCHEMA, where Spark has no way to read what
            `reader` says, or to read a writer's values as that.
    """
    steps = _steps(tuple(writers), reader)
    judged = records.select("*", steps.read).select(*records.columns, READ, *steps.judged)
    return judged.select(*records.columns, "schema_id", steps.event, "error")


def event_fields(decoded: DataFrame) -> dict[str, Column]:
    """The fields of `event` in `decode`'s result, as columns by name; null where nothing was decoded."""
    kind = cast(StructType, decoded.schema["event"].dataType)
    return {name: F.col("event").getField(name).alias(name) for name in kind.fieldNames()}


def accepted(decoded: DataFrame, *beside: Column) -> DataFrame:
    """The events of `decode`'s result: the fields of `event` as columns, then the columns `beside`."""
    return decoded.where(F.col("error").isNull()).select("event.*", *beside)


def rejected(decoded: DataFrame) -> DataFrame:
    """The rows of `decode`'s result that have an error, without `event`."""
    return decoded.where(F.col("error").isNotNull()).drop("event")


def encode(event: Column, schema: RegisteredSchema) -> Column:
    """A framed value (binary) of the struct `event`, written by `schema`."""
    header = F.lit(bytearray(frame(schema.id, b"")))
    return F.concat(header, to_avro(event, schema.text))


class _Steps(NamedTuple):
    """What `decode` adds to records, one select after the other."""

    read: Column
    judged: tuple[Column, ...]
    event: Column


# A column is made by thousands of calls to the JVM, for which every micro-batch would wait.
@lru_cache(maxsize=256)
def _steps(writers: tuple[RegisteredSchema, ...], reader: str) -> _Steps:
    if not writers:
        raise TidemarkError(
            "UNKNOWN_SUBJECT", "no writer schema is registered for this topic", "run `local/tidemark schemas register`"
        )
    schema = event_schema(reader)
    names = Names(schema)
    fields = {field["name"]: F.col(READ).getField(field["name"]) for field in schema["fields"]}
    schema_id, known = _schema_id(writers)
    error = (
        F.when(_is_complete([*fields.values()], writers, schema, names), F.lit(None))
        .when(F.col("value").isNull(), NO_VALUE)
        .when(schema_id.isNull(), BAD_FRAMING)
        .when(~known, UNKNOWN_SCHEMA_ID)
        .otherwise(UNDECODABLE)
    )
    made = {f"{READ}_{name}": part for name, part in plain_fields([*fields.values()], schema, names).items()}
    # Without the fence every filter on the result would decode once more.
    judged = (
        schema_id.alias("schema_id"),
        *(fenced(part).alias(name) for name, part in made.items()),
        fenced(error.cast("string")).alias("error"),
    )
    # Of columns alone, and never null itself: so the optimizer sees through the struct to the fields that are used.
    event = {name: F.col(f"{READ}_{name}") if f"{READ}_{name}" in made else field for name, field in fields.items()}
    packed = F.struct(*(field.alias(name) for name, field in event.items()))
    return _Steps(_by_id(writers, schema).alias(READ), judged, packed.alias("event"))


def _schema_id(writers: Sequence[RegisteredSchema]) -> tuple[Column, Column]:
    """The id in the header (null without framing), and whether it is a writer's."""
    framed = F.col("value").startswith(F.lit(bytearray(b"\0"))) & (F.length("value") >= HEADER_LENGTH)
    # Numbers are made of bytes by way of text, which is slow: only for ids that are nobody's.
    other = F.when(framed, F.conv(F.hex(F.substring("value", 2, 4)), 16, 10).try_cast("int"))
    known = [_has_id(writer.id) for writer in writers]
    chain = reduce(lambda chain, one: chain.when(one[0], one[1].id), zip(known, writers, strict=True), F)
    return chain.otherwise(other), reduce(Column.__or__, known)


def _is_complete(
    fields: Sequence[Column], writers: Sequence[RegisteredSchema], reader: dict[str, Any], names: Names
) -> Column:
    """Whether the body ended where it should, and the decoded `fields` are of their types."""
    end = F.lit(struct.unpack("<f", SENTINEL)[0]).cast("float")
    is_complete = (F.col(READ).getField(END_FIELD) == end) & sound(fields, reader, names)
    for writer in writers:
        promoted = paired_ints(parsed(writer.text), reader).promoted
        if promoted:
            is_complete &= ~_has_id(writer.id) | sound_ints(fields, reader, names, promoted)
    return is_complete


def _has_id(id: int) -> Column:
    return F.col("value").startswith(F.lit(bytearray(frame(id, b""))))


def carries(versions: Sequence[RegisteredSchema]) -> Column:
    """Whether `value` names one of `versions`, boolean, never null."""
    return F.coalesce(reduce(Column.__or__, [_has_id(version.id) for version in versions], F.lit(False)), F.lit(False))


def _by_id(writers: Sequence[RegisteredSchema], reader: dict[str, Any]) -> Column:
    whole = F.rpad("value", F.length("value") + len(SENTINEL), F.lit(bytearray(SENTINEL)))  # quicker than to concat
    options = {"avroSchema": _enclosed(wire_schema(reader)), "mode": "PERMISSIVE"}
    chain: Any = F
    for writer in writers:
        schema = parsed(writer.text)
        text = _enclosed(wire_schema(schema, paired_ints(schema, reader).written.__contains__), HEADER)
        chain = chain.when(_has_id(writer.id), from_avro(whole, text, options))
    return cast(Column, chain)


def _enclosed(schema: dict[str, Any], *first: dict[str, Any]) -> str:
    own = {key: value for key, value in schema.items() if not key.startswith("__")}  # not fastavro's notes
    return json.dumps({**own, "fields": [*first, *schema["fields"], END]})
