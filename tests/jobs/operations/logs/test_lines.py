"""Which records are log lines, and what their columns say."""

import json
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.regex_growth import growth
from jobs.operations import log_analytics
from jobs.operations.logs import lines
from tests.jobs.operations.logs.ecs import ecs_line

AT = "2026-01-31T10:00:00.000Z"
NOW = "2026-01-31 12:00:00"
KAFKA = (
    "key binary, value binary, topic string, partition int, offset long, timestamp timestamp, timestampType int, "
    "headers array<struct<key: string, value: binary>>"
)


def decided(spark: SparkSession, *values: str | None) -> DataFrame:
    rows = [
        (None, value and value.encode(), "app_logs", 0, offset, None, 0, None) for offset, value in enumerate(values)
    ]
    return lines.decide(spark.createDataFrame(rows, KAFKA), F.lit(NOW).cast("timestamp"), "1 hour")


def accepted(spark: SparkSession, *values: str) -> DataFrame:
    return lines.accepted(decided(spark, *values))


def test_every_record_is_a_line_or_has_a_reason(spark: SparkSession) -> None:
    values = [
        ecs_line(AT, "fine"),
        None,
        "2026-01-31 10:00:00 WARN a.B: a plain line",
        '{"@timestamp": "2026-01-31T10:00:00.000Z", "message": "cut o',
        "[1]",
        '{"message": "no time", "log.level": "INFO"}',
        ecs_line("yesterday", "no time that can be read"),
        ecs_line("2026-01-31T13:00:01Z", "a clock that is an hour ahead"),
    ]
    frame = decided(spark, *values)
    codes = [row["error"] for row in frame.orderBy("offset").collect()]
    assert codes == [None, "NO_VALUE", "NOT_JSON", "NOT_JSON", "NOT_JSON", "NOT_ECS", "NOT_ECS", "FUTURE_EVENT_TIME"]
    assert lines.accepted(frame).count() + lines.rejected(frame).count() == len(values)


def test_fields_are_read_with_dots_and_as_objects(spark: SparkSession) -> None:
    labels = {"job": "flights.overdue", "query": "flights.overdue", "batch": "7", "offsets": "departures-0:3-9"}
    more: dict[str, Any] = {"event.duration": 2_500_000_000, "host.name": "h"}
    dotted = ecs_line(AT, "m", "warning", labels=labels, **more)
    nested = json.dumps(
        {
            **{"@timestamp": AT, "message": "m", "labels": labels, "host": {"name": "h"}},
            **{"log": {"level": "warning", "logger": "a.B"}, "event": {"duration": 2_500_000_000}},
        }
    )
    frame = accepted(spark, dotted, nested).drop("offset", "at")
    first, second = frame.collect()
    assert first == second
    of_a_task = ecs_line(AT, "m", labels={f"mdc.{name}": value for name, value in labels.items()})
    (third,) = accepted(spark, of_a_task).collect()
    assert [third[name] for name in labels] == [first[name] for name in labels]
    assert (first["level"], first["job"], first["batch"], first["duration_ms"]) == ("WARN", "flights.overdue", 7, 2500)


def test_a_line_outside_of_batches_has_its_service_as_job(spark: SparkSession) -> None:
    (row,) = accepted(spark, ecs_line(AT, "m", **{"service.name": "ingest"})).collect()
    assert (row["job"], row["query"], row["batch"]) == ("ingest", None, None)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("batch 12 took 345 ms", "batch # took # ms"),
        ("query 5f0c7f1e-3b7a-4e0e-9d0f-2f1b6a9f9f11 ended", "query # ended"),
        ("no file /data/tables/a/part-0.parquet", "no file #"),
        ("lost\n\tat java.lang.Thread", "lost"),
        ("read and/or write", "read and/or write"),
        ("9" * 1_200 + " rows", "#"),  # of a long line its beginning
    ],
)
def test_a_pattern_is_a_message_without_what_varies(message: str, expected: str, spark: SparkSession) -> None:
    made = spark.range(1).select(lines.pattern(F.lit(message)).alias("pattern")).collect()[0]["pattern"]
    assert made == expected


def test_errors_are_counted_by_logger_and_five_minutes(spark: SparkSession) -> None:
    logs = accepted(
        spark,
        ecs_line("2026-01-31T10:00:00Z", "first", "ERROR"),
        ecs_line("2026-01-31T10:04:59Z", "second", "CRITICAL"),
        ecs_line("2026-01-31T10:05:00Z", "third", "ERROR"),
        ecs_line("2026-01-31T10:05:00Z", "fine", "WARN"),
        ecs_line("2026-01-31T10:05:00Z", "other", "ERROR", "c.D"),
    )
    rows = log_analytics.errors(logs).orderBy("since", "logger").collect()
    found = [(f"{row['since']:%H:%M}", row["logger"], row["errors"], row["last_message"]) for row in rows]
    assert found == [("10:00", "a.B", 2, "second"), ("10:05", "a.B", 1, "third"), ("10:05", "c.D", 1, "other")]


def test_a_slow_batch_is_one_that_took_a_minute(spark: SparkSession) -> None:
    labels = {"job": "j", "query": "q", "batch": "1", "offsets": "t-0:0-9"}

    def line(message: str, milliseconds: int, **more: Any) -> str:
        return ecs_line(AT, message, event={"duration": milliseconds * 1_000_000}, **more)

    logs = accepted(
        spark, line("slow", 60_000, labels=labels), line("fast", 59_999, labels=labels), line("no batch", 99_000)
    )
    rows = log_analytics.slow_batches(logs).collect()
    assert [(row["query"], row["batch"], row["seconds"], row["offsets"]) for row in rows] == [("q", 1, 60.0, "t-0:0-9")]


@pytest.mark.parametrize("variable", lines.VARIABLE)
def test_what_varies_is_found_in_the_square_of_a_bounded_length_at_most(variable: str) -> None:
    assert growth(variable) in ("linear", "bounded")
