"""Arrow's types as Avro's: the nearest that loses nothing."""

from typing import Any

import pyarrow as pa

from conf.errors import TidemarkError
from producers.avro_records import Field, avro_name, record

PLAIN: list[tuple[Any, Any]] = [
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_uint32, "long"),
    (pa.types.is_int64, "long"),
    # Beyond a long; as a decimal it keeps all of its digits.
    (pa.types.is_uint64, {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0}),
    (pa.types.is_integer, "int"),
    (pa.types.is_float64, "double"),
    (pa.types.is_floating, "float"),
    (pa.types.is_string, "string"),
    (pa.types.is_large_string, "string"),
    (pa.types.is_string_view, "string"),
    (pa.types.is_null, "string"),
    (pa.types.is_binary, "bytes"),
    (pa.types.is_large_binary, "bytes"),
    (pa.types.is_fixed_size_binary, "bytes"),
    (pa.types.is_date, {"type": "int", "logicalType": "date"}),
]
# Nanoseconds become microseconds: Spark knows no finer unit, and a value that is finer is refused, not rounded.
UNITS = {"s": "millis", "ms": "millis", "us": "micros", "ns": "micros"}


def avro_fields(schema: pa.Schema, name: str) -> list[Field]:
    """The columns as fields of the record `name`; raises TidemarkError UNSUPPORTED_TYPE."""
    return [_field(column, name) for column in schema]


def _field(column: pa.Field, parent: str) -> Field:
    return Field(column.name, _avro(column.type, f"{parent}_{avro_name(column.name)}"))


def _avro(arrow: pa.DataType, name: str) -> Any:
    if pa.types.is_dictionary(arrow):
        return _avro(arrow.value_type, name)
    if pa.types.is_decimal(arrow):
        return {"type": "bytes", "logicalType": "decimal", "precision": arrow.precision, "scale": max(arrow.scale, 0)}
    if pa.types.is_timestamp(arrow):
        local = "" if arrow.tz else "local-"
        return {"type": "long", "logicalType": f"{local}timestamp-{UNITS[arrow.unit]}"}
    if pa.types.is_time(arrow):
        unit = UNITS[arrow.unit]
        return {"type": "int" if unit == "millis" else "long", "logicalType": f"time-{unit}"}
    for matches, avro in PLAIN:
        if matches(arrow):
            return avro
    return _nested(arrow, name)


def _nested(arrow: pa.DataType, name: str) -> Any:
    if pa.types.is_struct(arrow) and arrow.num_fields:
        return record(name, [_field(arrow.field(index), name) for index in range(arrow.num_fields)])
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow):
        return {"type": "array", "items": ["null", _avro(arrow.value_type, f"{name}_item")]}
    if pa.types.is_map(arrow) and pa.types.is_string(arrow.key_type):
        return {"type": "map", "values": ["null", _avro(arrow.item_type, f"{name}_value")]}
    remedy = "cast the column before, or leave it out"
    raise TidemarkError("UNSUPPORTED_TYPE", f"`{name.replace('_', '.')}` is {arrow}, which Avro cannot hold", remedy)
