"""Runs of a job beside its live tables: the replay as streams that read slices, and one batch that recomputes it."""

import json

from pyspark.sql import DataFrame, SparkSession

from conf.settings import Settings
from jobs.connectors import kafka
from jobs.ranges import Ranges
from jobs.replay.record import FOLDER, Replay
from jobs.replay.supply import Supply
from jobs.run import Run


def shadow_settings(settings: Settings, replay: Replay) -> Settings:
    """`settings` with the replay's own places for tables and checkpoints."""
    paths = settings.paths
    tables, checkpoints = (f"{root}/{FOLDER}/{replay.id}" for root in (paths.tables, paths.checkpoints))
    own = paths.model_copy(update={"tables": f"{tables}/shadow", "checkpoints": checkpoints})
    return settings.model_copy(update={"paths": own})


class ShadowRun(Run):
    """The job of a replay as streams, into tables of its own."""

    def __init__(self, spark: SparkSession, settings: Settings, replay: Replay) -> None:
        super().__init__(spark, shadow_settings(settings, replay), replay.job)
        self.replay = replay
        self.supplies = {topic: Supply(spark, settings, replay.id, topic) for topic in replay.starts}

    @property
    def is_apart(self) -> bool:
        """A live topic is no place to try out the past."""
        return True

    def records(self, topic: str) -> DataFrame:
        """What bronze supplies, of records that are no longer in the topic, and those of the topic."""
        start = json.dumps({topic: self.replay.starts[topic]})
        source = self._source().model_copy(update={"starting_offsets": start})
        there = kafka.read_stream(self.spark, self.settings.kafka, source, kafka.Subscription((topic,)))
        supply = self.supplies[topic]
        return supply.stream().unionByName(there) if supply.has_bronze else there


class CheckRun(Run):
    """The job of a replay as one batch over the same records, into tables of its own."""

    def __init__(self, spark: SparkSession, settings: Settings, replay: Replay) -> None:
        super().__init__(spark, settings, replay.job)
        self.replay = replay
        self._ranges = _Fixed(settings, replay)

    @property
    def tables_root(self) -> str:
        """Beside the shadow."""
        return f"{self.settings.paths.tables}/{FOLDER}/{self.replay.id}/check"

    def records(self, topic: str) -> DataFrame:
        """From the topic what is there, the rest from bronze."""
        starts, untils = self.replay.starts[topic], self.replay.untils[topic]
        supply = Supply(self.spark, self.settings, self.replay.id, topic)
        kept = supply.earliest(starts, untils)
        edges = {topic: kept}, {topic: untils}
        subscription = kafka.Subscription((topic,))
        there = kafka.read_batch(self.spark, self.settings.kafka, self._source(), subscription, *edges)
        return there if kept == starts else there.unionByName(supply.batch(starts, kept))


class _Fixed(Ranges):
    """The offsets of a replay, be they still in the topics or not."""

    def __init__(self, settings: Settings, replay: Replay) -> None:
        super().__init__(settings.kafka, "earliest", "latest")
        for topic in replay.starts:
            self._offsets[topic] = {topic: replay.starts[topic]}, {topic: replay.untils[topic]}
