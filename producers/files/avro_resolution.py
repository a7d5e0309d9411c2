"""Resolves what an Avro file's own schema wrote by the contract: both are walked in pairs, once for a file.

It follows Avro's rules (1.12) and goes beyond them in two ways: logical types are converted, not overlooked, and what a
rule would change without a word (a symbol that the contract does not know becomes its default) is noted. Where file and
contract are alike nothing is done: values go over as they are stored.

A logical type says what a stored number means. So a number goes over as it is only where both types say the same of it;
otherwise it becomes what it stands for, and the field takes that, or refuses it.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any
from uuid import UUID

from producers.files.avro_rows import STANDS_FOR, TIMES, ScalarType, meaning_of
from schemas.conversions import NUMBERS, branch_name
from schemas.numbers import Convert
from schemas.resolution import NAMED, PROMOTIONS
from schemas.schema_text import full_name
from schemas.spark_limits import NamedTypes
from schemas.validity import parse_text
from schemas.values import UnfitError, branches, source_name, source_names

Declared = Mapping[str, Any]
MOMENTS = ("timestamp", "local-timestamp", "date")
HOLDING = ("array", "map", "record", "error")
UNSUITED = (9, 0)


def resolution(stored: Any, contract: str, notes: list[str], numbers: Container[str] = ()) -> Convert | None:
    """Return the conversion of a file's rows into what the contract's converter takes; None where there is none.

    The callable raises UnfitError. `notes` takes a line for each value that is not quite what the file said.

    Args:
        numbers: the contract's fields in which the converter takes a number for a time in a unit of its own.
    """
    wanted = parse_text(contract)
    return _Pairs(NamedTypes(stored), NamedTypes(wanted), notes.append).record(stored, wanted, numbers)


class _Pairs:
    """Walks the types of a file (`written`) and of the contract (`wanted`); no conversion leaves a value as it is."""

    def __init__(self, written: NamedTypes, wanted: NamedTypes, note: Callable[[str], None]) -> None:
        self._written, self._wanted, self._note = written, wanted, note
        # By names, each of which may be used any number of times.
        self._between_named: dict[tuple[str, str], Convert | None] = {}
        self._meanings: dict[tuple[str, bool], Convert | None] = {}
        # Whether numbers for times, in the field at hand, are not taken in the unit of its type.
        self._has_unit = False

    def of(self, written: Any, wanted: Any) -> Convert | None:
        """Return the conversion from one type into another, either of which may be a union."""
        if isinstance(written, list):
            return self._from_union(branches(written), wanted)
        return _in_branch(*self._into(written, wanted))

    def _from_union(self, written: Sequence[Any], wanted: Any) -> Convert | None:
        into = {branch_name(branch): self._into(branch, wanted) for branch in written}
        # Whether values come with the names of their branches.
        is_paired = len(written) > 1 or any("name" in self._written.of(branch) for branch in written)
        if is_paired and all(found == (own, None) for own, found in into.items()):
            return None
        if len(written) == 1 and all(found == (None, None) for found in into.values()):
            return None
        converts = {own: _in_branch(*found) for own, found in into.items()}
        return lambda value: None if value is None else _converted(value, converts)

    def _into(self, written: Any, wanted: Any) -> tuple[str | None, Convert | None]:
        """Return the branch that a type, which is no union, leads to where there are several, and the conversion."""
        declared = self._written.of(written)
        others = branches(wanted)
        if len(others) == 1:
            return None, self._between(declared, self._wanted.of(others[0]))
        wanted_types = [self._wanted.of(branch) for branch in others]
        ranks = [_rank(declared, branch) for branch in wanted_types]
        best = min(ranks, default=UNSUITED)
        if best == UNSUITED:  # the value may fit one all the same, as one of a file that knows no branches
            return None, self._meaning(declared) or _refused_by_any(declared, wanted_types)
        branch = others[ranks.index(best)]
        return branch_name(branch), self._between(declared, self._wanted.of(branch))

    def _between(self, written: Declared, wanted: Declared) -> Convert | None:
        if "name" not in written or "name" not in wanted:
            return self._compiled(written, wanted)
        pair = (written["name"], wanted["name"])
        if pair not in self._between_named:
            self._between_named[pair] = self._compiled(written, wanted)
        return self._between_named[pair]

    def _compiled(self, written: Declared, wanted: Declared) -> Convert | None:
        kind, target = written["type"], wanted["type"]
        if target == "string" and wanted.get("json") and kind not in ("string", "bytes"):
            return self._meaning(written, of_times=False)
        if kind in ("record", "error") and target == "record":
            return self.record(written, wanted)
        if kind == target == "array":
            return _each(self.of(written["items"], wanted["items"]))
        if kind == target == "map":
            return _each_value(self.of(written["values"], wanted["values"]))
        if kind == target == "enum":
            return self._enum(written["symbols"], wanted)
        if kind in HOLDING or target in HOLDING:
            return self._meaning(written)
        scalar, wanted_scalar = ScalarType.of(written, STANDS_FOR), ScalarType.of(wanted, "logicalType")
        if self._has_unit and scalar.family in MOMENTS and wanted_scalar.family in MOMENTS:
            return meaning_of(scalar)
        return self._scalar(scalar, wanted_scalar)

    def _scalar(self, written: ScalarType, wanted: ScalarType) -> Convert | None:
        if not written.logical:
            return _from_plain(written.kind, wanted)
        if not wanted.logical:
            return self._into_plain(written, wanted)
        if written.family != wanted.family:
            return meaning_of(written) or _refused(written, wanted)
        if written.family in TIMES:
            return _rescaled(written, wanted) if written.unit_ns != wanted.unit_ns else None
        if written.family == "decimal":
            return meaning_of(written) if written.scale != wanted.scale else None
        if written.family == "uuid" and written.kind != wanted.kind:
            return meaning_of(written) if wanted.kind == "string" else lambda value: UUID(value).bytes
        return None

    def _into_plain(self, written: ScalarType, wanted: ScalarType) -> Convert | None:
        if written.family == "uuid":
            if wanted.kind == "string" and written.kind == "fixed":
                return lambda value: str(UUID(bytes=value))
            return _from_plain(written.kind, wanted)
        is_number = written.kind in NUMBERS and wanted.kind in NUMBERS
        if not is_number and not (written.kind in ("bytes", "fixed") and wanted.kind in ("bytes", "fixed")):
            return meaning_of(written)
        line = f"a {written} of the file taken as it is stored, where the schema has {wanted}"

        def convert(value: Any) -> Any:
            self._note(line)
            return value

        return convert

    def record(self, written: Declared, wanted: Declared, numbers: Container[str] = ()) -> Convert | None:
        """Return the conversion of a record; `numbers`: fields in which numbers are times in a unit of their own."""
        types = {field["name"]: field["type"] for field in written["fields"]}
        fields = {source_name(field): field for field in wanted["fields"]}
        converts: dict[str, tuple[str, Convert | None]] = {}
        for name, source in source_names(wanted["fields"], types).items():
            self._has_unit = fields[source]["name"] in numbers
            converts[name] = source, self.of(types[name], fields[source]["type"])
        return _in_fields(converts)

    def _enum(self, symbols: list[str], wanted: Declared) -> Convert | None:
        known, default = frozenset(wanted["symbols"]), wanted.get("default")
        if default is None or known.issuperset(symbols):
            return None

        def convert(symbol: str) -> str:
            if symbol in known:
                return symbol
            self._note(f"a symbol that the schema does not know, taken as {default}, its default")
            return str(default)

        return convert

    def _meaning(self, written: Any, of_times: bool = True) -> Convert | None:
        """Return the conversion of a value, and of those that it holds, into what Python has for it, without pairs.

        Args:
            of_times: whether of times, too, which stay numbers otherwise.
        """
        if isinstance(written, list):
            converts = {branch_name(branch): self._meaning(branch, of_times) for branch in branches(written)}
            return lambda value: None if value is None else _converted(value, converts)
        declared = self._written.of(written)
        if "name" not in declared:
            return self._meaning_of(declared, of_times)
        place = (declared["name"], of_times)
        if place not in self._meanings:
            self._meanings[place] = self._meaning_of(declared, of_times)
        return self._meanings[place]

    def _meaning_of(self, declared: Declared, of_times: bool) -> Convert | None:
        kind = declared["type"]
        if kind in ("record", "error"):
            types = {field["name"]: field["type"] for field in declared["fields"]}
            return _in_fields({name: (name, self._meaning(inner, of_times)) for name, inner in types.items()})
        if kind == "array":
            return _each(self._meaning(declared["items"], of_times))
        if kind == "map":
            return _each_value(self._meaning(declared["values"], of_times))
        scalar = ScalarType.of(declared, STANDS_FOR)
        return meaning_of(scalar) if of_times or scalar.family == "decimal" else None


def _rank(written: Declared, wanted: Declared) -> tuple[int, int]:
    """Return how well a branch suits a type; the least does best."""
    kind, target = written["type"], wanted["type"]
    is_named = kind in NAMED and kind == target
    if is_named and _has_name(written["name"], wanted):
        return (0, 0) if written["name"] == wanted["name"] else (1, 0)
    scalar = ScalarType.of(written, STANDS_FOR)
    if scalar.logical and scalar.family == ScalarType.of(wanted, "logicalType").family:
        return 2, 0
    if kind == target:
        return UNSUITED if is_named else (3, 0)
    if target in PROMOTIONS.get(kind, ()):
        return 4, NUMBERS.index(target) if target in NUMBERS else 0
    return UNSUITED


def _has_name(name: str, wanted: Declared) -> bool:
    space, _, short = wanted["name"].rpartition(".")
    aliases = [full_name(alias, space) for alias in wanted.get("aliases", ())]
    return name.rpartition(".")[2] == short or name in aliases


def _from_plain(kind: str, wanted: ScalarType) -> Convert | None:
    """Return the conversion from a type whose values stand for themselves; Avro's promotions of text are made here."""
    if (kind, wanted.kind) == ("bytes", "string"):
        return _text
    return str.encode if (kind, wanted.kind) == ("string", "bytes") and not wanted.logical else None


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise ValueError("its bytes are no text in UTF-8") from exc


