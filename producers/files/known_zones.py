"""Puts the instants of Arrow columns into zones in which Python can show them: a zone changes no instant."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

UTC = "UTC"
Zone = Callable[[str], str]
"""From the name of a zone to that of another."""


def utc(zone: str) -> str:
    """Return UTC, whatever the zone."""
    return UTC


def known(zone: str) -> str:
    """Return the zone, or UTC where Python has none of that name."""
    try:
        pa.scalar(0, pa.timestamp("s", zone)).as_py()
    except (ValueError, LookupError, OSError, pa.ArrowException):
        return UTC
    return zone


def types_in(schema: pa.Schema, zone: Zone) -> pa.Schema:
    """Return the schema with the zones of its instants, at any depth, changed."""
    return pa.schema([field.with_type(_type(field.type, zone)) for field in schema])


def batch_in(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch, as one of the schema: one that `types_in` made of its own."""
    pairs = zip(batch.columns, schema.types, strict=True)
    columns = [column if column.type == kind else column.view(kind) for column, kind in pairs]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _type(kind: Any, zone: Zone) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, zone(kind.tz))
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _type(kind.value_type, zone), kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_type(field.type, zone)) for field in kind])
    if pa.types.is_map(kind):
        key, item = (field.with_type(_type(field.type, zone)) for field in (kind.key_field, kind.item_field))
        return pa.map_(key, item, kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_type(kind.value_type, zone)), kind.list_size)
    for matches, make in LISTS:
        if matches(kind):
            return make(kind.value_field.with_type(_type(kind.value_type, zone)))
    return kind


LISTS: tuple[tuple[Any, Any], ...] = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
    (pa.types.is_list_view, pa.list_view),
    (pa.types.is_large_list_view, pa.large_list_view),
)
