"""Which records are log lines, what their columns say, and the job on a real broker and a real OpenSearch."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.regex_growth import growth
from conf.topics import Topic
from deploy.logging import dashboards
from jobs.operations import log_analytics, log_index
from tests.jobs.operations.ecs import ecs_line, record
from tests.jobs.operations.opensearch_server import OpenSearchServer
from tests.jobs.scratch import Scratch

AT = "2026-01-31T10:00:00.000Z"
CLOCK = "2026-01-31 12:00:00"
KAFKA = (
    "key binary, value binary, topic string, partition int, offset long, timestamp timestamp, timestampType int, "
    "headers array<struct<key: string, value: binary>>"
)


def decided(spark: SparkSession, *values: str | None) -> DataFrame:
    rows = [
        (None, value and value.encode(), "app_logs", 0, offset, None, 0, None) for offset, value in enumerate(values)
    ]
    return log_analytics.parse_lines(spark.createDataFrame(rows, KAFKA), F.lit(CLOCK).cast("timestamp"), "1 hour")


def accepted(spark: SparkSession, *values: str) -> DataFrame:
    return log_analytics.log_lines(decided(spark, *values))


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
    assert log_analytics.log_lines(frame).count() + log_analytics.rejected_records(frame).count() == len(values)


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
    made = spark.range(1).select(log_analytics.message_pattern(F.lit(message)).alias("pattern")).collect()[0]["pattern"]
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


@pytest.mark.parametrize("variable", log_analytics.VARIABLE)
def test_what_varies_is_found_in_the_square_of_a_bounded_length_at_most(variable: str) -> None:
    assert growth(variable) in ("linear", "bounded")


# The job: every record in one place, and in the index once.

JOB = "operations.log_analytics"
NOW = datetime.now(UTC)
TODAY, LONG_AGO = f"{NOW:%Y-%m-%dT%H:%M:%SZ}", f"{NOW - timedelta(days=20):%Y-%m-%dT%H:%M:%SZ}"
ALL = "app_logs-*"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSearchServer]:
    with OpenSearchServer(tmp_path_factory.mktemp("opensearch") / "opensearch.log") as started:
        yield started


class Logs:
    """A topic of log lines, and the job that reads it."""

    def __init__(self, scratch: Scratch, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scratch, self._url = scratch, url
        self.topic = scratch._new_topic(2)
        scratch.declared[self.topic] = Topic(self.topic, 2, "host.name", format="json")
        monkeypatch.setattr(log_analytics, "TOPIC", self.topic)

    def send(self, *values: str | None) -> None:
        self.scratch.send(self.topic, *(record(value, number % 2) for number, value in enumerate(values)))

    def run(self, only: str = "") -> None:
        """Run the job until it has caught up, or the one of its queries that writes the table `only`."""
        run = self.scratch.run(f"search.url={self._url}", job=JOB)
        log_analytics.build(run)
        run.outputs = [output for output in run.outputs if only in ("", output.name)]
        self.scratch.catch_up(run)


@pytest.fixture
def logs(scratch: Scratch, server: OpenSearchServer, monkeypatch: pytest.MonkeyPatch) -> Logs:
    monkeypatch.setattr(log_index, "AGAIN_SECONDS", 0.0)
    return Logs(scratch, server.url, monkeypatch)


def held(server: OpenSearchServer) -> dict[str, Any]:
    """The documents of the index, by id."""
    found = server.search(ALL, {"size": 1000, "version": True, "query": {"match_all": {}}})
    return {hit["_id"]: hit for hit in found["hits"]["hits"]}


@pytest.mark.slow
def test_the_index_is_filled_once_also_where_opensearch_was_down(
    logs: Logs, server: OpenSearchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ask("PUT", f"/{log_index.index_of(NOW - timedelta(days=30))}")
    logs.send(
        ecs_line(TODAY, "lost 3", "ERROR"), ecs_line(TODAY, "lost 4", "ERROR"), "no JSON", ecs_line(LONG_AGO, "x")
    )
    logs.run()
    first = {f"{logs.topic}-0-0", f"{logs.topic}-1-0"}
    assert held(server).keys() == first  # what would be deleted with its day is not indexed
    assert server.ask("GET", f"/_cat/indices/{ALL}?format=json&h=index") == [{"index": log_index.index_of(NOW)}]
    assert logs.scratch.rows("app_logs", "message") == [("lost 3",), ("lost 4",), ("x",)]
    assert logs.scratch.rows("quarantine", "error", "partition", "offset") == [("NOT_JSON", 0, 1)]
    (errors,) = logs.scratch.rows("app_log_errors", "logger", "errors")
    assert errors == ("a.B", 2)
    assert [row[0] for row in logs.scratch.rows("app_log_messages", "pattern")] == ["lost #", "x"]

    server.kill()
    logs.send(ecs_line(TODAY, "while it is down"), ecs_line(LONG_AGO, "late", "ERROR"))
    logs.run("app_logs")
    assert len(logs.scratch.rows("app_logs", "message")) == 5
    said = [line for line in capsys.readouterr().err.splitlines() if "index of logs" in line]
    assert len(said) == 1
    assert "tables go on" in said[0]

    logs.run("app_log_errors")
    assert logs.scratch.rows("late", "query", "partition", "offset") == [(f"{JOB}.app_log_errors", 1, 2)]

    server.start()
    logs.run("app_logs")  # nothing new: what is missing is indexed before the first batch
    assert held(server).keys() == first | {f"{logs.topic}-0-2"}
    # An index that has lost its position is sent everything again, and takes nothing twice.
    server.ask("DELETE", "/tidemark-positions")
    logs.run("app_logs")
    assert {hit["_version"] for hit in held(server).values()} == {1}
    # Without the template `log.level` would be a text, which no panel can group by.
    for panel in dashboards.PANELS:
        assert server.search(ALL, dashboards.search_body(panel))["_shards"]["failed"] == 0
    counts = server.search(ALL, dashboards.search_body(dashboards.PANELS[0]))
    (bucket,) = counts["aggregations"]["2"]["buckets"]
    assert [(each["key"], each["doc_count"]) for each in bucket["3"]["buckets"]] == [("a.B", 2)]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_port_that_nobody_listens_on_is_said_and_stops_nothing(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_index, "AGAIN_SECONDS", 0.0)
    logs = Logs(scratch, "http://127.0.0.1:1", monkeypatch)
    logs.send(ecs_line(TODAY, "fine"))
    logs.run("app_logs")
    assert scratch.rows("app_logs", "message") == [("fine",)]
    assert capsys.readouterr().err.count("the index of logs: OpenSearch http://127.0.0.1:1: ConnectError") == 1
