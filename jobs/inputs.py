"""What a job reads: records of topics, as they are or decoded and judged, of a stream or of a range."""

from datetime import UTC, datetime
from threading import Event

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.settings import Job, Settings, Source
from conf.topics import Topic, find_topic, load_topics
from jobs import personal
from jobs.connectors import avro, kafka, positions
from jobs.judge import Judge, Versions, rules_of
from jobs.progress import REJECTED
from jobs.ranges import Ranges
from jobs.schema_guard import SchemaGuard
from schemas.patience import Patience
from schemas.registries import open_registry
from schemas.registry import RegisteredSchema, Registry
from schemas.subjects import stream_of, subject_of_stream


class Inputs:
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
        bounds: tuple[positions.Position, positions.Position] | None = None,
    ) -> None:
        self.spark = spark
        self.settings = settings
        self.ending = Event()
        self.registry: Registry = open_registry(settings.registry, Patience(once_answered=True, ending=self.ending))
        self.topics: dict[str, Topic] = load_topics()
        self.judge = Judge(settings, self.registry, self.topics, rules_of(self.topics, settings.ingest.topics))
        self.schemas = SchemaGuard(self.registry)
        self._job = job
        self._began = datetime.now(UTC)
        self._ranges = Ranges(settings.kafka, *bounds) if bounds else None

    def records(self, topic: str) -> DataFrame:
        """The records of `topic` as they are, in Kafka's eight columns."""
        kafka.require_topics(self.settings.kafka, [topic])
        subscription = kafka.Subscription((topic,))
        if self._ranges is None:
            return kafka.read_stream(self.spark, self.settings.kafka, self._source(), subscription)
        start, end = self._ranges.of(topic)
        return kafka.read_batch(self.spark, self.settings.kafka, self._source(), subscription, start, end)

    def decode(self, records: DataFrame, topic: str, event: str | None = None) -> DataFrame:
        """The verdicts on `records`, of `Judge.decide`; rejects are counted, and shown with each micro-batch.

        Of a topic with several types of events, those that are not `event` are left out.
        """
        return self._decoded(records, topic, stream_of(topic, event, self.topics), self.judge.versions(topic))

    def _decoded(self, records: DataFrame, topic: str, stream: str, versions: Versions) -> DataFrame:
        for each, registered in versions.items():
            self.schemas.remember(topic, subject_of_stream(each), registered)
        decided = self.judge.decide(records, stream, versions, self.clock(self._began if self._ranges else None))
        observer = self._ranges.observation(topic) if self._ranges else f"decode {topic}"
        return decided.observe(observer, F.count_if(F.col("error").isNotNull()).alias(REJECTED))

    def clock(self, planned_at: datetime | None) -> Column:
        """What event times are compared with: `quarantine.as_of`, or when a batch was planned.

        Args:
            planned_at: None for a stream that is only declared; Spark puts in the time of each micro-batch.
        """
        fixed = self.settings.quarantine.as_of or planned_at
        return F.lit(fixed) if fixed else F.current_timestamp()

    def read(self, topic: str, event: str | None = None) -> DataFrame:
        """The events of `topic`, its schema's fields as columns, personal data protected.

        Rejects are counted here, and kept by `ingest`.

        Args:
            event: which, of a topic with several types of events.
        """
        stream, versions = stream_of(topic, event, self.topics), self.judge.versions(topic)
        protect = self.protection(stream, versions)
        return protect(avro.accepted(self._decoded(self.records(topic), topic, stream, versions)))

    def protection(self, stream: str, versions: Versions) -> personal.Protection:
        """What treats the fields of a stream's events that its newest schema marks as personal.

        Raises:
            TidemarkError: BAD_SCHEMA or NO_HASH_KEY.
        """
        key = self.topics[stream].compaction_key if stream in self.topics else None
        return personal.protection(self.spark, stream, versions[stream][-1].text, key, self.settings.personal_data)

    def latest_schema(self, topic: str, event: str | None = None) -> RegisteredSchema:
        """The newest registered schema of the topic's values, to encode by."""
        find_topic(topic, self.topics)
        return self.registry.latest(subject_of_stream(stream_of(topic, event, self.topics)))

    def job_settings(self, job: str) -> Job:
        """What `job` sets apart from the rest."""
        return self.settings.jobs.get(job, Job())

    def _source(self) -> Source:
        limit = self.job_settings(self._job).max_offsets_per_trigger
        return self.settings.source.model_copy(update={"max_offsets_per_trigger": limit} if limit else {})
