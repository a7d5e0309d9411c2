"""The checkpoint of a replay's query, whose offset log is written ahead of Spark, one micro-batch at a time.

Spark runs the newest batch of the log that is not committed with exactly the offsets, and the watermark, that stand
there: it is how a batch survives a crash. So a slice is a batch that is put there before the query starts.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import SparkSession

from jobs import checkpoint
from jobs.plans import Source

# The same replay has the same query id wherever and however often it is run.
STATE_PARTITIONS = "spark.sql.streaming.internal.stateStore.partitions"
NAMES = uuid.UUID("7c0c9a5e-5f53-4a55-9d43-7a6f8b3f9b11")


class OffsetLog:
    """Of the query with checkpoint `folder` and `sources`."""

    def __init__(self, spark: SparkSession, folder: str, name: str, sources: Sequence[Source]) -> None:
        self._spark, self._folder, self._sources = spark, folder, sources
        self._watermarks: dict[int, int] = {}
        self.query_id = str(uuid.uuid5(NAMES, name))

    def last_commit(self) -> int | None:
        """The last batch that Spark took for done."""
        return checkpoint.last_commit(self._spark, self._folder)

    def watermark_after(self, batch: int) -> int:
        """Where Spark put the watermark after `batch`, ms since 1970; 0 where it does not say."""
        if batch not in self._watermarks:
            lines = (checkpoint.read(self._spark, f"{self._folder}/commits/{batch}") or "").splitlines()
            self._watermarks[batch] = int(json.loads(lines[1])["nextBatchWatermarkMs"]) if len(lines) > 1 else 0
        return self._watermarks[batch]

    def begin(
        self, batch: int, starts: Mapping[Source, Any], ends: Mapping[Source, Any], clock_ms: int, watermark_ms: int
    ) -> None:
        """Put in `batch`, from `starts` to before `ends`; the batch before it is said to have ended at `starts`."""
        if batch == 0:
            self._begin_log(starts)
        else:
            self._write(f"offsets/{batch - 1}", [self._head(batch - 1), *self._lines(starts)])
        self._write(f"offsets/{batch}", [self._metadata(watermark_ms, clock_ms), *self._lines(ends)])

    def _begin_log(self, starts: Mapping[Source, Any]) -> None:
        checkpoint.write(self._spark, f"{self._folder}/metadata", json.dumps({"id": self.query_id}))
        for number, source in enumerate(self._sources):
            if source.topic:
                checkpoint.set_initial_offsets(self._spark, self._folder, number, starts[source])

    def _head(self, batch: int) -> str:
        return (checkpoint.entry(self._spark, self._folder, batch) or "").splitlines()[1]

    def _metadata(self, watermark_ms: int, clock_ms: int) -> str:
        """With the settings of this session that a checkpoint freezes."""
        jvm: Any = self._spark._jvm
        kind = jvm.org.apache.spark.sql.execution.streaming.checkpointing.OffsetSeqMetadata
        # A running query has this one from its shuffle partitions; it is frozen under their name.
        self._spark.conf.set(STATE_PARTITIONS, str(self._spark.conf.get("spark.sql.shuffle.partitions")))
        try:
            return str(kind.apply(watermark_ms, clock_ms, self._spark._jsparkSession.conf()).json())
        finally:
            self._spark.conf.unset(STATE_PARTITIONS)

    def _lines(self, at: Mapping[Source, Any]) -> list[str]:
        return [json.dumps(at[source]) for source in self._sources]

    def _write(self, file: str, lines: Sequence[str]) -> None:
        checkpoint.write(self._spark, f"{self._folder}/{file}", "\n".join(["v1", *lines]))


def delta_position(table_id: str, version: int) -> dict[str, Any]:
    """Where a stream is in a Delta table once it has read all up to `version`."""
    place = {"reservoirId": table_id, "reservoirVersion": version + 1, "index": -1}
    return {"sourceVersion": 1, **place, "isStartingVersion": False}


def kafka_position(topic: str, offsets: Mapping[int, int]) -> dict[str, Any]:
    """Where a stream is in a topic before these offsets."""
    return {topic: {str(partition): offset for partition, offset in sorted(offsets.items())}}
