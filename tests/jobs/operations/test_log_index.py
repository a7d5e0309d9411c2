"""The index of logs: what becomes of a row, which days go, what a position leaves."""

from datetime import UTC, datetime, timedelta

import pytest
from pyspark.sql import Row, SparkSession

from conf.settings import Search
from jobs.operations.log_index import LogIndex, after, document, ends, index_of, outdated, start_of_day
from local.processes import HOST

AT = datetime(2026, 1, 31, 23, 59, 59, 250_000, UTC)
ROW = Row(
    **{"at": AT, "level": "ERROR", "logger": "a.B", "message": "lost 3 of 5", "pattern": "lost # of #"},
    **{"job": "flights.overdue", "query": None, "batch": None, "offsets": None, "duration_ms": None, "host": None},
    **{"error_type": None, "error_message": None, "stack_trace": None},
    **{"topic": "app_logs", "partition": 1, "offset": 17},
)


def test_a_documents_id_is_where_its_record_lies() -> None:
    made = document(ROW)
    assert (made.day, made.place) == ("app_logs-2026.01.31", "app_logs-1-17")


def test_a_document_lacks_what_its_row_lacks() -> None:
    assert document(ROW).source == {
        "@timestamp": "2026-01-31T23:59:59.250+00:00",
        "message": "lost 3 of 5",
        "message_pattern": "lost # of #",
        "log": {"level": "ERROR", "logger": "a.B"},
        "labels": {"job": "flights.overdue"},
        "kafka": {"topic": "app_logs", "partition": 1, "offset": 17},
    }


def test_days_are_deleted_that_hold_nothing_as_new_as_what_is_kept() -> None:
    days = ["app_logs-2026.01.30", "app_logs-2026.01.31", "app_logs-2026.02.01"]
    assert outdated(days, AT) == days[:1]
    assert index_of(start_of_day(AT)) == days[1]
    assert index_of(start_of_day(AT) - timedelta(milliseconds=1)) == days[0]


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ({}, [(0, 4), (0, 5), (1, 0)]),
        ({0: 5}, [(0, 5), (1, 0)]),  # a partition that was added later is not forgotten
        ({0: 6, 1: 1}, []),
    ],
)
def test_what_lies_before_the_position_is_indexed_already(
    position: dict[int, int], expected: list[tuple[int, int]], spark: SparkSession
) -> None:
    table = spark.createDataFrame([(0, 4), (0, 5), (1, 0)], "partition int, offset long")
    assert [tuple(row) for row in table.where(after(position)).collect()] == expected


def test_a_position_is_after_the_last_row_of_each_partition() -> None:
    rows = [Row(partition=0, offset=4), Row(partition=0, offset=9), Row(partition=1, offset=2)]
    assert ends(rows) == {0: 10, 1: 3}


def test_without_a_url_there_is_no_index(spark: SparkSession) -> None:
    settings = Search(url="", username="", password="", ca_location="", keep="1 day")  # type: ignore[arg-type]
    assert LogIndex(settings, "app_logs", "/nowhere").fill(spark, AT) == 0


def test_a_url_with_a_password_is_refused() -> None:
    with pytest.raises(ValueError, match=r"search\.username"):
        Search(url=f"http://me:secret@{HOST}", username="", password="", ca_location="", keep="1 day")  # type: ignore[arg-type]
