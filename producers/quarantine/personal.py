"""Decides what of a rejected record is personal data, by every version of its topic's schemas, not its own alone.

A mark holds for records of earlier versions too, which do not have it. So a field is hidden where any version marks it
under its name or an alias; names that a version calls aliases of each other are one field.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from conf.errors import TidemarkError
from schemas.pii import ATTRIBUTE, pii_fields_of, seems_marked
from schemas.registry import RegisteredSchema, Registry
from schemas.validity import load_schema


@dataclass(frozen=True)
class Hidden:
    """The fields of a record that are not to be shown: those of such `names`, or, where `everything` is, all."""

    names: frozenset[str] = frozenset()
    everything: bool = False

    def __bool__(self) -> bool:
        return self.everything or bool(self.names)

    def covers(self, name: str) -> bool:
        """Return whether that field is hidden."""
        return self.everything or name in self.names


@dataclass(frozen=True)
class _Version:
    """The fields of a schema, each by its name and aliases, and which of those are marked, or hold marks."""

    fields: tuple[frozenset[str], ...] = ()
    marked: Hidden = Hidden()


def versions_of(topic: str, registry: Registry) -> list[RegisteredSchema]:
    """Return every version of the topic's subjects: it has one for each type of its events."""
    # No name of a type has a dash: what has one belongs to a topic with a longer name.
    subjects = [
        name for name in registry.subjects() if name.startswith(f"{topic}-") and "-" not in name[len(topic) + 1 :]
    ]
    return [version for subject in subjects for version in registry.all_versions(subject)]


def hidden_fields(versions: Iterable[RegisteredSchema], schema: RegisteredSchema | None, registry: Registry) -> Hidden:
    """Return what is hidden of a record.

    Args:
        versions: of the record's topic, as `versions_of` gives them.
        schema: by which the record is read; None where it cannot be.
    """
    of_topic = list(versions)
    hidden = _hidden([version.text for version in of_topic])
    if schema is None or any(version.id == schema.id for version in of_topic):
        return hidden
    # Whatever the topic's marks are meant for may be in any field of another topic's schema.
    return Hidden(everything=True) if hidden else _hidden([schema.text, *_beside(schema.id, registry)])


def _beside(schema_id: int, registry: Registry) -> Iterator[str]:
    """Yield the versions of every subject that has that schema."""
    for subject in registry.subjects():
        versions = registry.all_versions(subject)
        if any(version.id == schema_id for version in versions):
            yield from (version.text for version in versions)


def _hidden(texts: Iterable[str]) -> Hidden:
    versions = [_version(text) for text in texts]
    if any(version.marked.everything for version in versions):
        return Hidden(everything=True)
    names = set[str]().union(*(version.marked.names for version in versions))
    fields = [field for version in versions for field in version.fields]
    before = -1
    while before < len(names):
        before = len(names)
        names.update(*(field for field in fields if field & names))
    return Hidden(frozenset(names))


@lru_cache(maxsize=1000)
def _version(text: str) -> _Version:
    """Return what a schema says; everything is marked in one whose marks make no sense."""
    try:
        schema = load_schema(text)
    except TidemarkError:
        return _Version(marked=Hidden(everything=ATTRIBUTE in text.lower()))
    try:
        marks = pii_fields_of(text)
    except TidemarkError:
        if seems_marked(schema):
            return _Version(marked=Hidden(everything=True))
        marks = None
    declared = schema.get("fields", ()) if isinstance(schema, dict) else ()
    fields = {field["name"]: frozenset((field["name"], *field.get("aliases", ()))) for field in declared}
    marked = (names for name, names in fields.items() if marks is not None and marks.covers(name))
    return _Version(tuple(fields.values()), Hidden(frozenset().union(*marked)))
