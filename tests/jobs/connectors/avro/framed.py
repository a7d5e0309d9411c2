"""Framed Avro values made and read by fastavro, and frames of them decoded by Spark."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from jobs.connectors.avro import decode
from schemas.codec import frame
from schemas.registry import RegisteredSchema


def record(*fields: tuple[str, Any] | tuple[str, Any, Any], name: str = "Order") -> str:
    """A record schema of `(name, type)` and `(name, type, default)`."""
    listed = [dict(zip(("name", "type", "default"), field, strict=False)) for field in fields]
    return json.dumps({"type": "record", "name": name, "fields": listed})


def version(id: int, text: str) -> RegisteredSchema:
    return RegisteredSchema(id, "orders-value", id, text)


def body(text: str, value: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    schemaless_writer(buffer, parse_schema(json.loads(text)), value, strict=True)
    return buffer.getvalue()


def framed(writer: RegisteredSchema, value: Mapping[str, Any]) -> bytes:
    return frame(writer.id, body(writer.text, value))


def records(spark: SparkSession, values: Sequence[bytes | None]) -> DataFrame:
    rows = [(number, None if value is None else bytearray(value)) for number, value in enumerate(values)]
    return spark.createDataFrame(rows, "row int, value binary").coalesce(1)


def decoded(spark: SparkSession, values: Sequence[bytes | None], *writers: RegisteredSchema) -> list[Row]:
    return decode.decode(records(spark, values), writers, reader=writers[-1].text).orderBy("row").collect()


def events_of(decoded: DataFrame, *beside: Column) -> DataFrame:
    """The fields of the events that were accepted, as columns, and the columns `beside`."""
    return decoded.where("error IS NULL").select("event.*", *beside)


def accepted(spark: SparkSession, values: Sequence[bytes | None], *writers: RegisteredSchema) -> list[dict[str, Any]]:
    events = events_of(decode.decode(records(spark, values), writers, reader=writers[-1].text), F.col("row"))
    rows = [row.asDict(recursive=True) for row in events.orderBy("row").collect()]
    return [{name: value for name, value in row.items() if name != "row"} for row in rows]


def fastavro_reads(text: str, payload: bytes) -> dict[str, Any] | None:
    """The record, where fastavro reads one and nothing is left over; None otherwise."""
    buffer = io.BytesIO(payload)
    try:
        value: Any = schemaless_reader(buffer, parse_schema(json.loads(text)), None)
    except (ValueError, LookupError, EOFError, MemoryError, TypeError):
        return None
    return dict(value) if buffer.tell() == len(payload) else None
