"""Runs of a job beside its live tables: as streams, and as one batch over the same records.

What retention has removed from a topic comes from bronze.
"""

import json
from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.delta import table as delta_table
from jobs.connectors.delta.log import snapshot
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.offsets import OffsetLookup
from jobs.operations.replay.record import Partitions, Replay, ReplayPaths
from jobs.pipeline import paths
from jobs.pipeline.run import Run
from jobs.pipeline.sources import Ranges

SCHEMA = (
    "key binary, value binary, topic string, partition int, offset long, timestamp timestamp, timestampType int, "
    f"headers {source_sink.HEADERS}"
)


class BronzeSource:
    """Supplies records of one topic to the replay `id`: as a batch, or copied to a table that a stream reads."""

    def __init__(self, spark: SparkSession, settings: Settings, id: str, topic: str) -> None:
        self._spark, self._kafka, self.topic = spark, settings.kafka, topic
        self._bronze = paths.table(settings.paths.tables, paths.bronze(topic))
        self.path = paths.table(ReplayPaths.of(settings, id).restored, topic)
        self.has_bronze = delta_table.exists(spark, self._bronze)

    def earliest(self, starts: Partitions, untils: Partitions) -> dict[int, int]:
        """Return the first offset that the topic itself still holds of [starts, untils), by partition."""
        with OffsetLookup(self._kafka) as lookup:
            first, _ = lookup.edges(self.topic)
        return {partition: min(max(start, first[partition]), untils[partition]) for partition, start in starts.items()}

    def stream(self) -> DataFrame:
        """Read the records that bronze supplies, as they come, in the columns of a topic's records."""
        table = delta_table.Table("restored", self.path)
        delta_table.create_if_missing(self._spark.createDataFrame([], SCHEMA), table)
        stream = self._spark.readStream.format("delta").option("startingVersion", "0").load(self.path)
        return stream.select(*source_sink.COLUMNS)

    def batch(self, starts: Partitions, untils: Partitions) -> DataFrame:
        """Return the records [starts, untils) of bronze.

        Raises:
            TidemarkError: RANGE_GONE, where bronze is not there.
        """
        if not self.has_bronze:
            raise self._gone(starts, untils)
        rows = self._spark.read.format("delta").load(self._bronze).select(*source_sink.COLUMNS)
        return rows.where(in_ranges(starts, untils))

    def restore(self, starts: Partitions, untils: Partitions) -> int:
        """Copy the records [starts, untils) from bronze; return the version of the table of `stream` that has them.

        Raises:
            TidemarkError: RANGE_GONE, where bronze is not there.
        """
        if any(until > starts[partition] for partition, until in untils.items()):
            self.batch(starts, untils).write.format("delta").mode("append").save(self.path)
        return self.version()

    def version(self) -> int:
        """Return the newest version of the table that `stream` reads."""
        return snapshot(self._spark, self.path).version

    def table_id(self) -> str:
        """Return Delta's id of the table that `stream` reads."""
        return snapshot(self._spark, self.path).table_id()

    def _gone(self, starts: Partitions, untils: Partitions) -> TidemarkError:
        partition = next(partition for partition, until in untils.items() if until > starts[partition])
        where = f"{self.topic} partition {partition}: offsets {starts[partition]} to {untils[partition] - 1}"
        return TidemarkError("RANGE_GONE", f"{where} are gone from the topic, and there is no bronze", "begin later")


def in_ranges(starts: Partitions, untils: Partitions) -> Column:
    """Return whether a row's columns `partition` and `offset` lie in [starts, untils), boolean."""
    edges = ((partition, start, untils[partition]) for partition, start in starts.items() if untils[partition] > start)
    parts = [
        (F.col("partition") == partition) & (F.col("offset") >= start) & (F.col("offset") < until)
        for partition, start, until in edges
    ]
    return reduce(or_, parts, F.lit(False))


def side_run_settings(settings: Settings, replay: Replay) -> Settings:
    """Return `settings` with the replay's own places for tables and checkpoints."""
    places = ReplayPaths.of(settings, replay.id)
    roots = {"tables": places.side_run, "checkpoints": places.checkpoints}
    return settings.model_copy(update={"paths": settings.paths.model_copy(update=roots)})


class SideRun(Run):
    """The job of a replay as streams, into tables of its own."""

    def __init__(self, spark: SparkSession, settings: Settings, replay: Replay) -> None:
        super().__init__(spark, side_run_settings(settings, replay), replay.job)
        self.replay = replay
        self.bronze = {topic: BronzeSource(spark, settings, replay.id, topic) for topic in replay.starts}

    @property
    def is_apart(self) -> bool:
        """Return True: the past is not tried out in a live topic."""
        return True

    def records(self, topic: str) -> DataFrame:
        """Return the topic's records, and from bronze those that the topic no longer has."""
        start = json.dumps({topic: self.replay.starts[topic]})
        source = self._source().model_copy(update={"starting_offsets": start})
        in_topic = source_sink.read_stream(self.spark, self.settings.kafka, source, source_sink.Subscription((topic,)))
        bronze = self.bronze[topic]
        return bronze.stream().unionByName(in_topic) if bronze.has_bronze else in_topic


class RecomputationRun(Run):
    """The job of a replay as one batch over the same records, into tables of its own."""

    def __init__(self, spark: SparkSession, settings: Settings, replay: Replay) -> None:
        super().__init__(spark, settings, replay.job)
        self.replay = replay
        self._ranges = _ReplayRanges(settings, replay)

    @property
    def tables_root(self) -> str:
        """Return the root of its tables, beside those of the side run."""
        return ReplayPaths.of(self.settings, self.replay.id).recomputation

    def records(self, topic: str) -> DataFrame:
        """Return the records that the topic still has, and the rest from bronze."""
        starts, untils = self.replay.starts[topic], self.replay.untils[topic]
        bronze = BronzeSource(self.spark, self.settings, self.replay.id, topic)
        kept = bronze.earliest(starts, untils)
        edges = {topic: kept}, {topic: untils}
        subscription = source_sink.Subscription((topic,))
        in_topic = source_sink.read_batch(self.spark, self.settings.kafka, self._source(), subscription, *edges)
        return in_topic if kept == starts else in_topic.unionByName(bronze.batch(starts, kept))


class _ReplayRanges(Ranges):
    """The offsets of a replay, whether or not the topics still have them."""

    def __init__(self, settings: Settings, replay: Replay) -> None:
        super().__init__(settings.kafka, "earliest", "latest")
        for topic in replay.starts:
            self._offsets[topic] = {topic: replay.starts[topic]}, {topic: replay.untils[topic]}
