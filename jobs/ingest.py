"""What was in the topics? Every record as it came, forever; every event as a typed row; every reject with its reason.

topic -> Delta table bronze/<topic>; decode -> Delta tables silver/<topic> and quarantine
    ./spark-submit.sh ingest --until-caught-up --set ingest.topics=departures,weather

Each topic is a query of its own: one topic's trouble holds up no other. No watermark: nothing is ever too late here.
"""

from functools import partial

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.topics import subject_of
from jobs.connectors import avro, delta
from jobs.outputs import Batch
from jobs.parallel import in_parallel
from jobs.run import Run

REASONS = {
    avro.NO_VALUE: "the record has no value, and the topic is not a compacted one, where that would delete the key",
    avro.BAD_FRAMING: "the value does not begin with a zero byte and a schema id",
    avro.UNKNOWN_SCHEMA_ID: "no schema with this id is registered for the topic",
    avro.UNDECODABLE: "the bytes after the schema id are not one whole event of that schema",
}


def silver(decoded: DataFrame) -> DataFrame:
    """One row per accepted event of `avro.decode`'s result.

    Returns:
        the event's fields, then the record's coordinates: `_topic` string, `_partition` int, `_offset` long,
        `_timestamp` timestamp, `_schema_id` int.
    """
    return avro.accepted(decoded, *_coordinates())


def silver_by_key(decoded: DataFrame, key: str) -> DataFrame:
    """For a compacted topic: one row per event and per tombstone of `avro.decode`'s result.

    Returns:
        the columns of `silver`, then `_deleted` boolean. A tombstone gives its record key as the field `key`, all other
        fields null and `_deleted` true: kept as a row, so that an older event cannot bring the key back.
    """
    deleted = F.col("error").eqNullSafe(avro.NO_VALUE)
    named = F.when(deleted, F.col("key").cast("string")).otherwise(F.col("event").getField(key))
    fields = [named.alias(key) if name == key else field for name, field in avro.event_fields(decoded).items()]
    rows = decoded.where(F.col("error").isNull() | deleted)
    return rows.select(*fields, *_coordinates(), deleted.alias("_deleted"))


def quarantine(rejected: DataFrame) -> DataFrame:
    """One row per rejected record: Kafka's eight columns, `schema_id` int, `error` string (code), `reason` string."""
    reason = F.coalesce(*(F.when(F.col("error") == code, F.lit(text)) for code, text in REASONS.items()))
    return rejected.select("*", reason.alias("reason"))


def build(run: Run) -> None:
    for topic in run.settings.ingest.topics:
        run.protection(topic)  # a topic without a schema, or a schema without its hash key, stops the job now
        run.write(run.records(topic), topic, partial(_write, run, topic, run.compaction_key(topic)))


def _write(run: Run, topic: str, key: str | None, batch: Batch) -> None:
    """Write bronze and silver side by side, then what silver rejected."""
    # Asked anew for every batch: a version that is registered while the job runs needs no restart.
    versions = run.registry.versions(subject_of(topic))
    protect = run.protection(topic)
    decoded = avro.decode(batch.frame, versions, reader=versions[-1].text)
    bad = F.col("error").isNotNull() if key is None else F.col("error").isNotNull() & (F.col("error") != avro.NO_VALUE)
    seen: dict[str, int] = {}

    def write_bronze() -> None:
        frame, counted = _counted(batch.frame, records=F.count("*"))
        if delta.write(frame, run.table(f"bronze/{topic}"), batch.commit("bronze")):
            seen["bronze"] = counted.get["records"]

    def write_silver() -> None:
        frame, counted = _counted(decoded, records=F.count("*"), rejected=F.count_if(bad))
        rows = protect(silver(frame) if key is None else silver_by_key(frame, key))
        table = run.table(f"silver/{topic}", keys=(key,) if key else (), newest_by=("_offset",) if key else ())
        if delta.write(rows, table, batch.commit("silver")):
            records, rejected = counted.get["records"], counted.get["rejected"]
            seen["silver"] = records
        else:
            records, rejected = decoded.agg(F.count("*"), F.count_if(bad)).collect()[0]
        run.count(batch, records, rejected)
        if rejected:
            rows = quarantine(avro.rejected(decoded.where(bad)))
            delta.write(rows, run.table("quarantine"), batch.commit("quarantine", every_batch=False))

    in_parallel(batch.frame.sparkSession, write_bronze, write_silver)
    _check_accounted(topic, batch, seen)


def _counted(frame: DataFrame, **counts: Column) -> tuple[DataFrame, Observation]:
    observation = Observation()
    return frame.observe(observation, *(count.alias(name) for name, count in counts.items())), observation


def _check_accounted(topic: str, batch: Batch, seen: dict[str, int]) -> None:
    """Each table was written from a reading of its own: had the topic changed in between, records would be missing."""
    if len(seen) == 2 and seen["bronze"] != seen["silver"]:
        found = f"{seen['bronze']} records went to bronze, {seen['silver']} to silver or quarantine"
        message = f"batch {batch.version} of {topic}: {found}"
        raise TidemarkError("UNACCOUNTED", message, "compare the topic's retention with the time that a batch takes")


def _coordinates() -> list[Column]:
    return [F.col(name).alias(f"_{name}") for name in ("topic", "partition", "offset", "timestamp", "schema_id")]
