"""A table takes wider types in place, and refuses all others by name."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType

from conf.errors import TidemarkError
from jobs.connectors.delta import table as delta_table
from jobs.connectors.delta.schema_evolution import is_widening
from jobs.connectors.delta.table import Table
from tests.jobs.connectors.delta.delta_tables import batch, events, stored

REFUSED = [
    ("bigint", "int", "column n is bigint there and int in what is written"),
    ("bigint", "double", "column n is bigint there and double in what is written"),
    ("int", "float", "column n is int there and float in what is written"),
    ("date", "timestamp", "column n is date there and timestamp in what is written"),
    ("string", "binary", "column n is string there and binary in what is written"),
    ("decimal(5,2)", "decimal(5,3)", "column n is decimal(5,2) there and decimal(5,3) in what is written"),
    ("struct<a:int,b:int>", "struct<a:int,b:string,c:int>", "column n.b is int there and string in what is written"),
    ("array<struct<a:double>>", "array<struct<a:float>>", "column n[].a is double there and float in what is written"),
    ("map<string,int>", "map<string,string>", "column n values is int there and string in what is written"),
]
WIDENED = [
    ("int", "bigint"),
    ("int", "double"),
    ("float", "double"),
    ("int", "decimal(12,2)"),
    ("decimal(5,2)", "decimal(7,3)"),
    ("struct<a:int>", "struct<a:bigint>"),
    ("array<struct<a:float>>", "array<struct<a:double>>"),
    ("map<string,int>", "map<string,bigint>"),
]


def test_a_type_that_is_no_wider_one_is_refused_with_table_column_and_both_types(
    spark: SparkSession, appended: Table
) -> None:
    columns = ", ".join(f"n{number} {before}" for number, (before, _, _) in enumerate(REFUSED))
    delta_table.create_if_missing(events(spark, schema=f"id int, {columns}"), appended)
    for number, (_, after, expected) in enumerate(REFUSED):
        with pytest.raises(TidemarkError, match="TYPE_CHANGED") as refused:
            delta_table.write(events(spark, schema=f"id int, n{number} {after}"), appended, batch(0))
        assert f"table {appended.path}: {expected.replace('column n', f'column n{number}')}" in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), ("id",)])
def test_wider_types_widen_their_columns(keys: tuple[str, ...], spark: SparkSession, tmp_path: Path) -> None:
    table = Table("events", str(tmp_path / "events"), keys=keys)
    for version, side in enumerate((0, 1)):
        columns = ", ".join(f"n{number} {types[side]}" for number, types in enumerate(WIDENED))
        row = (version, *[None] * len(WIDENED))
        delta_table.write(events(spark, row, schema=f"id int, {columns}"), table, batch(version))
    schema = spark.read.format("delta").load(table.path).schema
    assert [field.dataType.simpleString() for field in schema.fields[1:]] == [after for _, after in WIDENED]


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), ("id",)])
def test_old_rows_are_read_in_the_wider_type_and_no_file_is_written_again(
    keys: tuple[str, ...], spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table("events", str(tmp_path / "events"), keys=keys)
    delta_table.write(events(spark, (1, 1), schema="id int, n int"), table, batch(0))
    before = files(spark, table)
    delta_table.write(events(spark, (2, 2**40), schema="id int, n bigint"), table, batch(1))
    delta_table.write(events(spark, (3, 3), schema="id int, n bigint"), table, batch(2))
    assert stored(spark, table) == [(1, 1), (2, 2**40), (3, 3)]
    assert before < files(spark, table)
    told = [line for line in capsys.readouterr().err.splitlines() if "widened" in line]
    assert told == [
        "table events: column n is int there and bigint in what is written; "
        "it is widened, and its readers need Delta's type widening from now on"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), ("id",)])
def test_a_table_that_was_widened_still_refuses_what_is_no_wider_type(
    keys: tuple[str, ...], spark: SparkSession, tmp_path: Path
) -> None:
    table = Table("events", str(tmp_path / "events"), keys=keys)
    delta_table.write(events(spark, (1, 1), schema="id int, n int"), table, batch(0))
    delta_table.write(events(spark, (2, 2**40), schema="id int, n bigint"), table, batch(1))
    with pytest.raises(TidemarkError, match=r"TYPE_CHANGED: .*column n is bigint there and string"):
        delta_table.write(events(spark, (1, "x"), schema="id int, n string"), table, batch(2))
    assert stored(spark, table) == [(1, 1), (2, 2**40)]


@pytest.mark.parametrize(("before", "after", "_"), REFUSED)
def test_what_is_no_widening_is_known_as_none(before: str, after: str, _: str) -> None:
    assert not is_widening(DataType.fromDDL(before), DataType.fromDDL(after))


def files(spark: SparkSession, table: Table) -> set[str]:
    rows = spark.read.format("delta").load(table.path).select(F.col("_metadata.file_name")).distinct().collect()
    return {row[0] for row in rows}
