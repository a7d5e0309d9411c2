"""A table takes wider types in place, and refuses all others by name."""

from datetime import datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, NullType

from conf.errors import TidemarkError
from jobs.connectors.delta import table as delta_table
from jobs.connectors.delta.schema_evolution import add_missing, is_widening, refused_changes, type_changes
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


LOCAL_TIME = "TIMESTAMP_NTZ'2013-01-01 06:00:00'"


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), ("id",)])
def test_a_column_of_local_times_comes_into_a_table_that_had_none(
    keys: tuple[str, ...], spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table("events", str(tmp_path / "events"), keys=keys)
    delta_table.write(spark.sql("SELECT 1 id, array(struct(1 a)) p"), table, batch(0))
    for version in (1, 2):
        wider = f"SELECT {version + 1} id, array(struct(1 a, {LOCAL_TIME} at)) p, {LOCAL_TIME} at"
        delta_table.write(spark.sql(wider), table, batch(version))
    at = datetime(2013, 1, 1, 6)
    assert stored(spark, table) == [(1, [(1, None)], None), (2, [(1, at)], at), (3, [(1, at)], at)]
    told = [line for line in capsys.readouterr().err.splitlines() if "timestampNtz" in line]
    assert told == [
        "table events: it gets its first column of local times (timestamp_ntz), "
        "and its readers need Delta's feature timestampNtz from now on"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), ("id",)])
def test_a_column_of_nulls_takes_any_type(keys: tuple[str, ...], spark: SparkSession, tmp_path: Path) -> None:
    table = Table("events", str(tmp_path / "events"), keys=keys)
    delta_table.write(spark.sql("SELECT 1 id, null a, null b, null c, struct(null d, 1 e) s"), table, batch(0))
    typed = f"SELECT 2 id, 'x' a, {LOCAL_TIME} b, array(1) c, struct(5L d, 1 e) s"
    delta_table.write(spark.sql(typed), table, batch(1))
    assert stored(spark, table) == [
        (1, None, None, None, (None, 1)),
        (2, "x", datetime(2013, 1, 1, 6), [1], (5, 1)),
    ]


OURS = {
    "low": "(`n` IS NULL OR `n` >= 0)",
    "within": "(`p`.`n` IS NULL OR `p`.`n` >= 0)",
    "known": "`list` IS NOT NULL",
    "other": "`id` IS NOT NULL",
}


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), ("id",)])
def test_our_constraints_give_way_to_a_wider_type_and_come_back(
    keys: tuple[str, ...], spark: SparkSession, tmp_path: Path
) -> None:
    table = Table("events", str(tmp_path / "events"), keys=keys)
    delta_table.write(spark.sql("SELECT 1 id, 1 n, struct(1 n) p, array(1f) list"), table, batch(0))
    assert add_missing(spark, table.path, OURS) == []
    rows = spark.sql("SELECT 2 id, 5000000000 n, struct(5000000000 n) p, array(1d) list")
    delta_table.write(rows, table, batch(1))
    assert add_missing(spark, table.path, OURS) == []
    assert stored(spark, table) == [(1, 1, (1,), [1.0]), (2, 5_000_000_000, (5_000_000_000,), [1.0])]
    broken = spark.sql("SELECT 3 id, -1L n, struct(1L n) p, array(1d) list")
    with pytest.raises(TidemarkError, match=r"TABLE_REFUSES: .*DELTA_VIOLATE_CONSTRAINT_WITH_VALUES .*rule_low"):
        delta_table.write(broken, table, batch(2))


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), ("id",)])
def test_what_others_have_set_on_a_table_is_named_and_the_remedy_helps(
    keys: tuple[str, ...], spark: SparkSession, tmp_path: Path
) -> None:
    table = Table("events", str(tmp_path / "events"), keys=keys)
    delta_table.write(spark.sql("SELECT 1 id, 1 n"), table, batch(0))
    spark.sql(f"ALTER TABLE delta.`{table.path}` ADD CONSTRAINT theirs CHECK (n >= 0)")
    rows = spark.sql("SELECT 2 id, 5000000000 n")
    with pytest.raises(TidemarkError, match="TABLE_REFUSES") as refused:
        delta_table.write(rows, table, batch(1))
    assert f"table {table.path}: DELTA_CONSTRAINT_DATA_TYPE_MISMATCH (columnName n" in refused.value.message
    assert "theirs" in refused.value.message
    assert f"ALTER TABLE delta.`{table.path}` DROP CONSTRAINT" in refused.value.remedy
    spark.sql(f"ALTER TABLE delta.`{table.path}` DROP CONSTRAINT theirs")
    delta_table.write(rows, table, batch(1))
    assert stored(spark, table) == [(1, 1), (2, 5_000_000_000)]


