"""Gives a job what it reads: records of topics, raw or decoded and validated, of a stream or of a bounded range.

A bounded run's offsets are fixed when a topic is first read.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from threading import Event

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from conf.settings import Job, Kafka, Settings, Source
from conf.topics import Topic, find_topic, load_topics
from jobs.connectors.delta.table import RANGE
from jobs.connectors.kafka import offsets, source_sink
from jobs.connectors.kafka.offsets import Offsets, Position, resolve_offsets
from jobs.connectors.spark_internals import is_observed
from jobs.pipeline import pii
from jobs.pipeline.guards import SchemaGuard
from jobs.pipeline.progress import OF_DECODING, REJECTED, SIZE
from jobs.pipeline.validation import Validator, Versions, declared_rules, naming_schema, reject_counts
from schemas.contracts import stream_of, subject_of_stream, with_fields
from schemas.open_registry import open_registry
from schemas.registry import RegisteredSchema, Registry, RetryPolicy


class Ranges:
    """The offsets of a bounded run, from `start` to before `end` in every topic: the same for all its readers."""

    def __init__(self, kafka: Kafka, start: Position, end: Position) -> None:
        self._kafka, self._bounds = kafka, (start, end)
        self._offsets: dict[str, tuple[Offsets, Offsets]] = {}
        self._rejects: dict[str, Observation] = {}

    def of(self, topic: str) -> tuple[Offsets, Offsets]:
        """Return the offsets where `topic` is read from, and before which it is read."""
        if topic not in self._offsets:
            start, end = (resolve_offsets(self._kafka, topic, position) for position in self._bounds)
            self._offsets[topic] = start, end
        return self._offsets[topic]

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(self._offsets)

    @property
    def id(self) -> str:
        """Return a name for the offsets of all topics so far: equal offsets have equal names."""
        text = json.dumps(self._offsets, sort_keys=True)
        return f"{RANGE}{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def offsets(self) -> dict[str, list[Offsets]]:
        """Return the offsets as a commit's metadata has them: `from`, and `until` (exclusive), an entry a topic."""
        edges = list(self._offsets.values())
        return {"from": [start for start, _ in edges], "until": [end for _, end in edges]}

    def observation(self, topic: str) -> Observation:
        """Counts the rejected records of `topic`, as a column REJECTED."""
        return self._rejects.setdefault(topic, Observation()) if topic not in self._rejects else Observation()

    def lines(self) -> Iterator[str]:
        """Say what was read, a line a topic."""
        for topic, (start, end) in self._offsets.items():
            offsets = sum(end[topic][partition] - first for partition, first in start[topic].items())
            observed, rejected = self._rejects.get(topic), ""
            # If nothing was written anew, nothing was counted, and asking would wait for ever.
            if observed is not None and is_observed(observed):
                rejected = f"  rejected {observed.get[REJECTED] or 0:,}"
            yield f"{topic:<28} {offsets:,} offsets  {start[topic]} to {end[topic]}{rejected}"