def _refused(written: ScalarType, wanted: ScalarType) -> Convert:
    def refuse(value: Any) -> Any:
        raise ValueError(f"the file has a {written}, which is no {wanted}")

    return refuse


def _refused_by_any(written: Declared, wanted: Sequence[Declared]) -> Convert | None:
    """Return a refusal of bytes that stand for what Python has nothing for (a duration), where one of the `wanted`
    types would take bytes for something else; None where none would.
    """
    if written["type"] not in ("bytes", "fixed") or not ScalarType.of(written, STANDS_FOR).logical:
        return None
    scalars = [ScalarType.of(branch, "logicalType") for branch in wanted if branch["type"] in ("bytes", "fixed")]
    other = next((scalar for scalar in scalars if scalar.logical), None)
    return None if other is None else _refused(ScalarType.of(written, STANDS_FOR), other)


def _rescaled(written: ScalarType, wanted: ScalarType) -> Convert:
    from_ns, to_ns = written.unit_ns, wanted.unit_ns

    def rescale(value: int) -> int:
        count, lost = divmod(value * from_ns, to_ns)
        if lost:
            raise ValueError(f"{value:,} as {written} is finer than its type, which holds {wanted}")
        return count

    return rescale


def _in_branch(name: str | None, convert: Convert | None) -> Convert | None:
    if name is None:
        return convert
    return lambda value: (name, convert(value) if convert else value)


def _converted(value: Any, converts: Mapping[str, Convert | None]) -> Any:
    """Return the value of a union, which comes as a pair where it would not be known which branch it is of."""
    name, inner = value if isinstance(value, tuple) else (next(iter(converts)), value)
    convert = converts[name]
    return convert(inner) if convert else inner


def _each(convert: Convert | None) -> Convert | None:
    return (lambda items: [convert(item) for item in items]) if convert else None


def _each_value(convert: Convert | None) -> Convert | None:
    return (lambda items: {key: convert(item) for key, item in items.items()}) if convert else None


def _in_fields(converts: Mapping[str, tuple[str, Convert | None]]) -> Convert | None:
    """Return the conversion of a record: by the names of its fields what they are called in messages, and their own."""
    changed = [(name, source, convert) for name, (source, convert) in converts.items() if convert]
    if not changed:
        return None

    def convert_fields(record: Mapping[str, Any]) -> dict[str, Any]:
        fields = dict(record)
        for name, source, convert in changed:
            try:
                fields[name] = convert(fields[name])
            except UnfitError as exc:
                raise UnfitError(exc.reason, source, *exc.path) from exc
            except ValueError as exc:
                raise UnfitError(str(exc), source) from exc
        return fields

    return convert_fields
