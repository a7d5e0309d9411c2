"""The question in plain PySpark, at its defaults or tuned by its documentation. It imports nothing of Tidemark.

spark-submit gives the properties; here is what a query sets. Tuned: the Avro guide's `avroSchema` (a reader schema of
the fields that are used), the Kafka guide's `kafka.` options for consumer and producer, one micro-batch for all.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro, to_avro

USED = ("auction", "bid_at")
READING = {
    "kafka.max.poll.records": 20_000,
    "kafka.fetch.min.bytes": 1_048_576,
    "kafka.fetch.max.wait.ms": 50,
    "kafka.max.partition.fetch.bytes": 4_194_304,
    "kafka.receive.buffer.bytes": 4_194_304,
}
WRITING = {"kafka.linger.ms": 50, "kafka.batch.size": 1_000_000, "kafka.compression.type": "lz4"}


def main(question: dict[str, Any], is_tuned: bool) -> None:
    spark = SparkSession.builder.appName(question["name"]).getOrCreate()
    kafka = {"kafka.bootstrap.servers": question["servers"]}
    reading = {**kafka, "subscribe": question["topic"], "startingOffsets": "earliest"}
    records = spark.readStream.format("kafka").options(**reading, **(READING if is_tuned else {})).load()
    narrow = json.loads(question["schema"])
    narrow["fields"] = [field for field in narrow["fields"] if field["name"] in USED]
    options = {"avroSchema": json.dumps(narrow)} if is_tuned else {}
    # Five bytes of framing stand before the value, counted from 1.
    bid = from_avro(F.expr("substring(value, 6)"), question["schema"], options)
    bids = records.select(bid.alias("bid")).select("bid.*")
    window = F.window("bid_at", f"{question['window_ms']} milliseconds")
    counts = bids.withWatermark("bid_at", f"{question['lateness_ms']} milliseconds").groupBy(window, "auction").count()
    start = F.col("window.start")
    if is_tuned:
        row = F.struct("auction", start.alias("window_start"), F.col("count").alias("bids"))
        header = question["result_id"].to_bytes(5, "big")
        value = F.concat(F.lit(bytearray(header)), to_avro(row, question["result_schema"]))
    else:
        millis = F.unix_millis(start).alias("window_start")
        value = F.to_json(F.struct("auction", millis, F.col("count").alias("bids")))
    writer = counts.select(F.col("auction").cast("string").alias("key"), value.alias("value")).writeStream
    writer = writer.format("kafka").options(**kafka, topic=question["results"], **(WRITING if is_tuned else {}))
    writer = writer.option("checkpointLocation", f"{question['folder']}/checkpoint").trigger(availableNow=True)
    writer.start().awaitTermination()
    spark.stop()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2] == "tuned")
