"""Makes Avro record schemas of the names and types that inference found; puts Arrow's types as Avro's."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from conf.errors import TidemarkError
from producers.files.rows import unique_names
from schemas.spark_limits import COLUMNS, READER_COLUMNS, RESERVED_PREFIX
from schemas.validity import DEPTH, NAME

PLAIN: list[tuple[Any, Any]] = [
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_uint32, "long"),
    (pa.types.is_int64, "long"),
    # Beyond a long; as a decimal it keeps all of its digits.
    (pa.types.is_uint64, {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0}),
    (pa.types.is_integer, "int"),
    (pa.types.is_float64, "double"),
    (pa.types.is_floating, "float"),
    *((is_text, "string") for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)),
    (pa.types.is_null, "string"),
    *((is_binary, "bytes") for is_binary in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)),
    (pa.types.is_fixed_size_binary, "bytes"),
    (pa.types.is_date, {"type": "int", "logicalType": "date"}),
]
EXTENSIONS: dict[str, Any] = {"arrow.uuid": {"type": "string", "logicalType": "uuid"}, "arrow.bool8": "boolean"}
LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
LONGEST_DECIMAL = 38  # Spark's, and Delta's
# Nanoseconds become microseconds: Spark knows no finer unit, and a value that is finer is refused, not rounded.
UNITS = {"s": "millis", "ms": "millis", "us": "micros", "ns": "micros"}


class Field(NamedTuple):
    """A field of the input: its name there, and its type, without null."""

    source: str
    avro_type: Any


def event(name: str, fields: Iterable[Field], **attributes: str) -> dict[str, Any]:
    """Make the record of an event: none of its fields is named as a column of the tables' own, no two records alike."""
    schema = record(name, fields, event_field, **attributes)
    # In the order of the sources, not of the rows, so that the same columns give the same names.
    records = [inner for _, inner in sorted(_records(schema, ()), key=lambda placed: placed[0])]
    for inner, unique in zip(records, unique_names([inner["name"] for inner in records]), strict=True):
        inner["name"] = unique
    return schema


def avro_name(source: str) -> str:
    """Return the name itself where Avro allows it; otherwise the nearest that it allows:
    `Unit price ($)` -> Unit_price."""
    if NAME.fullmatch(source):
        return source
    plain = unicodedata.normalize("NFKD", source).encode("ascii", "ignore").decode()
    bare = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")
    return bare if NAME.fullmatch(bare) else f"_{bare}" if bare else "column"


def record(
    name: str, fields: Iterable[Field], field_name: Callable[[str], str] = avro_name, **attributes: str
) -> dict[str, Any]:
    """Return a record of nullable fields; its name may still be that of another, until the `event` is made.

    Fields' names differ by more than case, which Spark ignores, and proper names are kept first; one that cannot be is
    changed, and stays the field's `source`.
    """
    listed = list(fields)
    sources = sorted((field.source for field in listed), key=lambda source: field_name(source) != source)
    names = dict(zip(sources, unique_names([field_name(source) for source in sources], fold=str.lower), strict=True))
    described = [
        {
            "name": names[source],
            **({"source": source} if names[source] != source else {}),
            "type": ["null", avro_type],
            "default": None,
            "doc": f"Inferred from `{source}`; say here what it means, and in which unit.",
        }
        for source, avro_type in listed
    ]
    return {"type": "record", "name": name, **attributes, "fields": described}


def event_field(source: str) -> str:
    """Return the Avro name of an event's field; where tables have such a column of their own, one beside it."""
    name = avro_name(source)
    if name.lower() in COLUMNS | READER_COLUMNS:
        return name.lstrip("_")
    return f"_{name}" if name.lower().startswith(RESERVED_PREFIX) else name


def type_name(topic: str) -> str:
    """Return a record's name after a topic: page-views -> PageViews."""
    words = re.findall(r"[A-Za-z0-9]+", topic)
    return avro_name("".join(word[:1].upper() + word[1:] for word in words))


def renamed(schema: Any) -> list[tuple[str, str]]:
    """Return (source, name) of every field, at every depth, whose name was changed."""
    if isinstance(schema, list):
        return [pair for branch in schema for pair in renamed(branch)]
    if not isinstance(schema, dict):
        return []
    pairs = [(field["source"], field["name"]) for field in schema.get("fields", ()) if "source" in field]
    for child in (*(field["type"] for field in schema.get("fields", ())), schema.get("items"), schema.get("values")):
        pairs += renamed(child)
    return pairs


def avro_fields(schema: pa.Schema, name: str) -> list[Field]:
    """Return the columns as fields of the record `name`; raises TidemarkError UNSUPPORTED_TYPE."""
    return [_field(column, name, 1) for column in schema]


def require_precision(precision: int, name: str) -> None:
    """Raise TidemarkError UNSUPPORTED_TYPE, where a table could not hold so many digits."""
    if precision > LONGEST_DECIMAL:
        what = f"`{name}` is a decimal of {precision} digits, and tables hold {LONGEST_DECIMAL}"
        raise TidemarkError("UNSUPPORTED_TYPE", what, "cast the column before, to a shorter decimal or to text")


def _records(schema: Any, path: tuple[tuple[bool, str], ...]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield every record and where it lies: the sources of the fields that lead to it, proper names first."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _records(branch, path)
    elif isinstance(schema, dict):
        if schema["type"] == "record":
            yield path, schema
        for field in schema.get("fields", ()):
            yield from _records(field["type"], (*path, ("source" in field, field.get("source", field["name"]))))
        for inner in ("items", "values"):
            yield from _records(schema.get(inner), (*path, (False, inner)))


def _field(column: pa.Field, parent: str, depth: int) -> Field:
    return Field(column.name, _avro(column.type, f"{parent}_{avro_name(column.name)}", depth))


def _avro(arrow: pa.DataType, name: str, depth: int) -> Any:
    if pa.types.is_dictionary(arrow):
        return _avro(arrow.value_type, name, depth)
    if isinstance(arrow, pa.BaseExtensionType):
        return EXTENSIONS.get(arrow.extension_name) or _avro(arrow.storage_type, name, depth)
    if pa.types.is_decimal(arrow):
        require_precision(arrow.precision, name.replace("_", "."))
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
    return _nested(arrow, name, depth)


def _nested(arrow: pa.DataType, name: str, depth: int) -> Any:
    if depth == DEPTH:
        raise _unsupported(name, f"lies {DEPTH} levels deep and goes on, deeper than schemas may", "as text")
    if pa.types.is_struct(arrow) and arrow.num_fields:
        fields = [arrow.field(index) for index in range(arrow.num_fields)]
        if len({field.name for field in fields}) < len(fields):
            raise _unsupported(name, f"is {arrow}, which has a name twice", "with names of their own")
        return record(name, [_field(field, name, depth + 1) for field in fields])
    if any(matches(arrow) for matches in LISTS):
        return {"type": "array", "items": ["null", _avro(arrow.value_type, f"{name}_item", depth + 1)]}
    if pa.types.is_map(arrow) and _avro(arrow.key_type, name, depth + 1) == "string":
        return {"type": "map", "values": ["null", _avro(arrow.item_type, f"{name}_value", depth + 1)]}
    raise _unsupported(name, f"is {arrow}, which Avro cannot hold")


def _unsupported(name: str, what: str, how: str = "") -> TidemarkError:
    remedy = f"cast the column before{f', {how}' if how else ''}, or leave it out"
    return TidemarkError("UNSUPPORTED_TYPE", f"`{name.replace('_', '.')}` {what}", remedy)
