"""Texts of schemas that some reader of Avro takes and another refuses, and what must be said of each."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st


def record(*fields: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields), **more}


def field(kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": "a", "type": kind, **more}


def fixed(size: Any, **more: Any) -> dict[str, Any]:
    return {"type": "fixed", "name": "F", "size": size, **more}


def enum(symbols: Any, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": symbols, **more}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def nested(levels: int, within: Callable[[Any, int], Any]) -> Any:
    kind: Any = "int"
    for level in range(levels):
        kind = within(kind, level)
    return kind


def inner(*fields: Any, **more: Any) -> dict[str, Any]:
    return {**record(*fields), "name": "Q", **more}


INT = field("int")
# What is wrong is said with these words, and where.
REFUSED: dict[str, tuple[Any, str]] = {
    "namespace with a dash": (record(INT, namespace="srv-1.inv.customers"), "namespace `srv-1.inv.customers` of `R`"),
    "namespace that begins with a digit": (record(INT, namespace="a.1b"), "namespace `a.1b` of `R`"),
    "namespace with an empty part": (record(INT, namespace="a..b"), "namespace `a..b`"),
    "namespace that begins with a dot": (record(INT, namespace=".a"), "namespace `.a`"),
    "namespace that ends with a dot": (record(INT, namespace="a."), "namespace `a.`"),
    "namespace with a dollar": (record(INT, namespace="A$.b"), "namespace `A$.b`"),
    "namespace that is a number": (record(INT, namespace=5), "namespace is 5"),
    "namespace null within another": (record(field(inner(namespace=None)), namespace="x"), "`a` of `R`: namespace is"),
    "dash in a full name": ({**record(INT), "name": "a-b.R"}, "`a-b.R` is no Avro name"),
    "a type named as a primitive": ({**record(INT), "name": "int"}, "may not be named `int`"),
    "a type named as a complex type": ({**record(INT), "name": "map"}, "may not be named `map`"),
    "a name without a namespace beside one": (
        record(field(inner(namespace="")), {"name": "b", "type": inner()}, namespace="x"),
        "`Q`, without a namespace, cannot be told from `x.Q`",
    ),
    "union in a union": (record(field(["null", ["int", "string"]])), "field `a` of `R`: a union lies within a union"),
    "union of two arrays": (record(field([array("int"), array("string")])), "a union repeats a type: array, array"),
    "union of an int and a date": (record(field(["int", {"type": "int", "logicalType": "date"}])), "repeats a type"),
    "union of a type and its name": (record(field([fixed(1), "F"])), "repeats a type: F, F"),
    "long default of 2^63": (record(field("long", default=2**63)), "field `a` of `R`: the default 9223372036854775808"),
    "int default of 2^31": (record(field("int", default=2**31)), "the default 2147483648 is none that int"),
    "int default with a fraction": (record(field("int", default=1.0)), "the default 1.0"),
    "int default that is a boolean": (record(field("int", default=True)), "the default true"),
    "double default NaN in quotes": (record(field("double", default="NaN")), 'the default "NaN" is none that double'),
    "float default too large": (record(field("float", default=1e300)), "the default 1e+300"),
    "double default too large": (record(field("double", default=10**400)), "the default 1000"),
    "boolean default in quotes": (record(field("boolean", default="true")), 'the default "true"'),
    "bytes default beyond Latin-1": (record(field("bytes", default="\u0394")), "the default"),
    "string default that is a number": (record(field("string", default=5)), "the default 5"),
    "null default that is none": (record(field("null", default=1)), "the default 1"),
    "union default of another type": (record(field(["null", "int"], default="x")), "of none of the union's types"),
    "union default of a later type of text": (
        record(field([fixed(4), "string"], default="ab")),
        "none that F can hold",
    ),
    "union default beyond the first number": (
        record(field(["null", "int", "long"], default=2**40)),
        "that int can hold",
    ),
    "union default behind a record": (record(field([inner(INT), "null"], default=None)), "none that Q can hold"),
    "union default of a later symbol": (record(field([enum(["A"]), "string"], default="x")), "none that E can hold"),
    "union default within an array": (record(field(array([fixed(4), "string"]), default=["ab"])), "none that array"),
    "array default with a wrong item": (record(field(array("int"), default=["x"])), 'the default ["x"]'),
    "map default with a wrong value": (record(field({"type": "map", "values": "int"}, default={"k": "x"})), "default"),
    "record default without a field": (record(field(inner(INT), default={})), "the default {}"),
    "record default that never ends": (
        record(field(["null", inner({"name": "q", "type": "Q", "default": {}})]), {"name": "b", "type": "Q"}),
        "the default {} is none that Q can hold",
    ),
    "enum default that is no symbol": (record(field(enum(["A"], default="B"))), 'enum `E`: the default "B"'),
    "field's default that is no symbol": (record(field(enum(["A"]), default="B")), 'the default "B" is none that E'),
    "symbol with a dash": (record(field(enum(["a-b"]))), 'the symbol "a-b"'),
    "symbol twice": (record(field(enum(["A", "A"]))), "a symbol is there twice"),
    "symbols in one text": (record(field(enum("A"))), "has no list of symbols"),
    "fixed default of another length": (record(field(fixed(4), default="ab")), 'the default "ab"'),
    "fixed of a negative size": (record(field(fixed(-1))), "fixed `F` has the size -1"),
    "fixed of a size in quotes": (record(field(fixed("4"))), "fixed `F` has the size"),
    "fixed of a size with a fraction": (record(field(fixed(4.0))), "fixed `F` has the size 4.0"),
    "fixed beyond Java's arrays": (record(field(fixed(2**31 - 1))), "fixed `F` has the size 2147483647"),
    "a name defined twice": (record(field(fixed(1)), {"name": "b", "type": fixed(1)}), "`F` is defined twice"),
    "a name that nobody defines": (record(field("Nope")), "field `a` of `R`: there is no type `Nope`"),
    "a name that is defined later": (record(field("F"), {"name": "b", "type": fixed(1)}), "there is no type `F`"),
    "a name of another namespace": (
        record(field(inner(namespace="b.c")), {"name": "b", "type": "Q"}, namespace="x"),
        "field `b` of `R`: there is no type `Q`",
    ),
    "a record without fields": ({"type": "record", "name": "R"}, "record `R` has no list of fields"),
    "fields that are no list": ({"type": "record", "name": "R", "fields": {}}, "record `R` has no list of fields"),
    "a field with a number for a name": (record({"name": 1, "type": "int"}), "this is no field with a name"),
    "a field with a dot": (record({"name": "a.b", "type": "int"}), "field `a.b` of `R`: this is no Avro name"),
    "a field without a type": (record({"name": "a"}), "field `a` of `R` has no type"),
    "a field without a name": (record({"type": "int"}), "this is no field with a name"),
    "a type within a type": (record(field({"type": {"type": "string"}})), "`type` is"),
    "a name described again": (record(field(fixed(1)), {"name": "b", "type": {"type": "F"}}), "use a name as it is"),
    "a record without a name": ({"type": "record", "fields": []}, "record has the name null"),
    "an array without items": (record(field({"type": "array"})), "array has no `items`"),
    "a map without values": (record(field({"type": "map"})), "map has no `values`"),
    "an alias with a dash": (record(INT, aliases=["a-b"]), "the alias `a-b`"),
    "aliases in one text": (record(INT, aliases="A"), "aliases are"),
    "an alias that is a number": (record(field("int", aliases=[1])), "field `a` of `R`: aliases are [1]"),
    "an alias that is a field": (record(INT, {"name": "b", "type": "int", "aliases": ["a"]}), "the alias `a`"),
    "an alias of a type that is a type": (
        record(field(fixed(1, aliases=["G"])), {"name": "b", "type": {**fixed(1), "name": "G"}}),
        "the alias `G` is the name of another type",
    ),
    "an order that is none": (record(field("int", order="up")), "order is"),
    "types too deep": (record(field(nested(100, lambda kind, _: array(kind)))), "types lie deeper than"),
    "a type's attribute beyond 64 bits": (record(INT, default=2**63), "the attribute `default` is 9223372036854775808"),
    "a field's attribute beyond 64 bits": (record(field("int", x=-(2**63) - 1)), "field `a` of `R`: the attribute `x`"),
    "an attribute with half a surrogate pair": (record(INT, doc="\ud800"), "half of a pair of surrogates"),
}
RAW_REFUSED = {
    "a number as a schema": ("7", "7 is no type"),
    "no JSON": ("{", "JSONDecodeError"),
    "nothing": ("", "JSONDecodeError"),
    "more than one schema": ('"int" "int"', "Extra data"),
    "NaN": ('{"type":"record","name":"R","fields":[{"name":"a","type":"double","default":NaN}]}', "NaN is no JSON"),
    "an attribute twice": ('{"type":"string","pii":"drop","pii":"x"}', "the attribute `pii` is there twice"),
    "a number of 5000 digits": (f'{{"type":"string","x":{"1" * 5000}}}', "a number has 5000 digits"),
    "JSON too deep": (f'{{"type":"string","x":{"[" * 600}{"]" * 600}}}', "JSON lies deeper than"),
    "JSON far too deep": (f'{{"type":"string","x":{"[" * 200_000}{"]" * 200_000}}}', "JSON lies deeper than"),
}
SOUND: dict[str, Any] = {
    "no namespace": record(INT, namespace=""),
    "a bad namespace that a full name leaves unused": {**record(INT), "name": "a.R", "namespace": "x-y"},
    "a primitive's name within a namespace": {**record(INT), "name": "int", "namespace": "x"},
    "the same name in two namespaces": record(
        field([fixed(1, namespace="x"), {**fixed(2), "namespace": "y"}]), {"name": "b", "type": "y.F"}
    ),
    "a type by its full name": record(field(inner(namespace="b.c")), {"name": "b", "type": "b.c.Q"}, namespace="x"),
    "a record that may hold itself": record(field(["null", "R"], default=None)),
    "edges of numbers": record(
        field("long", default=-(2**63)),
        {"name": "b", "type": "int", "default": 2**31 - 1},
        {"name": "c", "type": "double", "default": 1},
    ),
    "defaults within defaults": record(
        field(inner(field("int", default=1), {"name": "l", "type": array(["null", "int"])}), default={"l": [None, 1]})
    ),
    "a default in bytes": record(field("bytes", default="\u00ff"), {"name": "b", "type": fixed(1), "default": "x"}),
    "union defaults of other types than the first": record(
        field(["string", "null"], default=None),
        {"name": "b", "type": ["int", "string"], "default": "x"},
        {"name": "c", "type": ["string", {"type": "map", "values": ["string", "int"]}], "default": {"k": 1}},
    ),
    "an error": {**record(INT), "type": "error"},
    "no fields": record(),
    "attributes of one's own": record(field({"type": "int", "items": "string"}, doc=1, pii=None), doc=1),
    "deep types": record(field(nested(5, lambda kind, level: {**inner(field(kind)), "name": f"N{level}"}))),
}
# Logical types that the specification has readers ignore, by what lies below.
IGNORED: dict[str, tuple[Any, bytes]] = {
    "no precision": ({"type": "bytes", "logicalType": "decimal"}, b"ab"),
    "precision in quotes": ({"type": "bytes", "logicalType": "decimal", "precision": "4"}, b"ab"),
    "precision 0": ({"type": "bytes", "logicalType": "decimal", "precision": 0}, b"ab"),
    "precision true": ({"type": "bytes", "logicalType": "decimal", "precision": True}, b"ab"),
    "scale beyond precision": ({"type": "bytes", "logicalType": "decimal", "precision": 64, "scale": 127}, b"ab"),
    "negative scale": ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": -1}, b"ab"),
    "scale null": ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": None}, b"ab"),
    "too small a fixed": ({**fixed(2, logicalType="decimal", precision=5), "name": "F1"}, b"\x7f\xff"),
    "a fixed of no bytes": ({**fixed(0, logicalType="decimal", precision=1), "name": "F2"}, b""),
    "uuid of 8 bytes": ({**fixed(8, logicalType="uuid"), "name": "F3"}, b"12345678"),
    "duration of 8 bytes": ({**fixed(8, logicalType="duration"), "name": "F4"}, b"12345678"),
    "decimal on text": ({"type": "string", "logicalType": "decimal", "precision": 4}, b"ab"),
    "a number": ({"type": "bytes", "logicalType": 5}, b"ab"),
    "one of nobody's": ({"type": "bytes", "logicalType": "colour"}, b"ab"),
}


def texts() -> dict[str, str]:
    """Every text of the tables, by name."""
    made = {name: json.dumps(schema) for name, (schema, _) in REFUSED.items()}
    made |= {name: text for name, (text, _) in RAW_REFUSED.items()}
    made |= {name: json.dumps(schema) for name, schema in SOUND.items()}
    return made | {name: json.dumps(record(field(kind))) for name, (kind, _) in IGNORED.items()}


PIECES: list[Any] = [
    *(None, True, 0, -1, 2**31, 2**63, 1.5, "", "a", "a-b", "a.b", "x.R", "R", "int", "null", "record", "map", "Nope"),
    *([], {}, ["null"], ["null", "int"], ["int", "int"], [["null"]], {"type": "string"}, {"type": "R"}, enum(["A"])),
    *(fixed(2), array("R"), record(), inner(INT), {"type": "bytes", "logicalType": "decimal", "precision": 4}),
]
KEYS = ("type", "name", "namespace", "fields", "items", "values", "size", "symbols", "default", "aliases", "order")


@st.composite
def damaged(draw: Callable[[st.SearchStrategy[Any]], Any]) -> str:
    """The text of a sound schema in which one to three places are something else."""
    schema = draw(st.sampled_from([json.dumps(each) for each in SOUND.values()]).map(json.loads))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(schema))
        holder, key = draw(st.sampled_from(places))
        if isinstance(holder, dict) and draw(st.booleans()):
            key = draw(st.sampled_from(KEYS))
        holder[key] = draw(st.sampled_from([json.dumps(piece) for piece in PIECES]).map(json.loads))
    return json.dumps(schema)


def _places(value: Any) -> Any:
    for key, inside in [*value.items()] if isinstance(value, dict) else [*enumerate(value)]:
        yield value, key
        if isinstance(inside, dict | list) and inside:
            yield from _places(inside)
