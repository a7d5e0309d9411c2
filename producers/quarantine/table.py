"""Reads the Delta table `quarantine` in batches, without a JVM, at one version; counts its rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from conf import command_line
from conf.errors import TidemarkError, nearest
from conf.rules import load_rules
from conf.settings import Settings
from conf.topics import load_topics
from jobs.connectors.delta.log import tables_under
from jobs.connectors.delta.reading import StoredTable
from jobs.pipeline import paths
from jobs.pipeline.paths import find_stored
from producers.quarantine.marker_log import MarkerLog
from producers.quarantine.records import OF, Rejected
from producers.quarantine.selection import Selection, column_of

# Rows carry whole records: few at a time, so that a million of them need no more memory than these.
BATCH_ROWS = 2_000
COLUMNS = ("key", "value", "topic", "partition", "offset", "timestamp", "headers", "schema_id", "error", "reason")
NEWER_COLUMNS = ("rule", "code_version", "quarantined_at")
ALL_COLUMNS = (*COLUMNS, *NEWER_COLUMNS)
HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))
TIME = pa.timestamp("us", "UTC")
KINDS = {"key": pa.binary(), "value": pa.binary(), "partition": pa.int32(), "offset": pa.int64(), "headers": HEADERS}
KINDS |= {"schema_id": pa.int32(), "timestamp": TIME, "quarantined_at": TIME}
SCHEMA = pa.schema([(name, KINDS.get(name, pa.string())) for name in ALL_COLUMNS])
INGESTED = (paths.bronze(""), paths.silver(""))  # the tables of each topic that `ingest` has read
ORDER = [("topic", "ascending"), ("partition", "ascending"), ("offset", "ascending")]
COUNT_COLUMNS = ("topic", "partition", "offset", "error", "rule", "headers", "quarantined_at", "timestamp")
GROUPED = ["topic", "error", "rule"]
HEADINGS = ("topic", "error", "rule", "records", "redriven", "open", "came back", "first", "last")


@dataclass(frozen=True)
class Slice:
    """Rows of one partition that belong together, in the order of their offsets, from the first to the last."""

    topic: str
    partition: int
    first: int
    last: int


class Quarantine:
    """The table as it is when this is made.

    It is empty where `ingest` has run and rejected nothing, which makes no table.

    Raises:
        TidemarkError: NO_QUARANTINE, where `ingest` has not run; here and when it is read, as `naming_damage`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        root = settings.paths.tables
        path = paths.table(root, paths.QUARANTINE)
        self._table: StoredTable | None = find_stored(settings, paths.QUARANTINE)
        self._schema = SCHEMA if self._table is None else self._table.columns
        if self._table is None and not any(name.startswith(INGESTED) for name in tables_under(root)):
            what = f"there is no table {path}, and none that `ingest` has filled"
            raise TidemarkError("NO_QUARANTINE", what, "check paths.tables, or run `./spark-submit.sh ingest` first")

    def batches(self, selection: Selection, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read `columns` of the selected rows, null where an older table lacks them, in the order of the files."""
        return self._scan(selection.condition(self._schema), columns)

    def require_known(self, selected: Selection) -> None:
        """Refuse a selection by a name that no record can have: neither the table nor a declaration has it.

        Raises:
            TidemarkError: UNKNOWN_TOPIC, or BAD_ARGUMENTS for an error code or a rule, with the nearest name;
                NO_SUCH_COLUMN.
        """
        topics = {*selected.topics, *([selected.record.topic] if selected.record else [])}
        self._require_known("topic", topics, self._declared_topics, "UNKNOWN_TOPIC")
        self._require_known("error", selected.errors, _reject_codes, "BAD_ARGUMENTS")
        self._require_known("rule", selected.rules, self._declared_rules, "BAD_ARGUMENTS")

    def _require_known(self, column: str, names: Iterable[str], declared: Callable[[], set[str]], code: str) -> None:
        unknown = set(names)
        if not unknown:
            return
        column_of(self._schema, column)
        known: set[str] = set()
        for batch in self._scan(None, [column]):
            known.update(filter(None, batch[column].unique().to_pylist()))
        if unknown := unknown - known:
            known |= declared()
        for name in sorted(unknown - known):
            what = f"no record in quarantine has the {column} `{name}`, and nothing declares it"
            raise TidemarkError(code, what, nearest(name, sorted(known)))

    def _declared_topics(self) -> set[str]:
        tables = (name for name in tables_under(self._settings.paths.tables) if name.startswith(INGESTED))
        return {*self._settings.ingest.topics, *load_topics(), *(name.split("/")[1] for name in tables)}

    def _declared_rules(self) -> set[str]:
        declared = load_rules({*self._settings.ingest.topics, *load_topics()})
        return {rule.name for rules in declared.values() for rule in rules}

    def index(self, selection: Selection) -> pa.Table:
        """Return where the selected rows lie, in order: `topic`, `partition`, `offset`, `error`,
        `bytes` of key and value."""
        parts = []
        for batch in self.batches(selection, ("topic", "partition", "offset", "error", "key", "value")):
            sizes = (pc.fill_null(pc.binary_length(batch[name]), 0) for name in ("key", "value"))
            columns = {name: batch[name] for name in ("topic", "partition", "offset")}
            # Texts that repeat a million times are kept once.
            columns["topic"] = columns["topic"].cast(pa.string())
            error = batch["error"].cast(pa.string()).dictionary_encode()
            parts.append(pa.table({**columns, "error": error, "bytes": pc.add(*(pc.cast(s, "int64") for s in sizes))}))
        if not parts:
            return pa.table({name: [] for name in ("topic", "partition", "offset", "error", "bytes")})
        return pa.concat_tables(parts).unify_dictionaries().sort_by(ORDER)

    def rows(self, selection: Selection, part: Slice) -> list[Rejected]:
        """Return the selected rows of a slice, in order, each record once."""
        where = selection.within(self._schema, part.topic, part.partition, part.first, part.last)
        rows = [Rejected.from_row(row) for batch in self._scan(where, ALL_COLUMNS) for row in _in_ms(batch).to_pylist()]
        return sorted({row.at: row for row in rows}.values(), key=lambda row: row.at)

    def _scan(self, condition: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if self._table is None:
            return
        names = self._schema.names
        present = [name for name in columns if name in names]
        few = {"batch_size": BATCH_ROWS, "batch_readahead": 1, "fragment_readahead": 1}
        for batch in self._table.batches(present, condition, **few):
            if batch.num_rows:
                for name in columns:
                    if name not in names:
                        batch = batch.append_column(name, pa.nulls(batch.num_rows, SCHEMA.field(name).type))
                yield batch


def _reject_codes() -> set[str]:
    from jobs.ingest.quarantine import REASONS  # here: they load Spark's own package
    from jobs.pipeline.validation import REJECT_CODES

    return {*REJECT_CODES, *REASONS}


def slices(index: pa.Table, most: int, most_bytes: int) -> Iterator[Slice]:
    """Cut an `index` into slices of at most so many records and bytes (a larger record is one of its own)."""
    if not index.num_rows:
        return
    topics = index["topic"].combine_chunks().dictionary_encode()
    codes, names = topics.indices.to_numpy(), topics.dictionary.to_pylist()
    partitions, offsets, sizes = (index[name].to_numpy() for name in ("partition", "offset", "bytes"))
    new_place = (np.diff(codes) != 0) | (np.diff(partitions) != 0)
    edges = np.flatnonzero(new_place) + 1
    start, held, ends = 0, 0, {*edges.tolist(), index.num_rows}
    for row in range(index.num_rows):
        held += int(sizes[row])
        full = row + 1 - start >= most or (row + 1 < index.num_rows and held + int(sizes[row + 1]) > most_bytes)
        if full or row + 1 in ends:
            yield Slice(names[codes[row]], int(partitions[row]), int(offsets[start]), int(offsets[row]))
            start, held = row + 1, 0


@dataclass
class Count:
    """Rejected records of one topic, error and rule.

    Args:
        redriven: how many of them were sent again; None where no broker could be asked.
        came_back: how many of them were sent again and rejected once more.
        first, last: when they were put into quarantine; the records' own times in an older table.
    """

    topic: str
    error: str
    rule: str
    records: int = 0
    redriven: int | None = 0
    came_back: int = 0
    first: str = ""
    last: str = ""

    def add(self, rows: pa.Table, redriven: npt.NDArray[np.bool_] | None) -> None:
        """Count `rows`; those that `redriven` marks were sent again."""
        self.records += rows.num_rows
        self.redriven = None if redriven is None else (self.redriven or 0) + int(redriven.sum())
        self.came_back += int(rows["came_back"].to_numpy().sum())
        span = pc.min_max(rows["at"]).as_py()
        if span["min"] is not None:
            first, last = (f"{span[edge]:%Y-%m-%dT%H:%M:%SZ}" for edge in ("min", "max"))
            self.first, self.last = min(self.first or first, first), max(self.last, last)

    def to_json(self) -> dict[str, Any]:
        """Return the counts by the headings, `came_back` with an underscore."""
        unredriven = None if self.redriven is None else self.records - self.redriven
        shown = (self.topic, self.error, self.rule, self.records, self.redriven, unredriven, self.came_back)
        return dict(zip((name.replace(" ", "_") for name in HEADINGS), (*shown, self.first, self.last), strict=True))


def count_rejects(table: Quarantine, selection: Selection, redriven: MarkerLog | None) -> list[Count]:
    """Return the selected records, counted, in the order of topic, error and rule.

    Raises:
        TidemarkError: NO_SUCH_COLUMN.
    """
    counted: dict[tuple[str, ...], Count] = {}
    for batch in table.batches(selection, COUNT_COLUMNS):
        rows = _counted_columns(batch)
        for key in rows.group_by(GROUPED).aggregate([]).to_pylist():
            same = (pc.equal(rows[name], value) for name, value in key.items())
            group = rows.filter(reduce(pc.and_, same))
            count = counted.setdefault(tuple(key.values()), Count(**key))
            count.add(group, redriven.among_rows(group) if redriven else None)
    return [counted[key] for key in sorted(counted)]


def count_lines(counts: Iterable[Count]) -> list[str]:
    """Return the counts as a table for people."""
    rows = [HEADINGS, *(tuple(map(_shown, count.to_json().values())) for count in counts)]
    return command_line.table_lines(rows, HEADINGS[3:7])


def _in_ms(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return `batch` with `timestamp` in milliseconds since 1970: Python's own times end with the year 9999."""
    micros = batch["timestamp"].cast(TIME).cast(pa.int64())
    return batch.set_column(batch.schema.get_field_index("timestamp"), "timestamp", pc.divide(micros, 1000))


def _shown(value: Any) -> str:
    return "?" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _counted_columns(batch: pa.RecordBatch) -> pa.Table:
    rule = pc.fill_null(batch["rule"].cast(pa.string()), "")
    columns = {name: batch[name].cast(pa.string()) for name in ("topic", "error")}
    at = pc.coalesce(batch["quarantined_at"], batch["timestamp"])
    places = {name: batch[name] for name in ("partition", "offset")}
    return pa.table({**columns, "rule": rule, **places, "came_back": _with_header(batch["headers"], OF), "at": at})


def _with_header(headers: pa.Array, name: str) -> npt.NDArray[np.bool_]:
    """Return which rows have that header."""
    has_header = np.zeros(len(headers), dtype=bool)
    names = pc.struct_field(pc.list_flatten(headers), "key").cast(pa.string())
    owners = pc.list_parent_indices(headers)
    has_header[owners.filter(pc.fill_null(pc.equal(names, name), False)).to_numpy()] = True
    return has_header
