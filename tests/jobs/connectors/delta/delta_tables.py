"""Inline rows, batches to be written, and what a Delta table holds afterwards."""

from collections.abc import Mapping
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from jobs.connectors.delta.table import Commit, Table

EVENTS = "id int, at int, note string"
Rows = list[tuple[Any, ...]]


def events(spark: SparkSession, *rows: tuple[Any, ...], schema: str = EVENTS) -> DataFrame:
    return spark.createDataFrame(rows, schema)


def batch(number: int, query: str = "query", statement: str = "write", sink: str = "sink", **more: Any) -> Commit:
    return Commit(sink, query, statement, number, **more)


def stored(spark: SparkSession, table: Table) -> Rows:
    rows = spark.read.format("delta").load(table.path).collect()
    return sorted((tuple(row) for row in rows), key=str)


def commits(spark: SparkSession, table: Table) -> list[Mapping[str, Any]]:
    """Every commit after the table's creation, oldest first."""
    history = DeltaTable.forPath(spark, table.path).history().orderBy("version").collect()
    return [row.asDict() for row in history if row.operation != "CREATE TABLE"]
