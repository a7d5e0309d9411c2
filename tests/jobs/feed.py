"""Inline rows as a batch, or as the micro-batches of a stream."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.listener import StreamingQueryProgress
from pyspark.sql.types import StructType

from jobs.connectors.delta.table import newest

Row = tuple[Any, ...]
Rows = Sequence[Row]


class Feed:
    """Makes frames of inline rows, and runs transforms of them.

    Rows are tuples in the order of a DDL schema; times are texts such as "2013-01-01 10:05", in UTC.
    """

    def __init__(self, spark: SparkSession, folder: Path, kind: Literal["batch", "stream"]) -> None:
        self._spark, self._folder, self._kind = spark, folder, kind
        self._frames = 0
        self.checkpoint = ""
        self.progress: list[StreamingQueryProgress] = []

    def rows(self, schema: str, *batches: Rows) -> DataFrame:
        """A batch of all rows, or a stream that gives one of `batches` with each micro-batch."""
        if self._kind == "batch":
            return self.batch(schema, *batches)
        folder = self._write(schema, batches)
        return self._spark.readStream.schema(schema).option("maxFilesPerTrigger", 1).json(folder)

    def batch(self, schema: str, *batches: Rows) -> DataFrame:
        """A batch of all rows; what a test expects is made so, too."""
        return self._spark.read.schema(schema).json(self._write(schema, batches))

    def table(self, frame: DataFrame, *keys: str) -> DataFrame:
        """What a table holds once `frame` was appended to it, or, with `keys`, merged into it."""
        if not frame.isStreaming:
            return frame
        written = self._run(frame, "update" if keys else "append")
        kept = newest(written, keys, ("batch",)) if keys else written
        return kept.drop("batch")

    @property
    def late(self) -> int:
        """Rows that the last stream dropped because the watermark had passed them."""
        return sum(state.numRowsDroppedByWatermark for batch in self.progress for state in batch.stateOperators)

    def _write(self, schema: str, batches: Sequence[Rows]) -> str:
        self._frames += 1
        folder = self._folder / f"input-{self._frames}"
        folder.mkdir()
        names = cast(StructType, StructType.fromDDL(schema)).fieldNames()
        for number, rows in enumerate(batches):
            file = folder / f"{number}.json"
            file.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows))
            # The file source reads the oldest first.
            os.utime(file, (number, number))
        return str(folder)

    def _run(self, frame: DataFrame, mode: Literal["append", "update"]) -> DataFrame:
        output = str(self._folder / f"output-{self._frames}")
        self.checkpoint = str(self._folder / f"checkpoint-{self._frames}")

        def write(rows: DataFrame, batch: int) -> None:
            rows.withColumn("batch", F.lit(batch)).write.mode("append").parquet(output)

        query = (
            frame.writeStream.outputMode(mode)
            .option("checkpointLocation", self.checkpoint)
            .foreachBatch(write)
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()
        self.progress = list(query.recentProgress)
        return self._spark.read.schema(f"{_ddl(frame.schema)}, batch int").parquet(output)


def _ddl(schema: StructType) -> str:
    return ", ".join(f"`{field.name}` {field.dataType.simpleString()}" for field in schema.fields)
