"""The ledger of one name: what its publishers have committed, each transaction's records with a marker of progress.

Whoever begins under the name takes it over by a marker of its own; a transaction of the older run then fails, and its
next one finds the other's marker.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.markers import PUBLISHED, Published
from jobs.connectors.ledger.topic import PLAN_PARTITION, Ledger, require_timeout_below_cap, topic_ids
from jobs.connectors.ledger.transaction import Transaction
from jobs.connectors.ledger.writer import Writer
from producers.exactly_once import starting_point

# Somebody who had nothing to do under the name fences once; again and again means two publishers at a time.
ATTEMPTS = 3
# By then the one who has taken over has said so in the ledger.
FENCED_SECONDS = 1.0
# After these the transaction may be committed or not: the next one's barrier tells.
UNCLEAR = ("FENCED", "KAFKA_FAILED", "TRANSACTION_TIMED_OUT")


@dataclass(frozen=True)
class PublishedLog:
    """`writer`: the name's one identity in Kafka, and where its markers lie; `topics`: where the records go."""

    name: str
    writer: Writer
    admin: AdminClient
    topics: Collection[str]

    def begin(self, wanted: Published, at_first: Callable[[], None]) -> Published:
        """Take the name over for the run of `wanted`, unless all is done; the marker to go on from.

        Args:
            at_first: checks what must hold where nobody has begun.

        Raises:
            TidemarkError: INPUT_CHANGED, TOPIC_RECREATED, FENCED, KAFKA_FAILED, and what `at_first` raises.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return self._begin(wanted, at_first)
            except TidemarkError as stop:
                if stop.code != "FENCED":
                    raise
        return self._begin(wanted, at_first)

    def append(self, last: Published, marker: Published, send: Callable[[Producer], None]) -> None:
        """Commit the records that `send` hands over, with `marker`, where the log ends with `last`.

        Raises:
            TidemarkError: FENCED, KAFKA_FAILED, TRANSACTION_TIMED_OUT, and what `send` raises; then nothing is
                committed, as far as the brokers can be asked.
        """
        failure = None
        for _ in range(ATTEMPTS):
            try:
                is_own = self._append(last, marker, send, failure)
            except TidemarkError as stop:
                if stop is failure or stop.code not in UNCLEAR or (failure and failure.code != "FENCED"):
                    raise
                failure = stop
                time.sleep(FENCED_SECONDS)
            else:
                if is_own:
                    return
                break
        raise stops.publisher_fenced(self.name)

    def _begin(self, wanted: Published, at_first: Callable[[], None]) -> Published:
        with Transaction(self._writer(-1)) as transaction:
            found = transaction.last_marker()
            last = found if isinstance(found, Published) else None
            ids = topic_ids(self.admin, self.topics)
            start = starting_point(last, replace(wanted, topic_ids=ids), self.name)
            if last is None:
                at_first()
            if not start.complete:
                transaction.commit(start.to_json(), PUBLISHED)
            return start

    def _append(
        self, last: Published, marker: Published, send: Callable[[Producer], None], failure: TidemarkError | None
    ) -> bool:
        """Whether the log is still this run's."""
        with Transaction(self._writer(marker.id.batch)) as transaction:
            found = transaction.last_marker()
            if found == marker:
                return True  # the attempt that seemed to fail has committed
            if found != last:
                return False
            if failure and failure.code != "FENCED":
                raise failure
            send(transaction.producer)
            transaction.commit(marker.to_json(), PUBLISHED)
            return True

    def _writer(self, number: int) -> Writer:
        return replace(self.writer, where={**self.writer.where, "transaction": number})


def open_log(
    settings: Settings, admin: AdminClient, what: str, name: str, topics: Collection[str], tuning: dict[str, Any]
) -> PublishedLog:
    """The log of `name`, created where it is missing; `what`: the input's kind, or its topic.

    Raises:
        TidemarkError: TRANSACTION_TIMEOUT_ABOVE_CAP, KAFKA_FAILED.
    """
    timeout_ms = settings.ledger.transaction_timeout_ms
    sink = f"{settings.ledger.application}.publish.{what}.{name}"
    ledger = Ledger(f"__{sink}.ledger", settings.kafka.replication_factor)
    require_timeout_below_cap(admin, timeout_ms)
    ledger.require_shards(admin, 0)
    where = {"sink": sink, "step": "publish"}
    writer = Writer(sink, ledger.name, PLAN_PARTITION, settings.kafka.client_config(), timeout_ms, tuning, where)
    return PublishedLog(name, writer, admin, topics)
