"""Is a topic still the one that the checkpoint's offsets are of?

A topic that is deleted and created again has its old name and new records under the old offsets. Spark sees that only
where the new topic is shorter. So the topics' ids are kept in the checkpoint, beside what Spark keeps there.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka.admin import AdminClient
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Kafka
from jobs import checkpoint
from jobs.connectors.ledger.topic import topic_ids
from jobs.offset_log import SOURCE_TOPICS


class SourceGuard:
    """Compares the topics of a query, at its start and with every micro-batch, with those that its checkpoint knows."""

    def __init__(self, spark: SparkSession, kafka: Kafka, folder: str) -> None:
        self._spark, self._folder = spark, folder
        self._admin = AdminClient({**kafka.client_config(), "log_level": 0})
        self._known = _read_ids(spark, f"{folder}/{SOURCE_TOPICS}")

    def check(self, topics: Iterable[str] = ()) -> None:
        """Check the known topics and `topics`, and remember those that are new.

        Raises:
            TidemarkError: TOPIC_RECREATED, KAFKA_FAILED.
        """
        ids = topic_ids(self._admin, {*topics, *self._known})
        for topic in sorted(self._known.keys() & ids.keys()):
            if ids[topic] != self._known[topic]:
                raise self._recreated(topic)
        if ids.keys() - self._known.keys():
            self._known = ids | self._known
            checkpoint.write(self._spark, f"{self._folder}/{SOURCE_TOPICS}", json.dumps(self._known))

    def files(self) -> dict[str, str]:
        """The file that keeps the ids in the checkpoint, its text by its path there; none while no topic is known."""
        return {SOURCE_TOPICS: json.dumps(self._known)} if self._known else {}

    def _recreated(self, topic: str) -> TidemarkError:
        what = f"source topic {topic} was deleted and created again since the checkpoint {self._folder} began"
        remedy = "its offsets mean other records now: begin with new checkpoints and tables, or restore the topic"
        return TidemarkError("TOPIC_RECREATED", what, remedy)


def _read_ids(spark: SparkSession, file: str) -> dict[str, str]:
    """The ids that the checkpoint keeps; taken for none, a damaged file would let any topic pass."""
    text = checkpoint.read(spark, file)
    try:
        return {} if text is None else dict(json.loads(text))
    except ValueError:
        remedy = "restore it; remove it only where you know that no source topic was created again"
        raise TidemarkError("CHECKPOINT_DAMAGED", f"{file} is empty or cut short", remedy) from None


def topics_of(offsets: Mapping[str, Any]) -> set[str]:
    """The topics that a batch's offsets (`checkpoint.batch_offsets`) are of; other kinds of sources have none."""
    sources = [source for source in offsets.get("until") or () if isinstance(source, dict)]
    return {name for source in sources for name, partitions in source.items() if isinstance(partitions, dict)}
