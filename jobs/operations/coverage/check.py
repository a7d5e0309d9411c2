"""Checks coverage: reads what tables and topics hold, then checks every chain, topic and row that can be compared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError, nearest
from conf.settings import Settings
from jobs.connectors.delta.log import log_damaged, tables_under
from jobs.connectors.exactly_once.ledger_topic import topic_ids
from jobs.connectors.files import lacks_folder
from jobs.connectors.kafka.consumer import ReadCommittedConsumer
from jobs.connectors.kafka.offsets import edges
from jobs.operations.coverage.findings import Finding
from jobs.operations.coverage.ledgers import SinkCoverage, sink_coverages, topic_ids_by_query, written_tables
from jobs.operations.coverage.offset_checks import (
    ClusterTopics,
    check_sink,
    check_table,
    count_offsets,
    known_ids,
    topics_of,
)
from jobs.operations.coverage.row_checks import RowAudit, check_rows, row_audits, unreadable_tables
from jobs.operations.coverage.tables import TableCoverage, check_files, table_coverage
from jobs.pipeline import paths
from jobs.pipeline.paths import lost_table_remedy


@dataclass(frozen=True)
class Coverage:
    """The offsets that tables, by name, and the sinks of output topics hold.

    Args:
        missing: tables that are not there, though queries have written them, by name: the query's.
    """

    tables: dict[str, TableCoverage]
    sinks: list[SinkCoverage]
    missing: Mapping[str, str] = field(default_factory=dict)

    def only(self, names: Sequence[str]) -> "Coverage":
        """Choose those that are named, lie in a named folder, are of a named query, or read or write a named topic.

        Raises:
            TidemarkError: NOTHING_COVERED, with the nearest name.
        """
        if not names:
            return self
        of_tables = {name: _names_of_table(name, table) for name, table in self.tables.items()}
        of_sinks = {sink.sink: _names_of_sink(sink) for sink in self.sinks}
        of_missing = {name: {*_table_folders(name), query} for name, query in self.missing.items()}
        known = set().union(*of_tables.values(), *of_sinks.values(), *of_missing.values())
        for name in names:
            if name not in known:
                what = f"there is no table, folder of tables or topic `{name}` that has anything to cover"
                raise TidemarkError("NOTHING_COVERED", what, nearest(name, sorted(known)))
        chosen = set(names)
        tables = {name: self.tables[name] for name, table_names in of_tables.items() if table_names & chosen}
        missing = {name: query for name, query in self.missing.items() if of_missing[name] & chosen}
        return Coverage(tables, [sink for sink in self.sinks if of_sinks[sink.sink] & chosen], missing)


def read_coverage(
    settings: Settings, admin: AdminClient | None, reader: ReadCommittedConsumer, verify: bool
) -> Coverage:
    """Read what all tables and output topics hold.

    Args:
        admin: None leaves the output topics out.
        verify: see `table_coverage`.

    Raises:
        TidemarkError: TABLE_LOG_DAMAGED, KAFKA_FAILED.
    """
    root = settings.paths.tables
    # Before the tables: a query that begins meanwhile has made its tables by its first finished batch.
    written = written_tables(settings.paths.checkpoints)
    tables = {name: _read(root, name, verify) for name in tables_under(root)}
    covering = {name: table for name, table in tables.items() if table.chains or table.replaced or table.undone}
    # `len` of a client is the length of its queue: an idle one would count as false.
    in_sinks = [] if admin is None else sink_coverages(admin, reader, settings.ledger.application, verify)
    return Coverage(covering, in_sinks, {name: query for name, query in written.items() if name not in tables})


def _read(root: str, name: str, verify: bool = False) -> TableCoverage:
    table = table_coverage(paths.table(root, name), verify, lost_table_remedy(name))
    if table.version < 0:
        raise log_damaged(table.path, "it has no commit", table.anew)
    return table


def topics_on_cluster(settings: Settings, admin: AdminClient, coverage: Coverage) -> ClusterTopics:
    """Ask the cluster for the topics that tables and output topics are made of.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    chains = [chain for table in coverage.tables.values() for chain in table.chains]
    chains += [sink.chain for sink in coverage.sinks if sink.chain]
    topics = topics_of(chains).union(*(sink.topics for sink in coverage.sinks))
    known = known_ids(topic_ids_by_query(settings.paths.checkpoints), coverage.sinks)
    publishing = {sink.chain.key.query_id for sink in coverage.sinks if sink.chain}
    ids = topic_ids(admin, topics, settings.kafka.client_config())
    return ClusterTopics(edges(admin, topics), ids, known, publishing)


def _names_of_table(name: str, table: TableCoverage) -> set[str]:
    return {*_table_folders(name), *topics_of(table.chains), *(chain.key.sink for chain in table.chains)}


