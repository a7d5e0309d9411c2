"""An Avro schema with its names resolved, as schema resolution compares them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.validity import load_schema

NAMED = frozenset({"record", "enum", "fixed"})
# The logical types of Avro 1.12 and what each may annotate; on any other type, and where unknown, it means nothing.
LOGICAL = {
    "decimal": {"bytes", "fixed"},
    "big-decimal": {"bytes"},
    "uuid": {"string", "fixed"},
    "date": {"int"},
    "time-millis": {"int"},
    "time-micros": {"long"},
    "duration": {"fixed"},
    **{
        f"{kind}-{unit}": {"long"}
        for kind in ("timestamp", "local-timestamp")
        for unit in ("millis", "micros", "nanos")
    },
}


@dataclass(eq=False)
class Type:
    """One type; `kind` is Avro's type name, or "union". `name` and `aliases` are full names.

    `logical` holds the parameters too, as in decimal(9, 2); it is empty where there is none.
    """

    kind: str
    name: str = ""
    aliases: frozenset[str] = frozenset()
    logical: str = ""
    size: int = 0
    symbols: tuple[str, ...] = ()
    default_symbol: str | None = None
    fields: list["Field"] = field(default_factory=list)
    inner: list["Type"] = field(default_factory=list)
    """A union's branches; an array's or a map's one type of items or values."""

    @property
    def short_name(self) -> str:
        """The name without its namespace."""
        return self.name.rpartition(".")[2]

    def __str__(self) -> str:
        if self.kind == "union":
            return f"[{', '.join(map(str, self.inner))}]"
        if self.kind in ("array", "map"):
            return f"{self.kind} of {self.inner[0]}"
        described = f"{self.kind} {self.name}" if self.name else self.kind
        return f"{described} ({self.logical})" if self.logical else described


@dataclass(frozen=True)
class Field:
    """A record's field."""

    name: str
    type: Type
    aliases: tuple[str, ...]
    has_default: bool


def parse(text: str) -> Type:
    """The schema's type, recursive where the schema is.

    Raises:
        TidemarkError: INVALID_SCHEMA.
    """
    return _type(load_schema(text), "", {})


def _type(schema: Any, namespace: str, names: dict[str, Type]) -> Type:
    if isinstance(schema, list):
        return Type("union", inner=[_type(branch, namespace, names) for branch in schema])
    if isinstance(schema, str):
        return names.get(_full_name(schema, namespace)) or names.get(schema) or Type(schema)
    kind = schema["type"]
    if not isinstance(kind, str):
        return _type(kind, namespace, names)
    kind = "record" if kind == "error" else kind
    if kind in NAMED:
        return _named(kind, schema, namespace, names)
    if kind in ("array", "map"):
        return Type(kind, inner=[_type(schema["items" if kind == "array" else "values"], namespace, names)])
    found = _type(kind, namespace, names)
    return found if found.name else Type(kind, logical=_logical(kind, schema))


def _named(kind: str, schema: Mapping[str, Any], namespace: str, names: dict[str, Type]) -> Type:
    name = _full_name(schema["name"], schema.get("namespace", namespace))
    own = name.rpartition(".")[0]
    aliases = frozenset(_full_name(alias, own) for alias in schema.get("aliases", ()))
    symbols, default = tuple(schema.get("symbols", ())), schema.get("default") if kind == "enum" else None
    found = Type(kind, name, aliases, _logical(kind, schema), schema.get("size", 0), symbols, default)
    # Before its fields, which may be of this very type.
    names[name] = found
    for each in schema.get("fields", ()):
        found.fields.append(
            Field(each["name"], _type(each["type"], own, names), tuple(each.get("aliases", ())), "default" in each)
        )
    return found


def _full_name(name: str, namespace: str) -> str:
    return f"{namespace}.{name}" if namespace and "." not in name else name


def _logical(kind: str, schema: Mapping[str, Any]) -> str:
    logical = schema.get("logicalType")
    if not isinstance(logical, str) or kind not in LOGICAL.get(logical, ()):
        return ""
    if logical == "decimal":
        return f"decimal({schema['precision']}, {schema.get('scale', 0)})"
    return logical
