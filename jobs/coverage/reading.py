"""What there is to be covered: the tables under the tables root, and the output topics of the installation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError, nearest
from conf.settings import Settings
from jobs.connectors.committed import CommittedReader, edges
from jobs.connectors.delta_log import tables_under
from jobs.connectors.ledger.topic import topic_ids
from jobs.coverage.checkpoints import topic_ids_by_query
from jobs.coverage.ledgers import SinkCoverage, sinks
from jobs.coverage.tables import TableCoverage, table_coverage
from jobs.coverage.topic_checks import Topics, known_ids, topics_of


@dataclass(frozen=True)
class Covered:
    """Tables by name, and the sinks of output topics."""

    tables: dict[str, TableCoverage]
    sinks: list[SinkCoverage]

    def only(self, names: Sequence[str]) -> "Covered":
        """Those that are named, lie in a named folder, are of a named query, or read or write a named topic.

        Raises:
            TidemarkError: NOTHING_COVERED, with the nearest name.
        """
        if not names:
            return self
        of_tables = {name: _names_of_table(name, each) for name, each in self.tables.items()}
        of_sinks = {each.sink: _names_of_sink(each) for each in self.sinks}
        known = set().union(*of_tables.values(), *of_sinks.values())
        for name in names:
            if name not in known:
                what = f"there is no table, folder of tables or topic `{name}` that has anything to cover"
                raise TidemarkError("NOTHING_COVERED", what, nearest(name, sorted(known)))
        wanted = set(names)
        tables = {name: self.tables[name] for name, own in of_tables.items() if own & wanted}
        return Covered(tables, [each for each in self.sinks if of_sinks[each.sink] & wanted])


def covered(settings: Settings, admin: AdminClient | None, reader: CommittedReader, verify: bool) -> Covered:
    """All that there is.

    Args:
        admin: None leaves the output topics out.
        verify: see `table_coverage`.
    """
    root = settings.paths.tables
    tables = {name: table_coverage(f"{root}/{name}", verify) for name in tables_under(root)}
    told = {name: each for name, each in tables.items() if each.chains or each.replaced or each.undone}
    # A client's length is that of its queue: an idle one counts as false.
    found = [] if admin is None else sinks(admin, reader, settings.ledger.application, verify)
    return Covered(told, found)


def topics_now(settings: Settings, admin: AdminClient, found: Covered) -> Topics:
    """What the cluster says of the topics that tables and output topics are made of.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    chains = [chain for table in found.tables.values() for chain in table.chains]
    chains += [each.chain for each in found.sinks if each.chain]
    names = topics_of(chains).union(*(each.topics for each in found.sinks))
    known = known_ids(topic_ids_by_query(settings.paths.checkpoints), found.sinks)
    return Topics(edges(admin, names), topic_ids(admin, names), known)


def _names_of_table(name: str, table: TableCoverage) -> set[str]:
    return {*_folders(name), *topics_of(table.chains), *(chain.key.sink for chain in table.chains)}


def _names_of_sink(sink: SinkCoverage) -> set[str]:
    chains = [sink.chain] if sink.chain else []
    return {sink.sink, sink.query, *sink.topics, *topics_of(chains)}


def _folders(name: str) -> Iterable[str]:
    parts = name.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
