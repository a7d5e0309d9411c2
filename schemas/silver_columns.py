"""Says which column of silver each field of a contract becomes, and what such a column can follow of later versions.

A table has one column a field, for good. Avro can read much into a newer type that no column can become: text into
bytes, one type into a union of several. Of such a union the column is a struct, whose `memberN` are the types that are
not null, by the places that they had when they came.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from conf.errors import TidemarkError
from schemas.schema_text import full_name
from schemas.spark_limits import NamedTypes, require_expandable, types_within
from schemas.validity import parse_text

LEAVES = {
    **{"null": "void", "boolean": "boolean", "int": "int", "long": "bigint", "float": "float", "double": "double"},
    **{"bytes": "binary", "fixed": "binary", "string": "string", "enum": "string"},
}
TIMES = {
    "date": "date",
    **{f"timestamp-{unit}": "timestamp" for unit in ("millis", "micros")},
    **{f"local-timestamp-{unit}": "timestamp_ntz" for unit in ("millis", "micros")},
}
# What Spark reads as one column.
NUMBERS = {frozenset({"int", "long"}): "bigint", frozenset({"float", "double"}): "double"}
# What Delta makes of a column that holds rows, of the types that Avro promotes. A column of nulls becomes any other.
WIDENINGS = {("int", "bigint"), ("int", "double"), ("float", "double")}


@dataclass(frozen=True)
class Member:
    """A type of a union of several; a type without a name is known by what it is."""

    kind: str
    name: str
    aliases: frozenset[str]
    column: "Column"

    def __str__(self) -> str:
        return self.name or self.kind


@dataclass(frozen=True)
class Column:
    """A column, or a part of one; `version` is the first that had it so.

    Args:
        type: Spark's name of a type that holds no others; else struct, members, array or map.
        fields: of a struct, by the names in lower case: what each is called, and its column.
    """

    type: str
    version: int
    fields: Mapping[str, tuple[str, "Column"]] = field(default_factory=dict)
    members: tuple[Member, ...] = ()
    inner: "Column | None" = None

    def __str__(self) -> str:
        if self.type == "members":
            return f"a struct of the union's types ({', '.join(map(str, self.members))})"
        return f"{self.type} of {self.inner}" if self.inner else self.type


Kind = Literal["type", "members", "case"]
REMEDIES: dict[Kind, str] = {
    "type": "keep the type of version {version}, or give the changed field a name that no version has",
    "members": "keep the types of version {version} in their places, with new ones behind them, or give the field a "
    "name that no version has",
    "case": "spell it as version {version} does, or take a name that no version has",
}


@dataclass(frozen=True)
class ColumnConflict:
    """A place in a new schema that the column of silver, which `version` made, cannot follow."""

    kind: Kind
    path: str
    version: int
    problem: str

    @property
    def what(self) -> str:
        return f"version {self.version}: {self.path}: silver's column cannot follow: {self.problem}"

    @property
    def remedy(self) -> str:
        return REMEDIES[self.kind].format(version=self.version)


class Version(Protocol):
    """A registered schema, as far as its columns need it."""

    @property
    def version(self) -> int: ...
    @property
    def text(self) -> str: ...


def column_conflicts(text: str, earlier: Sequence[Version]) -> list[ColumnConflict]:
    """Return each place in the schema `text` that the columns cannot follow which the versions in `earlier` (oldest
    first) made; where the newest of them has it so already, it is no change. Raises TidemarkError INVALID_SCHEMA."""
    new = _columns_of_event(text, 0)
    if new is None:
        return []
    current: Column | None = None
    newest: Column | None = None
    for version in earlier:
        try:
            newest = _columns_of_event(version.text, version.version)
        except TidemarkError:
            newest = None  # no job can read it
        if newest is not None:
            current = newest if current is None else merged(current, newest, takes_changed=False)
    if current is None:
        return []
    before = set() if newest is None else {conflict.path for conflict in conflicts_of(current, newest)}
    since = set() if newest is None else {conflict.path for conflict in conflicts_of(newest, new)}
    return [
        conflict for conflict in conflicts_of(current, new) if conflict.path not in before or conflict.path in since
    ]


def columns_over(texts: Sequence[str]) -> Column | None:
    """Return the columns of events over all versions, oldest first: each type of a union in the place that it came to.

    Where a column has become another, which no table can follow, it is the newer one. None, where there is none.
    """
    current: Column | None = None
    for number, text in enumerate(texts, 1):
        new = _columns_of_event(text, number)
        if new is not None:
            current = new if current is None else merged(current, new, takes_changed=True)
    return current


def _columns_of_event(text: str, version: int) -> Column | None:
    schema = parse_text(text)
    if not isinstance(schema, dict) or schema["type"] not in ("record", "error"):
        return None
    try:
        require_expandable(schema)
    except TidemarkError:
        return None
    return column_of(schema, NamedTypes(schema), version)


def column_of(schema: Any, names: NamedTypes, version: int, outer: tuple[str, ...] = ()) -> Column:
    """Return the column of a type, in fastavro's parsed form, that lies in the records `outer`."""
    branches = names.branches(schema)
    if len(branches) > 1:
        kinds = frozenset(names.of(branch)["type"] for branch in branches)
        if kinds in NUMBERS:
            return Column(NUMBERS[kinds], version)
        members = tuple(_member(branch, names, version, outer) for branch in branches)
        return Column("members", version, members=members)
    declared: dict[str, Any] = names.of(branches[0]) if branches else {"type": "null"}
    kind, logical = declared["type"], declared.get("logicalType")
    if kind in ("record", "error"):
        if declared["name"] in outer:
            return Column(f"{declared['name']} within itself", version)
        inside = (*outer, declared["name"])
        fields = {
            part["name"].lower(): (part["name"], column_of(part["type"], names, version, inside))
            for part in declared["fields"]
        }
        return Column("struct", version, fields)
    if kind in ("array", "map"):
        return Column(kind, version, inner=column_of(types_within(declared)[0], names, version, outer))
    if logical == "decimal":
        return Column(f"decimal({declared['precision']},{declared.get('scale', 0)})", version)
    return Column(TIMES.get(str(logical), LEAVES[kind]), version)


