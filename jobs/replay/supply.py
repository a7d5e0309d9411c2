"""The records of a topic for a replay: from the topic while they are there, and those that retention took from bronze.

What bronze supplies is copied, slice by slice, into a Delta table that the replay's query reads beside the topic: a
stream can be told where to stop in it. The hand-over is decided anew for every slice, so that retention may go on.
"""

from functools import reduce
from operator import or_

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors import delta, kafka
from jobs.connectors.delta_history import snapshot
from jobs.connectors.topic_times import TopicTimes
from jobs.replay.record import FOLDER, Partitions

SCHEMA = (
    "key binary, value binary, topic string, partition int, offset long, timestamp timestamp, timestampType int, "
    f"headers {kafka.HEADERS}"
)


class Supply:
    """Of one topic, for the replay `id`."""

    def __init__(self, spark: SparkSession, settings: Settings, id: str, topic: str) -> None:
        self._spark, self._kafka, self.topic = spark, settings.kafka, topic
        self._bronze = f"{settings.paths.tables}/bronze/{topic}"
        self.path = f"{settings.paths.tables}/{FOLDER}/{id}/restored/{topic}"
        self.has_bronze = delta.exists(spark, self._bronze)

    def earliest(self, starts: Partitions, untils: Partitions) -> dict[int, int]:
        """From which offset on the topic itself holds what is in [starts, untils), by partition."""
        with TopicTimes(self._kafka) as times:
            first, _ = times.edges(self.topic)
        return {number: min(max(start, first[number]), untils[number]) for number, start in starts.items()}

    def stream(self) -> DataFrame:
        """What bronze supplies, as it comes, in the columns of a topic's records."""
        table = delta.Table("restored", self.path)
        delta.create_if_missing(self._spark.createDataFrame([], SCHEMA), table)
        stream = self._spark.readStream.format("delta").option("startingVersion", "0").load(self.path)
        return stream.select(*kafka.COLUMNS)

    def batch(self, starts: Partitions, untils: Partitions) -> DataFrame:
        """The records [starts, untils) of bronze.

        Raises:
            TidemarkError: RANGE_GONE, where bronze is not there.
        """
        if not self.has_bronze:
            raise self._gone(starts, untils)
        rows = self._spark.read.format("delta").load(self._bronze).select(*kafka.COLUMNS)
        return rows.where(within(starts, untils))

    def restore(self, starts: Partitions, untils: Partitions) -> int:
        """Copy the records [starts, untils) from bronze; the version of the table that `stream` reads with them in it.

        Raises:
            TidemarkError: RANGE_GONE, where bronze is not there.
        """
        if any(until > starts[number] for number, until in untils.items()):
            self.batch(starts, untils).write.format("delta").mode("append").save(self.path)
        return self.version()

    def version(self) -> int:
        """The newest version of the table that `stream` reads."""
        return int(snapshot(self._spark, self.path).version())

    def table_id(self) -> str:
        """Delta's id of the table that `stream` reads."""
        return str(snapshot(self._spark, self.path).metadata().id())

    def _gone(self, starts: Partitions, untils: Partitions) -> TidemarkError:
        number = next(number for number, until in untils.items() if until > starts[number])
        where = f"{self.topic} partition {number}: offsets {starts[number]} to {untils[number] - 1}"
        return TidemarkError("RANGE_GONE", f"{where} are gone from the topic, and there is no bronze", "begin later")


def within(starts: Partitions, untils: Partitions, partition: str = "partition", offset: str = "offset") -> Column:
    """Whether a row's coordinates lie in [starts, untils), boolean."""
    edges = ((number, start, untils[number]) for number, start in starts.items() if untils[number] > start)
    parts = [
        (F.col(partition) == number) & (F.col(offset) >= start) & (F.col(offset) < until)
        for number, start, until in edges
    ]
    return reduce(or_, parts, F.lit(False))
