"""Tables that keep their records' coordinates, row by row: bronze, and silver together with quarantine."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from jobs.connectors.committed import CommittedReader, Edges
from jobs.coverage.chains import merged
from jobs.coverage.claims import Span
from jobs.coverage.findings import Finding, of_offsets
from jobs.coverage.rows import Offsets, Run, Seen, can_be_read, columns_of, coordinates, distinct, runs
from jobs.coverage.tables import TableCoverage

LAYERS = re.compile(r"^(?P<range>range-[^/]+/)?(?P<layer>bronze|silver)/(?P<topic>[^/]+)")
BRONZE = ("partition", "offset")
SILVER = ("_partition", "_offset")
QUARANTINE = "quarantine"
DELETED = "_deleted"  # a column of silver tables that hold only the newest row of each key


@dataclass
class Account:
    """Tables whose rows together should be the records of a topic, each once.

    Args:
        name: what they are called together.
        tables: those that claim offsets, by name.
        beside: the table quarantine, whose rows of the topic count too, and claim nothing.
        has_all: False where older rows make way for newer ones.
    """

    name: str
    topic: str
    columns: tuple[str, str]
    tables: dict[str, TableCoverage]
    beside: TableCoverage | None = None
    has_all: bool = True
    seen: dict[int, Seen] = field(default_factory=dict)

    def expected(self) -> dict[int, list[Run]]:
        """The offsets of each partition that all of the tables claim."""
        first, *others = (self._runs(table) for table in self.tables.values())
        return {p: reduce(_common, (each.get(p, []) for each in others), claimed) for p, claimed in first.items()}

    def read(self) -> int:
        """Read the rows; how many."""
        claimed = merged(span for table in self.tables.values() for span in self._spans(table))
        for partition in {span.partition for span in claimed}:
            own = [span for span in claimed if span.partition == partition]
            self.seen[partition] = Seen(min(span.start or 0 for span in own), max(span.end for span in own))
        for table in self.tables.values():
            self._take(coordinates(table.path, table.version, *self.columns))
        if self.beside:
            self._take(coordinates(self.beside.path, self.beside.version, *BRONZE, topic=self.topic), False)
        return sum(each.rows for each in self.seen.values())

    def _take(self, batches: Iterable[tuple[Offsets, Offsets]], claims: bool = True) -> None:
        for partitions, offsets in batches:
            for partition in np.flatnonzero(np.bincount(partitions)).tolist():
                own = offsets[partitions == partition]
                if partition in self.seen:
                    seen = self.seen[partition]
                    own = own if self._begins() else own[own >= seen.start]
                    # Quarantine is read last: a batch that is under way may be there already.
                    seen.take(own if claims else own[own < seen.end])
                elif claims:
                    self.seen[partition] = Seen(0, 0)
                    self.seen[partition].take(own)

    def _begins(self) -> bool:
        """Whether it is known where the tables begin: commits of older code said only where each batch did."""
        return all(chain.begins for table in self.tables.values() for chain in table.chains)

    def _runs(self, table: TableCoverage) -> dict[int, list[Run]]:
        found: dict[int, list[Run]] = {}
        for span in self._spans(table):
            found.setdefault(span.partition, []).append((span.start or 0, span.end))
        return found

    def _spans(self, table: TableCoverage) -> list[Span]:
        return merged(span for chain in table.chains for span in chain.spans if span.topic == self.topic)


def unreadable(account: Account) -> Iterator[Finding]:
    """The tables of an account that cannot be read here; without them nothing of it can be compared."""
    for name, table in {**account.tables, **({QUARANTINE: account.beside} if account.beside else {})}.items():
        if not can_be_read(table.path, table.version):
            text = f"{name}: its rows are not compared: it has both widened types and deletion vectors"
            remedy = "ALTER TABLE ... DROP FEATURE deletionVectors lets every reader read it"
            yield Finding("NOT_COMPARED", account.name, text, remedy, account.topic)


def accounts(
    tables: Mapping[str, TableCoverage], quarantines: Mapping[str, TableCoverage], wanted: Container[str]
) -> Iterator[Account]:
    """The accounts that can be made of `tables`, of which one at least is `wanted`.

    Args:
        quarantines: by the folder of a range, "" for the live one.
    """
    silver: dict[tuple[str, str], dict[str, TableCoverage]] = {}
    for name, table in tables.items():
        found = LAYERS.match(name)
        if found is None or not table.chains:
            continue
        if found["layer"] == "bronze":
            if name in wanted and name == found[0] and set(BRONZE) <= columns_of(table.path, table.version):
                yield Account(name, found["topic"], BRONZE, {name: table})
        else:
            silver.setdefault((found["range"] or "", found["topic"]), {})[name] = table
    for (folder, topic), own in silver.items():
        if not any(name in wanted for name in own):
            continue
        columns = [columns_of(each.path, each.version) for each in own.values()]
        if all(set(SILVER) <= each for each in columns):
            has_all = not any(DELETED in each for each in columns)
            named = " and ".join([*own, f"{folder}{QUARANTINE}"]) if has_all else " and ".join(own)
            beside = quarantines.get(folder) if has_all else None
            yield Account(named, topic, SILVER, own, beside, has_all)


def check_account(account: Account, edges: Mapping[int, Edges] | None, reader: CommittedReader) -> Iterator[Finding]:
    """What is wrong with the rows of an account that has been read.

    Args:
        edges: of the topic by partition; None where it cannot be asked what its offsets are.
    """
    where, topic = account.name, account.topic
    expected = account.expected()
    for partition, seen in sorted(account.seen.items()):
        for start, end in runs(distinct(seen.doubled)):
            remedy = "DESCRIBE HISTORY says who wrote after the job: RESTORE to before that, or read the topic again"
            yield of_offsets("DOUBLED", where, (topic, partition, start, end), f"doubled in {where}", remedy)
        for start, end in runs(distinct(seen.beyond)):
            remedy = "somebody else has written them: DESCRIBE HISTORY says who"
            yield of_offsets("UNCLAIMED", where, (topic, partition, start, end), f"in {where} by no commit", remedy)
        if account.has_all:
            holes = seen.holes(expected.get(partition, []))
            yield from _missing(account, partition, holes, edges, reader)


def _missing(
    account: Account, partition: int, holes: Sequence[Run], edges: Mapping[int, Edges] | None, reader: CommittedReader
) -> Iterator[Finding]:
    first = edges[partition].first if edges is not None and partition in edges else None
    gone = sum(min(end, first if first is not None else end) - start for start, end in holes if _before(start, first))
    if gone:
        yield _cannot_tell(account, partition, gone)
    if first is None:
        return
    asked = [(max(start, first), end) for start, end in holes if end > first]
    if asked:
        for start, end in runs(reader.records_within(account.topic, partition, asked)):
            at = account.topic, partition, start, end
            yield of_offsets("MISSING", account.name, at, f"missing in {account.name}", _restore(account))


def _cannot_tell(account: Account, partition: int, count: int) -> Finding:
    """A problem where rows were deleted: otherwise they are, as ever, the ends of transactions."""
    has = "1 offset has" if count == 1 else f"{count:,} offsets have"
    text = f"{account.topic} partition {partition}: {has} no row in {account.name}, and the topic no longer has"
    were_deleted = any(table.removals for table in account.tables.values())
    remedy = _restore(account) if were_deleted else "nobody can tell records from ends of transactions there"
    place = account.topic, partition
    return Finding("CANNOT_TELL", account.name, f"{text} {_them(count)}", remedy, *place, is_problem=were_deleted)


def _them(count: int) -> str:
    return "it" if count == 1 else "them"


def _before(start: int, first: int | None) -> bool:
    return first is None or start < first


def _restore(account: Account) -> str:
    removals = {name: each.removals for name, each in account.tables.items() if each.removals}
    if removals:
        name, versions = next(iter(removals.items()))
        named = ", ".join(map(str, sorted(versions)))
        return f"version {named} of {name} deleted rows: where that was not meant, RESTORE it to the version before"
    finished = "" if account.columns == BRONZE else "the next run finishes a batch that was cut short; else "
    return f"{finished}RESTORE the table to a version that is whole, or read the topic again"


def _common(left: list[Run], right: list[Run]) -> list[Run]:
    """What both hold."""
    both = [(max(a, c), min(b, d)) for a, b in left for c, d in right]
    return sorted((start, end) for start, end in both if start < end)
