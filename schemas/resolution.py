"""Whether a reader schema can read what a writer schema wrote, by Avro's rules of schema resolution (1.12).

Names of records, enums and fixed match without their namespace, as in Java's SchemaCompatibility. What those rules
allow although the reader would get wrong values, or Java's reader would fail, is found too, and marked `strict`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from schemas.avro_types import NAMED, Field, Type

Kind = Literal["type", "branch", "default", "name", "symbols", "size", "logical", "namespace"]
PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


@dataclass(frozen=True)
class Break:
    """One thing that the reader cannot read right; `path` leads to it, `what` says it of reader and writer."""

    kind: Kind
    path: str
    what: str
    reader: str
    writer: str

    @property
    def strict(self) -> bool:
        """Whether Avro's rules would let it pass."""
        return self.kind in ("logical", "namespace")


def breaks(reader: Type, writer: Type) -> list[Break]:
    """All that keeps `reader` from reading the data of `writer`, in the order of the reader's fields."""
    return list(_Resolution().of(reader, writer, ""))


class _Resolution:
    def __init__(self) -> None:
        self._pairs: set[tuple[int, int]] = set()

    def of(self, reader: Type, writer: Type, path: str) -> Iterator[Break]:
        pair = (id(reader), id(writer))
        if pair in self._pairs:
            return  # inside itself: what breaks is found further out
        self._pairs.add(pair)
        try:
            yield from self._of(reader, writer, path)
        finally:
            self._pairs.discard(pair)

    def _of(self, reader: Type, writer: Type, path: str) -> Iterator[Break]:
        if writer.kind == "union":
            for branch in writer.inner:
                yield from self.of(reader, branch, path)
        elif reader.kind == "union":
            yield from self._from_union(reader, writer, path)
        elif reader.kind == writer.kind:
            yield from self._same_kind(reader, writer, path)
        elif reader.kind in PROMOTIONS.get(writer.kind, ()):
            yield from _logical(reader, writer, path)
        else:
            yield _break("type", path, "reads {reader} where {writer} was written", reader, writer)

    def _from_union(self, reader: Type, writer: Type, path: str) -> Iterator[Break]:
        # Readers take the branch of the same name, then of the same type, then the first that the type promotes to.
        alike = sorted(reader.inner, key=lambda branch: (branch.kind != writer.kind, branch.name != writer.name))
        for branch in alike:
            found = list(self.of(branch, writer, path))
            if all(each.strict for each in found):
                yield from found
                yield from _namespace(branch, writer, path)
                return
        if alike and alike[0].kind == writer.kind and _names_match(alike[0], writer):
            yield from self.of(alike[0], writer, path)
        else:
            yield _break("branch", path, "has no branch for {writer} in {reader}", reader, writer)

    def _same_kind(self, reader: Type, writer: Type, path: str) -> Iterator[Break]:
        if reader.kind in NAMED and not _names_match(reader, writer):
            yield _break("name", path, "knows {reader}, what was written is {writer}", reader, writer)
            return
        if reader.kind == "record":
            for field in reader.fields:
                yield from self._field(field, writer, path)
        elif reader.kind in ("array", "map"):
            yield from self.of(reader.inner[0], writer.inner[0], path + ("[]" if reader.kind == "array" else "{}"))
        elif reader.kind == "enum":
            yield from _symbols(reader, writer, path)
        elif reader.kind == "fixed" and reader.size != writer.size:
            yield _break("size", path, f"has {reader.size} bytes where {writer.size} were written", reader, writer)
        else:
            yield from _logical(reader, writer, path)

    def _field(self, field: Field, writer: Type, path: str) -> Iterator[Break]:
        place = f"{path}.{field.name}" if path else field.name
        written = {each.name: each for each in writer.fields}
        found = next((written[name] for name in (field.name, *field.aliases) if name in written), None)
        if found is not None:
            yield from self.of(field.type, found.type, place)
        elif not field.has_default:
            yield _break("default", place, "needs this field, which was not written", field.type, writer)


def _names_match(reader: Type, writer: Type) -> bool:
    return reader.short_name == writer.short_name or writer.name in reader.aliases


def _namespace(reader: Type, writer: Type, path: str) -> Iterator[Break]:
    if reader.kind in ("enum", "fixed") and reader.name != writer.name and writer.name not in reader.aliases:
        what = "has {reader} in a union where {writer} was written, and there Java's reader compares namespaces"
        yield _break("namespace", path, what, reader, writer)


def _symbols(reader: Type, writer: Type, path: str) -> Iterator[Break]:
    unknown = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
    if unknown and reader.default_symbol not in reader.symbols:
        yield _break("symbols", path, f"does not know the symbols {', '.join(unknown)} of {{writer}}", reader, writer)


def _logical(reader: Type, writer: Type, path: str) -> Iterator[Break]:
    # A text that was known to be a UUID is still the same text.
    if reader.logical != writer.logical and not (writer.logical == "uuid" and reader.kind == "string"):
        what = "reads {reader} where {writer} was written: Avro lets it pass, and values change their meaning"
        yield _break("logical", path, what, reader, writer)


def _break(kind: Kind, path: str, what: str, reader: Type, writer: Type) -> Break:
    names = {"reader": f"{reader}", "writer": f"{writer}"}
    return Break(kind, path or "the record", what.format(**names), **names)
