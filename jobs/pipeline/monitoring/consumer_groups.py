"""Commits the offsets of finished micro-batches to a consumer group, for tools that show the lag of groups.

`kafka-consumer-groups.sh`, Burrow and KEDA read it. No query ever starts from it: checkpoints alone say where.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from conf.settings import Settings
from jobs.connectors.kafka.access import CODES, LongLivedClient, not_authorized
from jobs.connectors.kafka.rights import Right, reading

SECONDS = 10.0


def group_of(settings: Settings, query: str) -> str:
    """The group that shows the lag of a query: the installation's name, then the query's."""
    return f"{settings.ledger.application}.{query}"


class ConsumerGroups:
    """Commits the positions of queries that have changed; nothing where `source.commit_to_group` is off."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._client = settings, LongLivedClient(settings.kafka)
        self._attempted: dict[str, Mapping[tuple[str, int], int]] = {}

    def commit(self, positions: Mapping[tuple[str, str], Mapping[tuple[str, int], int]]) -> None:
        """Commit offsets by topic and partition, of each job and query.

        Raises:
            TidemarkError, KafkaException: where the brokers refuse; the query's offsets are committed once they change.
        """
        if not self._settings.source.commit_to_group:
            return
        for (_, query), offsets in positions.items():
            if self._attempted.get(query) != offsets:
                self._attempted[query] = offsets
                wanted = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
                request = [ConsumerGroupTopicPartitions(group_of(self._settings, query), wanted)]
                answers = self._admin.alter_consumer_group_offsets(request, request_timeout=SECONDS)
                with self._named(query, {topic for topic, _ in offsets}):
                    for future in answers.values():
                        future.result(SECONDS)

    @contextmanager
    def _named(self, query: str, topics: Iterable[str]) -> Iterator[None]:
        try:
            yield
        except KafkaException as exc:
            if exc.args[0].code() not in CODES:
                raise
            needed = [Right("group", group_of(self._settings, query), ("Read",)), *reading(topics)]
            raise not_authorized(exc.args[0], needed, self._settings.kafka.client_config()) from exc

    @property
    def _admin(self) -> AdminClient:
        return self._client.admin()