def _member(branch: Any, names: NamedTypes, version: int, outer: tuple[str, ...]) -> Member:
    declared = names.of(branch)
    name = str(declared.get("name", ""))
    space = name.rpartition(".")[0]
    aliases = frozenset(full_name(alias, space) for alias in declared.get("aliases", ()))
    return Member(declared["type"], name, aliases, column_of(branch, names, version, outer))


def places(current: Sequence[Member], new: Sequence[Member]) -> list[int]:
    """Return the place of each type of a union in the column that has the members `current`; those that it lacks come
    behind them."""
    # By full names first, as readers do.
    known: dict[int, int] = {}
    for place, old in enumerate(current):
        for i, member in enumerate(new):
            if old.kind == member.kind and (old.name == member.name or old.name in member.aliases):
                known[i] = place
                break
    for place, old in enumerate(current):
        like = next((i for i, member in enumerate(new) if _is_like(old, member)), None)
        if like is not None and like not in known and place not in known.values():
            known[like] = place
    behind = iter(range(len(current), len(current) + len(new)))
    return [known[i] if i in known else next(behind) for i in range(len(new))]


def _is_like(old: Member, new: Member) -> bool:
    """Return whether values of the one are read as the other, if no better one is there."""
    if old.name or new.name:
        return old.kind == new.kind and old.name.rpartition(".")[2] == new.name.rpartition(".")[2]
    return (old.column.type, new.column.type) in WIDENINGS


def conflicts_of(current: Column, new: Column, path: str = "") -> Iterator[ColumnConflict]:
    """Yield where the `current` columns cannot follow those of a `new` version; what one lacks is no conflict."""
    if current.type == new.type == "struct":
        for key, (name, inner) in new.fields.items():
            if key not in current.fields:
                continue
            spelled, before = current.fields[key]
            place = f"{path}.{name}".lstrip(".")
            if spelled != name:
                what = f"it is called `{spelled}`, and `{name}` is no other name to it"
                yield ColumnConflict("case", place, before.version, what)
            yield from conflicts_of(before, inner, place)
    elif current.type == new.type == "members":
        yield from _of_members(current, new, path)
    elif current.inner and new.inner and current.type == new.type:
        yield from conflicts_of(current.inner, new.inner, path + ("[]" if current.type == "array" else "{}"))
    elif current.type != new.type and not _widens(current, new):
        yield ColumnConflict("type", path, current.version, f"it is {current}, which cannot become {new}")


def _of_members(current: Column, new: Column, path: str) -> Iterator[ColumnConflict]:
    at = places(current.members, new.members)
    for i, (member, place) in enumerate(zip(new.members, at, strict=True)):
        if i != place:
            was = (
                f"`{current.members[i]}` is its member{i}"
                if i < len(current.members)
                else f"`{member}` is no member{i}"
            )
            yield ColumnConflict("members", path, current.version, f"{was}, and the union has `{member}` in that place")
            return
    for old, member in zip(current.members, new.members, strict=False):
        yield from conflicts_of(old.column, member.column, f"{path}.{member}")


def merged(current: Column, new: Column, takes_changed: bool) -> Column:
    """Return the columns after a `new` version has come; one that cannot follow is the new one from then on, where
    `takes_changed`, rather than what it was."""
    if current.type == new.type == "struct":
        fields = dict(current.fields)
        for key, (name, inner) in new.fields.items():
            known = fields.get(key)
            fields[key] = (known[0], merged(known[1], inner, takes_changed)) if known else (name, inner)
        return replace(current, fields=fields)
    if current.type == new.type == "members":
        at = places(current.members, new.members)
        if not takes_changed and at != [*range(len(at))]:
            return current
        members = dict(enumerate(current.members))
        for place, member in zip(at, new.members, strict=True):
            old = members.get(place)
            column = merged(old.column, member.column, takes_changed) if old else member.column
            members[place] = replace(member, column=column)
        version = new.version if len(members) > len(current.members) else current.version
        return replace(current, version=version, members=tuple(members[place] for place in sorted(members)))
    if current.inner and new.inner and current.type == new.type:
        return replace(current, inner=merged(current.inner, new.inner, takes_changed))
    is_same = current.type == new.type
    return new if _widens(current, new) or (takes_changed and not is_same) else current


def _widens(current: Column, new: Column) -> bool:
    return current.type == "void" or (current.type, new.type) in WIDENINGS
