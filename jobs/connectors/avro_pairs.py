"""Which part of a writer's schema becomes which part of the reader's, and whether Spark would read it as what it is."""

from collections.abc import Iterator
from typing import Any

from conf.errors import TidemarkError
from jobs.connectors.avro_wire import Names, Place

Leaf = dict[str, Any]
MEANING = ("logicalType", "precision", "scale")


def int_places(writer: Any, reader: Any) -> frozenset[Place]:
    """The writer's fields whose ints stay ints in the reader, wherever they go.

    Args:
        writer, reader: schemas in fastavro's parsed form.

    Raises:
        TidemarkError: BAD_SCHEMA, where the same bytes mean something else to the reader: other logical types (Spark
            would read milliseconds as microseconds, and decimals by the wrong scale), or a long as an int.
    """
    kept: dict[Place, bool] = {}
    for place, old, new in _Pairs(Names(writer), Names(reader)).of(writer, reader, ("", "")):
        _check(place, old, new)
        if old["type"] == "int":
            kept[place] = kept.get(place, True) and new["type"] == "int"
    return frozenset(place for place, stays in kept.items() if stays)


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

    def of(self, writer: Any, reader: Any, place: Place) -> Iterator[tuple[Place, Leaf, Leaf]]:
        """Each pair of types that hold no others, with the writer's field in which it lies."""
        old, new = self._writers.branches(writer), self._readers.branches(reader)
        pairs = [(self._writers.of(o), self._readers.of(n)) for o, n in zip(old, new, strict=False)]
        if len(old) == len(new) and (len(new) == 1 or all(o["type"] == n["type"] for o, n in pairs)):
            for pair in pairs:
                yield from self._one(*pair, place)

    def _one(self, old: Leaf, new: Leaf, place: Place) -> Iterator[tuple[Place, Leaf, Leaf]]:
        kinds = old["type"], new["type"]
        if kinds == ("record", "record"):
            before = {field["name"]: field for field in old["fields"]}
            for field in new["fields"]:
                names = [field["name"], *field.get("aliases", ())]
                found = next((before[name] for name in names if name in before), None)
                if found:
                    yield from self.of(found["type"], field["type"], (old["name"], found["name"]))
        elif kinds == ("array", "array"):
            yield from self.of(old["items"], new["items"], place)
        elif kinds == ("map", "map"):
            yield from self.of(old["values"], new["values"], place)
        else:
            yield place, old, new
