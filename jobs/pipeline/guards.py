"""Checks a query's topics before each micro-batch: are they those of its checkpoint? its records still there? its
schema versions known?

With --skip-lost a query goes on where records were lost: behind those that retention took, or with a topic that was
created again. What was published stays, and is not published again; a batch that was begun is finished with what is
left of it.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Kafka, Settings
from jobs.connectors.exactly_once.adopt import begin_after, progress
from jobs.connectors.exactly_once.ledger import BatchId, offsets_hash
from jobs.connectors.kafka.access import Connection
from jobs.connectors.kafka.offsets import edges, topic_ids
from jobs.pipeline import checkpoint, plan_analysis
from jobs.pipeline.checkpoint_format import initial_offsets, source_offsets, start_file, topic_offsets
from jobs.pipeline.outputs import Batch, Output
from jobs.pipeline.paths import SOURCE_TOPICS_FILE, recreated_topic_remedy
from jobs.pipeline.progress import offsets_of_batch
from jobs.pipeline.remedies import is_in_tables
from jobs.pipeline.topic_sink import TopicOutput
from schemas.registry import RegisteredSchema, Registry

SCHEMA_ADDED = "SCHEMA_ADDED"
# By topic and partition, as Spark's files have them.
Firsts = dict[str, dict[str, int]]


class SourceGuard:
    """Compares the topics of a query, at its start and with every micro-batch, with those that its checkpoint knows;
    `way_on`: how the query can go on with a topic that was created again; see `remedies.new_topic_remedy`."""

    def __init__(self, spark: SparkSession, kafka: Kafka, folder: str, way_on: str) -> None:
        self._spark, self._kafka, self._folder, self._way_on = spark, kafka, folder, way_on
        self._connection = Connection(kafka)
        self._admin = AdminClient(self._connection.config())
        self._known = _read_ids(spark, f"{folder}/{SOURCE_TOPICS_FILE}")

    def check(self, topics: Iterable[str] = ()) -> None:
        """Check the known topics and `topics`, and remember those that are new; raises TidemarkError TOPIC_RECREATED,
        BROKER_UNREACHABLE, KAFKA_FAILED, BROKER_REFUSES, NOT_AUTHORIZED."""
        ids = self._ids(topics)
        for topic in self._changed(ids):
            what = f"source topic {topic} was deleted and created again since the checkpoint {self._folder} began"
            raise TidemarkError("TOPIC_RECREATED", what, recreated_topic_remedy(self._way_on))
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
        """Return the file that keeps the ids, its text by its path in the checkpoint; none while no topic is known."""
        return {SOURCE_TOPICS_FILE: json.dumps(self._known)} if self._known else {}


def _read_ids(spark: SparkSession, file: str) -> dict[str, str]:
    """Return the ids that the checkpoint keeps. A damaged file must not count as none: any topic would pass."""
    text = checkpoint.read(spark, file)
    try:
        return {} if text is None else dict(json.loads(text))
    except (ValueError, TypeError):
        remedy = "restore it; remove it only where you know that no source topic was created again"
        raise TidemarkError("CHECKPOINT_DAMAGED", f"{file} is empty or cut short", remedy) from None


def topics_of(offsets: Mapping[str, Any]) -> set[str]:
    """Return the topics in a batch's offsets; sources other than Kafka's have none."""
    return {topic for source in offsets.get("until") or () for topic in topic_offsets(source)}


class SchemaGuard:
    """Knows the versions that the plans of one run can read, by topic and subject."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[str, str], set[int]] = {}

    def remember(self, topic: str, subject: str, versions: Iterable[RegisteredSchema]) -> None:
        """Remember the `versions` that a plan was made with."""
        self._known[topic, subject] = {version.id for version in versions}

    def check(self, topics: Iterable[str]) -> None:
        """Compare the versions of `topics` with the remembered ones; raises TidemarkError SCHEMA_ADDED, and the
        registry's errors."""
        checked = set(topics)
        for (topic, subject), known in self._known.items():
            versions = self._registry.versions(subject) if topic in checked else []
            added = [version for version in versions if version.id not in known]
            if added:
                newest = f"version {added[-1].version} (schema id {added[-1].id})"
                what = f"{subject} got {newest} since the query was planned"
                raise TidemarkError(SCHEMA_ADDED, what, "start the job again: it goes on with the new version")


