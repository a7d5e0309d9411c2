"""What was in the topics? Every record as it came, forever; every event as a typed row; every reject with its reason.

topic -> Delta table bronze/<topic>; decode, rules -> Delta tables silver/<topic>, quarantine, rule_counts
    ./spark-submit.sh ingest --until-caught-up --set ingest.topics=departures,weather

A topic with events of several types has a table silver/<topic>/<event> for each.
Each topic is a query of its own: one topic's trouble holds up no other. No watermark: nothing is ever too late here.
"""

from dataclasses import replace
from functools import partial

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs import quarantine
from jobs.connectors import avro
from jobs.intake import Intake
from jobs.run import Run
from jobs.silver import Target
from schemas.subjects import subject_of_stream


def silver(decoded: DataFrame) -> DataFrame:
    """One row per accepted event of `avro.decode`'s result, as rules have judged it.

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
    fields = [_key_of(key).alias(key) if name == key else field for name, field in avro.event_fields(decoded).items()]
    rows = decoded.where(F.col("error").isNull() | _is_deleted())
    return rows.select(*fields, *_coordinates(), _is_deleted().alias("_deleted"))


def build(run: Run) -> None:
    for topic in run.settings.ingest.topics:
        # A topic without a schema, or with rules that do not fit it, stops the job now, not in its first batch.
        streams = run.judge.streams(topic)
        for stream in streams:
            run.registry.versions(subject_of_stream(stream))
        records = run.records(topic)
        for stream in streams:
            run.judge.decide(records, stream, run.clock(None))
        declared = run.topics.get(topic)
        compacted_by = declared.key if declared and declared.cleanup_policy == "compact" else None
        targets = [_latest(run, topic, compacted_by)] if compacted_by else [_events(run, stream) for stream in streams]
        # What is of no stream is rejected once, with the first.
        targets[1:] = [replace(target, takes_strays=False) for target in targets[1:]]
        run.write(records, topic, Intake(run, topic, targets))


def _events(run: Run, stream: str) -> Target:
    table = partial(run.table, f"silver/{stream}")
    return Target(stream, table, silver, F.col("error").isNotNull(), quarantine.left_out)


def _latest(run: Run, topic: str, key: str) -> Target:
    table = partial(run.table, f"silver/{topic}", keys=(key,), newest_by=("_offset",))
    bad = F.col("error").isNotNull() & (F.col("error") != avro.NO_VALUE)
    lacks = partial(quarantine.left_out_by_key, key=key, named=_key_of(key), bad=bad)
    return Target(topic, table, partial(silver_by_key, key=key), bad, lacks, exempt="`_deleted`")


def _key_of(key: str) -> Column:
    """The key of a tombstone, which has no event, or of an event."""
    return F.when(_is_deleted(), F.col("key").cast("string")).otherwise(F.col("event").getField(key))


def _is_deleted() -> Column:
    return F.col("error").eqNullSafe(avro.NO_VALUE)


def _coordinates() -> list[Column]:
    return [F.col(name).alias(f"_{name}") for name in ("topic", "partition", "offset", "timestamp", "schema_id")]
