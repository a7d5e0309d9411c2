"""Writes into Delta tables: each batch once, the newest event of a key, and a commit that says where it came from."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from delta.tables import DeltaTable
from deltalake import DeltaTable as DeltaLake
from deltalake import write_deltalake
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf import code_version
from jobs.connectors.delta import table as delta_table
from jobs.connectors.delta.reading import find_table
from jobs.connectors.delta.table import Commit, Table
from jobs.connectors.spark_internals import DeltaSnapshot, in_parallel
from tests.jobs.connectors.delta.delta_tables import batch, commits, events, stored
from tests.kinds import of_a_kind


@pytest.mark.parametrize("keys", [(), ("id",)])
def test_a_batch_written_again_changes_nothing(keys: tuple[str, ...], spark: SparkSession, tmp_path: Path) -> None:
    table = Table("events", str(tmp_path / "events"), keys=keys)
    assert delta_table.write(events(spark, (1, 1, "a")), table, batch(0))
    assert delta_table.write(events(spark, (2, 1, "b")), table, batch(1))
    made = len(commits(spark, table))
    assert not delta_table.write(events(spark, (3, 1, "never written")), table, batch(1))
    assert stored(spark, table) == [(1, 1, "a"), (2, 1, "b")]
    assert len(commits(spark, table)) == made == 2


@pytest.mark.slow
def test_two_statements_of_a_sink_and_two_sinks_share_a_table_and_a_batch_number(
    spark: SparkSession, appended: Table
) -> None:
    writers = [batch(0), batch(0, statement="other"), batch(0, sink="another.sink")]
    for number, commit in enumerate(writers):
        assert delta_table.write(events(spark, (number, 1, "x")), appended, commit)
    assert [row[0] for row in stored(spark, appended)] == [0, 1, 2]


def test_the_newest_event_of_a_key_wins_within_a_batch(spark: SparkSession, upserted: Table) -> None:
    rows = events(spark, (1, 5, "newest"), (1, 3, "older"), (2, None, "no time"), (2, 0, "some time"), (1, 4, "old"))
    delta_table.write(rows, upserted, batch(0))
    assert stored(spark, upserted) == [(1, 5, "newest"), (2, 0, "some time")]


def test_an_older_event_that_comes_later_loses_and_an_equal_one_wins(spark: SparkSession, upserted: Table) -> None:
    delta_table.write(events(spark, (1, 5, "first"), (2, 5, "first"), (3, 5, "first")), upserted, batch(0))
    delta_table.write(
        events(spark, (1, 4, "late"), (2, 5, "again"), (3, None, "no time"), (4, 1, "new")), upserted, batch(1)
    )
    assert stored(spark, upserted) == [(1, 5, "first"), (2, 5, "again"), (3, 5, "first"), (4, 1, "new")]


@pytest.mark.slow
def test_several_columns_decide_in_their_order(spark: SparkSession, upserted: Table) -> None:
    table = replace(upserted, newest_by=("at", "note"))
    delta_table.write(events(spark, (1, 5, "a"), (1, 5, "b"), (1, 4, "z"), (2, 5, "b")), table, batch(0))
    delta_table.write(events(spark, (1, 5, "ab"), (2, 6, "a")), table, batch(1))
    assert stored(spark, table) == [(1, 5, "b"), (2, 6, "a")]


@pytest.mark.slow
def test_in_one_sequence_the_count_decides_and_between_two_of_them_the_time(
    spark: SparkSession, tmp_path: Path
) -> None:
    columns = "id int, at int, part int, n int"
    table = Table("keyed", str(tmp_path / "keyed"), keys=("id",), newest_by=("at",), sequence=("part", "n"))
    first = [
        *((1, 9, 0, 0), (1, 1, 0, 1)),  # the clock went back
        *((2, 5, 0, 9), (2, 6, 1, 0)),  # the key moved
        *((3, 9, 0, 0), (3, 5, 0, 1), (3, 7, 1, 0)),  # both: of part 0 the 5 is the last
        *((4, 5, 0, 9), (4, 5, 1, 0)),
    ]
    delta_table.write(events(spark, *first, schema=columns), table, batch(0))
    assert stored(spark, table) == [(1, 1, 0, 1), (2, 6, 1, 0), (3, 7, 1, 0), (4, 5, 1, 0)]
    second = [(1, 0, 0, 2), (2, 5, 0, 10), (3, 8, 0, 2), (4, 5, 0, 10), (5, 1, 0, 3)]
    delta_table.write(events(spark, *second, schema=columns), table, batch(1))
    assert stored(spark, table) == [(1, 0, 0, 2), (2, 6, 1, 0), (3, 8, 0, 2), (4, 5, 0, 10), (5, 1, 0, 3)]


@pytest.mark.slow
def test_columns_named_as_those_of_deltas_merge_are_merged_like_others(spark: SparkSession, upserted: Table) -> None:
    columns = "id int, at int, _Row_Id_ string, old int"
    delta_table.write(
        events(spark, (1, 5, "a", 1), (2, 5, "a", 1), (None, 5, "a", 1), schema=columns), upserted, batch(0)
    )
    came = [(1, 6, "b", 1), (2, 4, "b", 1), (None, 5, "b", 1), (4, 1, "b", 1)]
    frame = events(spark, *came, schema="id int, at int, _row_id_ string, _source_row_present_ int")
    assert delta_table.write(frame, upserted, batch(1))
    assert not delta_table.write(frame, upserted, batch(1))
    merged = [(1, 6, "b", 1, 1), (2, 5, "a", 1, None), (4, 1, "b", None, 1), (None, 5, "b", 1, 1)]
    assert stored(spark, upserted) == merged
    # The table has the columns, also where what is written has none of them.
    delta_table.write(events(spark, (4, 2, 7), schema="id int, at int, old int"), upserted, batch(2))
    assert stored(spark, upserted)[2] == (4, 2, "b", 7, 1)
    assert [made["operation"] for made in commits(spark, upserted)] == ["WRITE"] * 3


@pytest.mark.slow
def test_of_two_equal_events_in_one_batch_one_whole_row_stays(spark: SparkSession, upserted: Table) -> None:
    delta_table.write(events(spark, (1, 5, "a"), (1, 5, None)), upserted, batch(0))
    assert stored(spark, upserted) in ([(1, 5, "a")], [(1, 5, None)])


@pytest.mark.slow
def test_a_null_key_is_a_key(spark: SparkSession, tmp_path: Path) -> None:
    table = Table("pairs", str(tmp_path / "pairs"), keys=("id", "note"), newest_by=("at",))
    delta_table.write(events(spark, (None, 1, "x"), (1, 1, None)), table, batch(0))
    delta_table.write(events(spark, (None, 2, "x"), (1, 2, None), (None, 2, None)), table, batch(1))
    assert stored(spark, table) == [(1, 2, None), (None, 2, "x"), (None, 2, None)]


@pytest.mark.slow
def test_without_newest_by_the_later_batch_replaces_the_row(spark: SparkSession, tmp_path: Path) -> None:
    table = Table("windows", str(tmp_path / "windows"), keys=("id",))
    delta_table.write(events(spark, (1, 9, "open")), table, batch(0))
    delta_table.write(events(spark, (1, 2, "closed")), table, batch(1))
    assert stored(spark, table) == [(1, 2, "closed")]


def test_a_key_that_a_batch_has_twice_stops_the_write_by_name_before_anything_is_written(
    spark: SparkSession, tmp_path: Path
) -> None:
    table = Table("latest", str(tmp_path / "latest"), keys=("id", "note"))
    delta_table.write(events(spark, (1, 1, None), (None, 1, None)), table, batch(0))
    twice = events(spark, (2, 1, "x"), (None, 2, None), (None, 3, None))
    with pytest.raises(Exception, match=r"KEY_REPEATED: batch 1 of sink has 2 rows of the key \{\} for table latest,"):
        delta_table.write(twice, table, batch(1))
    assert stored(spark, table) == [(1, 1, None), (None, 1, None)]
    mended = replace(table, newest_by=("at",))
    assert delta_table.write(twice, mended, batch(1))
    assert stored(spark, table) == [(1, 1, None), (2, 1, "x"), (None, 3, None)]


@pytest.mark.slow
def test_of_a_key_that_a_batch_has_twice_the_last_row_stays_where_rows_come_in_order(
    spark: SparkSession, tmp_path: Path
) -> None:
    schema = "x double, n int, note string"
    rows = [(0.0, 1, "a"), (float("nan"), 2, "a"), (float("nan"), 2, "b"), (-0.0, 1, "b"), (0.0, 1, "c"), (1.0, 9, "d")]
    frame = spark.createDataFrame(rows, schema).coalesce(1)
    table = Table("latest", str(tmp_path / "latest"), keys=("x",), repeats="last")
    for number, newest_by in enumerate([(), ("n",)]):
        delta_table.write(frame, replace(table, newest_by=newest_by), batch(number))
        assert [row[2] for row in stored(spark, table)] == ["c", "d", "b"]


@pytest.mark.slow
@pytest.mark.parametrize("keys", [(), ("id",)])
def test_a_new_column_is_added_and_a_missing_one_is_null(
    keys: tuple[str, ...], spark: SparkSession, tmp_path: Path
) -> None:
    table = Table("events", str(tmp_path / "events"), keys=keys)
    delta_table.write(events(spark, (1, 1, "a")), table, batch(0))
    delta_table.write(events(spark, (2, 2.5, "b"), schema="id int, price double, note string"), table, batch(1))
    assert spark.read.format("delta").load(table.path).columns == ["id", "at", "note", "price"]
    assert stored(spark, table) == [(1, 1, "a", None), (2, None, "b", 2.5)]


@pytest.mark.slow
def test_a_table_takes_nulls_where_the_first_batch_had_none(spark: SparkSession, appended: Table) -> None:
    filled = events(spark, (1,), schema="id int").select(
        F.lit(1).alias("n"), F.array(F.struct(F.lit("k").alias("key"))).alias("headers")
    )
    delta_table.write(filled, appended, batch(0))
    delta_table.write(
        events(spark, (None, None), schema="n int, headers array<struct<key string>>"), appended, batch(1)
    )
    assert len(stored(spark, appended)) == 2


@pytest.mark.slow
def test_the_partitioning_is_set_when_the_table_is_made(spark: SparkSession, tmp_path: Path) -> None:
    table = Table("events", str(tmp_path / "events"), partition_by=("note",))
    delta_table.write(events(spark, (1, 1, "a"), (2, 1, "b")), table, batch(0))
    delta_table.write(events(spark, (3, 1, "a")), table, batch(1))
    detail = DeltaTable.forPath(spark, table.path).detail().collect()[0]
    assert detail.partitionColumns == ["note"]
    assert sorted(path.name for path in Path(table.path).glob("note=*")) == ["note=a", "note=b"]
    assert len(stored(spark, table)) == 3


@pytest.mark.parametrize("keys", [(), ("id",)])
def test_the_commit_tells_sink_query_batch_source_offsets_and_code(
    keys: tuple[str, ...], spark: SparkSession, tmp_path: Path
) -> None:
    table = Table("events", str(tmp_path / "events"), keys=keys)
    offsets = {"from": [{"departures": {"0": 0}}], "until": [{"departures": {"0": 42}}]}
    delta_table.write(events(spark, (1, 1, "a")), table, Commit("ingest.departures", "4711", "silver", 0, offsets))
    delta_table.write(events(spark, (2, 1, "b")), table, Commit("ingest.departures", "4711", "silver", 1))
    first, second = (json.loads(commit["userMetadata"]) for commit in commits(spark, table))
    written = {"sink": "ingest.departures", "query_id": "4711", "statement": "silver", "code": code_version.version()}
    assert first == {**written, "batch": 0, "offsets": offsets}
    assert second == {**written, "batch": 1, "offsets": {}}


@pytest.mark.slow
def test_an_upsert_leaves_the_session_as_it_was(spark: SparkSession, upserted: Table, appended: Table) -> None:
    delta_table.write(events(spark, (1, 1, "a")), upserted, batch(0))
    assert spark.conf.get(delta_table.METADATA_CONF, "unset") == "unset"
    for _ in range(2):
        events(spark, (1, 1, "a")).write.format("delta").mode("append").save(appended.path)
    assert len(stored(spark, appended)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("keys", [("id",), pytest.param((), marks=pytest.mark.exhaustive)])
def test_batches_that_change_nothing_are_recorded_too(
    keys: tuple[str, ...], spark: SparkSession, tmp_path: Path
) -> None:
    table = Table("events", str(tmp_path / "events"), keys=keys, newest_by=("at",) if keys else ())
    rows: list[list[tuple[int, int, str]]] = [[], [(1, 5, "a")], [], [(1, 4, "older")] if keys else [], []]
    for number, some in enumerate(rows):
        assert delta_table.write(events(spark, *some), table, batch(number))
        assert delta_table.recorded_version(spark, table.path, batch(number).app_id(table)) == number
    assert stored(spark, table) == [(1, 5, "a")]


@pytest.mark.slow
def test_queries_that_begin_together_write_into_one_new_table(spark: SparkSession, appended: Table) -> None:
    def write(number: int) -> bool:
        session = spark.newSession()
        return delta_table.write(events(session, (number, 1, "x")), appended, batch(0, sink=f"sink {number}"))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(write, range(6)))
    assert [row[0] for row in stored(spark, appended)] == list(range(6))


@pytest.mark.parametrize("left", ["_delta_log/_staged_commits", "_delta_log/.00000000000000000000.json.a1.tmp"])
def test_a_table_whose_making_was_cut_short_before_its_first_commit_is_made(
    left: str, spark: SparkSession, tmp_path: Path
) -> None:
    table = Table("id", str(tmp_path / "cut"), partition_by=("at",))
    (tmp_path / "cut" / left).mkdir(parents=True)
    assert find_table(table.path) is None
    delta_table.write(events(spark, (1, 2, "x")), table, batch(0))
    assert stored(spark, table) == [(1, 2, "x")]
    assert DeltaLake(table.path).metadata().partition_columns == ["at"]


@pytest.mark.parametrize("left", ["part-0.snappy.parquet", "_delta_log/00000000000000000007.json"])
def test_a_table_of_which_something_is_left_is_not_begun_anew(left: str, spark: SparkSession, tmp_path: Path) -> None:
    table = Table("id", str(tmp_path / "damaged"))
    file = tmp_path / "damaged" / left
    file.parent.mkdir(parents=True)
    (tmp_path / "damaged" / "_delta_log").mkdir(exist_ok=True)
    file.write_bytes(b"{}")
    with pytest.raises(Exception, match=r"DELTA_|Delta"):
        delta_table.write(events(spark, (1, 2, "x")), table, batch(0))
    assert not (tmp_path / "damaged" / "_delta_log" / "00000000000000000000.json").exists()


@pytest.mark.slow
def test_the_first_rows_of_a_table_are_appended_and_later_ones_merged(spark: SparkSession, upserted: Table) -> None:
    for number in range(2):
        delta_table.write(events(spark, (1, number, "a"), (2, number, "b"), (2, number, "c")), upserted, batch(number))
    assert [commit["operation"] for commit in commits(spark, upserted)] == ["WRITE", "MERGE"]
    assert [row[:2] for row in stored(spark, upserted)] == [(1, 1), (2, 1)]


@pytest.mark.slow
def test_of_two_queries_that_write_the_first_rows_of_a_table_the_slower_one_merges(
    spark: SparkSession, upserted: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_new = DeltaSnapshot.is_new

    def overtaken(table: DeltaSnapshot) -> bool:
        monkeypatch.undo()
        delta_table.write(events(spark, (1, 5, "other"), (2, 1, "other")), upserted, batch(0, sink="another.sink"))
        return is_new(table)

    monkeypatch.setattr(DeltaSnapshot, "is_new", overtaken)
    delta_table.write(events(spark, (1, 1, "own"), (2, 5, "own"), (3, 1, "own")), upserted, batch(0))
    assert stored(spark, upserted) == [(1, 5, "other"), (2, 5, "own"), (3, 1, "own")]
    assert [commit["operation"] for commit in commits(spark, upserted)] == ["WRITE", "MERGE"]


@pytest.mark.slow
@pytest.mark.parametrize("newest_by", of_a_kind(["a killed driver", "delta-rs"], ["a killed driver"]))
def test_threads_write_on_where_the_newest_version_has_no_checksum(
    newest_by: str, spark: SparkSession, tmp_path: Path
) -> None:
    table = Table("events", str(tmp_path / "events"))
    delta_table.create_if_missing(events(spark), table)
    spark.sql(f"ALTER TABLE delta.`{table.path}` SET TBLPROPERTIES ('delta.checkpointInterval' = '2')")
    for number in range(3):
        delta_table.write(events(spark, (number, 1, "x")), table, batch(number))
    if newest_by == "delta-rs":
        write_deltalake(table.path, DeltaLake(table.path).to_pyarrow_table().slice(0, 1), mode="append")
    log = tmp_path / "events" / "_delta_log"
    newest = max(log.glob("*.json")).stem
    (log / f"{newest}.crc").unlink(missing_ok=newest_by == "delta-rs")
    (log / f".{newest}.crc.crc").unlink(missing_ok=True)
    assert list(log.glob("*.checkpoint.parquet"))
    # As after a new start: a driver that has read the table once knows what the checksum says.
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
    frame = events(spark, (3, 1, "x"))  # made here: PySpark sets the session of a thread that makes a frame of rows
    in_parallel(spark, lambda: delta_table.write(frame, table, batch(3)))
    assert max(row[0] for row in stored(spark, table)) == 3


def test_newest_keeps_columns_and_their_order(spark: SparkSession) -> None:
    rows = events(spark, (1, 5, "a"), (1, 6, "b"))
    assert delta_table.newest(rows, ["id"], ["at"]).columns == rows.columns
    assert delta_table.newest(rows, ["id"], ["at"]).select(F.col("note")).collect()[0].note == "b"
    assert delta_table.newest(rows, ["id"], []).count() == 2
