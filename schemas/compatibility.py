"""Decides whether a schema may follow the earlier versions of its subject, under a compatibility level.

Pure functions. The levels are Confluent's: backward, the new schema reads what the newest version wrote; forward, the
newest version reads what the new schema writes; full, both; and each of them transitively, over all versions. Beside
them stands what a table's columns can follow (`schemas.silver_columns`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from conf.errors import TidemarkError
from conf.sections import CompatibilityLevel
from schemas.resolution import Incompatibility, incompatibilities, parse_type
from schemas.silver_columns import ColumnConflict, Version, column_conflicts

# How to mend an incompatibility, where the new schema is the reader, and where it is the writer.
REMEDIES = {
    "type": (
        "keep {writer}, or give the changed field a name of its own",
        "keep {reader}, or give the changed field a name of its own",
    ),
    "branch": ("keep {writer} as a branch of the union", "add no branch, or put it into a field of its own"),
    "default": (
        "give it a default, or name the field that it was in `aliases`",
        "keep writing the field: its readers have no default",
    ),
    "name": ("keep the name, or add the old one to `aliases`", "keep the name"),
    "symbols": (
        "keep the symbols, or give the enum a default",
        "add no symbols until readers whose enum has a default are everywhere",
    ),
    "size": ("keep the size, or give the changed field a name of its own",) * 2,
    "logical": ("keep the logical type and its parameters, and put the other meaning into a new field",) * 2,
    "alias": (
        "take the alias out, and give what has it a default, or keep both as they were",
        "take no name that an earlier version has as an alias",
    ),
    "branch alias": (
        "take the alias out, and keep both types in the union",
        "put no two types into a union that are one to an earlier version",
    ),
    "namespace": ("keep the namespace, or add the old full name to `aliases`", "keep the namespace"),
}


@dataclass(frozen=True)
class VersionConflict:
    """An incompatibility between the new schema and an earlier version."""

    version: int
    new_reads: bool
    incompatibility: Incompatibility

    @property
    def what(self) -> str:
        old = f"version {self.version}"
        reader, writer = ("the new schema", old) if self.new_reads else (old, "the new schema")
        path, what = self.incompatibility.path, self.incompatibility.what
        return f"{old}: {path}: {reader} cannot read data of {writer}: it {what}"

    @property
    def remedy(self) -> str:
        remedy = REMEDIES[self.incompatibility.kind][0 if self.new_reads else 1]
        return remedy.format(reader=self.incompatibility.reader, writer=self.incompatibility.writer)


def conflicts(text: str, earlier: Sequence[Version], level: CompatibilityLevel) -> list[VersionConflict]:
    """Return every conflict between `text` and the versions in `earlier` (oldest first) that `level` compares it with;
    raises TidemarkError INVALID_SCHEMA."""
    new = parse_type(text)
    compared = earlier if level.endswith("_transitive") else earlier[-1:]
    conflicting = []
    for old in compared if level != "none" else ():
        try:
            before = parse_type(old.text)
        except TidemarkError as exc:
            what = f"version {old.version}, which is registered already: {exc.message}"
            raise TidemarkError(exc.code, what, "delete that version in the registry, or take a new topic") from exc
        if level.startswith(("backward", "full")):
            conflicting += [VersionConflict(old.version, True, problem) for problem in incompatibilities(new, before)]
        if level.startswith(("forward", "full")):
            conflicting += [VersionConflict(old.version, False, problem) for problem in incompatibilities(before, new)]
    return conflicting


def obstacles(
    text: str, earlier: Sequence[Version], level: CompatibilityLevel
) -> Sequence[VersionConflict | ColumnConflict]:
    """Return all that keeps `text` from following the versions in `earlier`: the conflicts under `level`, and, unless
    that is none, what silver's columns cannot follow. A column is of all versions, whatever the level. Raises
    TidemarkError INVALID_SCHEMA."""
    breaking = conflicts(text, earlier, level)
    if level == "none":
        return breaking
    named = {conflict.incompatibility.path for conflict in breaking}
    return [*breaking, *(column for column in column_conflicts(text, earlier) if column.path not in named)]


def require_compatible(subject: str, text: str, earlier: Sequence[Version], level: CompatibilityLevel) -> None:
    """Raise TidemarkError INCOMPATIBLE_SCHEMA with the first obstacle, where `text` may not follow `earlier`."""
    breaking = obstacles(text, earlier, level)
    if breaking:
        more = f" ({len(breaking) - 1} more: see `local/tidemark schemas check`)" if len(breaking) > 1 else ""
        raise TidemarkError("INCOMPATIBLE_SCHEMA", f"{subject} {breaking[0].what}", f"{breaking[0].remedy}{more}")
