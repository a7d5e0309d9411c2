"""Random Avro schemas over every type, values of them, and what Spark should make of a value."""

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

EPOCH = datetime(1970, 1, 1)
EXACT = Context(prec=40)
# Collecting takes instants through this machine's time zone, which cannot be done at the very edges.
INSTANTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29))
MILLIS = INSTANTS.map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000))
Strategy = st.SearchStrategy[Any]


def logical(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": name, **more}


def bounded(bits: int) -> Strategy:
    edges = st.sampled_from([0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))])
    return st.one_of(edges, st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))


def utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC)


LEAVES: list[tuple[Any, Strategy]] = [
    ("null", st.none()),
    ("boolean", st.booleans()),
    ("int", bounded(32)),
    ("long", bounded(64)),
    ("float", st.floats(width=32)),
    ("double", st.floats()),
    ("bytes", st.binary(max_size=12)),
    ("string", st.text(max_size=8)),
    (logical("int", "date"), st.dates()),
    (logical("int", "time-millis"), st.integers(0, 86_399_999).map(lambda n: clock(n * 1000))),
    (logical("long", "time-micros"), st.integers(0, 86_399_999_999).map(lambda n: clock(n))),
    (logical("long", "timestamp-millis"), MILLIS.map(utc)),
    (logical("long", "timestamp-micros"), INSTANTS.map(utc)),
    (logical("long", "timestamp-nanos"), bounded(64)),
    (logical("long", "local-timestamp-millis"), MILLIS),
    (logical("long", "local-timestamp-micros"), INSTANTS),
    (logical("string", "uuid"), st.uuids()),
    ({"type": "fixed", "size": 12, "logicalType": "duration"}, st.binary(min_size=12, max_size=12)),
    ({"type": "fixed", "size": 3}, st.binary(min_size=3, max_size=3)),
    ({"type": "enum", "symbols": ["A", "B", "C"]}, st.sampled_from("ABC")),
]


def clock(micros: int) -> time:
    return (EPOCH + timedelta(microseconds=micros)).time()


@st.composite
def decimals(draw: Callable[[Strategy], Any]) -> Any:
    precision = draw(st.integers(1, 38))
    scale = draw(st.integers(0, precision))
    kind: dict[str, Any] = {"type": "bytes"}
    if draw(st.booleans()):
        kind = {"type": "fixed", "size": draw(st.integers(fixed_size(precision), 20))}
    return kind | {"logicalType": "decimal", "precision": precision, "scale": scale}


def fixed_size(precision: int) -> int:
    """The bytes that a signed number of so many digits needs."""
    largest: int = 10**precision - 1
    return largest.bit_length() // 8 + 1


@st.composite
def unions(draw: Callable[[Strategy], Any], inner: Strategy) -> Any:
    branches = {kind_of(branch): branch for branch in draw(st.lists(inner, min_size=1, max_size=3))}
    branches.pop("union", None)
    listed = list(branches.values())
    if draw(st.booleans()):
        listed = [branch for branch in listed if branch != "null"]
        listed.insert(draw(st.integers(0, len(listed))), "null")
    return listed or ["null", "int"]


def kind_of(schema: Any) -> str:
    """What a union may have once, as far as fastavro can tell Python values apart."""
    if isinstance(schema, list):
        return "union"
    kind = schema["type"] if isinstance(schema, dict) else schema
    alike = {"fixed": "bytes", "enum": "string", "long": "int", "double": "float", "map": "record"}
    return str(alike.get(kind, kind))


def types() -> Strategy:
    """Schemas without names yet; see `named`."""
    leaves = st.one_of(st.sampled_from([schema for schema, _ in LEAVES]), decimals())
    nested = st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.filter(takes_bytes).map(lambda items: {"type": "array", "items": items}),
            inner.map(lambda values: {"type": "map", "values": values}),
            st.lists(inner, min_size=1, max_size=3).map(lambda kinds: {"type": "record", "fields": fields(kinds)}),
            unions(inner),
        ),
        max_leaves=4,
    )
    return st.one_of(leaves, nested)


def takes_bytes(schema: Any) -> bool:
    """False where every value is written in no byte: an array of such items is refused."""
    if isinstance(schema, dict) and schema["type"] == "record":
        return any(takes_bytes(field["type"]) for field in schema["fields"])
    return bool(schema != "null")


