"""Finds what keeps a reader schema from reading what a writer schema wrote, by Avro's rules of resolution (1.12).

The package `avro` has a checker of these rules: it gives the same verdicts, but knows nothing of logical types, and
does not say which problem lies at which field.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from conf.errors import TidemarkError
from schemas.schema_text import PRIMITIVE, full_name
from schemas.validity import load_schema

NAMED = frozenset({"record", "enum", "fixed"})


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
    name: str
    type: Type
    aliases: tuple[str, ...]
    has_default: bool


def parse_type(text: str) -> Type:
    """Return the schema's type, recursive where the schema is; raises TidemarkError INVALID_SCHEMA."""
    return _type(load_schema(text), "", {})


def _type(schema: Any, namespace: str, names: dict[str, Type]) -> Type:
    if isinstance(schema, list):
        return Type("union", inner=[_type(branch, namespace, names) for branch in schema])
    if isinstance(schema, str):
        return Type(schema) if schema in PRIMITIVE else names[full_name(schema, namespace)]
    kind = "record" if schema["type"] == "error" else schema["type"]
    if kind in NAMED:
        return _named(kind, schema, namespace, names)
    if kind in ("array", "map"):
        return Type(kind, inner=[_type(schema["items" if kind == "array" else "values"], namespace, names)])
    return Type(kind, logical=_logical_type(schema))


def _named(kind: str, schema: Mapping[str, Any], namespace: str, names: dict[str, Type]) -> Type:
    name = full_name(schema["name"], schema.get("namespace", namespace))
    inner = name.rpartition(".")[0]
    aliases = frozenset(full_name(alias, inner) for alias in schema.get("aliases", ()))
    symbols, default = tuple(schema.get("symbols", ())), schema.get("default") if kind == "enum" else None
    named_type = Type(kind, name, aliases, _logical_type(schema), schema.get("size", 0), symbols, default)
    # Before its fields, which may be of this very type.
    names[name] = named_type
    for part in schema.get("fields", ()):
        part_type, part_aliases = _type(part["type"], inner, names), tuple(part.get("aliases", ()))
        named_type.fields.append(Field(part["name"], part_type, part_aliases, "default" in part))
    return named_type


def _logical_type(schema: Mapping[str, Any]) -> str:
    logical = schema.get("logicalType", "")
    return f"decimal({schema['precision']}, {schema.get('scale', 0)})" if logical == "decimal" else str(logical)


Kind = Literal["type", "branch", "default", "name", "symbols", "size", "alias", "logical", "namespace", "branch alias"]
PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


@dataclass(frozen=True)
class Incompatibility:
    """A thing that the reader cannot read right; `path` leads to it, `what` says it of reader and writer."""

    kind: Kind
    path: str
    what: str
    reader: str
    writer: str

    @property
    def strict(self) -> bool:
        """Return whether Avro's rules would let it pass."""
        return self.kind in ("logical", "namespace", "branch alias")


def incompatibilities(reader: Type, writer: Type) -> list[Incompatibility]:
    """Return all that keeps `reader` from reading the data of `writer`, in the order of the reader's fields; of what
    lies in the same two types, MOST at most.

    Raises:
        TidemarkError: BAD_SCHEMA, where the two hold themselves in so many ways that it would take too long to tell.
    """
    return list(_Resolution().of(reader, writer))


WHOLE = "the record"
MOST = 1_000  # more of them nobody reads
COMPARED = 200_000  # pairs of types, which takes a second


