"""Reports on the ledgers of an application, checks their settings, and removes those that nothing uses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs import catalog
from jobs.connectors.exactly_once.ledger import SECONDS, is_ledger, sink_of
from jobs.connectors.hadoop_files import Folders
from jobs.connectors.kafka.access import Right, client_error
from jobs.operations.maintenance.checkpoints import (
    find_checkpoints,
)

COMPACT = "compact"
POLICY = "cleanup.policy"


@dataclass(frozen=True)
class LedgerReport:
    """A ledger topic, and what uses it.

    Args:
        in_use: why its sink is taken to be there; empty where nothing speaks for it.
        problem: what is wrong with its settings; empty where nothing is.
    """

    topic: str
    partitions: int
    cleanup_policy: str
    in_use: str
    problem: str = ""
    removed: bool = False

    def lines(self) -> Iterator[str]:
        use = "removed" if self.removed else self.in_use or f"no job or checkpoint of its name: --remove {self.topic}"
        problem = f"  PROBLEM {self.problem}" if self.problem else ""
        yield f"{self.topic:<48} {self.partitions} partitions  {self.cleanup_policy}  {use}{problem}"


class LedgerMaintenance:
    """The ledgers of `ledger.application` on the cluster."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        self._application = settings.ledger.application
        self._connection = settings.kafka.client_config()
        self._admin = AdminClient({**self._connection, "log_level": 0})
        checkpoints = find_checkpoints(Folders(spark), settings.paths.checkpoints)
        self._queries = {checkpoint.query for checkpoint in checkpoints if not checkpoint.is_replaced}

    def reports(self, remove: Sequence[str], dry_run: bool) -> Iterator[LedgerReport]:
        """Report on every ledger; those of `remove` are deleted, unless their sink is there.

        Raises:
            TidemarkError: LEDGER_IN_USE or NO_LEDGER, before anything is deleted; KAFKA_FAILED.
        """
        try:
            ledgers = [self._report(topic, partitions) for topic, partitions in self._topics()]
            self._require_removable(ledgers, remove)
            if remove and not dry_run:
                for deletion in self._admin.delete_topics(list(remove)).values():
                    deletion.result(SECONDS)
        except KafkaException as exc:
            names = [topic for topic, _ in self._topics()]
            needed = [Right("topic", name, ("DescribeConfigs", "Describe")) for name in names]
            needed += [Right("topic", name, ("Delete", "Describe")) for name in remove]
            raise client_error("the ledgers", exc.args[0], needed, self._connection) from exc
        for ledger in ledgers:
            yield replace(ledger, removed=ledger.topic in remove and not dry_run)

    def _topics(self) -> list[tuple[str, int]]:
        topics = self._admin.list_topics(timeout=SECONDS).topics
        names = sorted(name for name in topics if ledger_sink(name, self._application) is not None)
        return [(name, len(topics[name].partitions)) for name in names]

    def _report(self, topic: str, partitions: int) -> LedgerReport:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        described = self._admin.describe_configs([resource], request_timeout=SECONDS)[resource].result(SECONDS)
        policy = str(described[POLICY].value)
        problem = "" if policy == COMPACT else f"{POLICY} is {policy}: markers get lost, set it to {COMPACT}"
        sink = ledger_sink(topic, self._application) or ""
        use = use_of_sink(sink, self._queries, set(catalog.questions()))
        return LedgerReport(topic, partitions, policy, use, problem)

    def _require_removable(self, ledgers: list[LedgerReport], remove: Sequence[str]) -> None:
        by_name = {ledger.topic: ledger for ledger in ledgers}
        for topic in remove:
            if topic not in by_name:
                raise TidemarkError("NO_LEDGER", f"{topic} is no ledger of {self._application}", "see the list")
            if by_name[topic].in_use:
                what = f"the sink of {topic} is there: {by_name[topic].in_use}"
                remedy = "without its ledger it would stop by LEDGER_GAP; remove its checkpoint and its job first"
                raise TidemarkError("LEDGER_IN_USE", what, remedy)


def ledger_sink(topic: str, application: str) -> str | None:
    """Return the sink that a topic is the ledger of, without the application's name; None for other topics."""
    return sink_of(topic).removeprefix(f"{application}.") if is_ledger(topic, application) else None


def use_of_sink(sink: str, queries: set[str], jobs: set[str]) -> str:
    """Say why a sink is taken to be there; empty where nothing speaks for it."""
    if sink.startswith("publish."):
        return "of `publish --exactly-once`, which has no checkpoint"
    if sink in queries:
        return "its query has a checkpoint"
    if any(sink == job or sink.startswith(f"{job}.") for job in jobs):
        return "its job is there"
    return ""
