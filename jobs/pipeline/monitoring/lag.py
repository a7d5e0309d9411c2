"""Measures how far queries are behind their topics, and commits where they stand to consumer groups.

The brokers are asked, whatever the queries do. A query that stands still reports no progress, but the number of records
that it has not read grows, and is seen here.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from conf.settings import Kafka, Settings
from jobs.connectors.kafka.access import CODES, LongLivedClient, Right, not_authorized, reading
from jobs.connectors.kafka.offsets import OffsetLookup, edges, list_offsets
from jobs.pipeline.outputs import group_of

COMMIT_SECONDS = 10.0


@dataclass(frozen=True)
class PartitionLag:
    """The records of a partition that a query has not read, and the age of the first in seconds (0 for none).

    `unstable` counts offsets past the last stable one, which belong to open transactions and are not in `records`.
    """

    job: str
    query: str
    topic: str
    partition: int
    position: int
    records: int
    seconds: float
    unstable: int = 0


class Positions:
    """Up to where each query's micro-batches are finished."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka, self._client = kafka, LongLivedClient(kafka)
        self._lock = threading.Lock()
        self._of: dict[tuple[str, str], dict[tuple[str, int], int]] = {}

    def advance(self, job: str, query: str, positions: Mapping[tuple[str, int], int]) -> None:
        """Note the offsets that a finished micro-batch of a query ended before."""
        with self._lock:
            self._of.setdefault((job, query), {}).update(positions)

    def begin(self, job: str, query: str, positions: Mapping[tuple[str, int], int]) -> None:
        """Note the offsets that a query begins at, or goes on from, where none of its micro-batches is finished yet."""
        with self._lock:
            self._of.setdefault((job, query), dict(positions))

    def known(self) -> dict[tuple[str, str], dict[tuple[str, int], int]]:
        """Return the offsets by topic and partition, of each job and query."""
        with self._lock:
            return {key: dict(positions) for key, positions in self._of.items()}

    def measure(self) -> list[PartitionLag]:
        """Return the lag of every query and partition, now; raises TidemarkError, KafkaException as `edges`,
        `list_offsets` and `OffsetLookup` have them."""
        known = self.known()
        topics = {topic for positions in known.values() for topic, _ in positions}
        if not topics:
            return []
        found = edges(self._client.admin(), topics)
        stable = {place: edge.end for place, edge in found.items()}
        unstable, lags = self._past(stable), []
        with OffsetLookup(self._kafka) as lookup:
            for (job, query), positions in known.items():
                read = {topic for topic, _ in positions}
                # A partition that was added since the query's last batch is read from its first record.
                added = {place: edge.first for place, edge in found.items() if place[0] in read}
                for place, position in (added | positions).items():
                    end = stable.get(place, position)
                    time_ms = lookup.time_at(*place, position) if end > position else None
                    # A time to come has no age, nor has a place with none but markers of transactions behind it.
                    age = 0.0 if time_ms is None else max(0.0, time.time() - time_ms / 1000)
                    records = max(0, end - position)
                    lags.append(PartitionLag(job, query, *place, position, records, age, unstable.get(place, 0)))
        return lags

    def unstable(self, topics: set[str]) -> dict[tuple[str, int], int]:
        """Return how many offsets of each partition are past the last stable one, and belong to open transactions;
        raises TidemarkError, KafkaException as `edges` and `list_offsets` have them."""
        if not topics:
            return {}
        return self._past({place: edge.end for place, edge in edges(self._client.admin(), topics).items()})

    def _past(self, stable: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        ends = list_offsets(self._client.admin(), stable, latest, IsolationLevel.READ_UNCOMMITTED)
        return {place: max(0, ends.get(place, end) - end) for place, end in stable.items()}


def freshness(lags: list[PartitionLag], watermarks: Mapping[tuple[str, str], datetime]) -> dict[tuple[str, str], float]:
    """Return the age of what each query's output lacks, in seconds, by job and query.

    If a query has a watermark, it is the watermark's age; else the age of the first record that it has not read.
    """
    ages: dict[tuple[str, str], float] = {}
    for lag in lags:
        key = (lag.job, lag.query)
        ages[key] = max(ages.get(key, 0.0), lag.seconds)
    now = time.time()
    return ages | {key: max(0.0, now - watermark.timestamp()) for key, watermark in watermarks.items()}


class ConsumerGroups:
    """Commits the positions of queries that have changed; nothing where `source.commit_to_group` is off.

    Tools that show the lag of groups read them (`kafka-consumer-groups.sh`, Burrow, KEDA). No query ever starts from
    them: checkpoints alone say where.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._client = settings, LongLivedClient(settings.kafka)
        self._attempted: dict[str, Mapping[tuple[str, int], int]] = {}

    def commit(self, positions: Mapping[tuple[str, str], Mapping[tuple[str, int], int]]) -> None:
        """Commit offsets by topic and partition, of each job and query; raises TidemarkError, KafkaException where the
        brokers refuse; the query's offsets are committed once they change."""
        if not self._settings.source.commit_to_group:
            return
        for (_, query), offsets in positions.items():
            if self._attempted.get(query) != offsets:
                self._attempted[query] = offsets
                wanted = [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]
                request = [ConsumerGroupTopicPartitions(group_of(self._settings, query), wanted)]
                answers = self._client.admin().alter_consumer_group_offsets(request, request_timeout=COMMIT_SECONDS)
                with self._named(query, {topic for topic, _ in offsets}):
                    for future in answers.values():
                        future.result(COMMIT_SECONDS)

    @contextmanager
    def _named(self, query: str, topics: Iterable[str]) -> Iterator[None]:
        try:
            yield
        except KafkaException as exc:
            if exc.args[0].code() not in CODES:
                raise
            needed = [Right("group", group_of(self._settings, query), ("Read",)), *reading(topics)]
            raise not_authorized(exc.args[0], needed, self._settings.kafka.client_config()) from exc