class LostRecords:
    """Says on stderr which offsets of a query's micro-batches are gone, each range once."""

    def __init__(self, kafka: Kafka, query: str) -> None:
        self._admin, self._query = _quiet_admin(kafka), query
        self._reported: set[str] = set()

    def report(self, batch: Batch) -> None:
        """Compare where the batch begins with what its topics still have; raises what `offsets.edges` does."""
        spans = [span for span in offsets_of_batch(batch.offsets) if span["start"] is not None]
        kept = edges(self._admin, {span["topic"] for span in spans})
        for span in spans:
            place, end = (span["topic"], span["partition"]), span["end"]
            first = min(kept[place].first, end) if place in kept else end
            lost = f"{place[0]} partition {place[1]}: offsets {span['start']} to {first - 1}"
            if span["start"] < first and lost not in self._reported:
                self._reported.add(lost)
                why = "are gone: what of them was not written yet is lost"
                print(f"warning: {self._query} batch {batch.version}: {lost} {why}", file=sys.stderr, flush=True)


def go_on_with_recreated(
    spark: SparkSession, settings: Settings, output: TopicOutput, folder: str, guard: SourceGuard
) -> None:
    """Let the checkpoint in `folder` go on at the beginning of those of its topics that were created again.

    The ledger of `output` is marked first: a call that is cut short is made again, and until then no batch passes.

    Raises:
        TidemarkError: TOPIC_RECREATED, where a batch that was begun may be published in part, and its other topics or
            its state are needed to finish it; and what the ledger stops by.
    """
    recreated = guard.recreated()
    if not recreated:
        return
    done, begun = checkpoint.last_commit(spark, folder), checkpoint.last_entry(spark, folder)
    firsts = _firsts(settings.kafka, recreated)
    id = checkpoint.query_id(spark, folder)
    at = done
    if id is not None and begun is not None and begun != done:
        entry = checkpoint.entry(spark, folder, begun) or ""
        written = progress(output.sink, BatchId(id, begun, offsets_hash(entry)))
        if written != "none" or is_in_tables(spark, settings.paths.tables, output, id, begun):
            read = {topic for source in source_offsets(entry) or () for topic in topic_offsets(source)}
            if plan_analysis.keeps_state(output.frame) or (written != "all" and read - set(recreated)):
                raise _cannot_finish(output, begun, recreated)
            at = begun
    _begin_at(spark, output, folder, id, at, done, firsts)
    guard.accept()
    what = "its offsets begin anew; what was not read of the old one is lost"
    for topic in recreated:
        print(f"warning: {output.query}: topic {topic} was created again: {what}", file=sys.stderr, flush=True)


def _begin_at(
    spark: SparkSession,
    output: TopicOutput,
    folder: str,
    id: str | None,
    at: int | None,
    done: int | None,
    firsts: Firsts,
) -> None:
    """Let the next micro-batch be the one after `at`, which is done then, and begin at `firsts` in their topics."""
    if id is None or at is None:
        checkpoint.forget_after(spark, folder, -1)
        source = 0
        while (text := checkpoint.read(spark, f"{folder}/{start_file(source)}")) is not None:
            if (initial := initial_offsets(text)) is not None:
                checkpoint.set_initial_offsets(spark, folder, source, _with_firsts(initial, firsts))
            source += 1
        return
    entry = checkpoint.entry(spark, folder, at) or ""
    head, lines = entry.splitlines()[:2], entry.splitlines()[2:]
    sources = [json.loads(line) if line.startswith("{") else None for line in lines]
    rewritten = [
        line if source is None else json.dumps(_with_firsts(source, firsts), separators=(",", ":"))
        for line, source in zip(lines, sources, strict=True)
    ]
    text = "\n".join([*head, *rewritten])
    begin_after(output.sink, BatchId(id, at, offsets_hash(text)))
    checkpoint.set_entry(spark, folder, at, text, is_done=at == done)
    checkpoint.forget_after(spark, folder, at)


def _with_firsts(source: dict[str, Any], firsts: Firsts) -> dict[str, Any]:
    return {name: firsts.get(name, at) for name, at in source.items()}


def _firsts(kafka: Kafka, topics: list[str]) -> Firsts:
    """Return where each partition of the topics begins."""
    firsts: Firsts = {topic: {} for topic in topics}
    for (topic, partition), edge in edges(_quiet_admin(kafka), topics).items():
        firsts[topic][str(partition)] = edge.first
    return firsts


def _cannot_finish(output: Output, batch: int, recreated: list[str]) -> TidemarkError:
    what = f"source topic {', '.join(recreated)} was deleted and created again while batch {batch} of {output.query}"
    why = "was written in part: with its state, or its other topics, it can be neither finished nor left"
    remedy = "restore the topic, or publish into a topic and from a job of another name"
    return TidemarkError("TOPIC_RECREATED", f"{what} {why}", remedy)


def _quiet_admin(kafka: Kafka) -> AdminClient:
    return AdminClient({**kafka.client_config(), "log_level": 0})
