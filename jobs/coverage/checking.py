"""The check: every chain, every topic, every row that can be compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka.admin import AdminClient

from conf.settings import Settings
from jobs.connectors.committed import CommittedReader
from jobs.connectors.delta_log import tables_under
from jobs.coverage.findings import Finding
from jobs.coverage.reading import Covered, topics_now
from jobs.coverage.row_checks import QUARANTINE, Account, accounts, check_account, unreadable
from jobs.coverage.tables import TableCoverage, table_coverage
from jobs.coverage.topic_checks import Topics, check_sink, check_table, counted


@dataclass
class Report:
    """What was found, problems first, and what was looked at."""

    findings: list[Finding] = field(default_factory=list)
    tables: int = 0
    sinks: int = 0
    offsets: int = 0
    rows: int = 0

    @property
    def problems(self) -> int:
        return sum(each.is_problem for each in self.findings)

    def summary(self) -> str:
        """The last line."""
        looked_at = f"{_count(self.tables, 'table')}, {_count(self.sinks, 'output topic')}"
        read = f"{self.offsets:,} offsets, {self.rows:,} rows compared"
        return f"{looked_at}, {read}: {_count(self.problems, 'problem') if self.problems else 'all well'}"

    def to_json(self) -> dict[str, Any]:
        """The last object: what was looked at, and how many problems there are."""
        looked_at = {"tables": self.tables, "output_topics": self.sinks, "offsets": self.offsets, "rows": self.rows}
        return {"code": "SUMMARY"} | looked_at | {"problems": self.problems}


def check(
    settings: Settings,
    admin: AdminClient,
    reader: CommittedReader,
    found: Covered,
    everything: Covered,
    complete: bool = False,
) -> Report:
    """Check what was read with `verify`.

    Args:
        everything: of which `found` is the part to be checked: rows may lie in tables beside those.
        complete: whether being behind a topic's end is a problem.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    # The topics after the tables and the ledgers: whatever those claim is in them by then.
    topics = topics_now(settings, admin, everything)
    report = Report(tables=len(found.tables), sinks=len(found.sinks))
    for name, table in found.tables.items():
        report.findings += check_table(name, table, topics, complete)
        report.offsets += counted(span for chain in table.chains for span in chain.spans)
    for sink in found.sinks:
        report.findings += check_sink(sink, topics, complete)
        report.offsets += counted(sink.chain.spans) if sink.chain else 0
    for account in accounts(everything.tables, _quarantines(settings, found.tables), found.tables):
        if refused := list(unreadable(account)):
            report.findings += refused
            continue
        report.rows += account.read()
        edges = topics.partitions(account.topic) if _can_be_asked(account, topics) else None
        report.findings += check_account(account, edges, reader)
    report.findings.sort(key=lambda each: not each.is_problem)
    return report


def _can_be_asked(account: Account, topics: Topics) -> bool:
    queries = {chain.key.query_id for table in account.tables.values() for chain in table.chains}
    others = set().union(*(topics.recreated(query) for query in queries))
    return topics.is_there(account.topic) and account.topic not in others


def _quarantines(settings: Settings, tables: Mapping[str, TableCoverage]) -> dict[str, TableCoverage]:
    """Read again: after silver, so that no reject of a batch that silver has is missed."""
    if not any(name.startswith("silver/") or "/silver/" in name for name in tables):
        return {}
    root = settings.paths.tables
    return {folder: table_coverage(f"{root}/{folder}{QUARANTINE}") for folder in _folders(root)}


def _folders(root: str) -> Iterator[str]:
    """What stands before QUARANTINE in the tables of that name."""
    for name in tables_under(root):
        if name == QUARANTINE or name.endswith(f"/{QUARANTINE}"):
            yield name.removesuffix(QUARANTINE)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
