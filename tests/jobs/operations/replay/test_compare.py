"""Rows that differ, and why."""

from datetime import datetime

import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs.operations.replay.compare import differences, first_differences, with_causes
from jobs.operations.replay.row_identity import fingerprint

SCHEMA = "hour timestamp, id string, level double"


def hour(number: int) -> datetime:
    return datetime(2013, 1, 1, number)


def frame(spark: SparkSession, *rows: tuple[int, str, float | None]) -> DataFrame:
    return spark.createDataFrame([(hour(number), id, level) for number, id, level in rows], SCHEMA)


def test_a_fingerprint_does_not_depend_on_the_order_of_rows_and_counts_repeats(spark: SparkSession) -> None:
    rows = [(1, "a", 1.0), (2, "b", None), (1, "a", 1.0)]
    assert fingerprint(frame(spark, *rows)) == fingerprint(frame(spark, *reversed(rows)).repartition(3))
    assert fingerprint(frame(spark, *rows)) != fingerprint(frame(spark, *rows[:2]))
    assert fingerprint(frame(spark, *rows).select("id", "level", "hour")) == fingerprint(frame(spark, *rows))


def test_rows_are_paired_by_their_keys_and_sums_may_differ_by_a_billionth(spark: SparkSession) -> None:
    left = frame(spark, (1, "a", 1.0), (1, "b", 2.0), (2, "c", None), (3, "d", 0.1 + 0.2))
    right = frame(spark, (1, "a", 1.0), (1, "b", 3.0), (2, "c", None), (3, "d", 0.3), (4, "e", 5.0))
    found = first_differences(with_causes(differences(left, right, ["hour", "id"]), None, "hour", 3600), ["hour", "id"])
    levels = {each.key["id"]: [side and side["level"] for side in (each.left, each.right)] for each in found}
    assert levels == {"b": [2.0, 3.0], "e": [None, 5.0]}


def test_without_keys_equal_rows_are_taken_off_each_other_one_for_one(spark: SparkSession) -> None:
    left = frame(spark, (1, "a", 1.0), (1, "a", 1.0), (2, "b", 2.0))
    right = frame(spark, (1, "a", 1.0), (2, "b", 2.0), (2, "b", 2.0))
    found = first_differences(with_causes(differences(left, right, ()), None, None, 0), ())
    assert sorted((each.key["id"], each.left is None) for each in found) == [("a", False), ("b", True)]


@pytest.mark.parametrize(
    ("back_s", "causes"), [(3600, {"a": "1 rows were late for the live job", "b": ""}), (0, {"a": "", "b": ""})]
)
def test_late_rows_in_the_window_are_a_cause(spark: SparkSession, back_s: int, causes: dict[str, str]) -> None:
    left, right = frame(spark, (1, "a", 1.0), (5, "b", 1.0)), frame(spark, (1, "a", 2.0), (5, "b", 2.0))
    late = spark.createDataFrame([(datetime(2013, 1, 1, 1, 30),)], "event_time timestamp")
    found = first_differences(
        with_causes(differences(left, right, ["hour", "id"]), late, "hour", back_s), ["hour", "id"]
    )
    assert {each.key["id"]: each.cause for each in found} == causes
