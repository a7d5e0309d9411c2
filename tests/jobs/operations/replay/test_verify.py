"""What verifying a replay finds: every row that is not the same, of whatever type, and none that is."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

import pytest
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.settings import load
from jobs.operations.replay.commands import Steps
from jobs.operations.replay.record import Replay
from jobs.operations.replay.row_comparison import differences, first_differences
from jobs.operations.replay.verify import TableComparison, with_causes
from jobs.pipeline.run import Run
from tests.jobs.operations.replay.past import JOB, TABLE, Past, hourly

SENT = [("a", 5, 0, 0), ("b", 7, 0, 1), ("c", 9, 0, 300)]
Columns = Callable[[], list[Column]]


def declared(past: Past, columns: Columns, keys: tuple[str, ...] = ("hour", "id")) -> Callable[[Run], None]:
    """A job that writes `columns` beside the keys; without keys it appends."""

    def declare(run: Run) -> None:
        rows: DataFrame = hourly(run.read(past.topic)).select("hour", "id", *columns())
        if keys:
            run.upsert(rows, TABLE, keys=keys)
        else:
            run.append(rows, TABLE, event_time="hour")

    return declare


def moved(gain: bool) -> Columns:
    """The level in one of two columns, the other null."""
    names = ("level_gain", "level_loss") if gain else ("level_loss", "level_gain")
    return lambda: [F.col("level").alias(names[0]), F.lit(None).cast("bigint").alias(names[1])]


def in_maps(turned: bool) -> Columns:
    """Maps, in a column and within others, whose entries are in one order or the other."""

    def entries() -> Column:
        pairs = [F.lit("readings"), F.col("readings"), F.lit("level"), F.col("level")]
        return F.create_map(*(pairs[2:] + pairs[:2] if turned else pairs))

    return lambda: [entries().alias("map"), F.array(F.struct(entries().alias("within"))).alias("deep")]


def verified(past: Past) -> TableComparison:
    """What is found in the one table."""
    steps = past.steps()
    _, (found,) = steps.verify(steps.run(past.plan()))
    assert found.unlike_check == 0
    return found


@pytest.mark.slow
@pytest.mark.parametrize("keys", [("hour", "id"), pytest.param((), marks=pytest.mark.exhaustive)])
def test_a_value_that_moved_to_another_column_is_a_difference(past: Past, keys: tuple[str, ...]) -> None:
    past.send(*SENT)
    past.declare = declared(past, moved(gain=False), keys)
    past.live()
    past.declare = declared(past, moved(gain=True), keys)
    found = verified(past)
    assert (found.rows, found.unlike_live, found.unexplained) == (2, 2 if keys else 4, 2 if keys else 4)


@pytest.mark.exhaustive
@pytest.mark.parametrize("keys", [("hour", "ID"), ()])
def test_maps_are_compared_whatever_order_their_entries_are_in_and_are_swapped(
    past: Past, keys: tuple[str, ...]
) -> None:
    past.send(*SENT)
    past.declare = declared(past, in_maps(turned=False), keys)
    past.live()
    past.declare = declared(past, in_maps(turned=True), keys)
    assert verified(past).unlike_live == 0

    table = f"delta.`{past.settings().paths.tables}/{TABLE}`"
    past.scratch.spark.sql(f"UPDATE {table} SET map = map('level', 0L) WHERE id = 'a'")
    assert verified(past).unlike_live == (1 if keys else 2)
    past.steps().cut_over(past.plan(), accept=True)
    maps = {row[1]: row[2] for row in past.rows()}
    assert (maps["a"], maps["b"]) == ({"readings": 1, "level": 5}, {"readings": 1, "level": 7})
    past.steps().undo(past.plan())
    assert {row[1]: row[2] for row in past.rows()} == maps | {"a": {"level": 0}}


@pytest.mark.exhaustive
def test_a_row_that_the_live_table_has_twice_is_a_difference(past: Past) -> None:
    past.send(*SENT)
    past.live()
    table = f"delta.`{past.settings().paths.tables}/{TABLE}`"
    past.scratch.spark.sql(f"INSERT INTO {table} SELECT * FROM {table} WHERE id = 'a'")
    found = verified(past)
    assert (found.unlike_live, found.unexplained) == (1, 1)


def test_fingerprints_that_older_code_has_kept_are_compared_with_no_other() -> None:
    """What a cutover compares is in the record of a verified replay, which only the code that made it goes on with."""
    steps = Steps(cast(SparkSession, None), load("local"), lambda run: None, print, lambda: None)
    at = datetime(2013, 1, 1, tzinfo=UTC)
    older = Replay("r", JOB, "range", {}, {}, (), (), "0.1.0+000000000000", at, state="verified")
    with pytest.raises(TidemarkError, match=r"CODE_CHANGED.*plan it again"):
        steps.cut_over(older, accept=True)


@pytest.mark.parametrize(
    ("back_s", "causes"), [(3600, {"a": "1 rows were late for the live job", "b": ""}), (0, {"a": "", "b": ""})]
)
def test_late_rows_in_the_window_are_a_cause(spark: SparkSession, back_s: int, causes: dict[str, str]) -> None:
    rows = [(datetime(2013, 1, 1, 1), "a"), (datetime(2013, 1, 1, 5), "b")]
    left, right = (
        spark.createDataFrame([(*row, level) for row in rows], "hour timestamp, id string, level double")
        for level in (1.0, 2.0)
    )
    late = spark.createDataFrame([(datetime(2013, 1, 1, 1, 30),)], "event_time timestamp")
    found = first_differences(
        with_causes(differences(left, right, ["hour", "id"]), late, "hour", back_s), ["hour", "id"]
    )
    assert {each.key["id"]: each.cause for each in found} == causes
