"""Encodes events as Avro in the Confluent framing, on the JVM."""

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import to_avro

from schemas.codec import frame
from schemas.registry import RegisteredSchema


def encode(event: Column, schema: RegisteredSchema) -> Column:
    """Return a framed value (binary) of the struct `event`, written by `schema`."""
    header = F.lit(bytearray(frame(schema.id, b"")))
    return F.concat(header, to_avro(event, schema.text))