class Sources:
    """The topics of one job, with their schemas, rules and personal data.

    Batches wait for a schema registry that is down until `ending` is set.

    Args:
        bounds: None for a stream; positions `(start, end)` for a bounded batch over the topics that the job reads.
    """

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        job: str,
        bounds: tuple[offsets.Position, offsets.Position] | None = None,
    ) -> None:
        self.spark = spark
        self.settings = settings
        self.ending = Event()
        self.registry: Registry = open_registry(settings.registry, RetryPolicy(once_answered=True, ending=self.ending))
        self.topics: dict[str, Topic] = load_topics()
        self.validator = Validator(
            settings, self.registry, self.topics, declared_rules(self.topics, settings.ingest.topics)
        )
        self.schemas = SchemaGuard(self.registry)
        self.job = job
        self._decodings: Counter[str] = Counter()
        self._began = datetime.now(UTC)
        self._ranges = Ranges(settings.kafka, *bounds) if bounds else None
        self.skips_lost = False  # whether streams read on behind records that are gone from their topics

    def records(self, topic: str) -> DataFrame:
        """Return the records of `topic` as they are, in Kafka's eight columns."""
        source_sink.require_topics(self.settings.kafka, [topic])
        subscription, source = source_sink.Subscription((topic,)), self._source()
        if self._ranges is None:
            return source_sink.read_stream(self.spark, self.settings.kafka, source, subscription, self.skips_lost)
        start, end = self._ranges.of(topic)
        return source_sink.read_batch(self.spark, self.settings.kafka, source, subscription, start, end)

    def decode(self, records: DataFrame, topic: str, event: str | None = None) -> DataFrame:
        """Return `records` as `Validator.validate` gives them; rejects are counted, and shown with each micro-batch.

        If a topic has several types of events, those that are not `event` are left out.
        """
        return self._decoded(records, topic, stream_of(topic, event, self.topics), self.validator.versions(topic))

    def _decoded(
        self, records: DataFrame, topic: str, stream: str, versions: Versions, fields: Sequence[str] | None = None
    ) -> DataFrame:
        for name, registered in versions.items():
            self.schemas.remember(topic, subject_of_stream(name), registered)
        clock = self.clock(self._began if self._ranges else None)
        decided = self.validator.validate(records, stream, versions, clock, fields=fields)
        observer = self._ranges.observation(topic) if self._ranges else self._count_name(topic)
        is_rejected = F.col("error").isNotNull()
        counts = {REJECTED: F.count_if(is_rejected), SIZE: source_sink.size(), **reject_counts(is_rejected)}
        return decided.observe(observer, *(count.alias(name) for name, count in counts.items()))

    def _count_name(self, topic: str) -> str:
        """Return the name of what is counted where `topic` is decoded once more; in one plan each has its own."""
        self._decodings[topic] += 1
        number = self._decodings[topic]
        # No topic's name has a space: the name of one is never that of another.
        return f"{OF_DECODING}{topic}" if number == 1 else f"{OF_DECODING}{topic} {number}"

    def clock(self, planned_at: datetime | None) -> Column:
        """Return the time that event times are compared with: `quarantine.as_of`, or when a batch was planned.
        `planned_at`: None for a stream that is only declared; Spark puts in the time of each micro-batch."""
        fixed = self.settings.quarantine.as_of or planned_at
        return F.lit(fixed) if fixed else F.current_timestamp()

    def read(self, topic: str, event: str | None = None, fields: Sequence[str] | None = None) -> DataFrame:
        """Return the events of `topic`, its schema's fields as columns, personal data protected.

        Rejects are counted here, and kept by `ingest`.

        Args:
            event: which type, where the topic has several types of events.
            fields: the columns that are wanted, which is quicker than all: the others are skipped where they lie. A
                record that is wrong in nothing but those is an event here, though `ingest` rejects it: see
                docs/decoding.md.

        Raises:
            TidemarkError: UNKNOWN_FIELD, and what `Validator.validate` raises.
        """
        stream, versions = stream_of(topic, event, self.topics), self.validator.versions(topic)
        protection = self.protection(stream, versions, fields)
        events = protection.accepted_events(self._decoded(self.records(topic), topic, stream, versions, fields))
        # Rules may ask for more than are wanted; what is marked `drop` is not there.
        return events if fields is None else events.select(*(name for name in fields if name in events.columns))

    def protection(self, stream: str, versions: Versions, fields: Sequence[str] | None = None) -> pii.Protection:
        """Return what hashes, masks or drops the fields that a stream's newest schema marks as personal.

        Args:
            fields: that leave an event; None: all. Where none of them is hashed, no key is needed.

        Raises:
            TidemarkError: BAD_SCHEMA or NO_HASH_KEY.
        """
        key = self.topics[stream].compaction_key if stream in self.topics else None
        newest, settings = versions[stream][-1].text, self.settings.personal_data
        with naming_schema(stream, versions):
            leaving = newest if fields is None else with_fields(newest, fields)
            return pii.protection(self.spark, stream, leaving, key, settings)

    def latest_schema(self, topic: str) -> RegisteredSchema:
        """Return the newest registered schema of the topic's values, to encode by."""
        find_topic(topic, self.topics)
        return self.registry.latest(subject_of_stream(stream_of(topic, None, self.topics)))

    def job_settings(self, job: str) -> Job:
        return self.settings.jobs.get(job, Job())

    def _source(self) -> Source:
        return self.settings.source_of(self.job)
