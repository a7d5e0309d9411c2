"""What a query keeps in its state is told while the query could go on."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.operations.maintenance.states import StateReport, state_reports
from tests.jobs.feed import Feed


def counted(feed: Feed, root: Path) -> None:
    rows = feed.rows("at timestamp, id string", [("2026-01-31 12:00", "a"), ("2026-01-31 12:01", "b")])
    unique = rows.withWatermark("at", "1 hour").dropDuplicatesWithinWatermark(["id"])
    writer = unique.groupBy("id").count().writeStream.outputMode("update")
    query = writer.option("checkpointLocation", str(root / "probe" / "counts")).trigger(availableNow=True)
    query.foreachBatch(lambda batch, number: batch.show()).start().awaitTermination()


def by_name(spark: SparkSession, root: Path) -> dict[str, StateReport]:
    return {each.name: each for each in state_reports(spark, str(root))}


@pytest.mark.slow
def test_every_operator_is_told_with_its_rows_and_schemas(stream: Feed, spark: SparkSession, tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    counted(stream, root)
    found = by_name(spark, root)
    assert set(found) == {"stateStoreSave", "dedupeWithinWatermark"}
    count = found["stateStoreSave"]
    assert (count.query, count.rows, count.partitions, count.problem) == ("probe.counts", 2, 1, "")
    assert count.schemas == ({"family": "default", "key": "struct<id:string>", "value": "struct<count:bigint>"},)
    assert count.bytes > 0
    assert count.batch is not None
    line, schema = count.lines()
    assert line.startswith("probe.counts                 0 stateStoreSave")
    assert "2 rows" in line
    assert schema.strip() == "default: struct<id:string> -> struct<count:bigint>"


def test_no_checkpoint_has_no_state(spark: SparkSession, tmp_path: Path) -> None:
    assert by_name(spark, tmp_path) == {}
