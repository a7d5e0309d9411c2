"""Checks before each micro-batch: is the topic the one of the checkpoint, are its schema versions known?"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Kafka
from jobs.connectors.exactly_once.ledger_topic import topic_ids
from jobs.connectors.kafka.access import Connection
from jobs.pipeline import checkpoint
from jobs.pipeline.checkpoint_format import topic_offsets
from jobs.pipeline.paths import SOURCE_TOPICS_FILE, recreated_topic_remedy
from schemas.registry import RegisteredSchema, Registry


class SourceGuard:
    """Compares the topics of a query, at its start and with every micro-batch, with those that its checkpoint knows.

    Args:
        anew: how the query can go on with a topic that was created again; see `remedies.read_anew`.
    """

    def __init__(self, spark: SparkSession, kafka: Kafka, folder: str, anew: str) -> None:
        self._anew = anew
        self._spark, self._kafka, self._folder = spark, kafka, folder
        self._connection = Connection(kafka)
        self._admin = AdminClient(self._connection.config())
        self._known = _read_ids(spark, f"{folder}/{SOURCE_TOPICS_FILE}")

    def check(self, topics: Iterable[str] = ()) -> None:
        """Check the known topics and `topics`, and remember those that are new.

        Raises:
            TidemarkError: TOPIC_RECREATED, BROKER_UNREACHABLE, KAFKA_FAILED, BROKER_REFUSES, NOT_AUTHORIZED.
        """
        ids = self._ids(topics)
        for topic in self._changed(ids):
            raise self._recreated(topic)
        if ids.keys() - self._known.keys():
            self._remember(ids | self._known)

    def recreated(self) -> list[str]:
        """Return the known topics that were created again; raises what `check` does, TOPIC_RECREATED aside."""
        return self._changed(self._ids(()))

    def accept(self) -> None:
        """Take the topics as they are now; raises what `recreated` does."""
        self._remember(self._known | self._ids(()))

    def _changed(self, ids: Mapping[str, str]) -> list[str]:
        return [topic for topic in sorted(self._known.keys() & ids.keys()) if ids[topic] != self._known[topic]]

    def _remember(self, ids: dict[str, str]) -> None:
        self._known = ids
        checkpoint.write(self._spark, f"{self._folder}/{SOURCE_TOPICS_FILE}", json.dumps(self._known))

    def _ids(self, topics: Iterable[str]) -> dict[str, str]:
        try:
            return topic_ids(self._admin, {*topics, *self._known}, self._kafka.client_config())
        except TidemarkError as stop:
            # What its user may do, or how it logs in, can change while a job runs.
            self._admin.poll(0)
            refused = self._connection.refusal()
            if refused is None and stop.code != "NOT_AUTHORIZED" and isinstance(stop.__cause__, KafkaException):
                refused = self._connection.failed(self._admin, stop.__cause__)
            if refused is None:
                raise
            raise refused from stop

    def files(self) -> dict[str, str]:
        """Return the file that keeps the ids in the checkpoint, its text by its path there;
        none while no topic is known."""
        return {SOURCE_TOPICS_FILE: json.dumps(self._known)} if self._known else {}

    def _recreated(self, topic: str) -> TidemarkError:
        what = f"source topic {topic} was deleted and created again since the checkpoint {self._folder} began"
        return TidemarkError("TOPIC_RECREATED", what, recreated_topic_remedy(self._anew))


def _read_ids(spark: SparkSession, file: str) -> dict[str, str]:
    """Return the ids that the checkpoint keeps. A damaged file must not count as none: any topic would pass."""
    text = checkpoint.read(spark, file)
    try:
        return {} if text is None else dict(json.loads(text))
    except (ValueError, TypeError):
        remedy = "restore it; remove it only where you know that no source topic was created again"
        raise TidemarkError("CHECKPOINT_DAMAGED", f"{file} is empty or cut short", remedy) from None


def topics_of(offsets: Mapping[str, Any]) -> set[str]:
    """Return the topics in a batch's offsets (`checkpoint.batch_offsets`); sources other than Kafka's have none."""
    return {topic for source in offsets.get("until") or () for topic in topic_offsets(source)}


SCHEMA_ADDED = "SCHEMA_ADDED"


class SchemaGuard:
    """Knows the versions that the plans of one run can read, by topic and subject."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[str, str], set[int]] = {}

    def remember(self, topic: str, subject: str, versions: Iterable[RegisteredSchema]) -> None:
        """Remember the `versions` that a plan was made with."""
        self._known[topic, subject] = {version.id for version in versions}

    def check(self, topics: Iterable[str]) -> None:
        """Compare the versions of `topics` with the remembered ones.

        Raises:
            TidemarkError: SCHEMA_ADDED, and the registry's errors.
        """
        checked = set(topics)
        for (topic, subject), known in self._known.items():
            added = [version for version in self._versions(topic, subject, checked) if version.id not in known]
            if added:
                what = (
                    f"{subject} got version {added[-1].version} (schema id {added[-1].id}) since the query was planned"
                )
                raise TidemarkError(SCHEMA_ADDED, what, "start the job again: it goes on with the new version")

    def _versions(self, topic: str, subject: str, checked: set[str]) -> list[RegisteredSchema]:
        return self._registry.versions(subject) if topic in checked else []