@pytest.mark.slow
@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("INTERVAL '1' DAY AS odd", "dataTypeList [odd: DayTimeIntervalType(0,0)]"),
        ("1 AS `a b`", "invalidColumnNames a b"),
    ],
)
def test_a_column_that_no_table_holds_is_named(
    column: str, says: str, is_new: bool, spark: SparkSession, appended: Table
) -> None:
    if not is_new:
        delta_table.write(spark.sql("SELECT 1 id"), appended, batch(0))
    with pytest.raises(TidemarkError, match="TABLE_REFUSES") as refused:
        delta_table.write(spark.sql(f"SELECT 1 id, {column}"), appended, batch(0 if is_new else 1))
    assert says in refused.value.message
    assert "cast that column" in refused.value.remedy


@pytest.mark.slow
def test_maps_of_records_that_change_are_merged_where_delta_cannot(spark: SparkSession, tmp_path: Path) -> None:
    """Tables with a column such as `_row_id_` are written anew (`delta.rewrite`)."""
    table = Table("events", str(tmp_path / "events"), keys=("id",))
    delta_table.write(spark.sql("SELECT 1 id, 1 `_row_id_`, map('k', struct(1 a, 'x' gone)) m"), table, batch(0))
    delta_table.write(spark.sql("SELECT 2 id, 2 `_row_id_`, map('k', struct(5L a, 7 b)) m"), table, batch(1))
    assert stored(spark, table) == [(1, 1, {"k": (1, "x", None)}), (2, 2, {"k": (5, None, 7)})]


def test_a_change_says_the_field_and_the_column_where_they_differ_in_case() -> None:
    old, new = (DataType.fromDDL(f"{name} {kind}") for name, kind in (("Total", "string"), ("total", "bigint")))
    (change,) = type_changes(old, new)
    assert str(change) == "column total (there Total) is string there and bigint in what is written"


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("f string", "f"),
        ("p struct<f: string>", "p.f"),
        ("f array<map<int, string>>", "f"),
        ("f map<int, array<struct<g: string>>>", "f values[].g"),
        ("f struct<member0: array<string>, member1: int>", "f"),
    ],
)
def test_a_change_knows_the_field_that_holds_it(column: str, field: str) -> None:
    (change,) = refused_changes(
        DataType.fromDDL(column.replace("string>", "int>").replace("f string", "f int")), DataType.fromDDL(column)
    )
    assert change.field == field


@pytest.mark.parametrize("kind", ["string", "array<int>", "struct<a: timestamp_ntz>"])
def test_nulls_are_widened_to_any_type_and_nothing_to_nulls(kind: str) -> None:
    assert is_widening(NullType(), DataType.fromDDL(kind))
    assert not is_widening(DataType.fromDDL(kind), NullType())


@pytest.mark.parametrize(("before", "after", "_"), REFUSED)
def test_what_is_no_widening_is_known_as_none(before: str, after: str, _: str) -> None:
    assert not is_widening(DataType.fromDDL(before), DataType.fromDDL(after))


def files(spark: SparkSession, table: Table) -> set[str]:
    rows = spark.read.format("delta").load(table.path).select(F.col("_metadata.file_name")).distinct().collect()
    return {row[0] for row in rows}
