"""Which part of a writer's schema becomes which part of the reader's, and whether Spark would read it as what it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from conf.errors import TidemarkError
from jobs.connectors.avro_wire import NOWHERE, WIDER, Names, Place

Leaf = dict[str, Any]
Places = tuple[Place, Place]
"""Where a type lies in the writer, and where in the reader."""
MEANING = ("logicalType", "precision", "scale")


@dataclass(frozen=True)
class Ints:
    """The ints of one writer: in which of its fields, and in which fields of the reader they are of a wider type."""

    written: frozenset[Place]
    promoted: frozenset[Place]


def paired_ints(writer: Any, reader: Any) -> Ints:
    """The writer's ints that the reader has too, wherever they go.

    Args:
        writer, reader: schemas in fastavro's parsed form.

    Raises:
        TidemarkError: BAD_SCHEMA, where the same bytes mean something else to the reader: other logical types (Spark
            would read milliseconds as microseconds, and decimals by the wrong scale), or a long as an int.
    """
    pairs = list(_Pairs(Names(writer), Names(reader)).of(writer, reader, (NOWHERE, NOWHERE)))
    for (place, _), old, new in pairs:
        _check(place, old, new)
    ints = [(places, new) for places, old, new in pairs if old["type"] == "int" and new["type"] in ("int", *WIDER)]
    promoted = frozenset(place for (_, place), new in ints if new["type"] != "int")
    return Ints(frozenset(place for (place, _), _ in ints), promoted)


def _check(place: Place, old: Leaf, new: Leaf) -> None:
    narrowed = (old["type"], new["type"]) == ("long", "int")
    both = "logicalType" in old and "logicalType" in new
    if narrowed or (both and any(old.get(part, 0) != new.get(part, 0) for part in MEANING)):
        what = f"field `{place[1]}` of `{place[0]}` was {_shown(old)} in an earlier version, and is {_shown(new)} now"
        remedy = "give the field a new name, and keep the old one with its type"
        raise TidemarkError("BAD_SCHEMA", what, remedy)


def _shown(leaf: Leaf) -> str:
    return " ".join(str(leaf[part]) for part in ("type", *MEANING) if part in leaf)


class _Pairs:
    """Goes over both schemas by Avro's resolution; unions whose types were changed are left out."""

    def __init__(self, writers: Names, readers: Names) -> None:
        self._writers, self._readers = writers, readers

    def of(self, writer: Any, reader: Any, places: Places) -> Iterator[tuple[Places, Leaf, Leaf]]:
        """Each pair of types that hold no others, with the fields in which they lie."""
        old, new = self._writers.branches(writer), self._readers.branches(reader)
        pairs = [(self._writers.of(o), self._readers.of(n)) for o, n in zip(old, new, strict=False)]
        if len(old) == len(new) and (len(new) == 1 or all(o["type"] == n["type"] for o, n in pairs)):
            for pair in pairs:
                yield from self._one(*pair, places)

    def _one(self, old: Leaf, new: Leaf, places: Places) -> Iterator[tuple[Places, Leaf, Leaf]]:
        kinds = old["type"], new["type"]
        if kinds == ("record", "record"):
            before = {field["name"]: field for field in old["fields"]}
            for field in new["fields"]:
                names = [field["name"], *field.get("aliases", ())]
                found = next((before[name] for name in names if name in before), None)
                if found:
                    inside = (old["name"], found["name"]), (new["name"], field["name"])
                    yield from self.of(found["type"], field["type"], inside)
        elif kinds == ("array", "array"):
            yield from self.of(old["items"], new["items"], places)
        elif kinds == ("map", "map"):
            yield from self.of(old["values"], new["values"], places)
        else:
            yield places, old, new
