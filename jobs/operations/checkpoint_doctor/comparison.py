"""Compares what was read of a checkpoint and of the code, without Spark: what has changed, and what that means."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pyspark.sql.types import StructType

from jobs.connectors.delta.schema_evolution import is_widening, type_changes
from jobs.pipeline.query_description import QueryDescription, Step
from jobs.pipeline.state_store import Family, Operator

Answer = Literal["new", "safe", "rename", "repartition", "rebuild"]
# The worst decides.
ANSWERS: tuple[Answer, ...] = ("new", "safe", "rename", "repartition", "rebuild")


@dataclass(frozen=True)
class Change:
    """One thing that has changed; "safe" is a note. `remedy`: what to do, where the answer alone does not say that."""

    answer: Answer
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class OldQuery:
    """A query as its checkpoint has it.

    Args:
        sources: the topics of each source; None for one that had not begun, or is none of Kafka's.
        conf: what its offset log has frozen.
        record: None where the query last ran before records were kept.
        table: the schema of the table that the code writes now; None where there is no such table.
    """

    sources: tuple[tuple[str, ...] | None, ...]
    conf: dict[str, str]
    operators: list[Operator]
    record: QueryDescription | None
    table: StructType | None


@dataclass(frozen=True)
class NewQuery:
    """A query as the code has it now.

    Args:
        refused: why Spark would not go on with the old state; empty where it would.
        partitions, provider: of the settings.
        columns: of what is written.
    """

    record: QueryDescription
    operators: list[Operator]
    refused: str
    partitions: int
    provider: str
    columns: StructType


def changes(before: OldQuery, now: NewQuery) -> list[Change]:
    """List everything that has changed, the worst first."""
    changed = [*_sources(before, now), *_state(before, now), *_frozen(before, now), *_meaning(before, now)]
    changed += _table(before, now)
    return sorted(changed, key=lambda change: -ANSWERS.index(change.answer))


def _sources(before: OldQuery, now: NewQuery) -> Iterator[Change]:
    old, new = before.sources, now.record.sources
    text = f"the checkpoint has the offsets of {_named(old)}, and the job reads {_named(new)}"
    if len(old) != len(new):
        yield Change("rebuild", f"{text}: Spark knows sources by their number, and refuses another count")
    elif any(was is not None and was != topics for was, topics in zip(old, new, strict=True)):
        is_order = sorted(filter(None, old)) == sorted(new)
        what = "in another order" if is_order else "other topics"
        yield Change("rebuild", f"{text}, {what}: Spark knows sources by their number")


def _named(sources: tuple[tuple[str, ...] | None, ...]) -> str:
    return ", ".join("+".join(topics) if topics else "a source without topics" for topics in sources) or "no source"


def _state(before: OldQuery, now: NewQuery) -> Iterator[Change]:
    old, new = before.operators, now.operators
    was, names = (", ".join(operator.name for operator in operators) or "none" for operators in (old, new))
    if was != names:
        yield Change("rebuild", f"stateful operators were {was} and are {names}")
        return
    changes = [change for pair in zip(old, new, strict=True) for change in _families(*pair)]
    if now.refused and all(change.answer == "safe" for change in changes):
        changes.append(Change("rebuild", f"Spark refuses the old state: {now.refused}"))
    yield from changes


def _families(old: Operator, new: Operator) -> Iterator[Change]:
    old_families, new_families = (
        {(family.store, family.name): family for family in operator.families} for operator in (old, new)
    )
    for key in sorted(old_families.keys() | new_families.keys()):
        where = f"operator {new.number} ({new.name})"
        if key not in new_families:
            yield Change("safe", f"{where}: state {key[1]} is not used any more, its rows stay")
        elif key not in old_families:
            yield Change("safe", f"{where}: state {key[1]} is new, and empty at first")
        else:
            yield from _schemas(where, old_families[key], new_families[key])


def _schemas(where: str, old: Family, new: Family) -> Iterator[Change]:
    for part, was, is_now in (("key", old.key, new.key), ("value", old.value, new.value)):
        # By their texts: whether a field may be null changes nothing in what lies there.
        if was.simpleString() != is_now.simpleString():
            text = f"{where}: the state's {part} was {was.simpleString()} and is {is_now.simpleString()}"
            types = [[field.dataType.simpleString() for field in schema.fields] for schema in (was, is_now)]
            only_names = ", which Spark takes for the same: it compares types, not names"
            yield Change("rebuild", f"{text}{only_names if types[0] == types[1] else ''}")


def _frozen(before: OldQuery, now: NewQuery) -> Iterator[Change]:
    if not before.operators:
        return
    provider, partitions = before.conf.get("provider", ""), before.conf.get("partitions", "")
    if provider and provider != now.provider:
        what = f"the state lies in {_short(provider)}, and the settings say {_short(now.provider)}"
        yield Change("rebuild", f"{what}: Spark goes on with the old store, state does not move between them")
    elif partitions and int(partitions) != now.partitions:
        what = f"the state has {partitions} partitions, and the settings say {now.partitions}"
        goes_on = "Spark goes on with the old number"
        if _short(provider).startswith("RocksDB"):
            yield Change("repartition", f"{what}: {goes_on} until it is repartitioned")
        else:
            yield Change("rebuild", f"{what}: {goes_on}, and repartitions no state on the heap")


def _short(provider: str) -> str:
    return provider.rpartition(".")[2].removesuffix("StateStoreProvider")


def _meaning(before: OldQuery, now: NewQuery) -> Iterator[Change]:
    old, new = before.record, now.record
    if old is None:
        if now.operators:
            yield Change(
                "safe", "the checkpoint has no record of lateness, windows and keys yet: they were not compared"
            )
        return
    if now.operators and old.mode != new.mode:
        yield Change("rebuild", f"output mode was {old.mode} and is {new.mode}: rows of open windows would be missing")
    # A table has the name of its output, which is the checkpoint's too.
    if (bool(old.table), old.keys) != (bool(new.table), new.keys):
        yield Change("rebuild", f"the output was {_sink(old)} and is {_sink(new)}")
    if now.operators:
        yield from _steps(old, new)


def _sink(record: QueryDescription) -> str:
    if not record.table:
        return "no table of append or upsert"
    return "a table " + (f"merged by {', '.join(record.keys)}" if record.keys else "appended to")


def _steps(old: QueryDescription, new: QueryDescription) -> Iterator[Change]:
    silent = "Spark takes it without a word, and rows of both meanings would stand side by side"
    windows = old.of_kind("window"), new.of_kind("window")
    if windows[0] != windows[1]:
        yield Change("rebuild", f"windows were {_windows(old)} and are {_windows(new)}: {silent}")
    for was, step in zip(old.of_kind("state"), new.of_kind("state"), strict=False):
        if was != step:
            yield Change("rebuild", f"{step.node} was `{was.text}` and is `{step.text}`: {silent}")
    lateness = old.of_kind("watermark"), new.of_kind("watermark")
    if lateness[0] != lateness[1]:
        text = f"lateness was {_texts(lateness[0])} and is {_texts(lateness[1])}"
        what = "the watermark goes on from where it is, what it has passed stays closed"
        yield Change("safe", f"{text}: {what}")
    if old.below_state() != new.below_state():
        what = "what flows into the state is filtered or computed in another way"
        yield Change("safe", f"{what}: what is in the state already stays as it was")


def _windows(record: QueryDescription) -> str:
    lengths = sorted({seconds for window in record.windows or () for seconds in window})
    return " and ".join(f"{seconds:,.0f} s" for seconds in lengths) or _texts(record.of_kind("window"))


def _texts(steps: tuple[Step, ...]) -> str:
    return "; ".join(step.text for step in steps) or "none"


def _table(before: OldQuery, now: NewQuery) -> Iterator[Change]:
    if not now.record.table:
        return
    name = now.record.table
    if before.table is None:
        what = f"table {name} is not there, and the checkpoint's query has written it"
        yield Change("rebuild", f"{what}: the next batch would stop by TABLE_BEHIND")
        return
    for change in type_changes(before.table, now.columns):
        if is_widening(change.old, change.new):
            yield Change("safe", f"table {name}: {change}, and will be widened")
        else:
            yield Change("rebuild", f"table {name}: {change}: the next batch would stop by TYPE_CHANGED")
    old_names, new_names = (
        {field.name.lower(): field.name for field in schema.fields} for schema in (before.table, now.columns)
    )
    for key in new_names.keys() - old_names.keys():
        yield Change("safe", f"table {name} gets column {new_names[key]}, null in the rows that are there")
    for key in old_names.keys() - new_names.keys():
        yield Change("safe", f"column {old_names[key]} of table {name} gets no values any more")