def _names_of_sink(sink: SinkCoverage) -> set[str]:
    chains = [sink.chain] if sink.chain else []
    return {sink.sink, sink.query, *sink.topics, *topics_of(chains)}


def _table_folders(name: str) -> Iterable[str]:
    parts = name.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))


@dataclass
class CoverageReport:
    """The findings of a check, problems first, and what it looked at."""

    findings: list[Finding] = field(default_factory=list)
    tables: int = 0
    sinks: int = 0
    offsets: int = 0
    rows: int = 0

    @property
    def problems(self) -> int:
        return sum(finding.is_problem for finding in self.findings)

    def summary(self) -> str:
        """Return the last line."""
        looked_at = f"{_count(self.tables, 'table')}, {_count(self.sinks, 'output topic')}"
        read = f"{self.offsets:,} offsets, {self.rows:,} rows compared"
        return f"{looked_at}, {read}: {_count(self.problems, 'problem') if self.problems else 'all well'}"

    def to_json(self) -> dict[str, Any]:
        """Return the last object: what was looked at, and how many problems there are."""
        looked_at = {"tables": self.tables, "output_topics": self.sinks, "offsets": self.offsets, "rows": self.rows}
        return {"code": "SUMMARY"} | looked_at | {"problems": self.problems}


def check_coverage(
    settings: Settings,
    admin: AdminClient,
    reader: ReadCommittedConsumer,
    chosen: Coverage,
    everything: Coverage,
    complete: bool = False,
) -> CoverageReport:
    """Check coverage that was read with `verify`.

    Args:
        everything: all coverage; `chosen` is the part to check, whose rows may lie in other tables, too.
        complete: whether being behind a topic's end is a problem.

    Raises:
        TidemarkError: NOTHING_COVERED, where there is no folder of tables, and no output topic; KAFKA_FAILED,
            TABLE_LOG_DAMAGED.
    """
    root = settings.paths.tables
    if everything == Coverage({}, []) and lacks_folder(root):
        raise TidemarkError("NOTHING_COVERED", f"there is no folder {root}", "run a job, or name another by --tables")
    # Topics are read after tables and ledgers: what those hold is in the topics by then.
    topics = topics_on_cluster(settings, admin, everything)
    report = CoverageReport(tables=len(chosen.tables), sinks=len(chosen.sinks))
    report.findings += [_missing(name, query) for name, query in chosen.missing.items()]
    damaged: set[str] = set()
    for name, table in chosen.tables.items():
        lost = list(check_files(name, table))
        report.findings += lost
        damaged |= {table.path for _ in lost}
        report.findings += check_table(name, table, topics, complete)
        report.offsets += count_offsets(span for chain in table.chains for span in chain.spans)
    for sink in chosen.sinks:
        report.findings += check_sink(sink, topics, complete)
        report.offsets += count_offsets(sink.chain.spans) if sink.chain else 0
    for audit in row_audits(everything.tables, _quarantines(settings, chosen.tables), chosen.tables):
        beside = [audit.beside] if audit.beside else []
        if any(table.path in damaged for table in (*audit.tables.values(), *beside)):
            continue
        if not_comparable := list(unreadable_tables(audit)):
            report.findings += not_comparable
            continue
        report.rows += audit.read()
        edges = topics.partitions(audit.topic) if _can_be_asked(audit, topics) else None
        report.findings += check_rows(audit, edges, reader)
    report.findings.sort(key=lambda finding: not finding.is_problem)
    return report


def _missing(name: str, query: str) -> Finding:
    text = f"{name}: there is no such table, and the checkpoint of {query} has batches that were written to it"
    return Finding("TABLE_MISSING", name, text, f"restore it from a copy, or {lost_table_remedy(name)}")


def _can_be_asked(audit: RowAudit, topics: ClusterTopics) -> bool:
    queries = {chain.key.query_id for table in audit.tables.values() for chain in table.chains}
    others = set().union(*(topics.recreated(query) for query in queries))
    return topics.is_there(audit.topic) and audit.topic not in others


def _quarantines(settings: Settings, tables: Mapping[str, TableCoverage]) -> dict[str, TableCoverage]:
    """Read quarantine again, after silver, so that no reject of a batch that silver has is missed."""
    if not any((match := paths.TOPIC_TABLE.match(name)) and match["layer"] == "silver" for name in tables):
        return {}
    root = settings.paths.tables
    return {folder: _read(root, f"{folder}{paths.QUARANTINE}") for folder in _folders(root)}


def _folders(root: str) -> Iterator[str]:
    """Yield the folders that tables of the name paths.QUARANTINE lie in, as a prefix of their names."""
    for name in tables_under(root):
        if name == paths.QUARANTINE or name.endswith(f"/{paths.QUARANTINE}"):
            yield name.removesuffix(paths.QUARANTINE)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