def fields(kinds: list[Any]) -> list[dict[str, Any]]:
    return [{"name": f"f{number}", "type": kind} for number, kind in enumerate(kinds)]


def named(schema: Any, path: str = "N") -> Any:
    """`schema` with a name of its own for every type that needs one."""
    if isinstance(schema, list):
        return [named(branch, f"{path}_{number}") for number, branch in enumerate(schema)]
    if not isinstance(schema, dict):
        return schema
    inner = {key: named(schema[key], f"{path}_{key}") for key in ("items", "values") if key in schema}
    if "fields" in schema:
        inner["fields"] = [{**f, "type": named(f["type"], f"{path}_{f['name']}")} for f in schema["fields"]]
    own = {"name": path} if schema["type"] in ("record", "enum", "fixed") else {}
    return {**schema, **inner, **own}


def values(schema: Any) -> Strategy:
    """Values of a named schema, as fastavro writes them."""
    if isinstance(schema, list):
        return st.one_of(*map(values, schema))
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "array":
        return st.lists(values(schema["items"]), max_size=3)
    if kind == "map":
        return st.dictionaries(st.text(max_size=3), values(schema["values"]), max_size=3)
    if kind == "record":
        return st.fixed_dictionaries({field["name"]: values(field["type"]) for field in schema["fields"]})
    if isinstance(schema, dict) and schema.get("logicalType") == "decimal":
        digits = 10 ** schema["precision"] - 1
        return st.integers(-digits, digits).map(lambda n: Decimal(n).scaleb(-schema["scale"], EXACT))
    bare = {k: v for k, v in schema.items() if k != "name"} if isinstance(schema, dict) else schema
    return next(strategy for leaf, strategy in LEAVES if leaf == bare)


def in_spark(value: Any, schema: Any) -> Any:
    """What `avro.decode` should make of fastavro's `value`, in a form that compares (see `collected`)."""
    if isinstance(schema, list):
        return _of_union(value, [branch for branch in schema if branch != "null"])
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "array":
        return [in_spark(item, schema["items"]) for item in value]
    if kind == "map":
        return {key: in_spark(item, schema["values"]) for key, item in value.items()}
    if kind == "record":
        return {field["name"]: in_spark(value[field["name"]], field["type"]) for field in schema["fields"]}
    if kind == "float":
        # fastavro leaves an int that was promoted as exact as Python's numbers are.
        return collected(struct.unpack("<f", struct.pack("<f", value))[0])
    if kind == "bytes" and isinstance(value, str):
        return value.encode("latin-1")  # fastavro leaves a default as the schema writes it
    if isinstance(value, time):
        unit = timedelta(**{"milliseconds" if kind == "int" else "microseconds": 1})
        return (datetime.combine(EPOCH, value) - EPOCH) // unit
    return collected(value)


def _of_union(value: Any, branches: list[Any]) -> Any:
    if value is None:
        return None
    if len(branches) == 1:
        return in_spark(value, branches[0])
    fitting = next(number for number, branch in enumerate(branches) if _fits(value, branch))
    return {
        f"member{number}": in_spark(value, branch) if number == fitting else None
        for number, branch in enumerate(branches)
    }


def _fits(value: Any, branch: Any) -> bool:
    kind = branch["type"] if isinstance(branch, dict) else branch
    name = branch.get("logicalType", "") if isinstance(branch, dict) else ""
    times = {"date": date, "time": time, "timestamp": datetime, "local": datetime, "uuid": UUID, "decimal": Decimal}
    wanted = times.get(name.split("-")[0])
    if wanted and name != "timestamp-nanos":
        is_local = isinstance(value, datetime) and value.tzinfo is None
        return type(value) is wanted and is_local == name.startswith("local")
    plain: dict[str, type] = {"boolean": bool, "int": int, "long": int, "float": float, "double": float, "bytes": bytes}
    plain |= {"fixed": bytes, "string": str, "enum": str, "array": list, "map": dict, "record": dict}
    return type(value) is plain[kind]


def collected(value: Any) -> Any:
    """A collected value that compares: bytes of either kind are equal, NaN is NaN, an instant is its UTC clock time."""
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, dict):
        return {name: collected(item) for name, item in value.items()}
    return [collected(item) for item in value] if isinstance(value, list) else value
