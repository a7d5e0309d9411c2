"""What was in the topics? Every record as it came, forever; every event as a typed row; every reject with its reason.

topic -> Delta table bronze/<topic>; decode, rules -> Delta tables silver/<topic>, quarantine, rule_counts
    ./spark-submit.sh ingest --until-caught-up --set ingest.topics=departures,weather

A topic with events of several types has a table silver/<topic>/<event> for each.
Each topic is a query of its own: one topic's trouble holds up no other. No watermark: nothing is ever too late here.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs import quarantine
from jobs.connectors import avro
from jobs.intake import Intake
from jobs.outputs import Replaceable
from jobs.personal import Protection
from jobs.run import Run
from jobs.silver import Target


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
        # A topic without a schema or its hash key, or with rules that do not fit, stops the job now, not in a batch.
        versions = run.judge.versions(topic)
        for stream in versions:
            run.protection(stream, versions)
        records = run.records(topic)
        for stream in versions:
            run.judge.decide(records, stream, versions, run.clock(None))
        compacted_by = run.topics[topic].compaction_key if topic in run.topics else None
        targets = [_latest(run, topic, compacted_by)] if compacted_by else [_events(run, stream) for stream in versions]
        # What is of no stream is rejected once, with the first.
        targets[1:] = [replace(target, takes_strays=False) for target in targets[1:]]
        silvers = [_silver_rows(stream, compacted_by) for stream in versions]
        run.write(records, topic, Intake(run, topic, targets), tables=(*_raw_rows(topic), *silvers))


def _raw_rows(topic: str) -> tuple[Replaceable, ...]:
    at = ("topic", "partition", "offset")
    stamps = ("code_version", "quarantined_at")
    return Replaceable(f"bronze/{topic}", coordinates=at), Replaceable("quarantine", coordinates=at, stamps=stamps)


def _silver_rows(stream: str, compacted_by: str | None) -> Replaceable:
    table = f"silver/{stream}"
    if compacted_by:
        return Replaceable(table, (compacted_by,))
    return Replaceable(table, coordinates=("_topic", "_partition", "_offset"))


def _events(run: Run, stream: str) -> Target:
    table = partial(run.table, f"silver/{stream}")

    def lacking(judged: DataFrame, held: DataFrame, _: Protection) -> DataFrame:
        return quarantine.left_out(judged, held)

    return Target(stream, table, _protected(silver), F.col("error").isNotNull(), lacking)


def _latest(run: Run, topic: str, key: str) -> Target:
    table = partial(run.table, f"silver/{topic}", keys=(key,), newest_by=("_offset",))
    bad = F.col("error").isNotNull() & (F.col("error") != avro.NO_VALUE)

    def lacking(judged: DataFrame, held: DataFrame, protection: Protection) -> DataFrame:
        named = protection.of_field(judged.withColumn("own_key", _key_of(key)), "own_key", key)
        return quarantine.left_out_by_key(named, held, key, bad)

    return Target(topic, table, _protected(partial(silver_by_key, key=key)), bad, lacking, exempt="`_deleted`")


def _protected(rows: Callable[[DataFrame], DataFrame]) -> Callable[[DataFrame, Protection], DataFrame]:
    return lambda judged, protection: protection(rows(judged))


def _key_of(key: str) -> Column:
    """The key of a tombstone, which has no event, or of an event."""
    return F.when(_is_deleted(), F.col("key").cast("string")).otherwise(F.col("event").getField(key))


def _is_deleted() -> Column:
    return F.col("error").eqNullSafe(avro.NO_VALUE)


def _coordinates() -> list[Column]:
    return [F.col(name).alias(f"_{name}") for name in ("topic", "partition", "offset", "timestamp", "schema_id")]