class _Resolution:
    def __init__(self) -> None:
        # The pairs that are looked at, from the uppermost, with the place of each.
        self._pairs: dict[tuple[int, int], int] = {}
        # What was found of pairs, as seen from there: types with names may be used any number of times.
        self._known: dict[tuple[int, int], list[Incompatibility]] = {}
        # The uppermost pair that what was found last has been cut short by, being inside of it.
        self._within = sys.maxsize
        self._compared = 0

    def of(self, reader: Type, writer: Type, path: str = "") -> Iterator[Incompatibility]:
        for problem in self._found(reader, writer):
            yield replace(problem, path=_joined(path, problem.path))

    def _found(self, reader: Type, writer: Type) -> list[Incompatibility]:
        pair = (id(reader), id(writer))
        if pair in self._known:
            return self._known[pair]
        if pair in self._pairs:
            self._within = min(self._within, self._pairs[pair])
            return []  # inside itself: problems are found further out
        self._compared += 1
        if self._compared > COMPARED:
            what = f"two schemas hold their types in more than {COMPARED:,} pairs, and cannot be compared"
            raise TidemarkError("BAD_SCHEMA", what, "refer to records that hold themselves less often")
        outer, self._within = self._within, sys.maxsize
        self._pairs[pair] = len(self._pairs)
        found = _first(self._of(reader, writer))
        place = self._pairs.pop(pair)
        if self._within >= place:  # it stands on its own
            self._known[pair] = found
            self._within = outer
        else:
            self._within = min(self._within, outer)
        return found

    def _of(self, reader: Type, writer: Type) -> Iterator[Incompatibility]:
        if writer.kind == "union":
            yield from _merged_branches(reader, writer)
            for branch in writer.inner:
                yield from self.of(reader, branch)
        elif reader.kind == "union":
            yield from self._from_union(reader, writer)
        elif reader.kind == writer.kind:
            yield from self._same_kind(reader, writer)
        elif reader.kind in PROMOTIONS.get(writer.kind, ()):
            yield from _logical(reader, writer)
        else:
            yield _problem("type", "reads {reader} where {writer} was written", reader, writer)

    def _from_union(self, reader: Type, writer: Type) -> Iterator[Incompatibility]:
        # Readers take the branch of the same name, then of the same type, then the first that the type promotes to.
        alike = sorted(reader.inner, key=lambda branch: (branch.kind != writer.kind, branch.name != writer.name))
        for branch in alike:
            problems = list(self.of(branch, writer))
            if all(problem.strict for problem in problems):
                yield from problems
                if branch.kind in ("enum", "fixed") and writer.name not in (branch.name, *branch.aliases):
                    what = "has {reader} in a union where {writer} was written"
                    what = f"{what}, and there Java's reader compares namespaces"
                    yield _problem("namespace", what, branch, writer)
                return
        if alike and alike[0].kind == writer.kind and _names_match(alike[0], writer):
            yield from self.of(alike[0], writer)
        else:
            yield _problem("branch", "has no branch for {writer} in {reader}", reader, writer)

    def _same_kind(self, reader: Type, writer: Type) -> Iterator[Incompatibility]:
        if reader.kind in NAMED and not _names_match(reader, writer):
            yield _problem("name", "knows {reader}, what was written is {writer}", reader, writer)
            return
        if reader.kind == "record":
            for field in reader.fields:
                yield from self._field(field, writer)
        elif reader.kind in ("array", "map"):
            yield from self.of(reader.inner[0], writer.inner[0], "[]" if reader.kind == "array" else "{}")
        elif reader.kind == "enum":
            unknown = ", ".join(symbol for symbol in writer.symbols if symbol not in reader.symbols)
            if unknown and reader.default_symbol not in reader.symbols:
                yield _problem("symbols", f"does not know the symbols {unknown} of {{writer}}", reader, writer)
        elif reader.kind == "fixed" and reader.size != writer.size:
            yield _problem("size", f"has {reader.size} bytes where {writer.size} were written", reader, writer)
        else:
            yield from _logical(reader, writer)

    def _field(self, field: Field, writer: Type) -> Iterator[Incompatibility]:
        written = {writer_field.name: writer_field for writer_field in writer.fields}
        sources = [written[name] for name in dict.fromkeys((field.name, *field.aliases)) if name in written]
        if len(sources) > 1:
            one, other = (source.name for source in sources[:2])
            what = f"takes `{one}` and `{other}`, which were both written, for one field by an alias"
            yield _problem("alias", what, field.type, writer, field.name)
        elif sources:
            yield from self.of(field.type, sources[0].type, field.name)
        elif not field.has_default:
            yield _problem("default", "needs this field, which was not written", field.type, writer, field.name)


def _first(problems: Iterable[Incompatibility]) -> list[Incompatibility]:
    """Return the first MOST problems, and as many that Avro's rules would let pass: the verdict needs both kinds."""
    left = {True: MOST, False: MOST}
    first = []
    for problem in problems:
        left[problem.strict] -= 1
        if left[problem.strict] >= 0:
            first.append(problem)
    return first


def _joined(outer: str, inner: str) -> str:
    """Return the path to `inner`, as seen from where `outer` lies."""
    if not outer or inner == WHOLE:
        return outer or inner
    return outer + inner if inner.startswith(("[", "{")) else f"{outer}.{inner}"


def _names_match(reader: Type, writer: Type) -> bool:
    return reader.short_name == writer.short_name or writer.name in reader.aliases


def _merged_branches(reader: Type, writer: Type) -> Iterator[Incompatibility]:
    """Yield what Java's reader, which renames by aliases before it reads, makes one type of."""
    for branch in reader.inner if reader.kind == "union" else [reader]:
        one = [other.name for other in writer.inner if other.name and other.name in (branch.name, *branch.aliases)]
        if len(one) > 1:
            what = f"takes {one[0]} and {one[1]}, which one union had, for one type by an alias"
            yield _problem("branch alias", what, branch, writer)


def _logical(reader: Type, writer: Type) -> Iterator[Incompatibility]:
    # A text that was known to be a UUID is still the same text.
    if reader.logical != writer.logical and not (writer.logical == "uuid" and reader.kind == "string"):
        what = "reads {reader} where {writer} was written: Avro lets it pass, and values change their meaning"
        yield _problem("logical", what, reader, writer)


def _problem(kind: Kind, what: str, reader: Type, writer: Type, path: str = WHOLE) -> Incompatibility:
    names = {"reader": f"{reader}", "writer": f"{writer}"}
    return Incompatibility(kind, path, what.format(**names), **names)
