"""Where Delta would skip or double rows in silence, a write stops; where a skip is right, nothing is said."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from delta.exceptions import ConcurrentTransactionException
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from jobs.connectors.delta import table as delta_table
from jobs.connectors.delta.log import snapshot
from jobs.connectors.delta.table import RANGE, Attempt, Commit, Table
from tests.jobs.connectors.delta.delta_tables import batch, events, stored
from tests.kinds import of_a_kind

pytestmark = pytest.mark.slow

Write = Callable[[Table, Commit], bool]


@pytest.fixture
def write(spark: SparkSession) -> Write:
    """Writes one row, whose id is the batch's number."""
    return lambda table, commit: delta_table.write(events(spark, (commit.version, 1, "x")), table, commit)


@pytest.fixture
def ids(spark: SparkSession) -> Callable[[Table], list[int]]:
    return lambda table: [row[0] for row in stored(spark, table)]


Ids = Callable[[Table], list[int]]


def stop(write: Write, table: Table, commit: Commit) -> tuple[str, str]:
    """Code and text of the refusal."""
    with pytest.raises(TidemarkError) as stopped:
        write(table, commit)
    assert "\n" not in str(stopped.value)
    assert table.path in stopped.value.message
    return stopped.value.code, str(stopped.value)


def covering(start: int, end: int) -> dict[str, Any]:
    return {"from": [{"topic": {"0": start}}], "until": [{"topic": {"0": end}}]}


def test_an_app_id_names_sink_query_table_and_statement(appended: Table) -> None:
    app_id = batch(0, "4711", "silver", "ingest.departures").app_id(appended)
    assert app_id == "ingest.departures/events/silver/4711"


def test_a_batch_older_than_the_last_one_stops_instead_of_vanishing(write: Write, ids: Ids, appended: Table) -> None:
    for number in (0, 1):
        write(appended, batch(number))
    code, text = stop(write, appended, batch(0))
    assert code == "CHECKPOINT_ROLLED_BACK"
    assert "holds batch 1 of this query, and batch 0 asks to be written" in text
    assert ids(appended) == [0, 1]


@pytest.mark.parametrize("asked", of_a_kind([0, 5], [0]))
def test_a_new_checkpoint_of_a_sink_stops_at_the_rows_of_the_old_one(
    asked: int, write: Write, ids: Ids, upserted: Table
) -> None:
    for number in (0, 1):
        write(upserted, batch(number, "deleted"))
    code, text = stop(write, upserted, batch(asked, "new"))
    assert code == "CHECKPOINT_REPLACED"
    assert "holds sink up to batch 1 of the checkpoint with query id deleted" in text
    assert ids(upserted) == [0, 1]
    assert write(upserted, batch(2, "deleted"))  # the first remedy: the checkpoint is restored
    shutil.rmtree(upserted.path)  # the second: the table is deleted with it
    assert write(upserted, batch(0, "new"))
    assert ids(upserted) == [0]


def test_a_statement_that_leaves_batches_out_stops_at_another_checkpoints_rows_too(
    write: Write, appended: Table
) -> None:
    write(appended, batch(3, "deleted", contiguous=False))
    assert stop(write, appended, batch(2, "new", contiguous=False))[0] == "CHECKPOINT_REPLACED"


def test_another_sink_or_statement_of_another_query_is_no_other_checkpoint(write: Write, appended: Table) -> None:
    write(appended, batch(0, "first"))
    assert write(appended, batch(0, "second", statement="other"))
    assert write(appended, batch(0, "third", sink="another"))
    assert write(appended, batch(0, "fourth", sink="sin"))


def test_two_ranges_may_lie_in_one_table_each_once(write: Write, ids: Ids, appended: Table) -> None:
    first, second = (f"{RANGE}{name}" for name in ("first", "second"))
    assert write(appended, batch(0, first))
    assert write(appended, batch(0, second))
    assert not write(appended, batch(0, first))
    assert ids(appended) == [0, 0]


@pytest.mark.parametrize(("there", "comes"), [("live", f"{RANGE}1"), (f"{RANGE}1", "live")])
def test_a_range_and_a_live_query_do_not_share_a_table(there: str, comes: str, write: Write, appended: Table) -> None:
    write(appended, batch(0, there))
    assert stop(write, appended, batch(0, comes))[0] == "CHECKPOINT_REPLACED"


@pytest.mark.parametrize("offsets", of_a_kind([covering(0, 6), covering(1, 5)], [covering(0, 6)]))
def test_a_recorded_batch_that_covers_other_offsets_now_stops_instead_of_vanishing(
    offsets: dict[str, Any], write: Write, ids: Ids, upserted: Table
) -> None:
    write(upserted, batch(0, offsets=covering(0, 5)))
    code, text = stop(write, upserted, batch(0, offsets=offsets))
    assert code == "BATCH_CHANGED"
    edge = "from" if offsets["from"] != covering(0, 5)["from"] else "until"
    then, now = covering(0, 5)[edge][0]["topic"]["0"], offsets[edge][0]["topic"]["0"]
    expected = f'{edge} [{{"topic": {{"0": {then}}}}}], and now asks for {edge} [{{"topic": {{"0": {now}}}}}]'
    assert expected in text
    assert ids(upserted) == [0]


def test_offsets_are_equal_whatever_their_order_and_however_partitions_are_written(
    write: Write, appended: Table
) -> None:
    write(appended, batch(0, offsets={"from": [], "until": [{"a": {0: 1, 1: 2}, "b": {}}]}))
    assert not write(appended, batch(0, offsets={"from": [], "until": [{"b": {}, "a": {"1": 2, "0": 1}}]}))


@pytest.mark.parametrize("offsets", [{}, {"from": None, "until": covering(0, 5)["until"]}])
def test_offsets_that_nobody_knows_any_more_are_not_compared(
    offsets: dict[str, Any], write: Write, appended: Table
) -> None:
    write(appended, batch(0, offsets=covering(0, 5)))
    assert not write(appended, batch(0, offsets=offsets))


def test_many_differing_partitions_are_cut_short(write: Write, appended: Table) -> None:
    wide = [{"topic": {str(partition): 1 for partition in range(1000)}}]
    write(appended, batch(0, offsets={"until": [{}]}))
    code, text = stop(write, appended, batch(0, offsets={"until": wide}))
    assert (code, len(text) < 1000) == ("BATCH_CHANGED", True)


def forget(spark: SparkSession, table: Table) -> None:
    """Do to the log what Delta does once its retention is over: delete the commits before the newest checkpoint's."""
    deltas: Any = spark._jvm.org.apache.spark.sql.delta  # type: ignore[union-attr]
    deltas.DeltaLog.forTable(spark._jsparkSession, table.path).checkpoint()
    for file in sorted(Path(table.path, "_delta_log").glob("*.json"))[:-1]:
        file.unlink()


def test_a_batch_whose_commit_has_left_the_log_is_skipped_and_the_next_one_written(
    write: Write, ids: Ids, spark: SparkSession, appended: Table
) -> None:
    write(appended, batch(0, offsets=covering(0, 5)))
    write(appended, batch(0, sink="another"))
    forget(spark, appended)
    assert not write(appended, batch(0, offsets=covering(0, 6)))
    assert write(appended, batch(1))
    assert ids(appended) == [0, 0, 1]


@pytest.mark.parametrize("lost", [[-1], [-2, -1]], ids=["the newest", "all"])
def test_where_a_checksum_is_missing_the_log_itself_says_what_is_recorded(
    lost: list[int], write: Write, ids: Ids, spark: SparkSession, appended: Table
) -> None:
    for number in (0, 1):
        write(appended, batch(number))
    checksums = sorted(Path(appended.path, "_delta_log").glob("0*.crc"))
    assert "setTransactions" in checksums[-1].read_text()
    for place in lost:
        checksums[place].unlink()
    deltas: Any = spark._jvm.org.apache.spark.sql.delta  # type: ignore[union-attr]
    deltas.DeltaLog.clearCache()
    assert not write(appended, batch(1))
    assert write(appended, batch(2))
    assert ids(appended) == [0, 1, 2]


def test_of_two_writers_that_append_one_batch_at_the_same_moment_one_fails(
    write: Write, ids: Ids, spark: SparkSession, appended: Table
) -> None:
    write(appended, batch(0))
    id, text = batch(1).app_id(appended), batch(1).metadata()
    first, second = snapshot(spark, appended.path), snapshot(spark, appended.path)
    first.append(events(spark, (1, 1, "x")), id, 1, text)
    with pytest.raises(ConcurrentTransactionException):
        second.append(events(spark, (1, 1, "x")), id, 1, text)
    snapshot(spark, appended.path).append(events(spark, (1, 1, "x")), id, 1, text)  # what is recorded is left out
    assert ids(appended) == [0, 1]


def test_a_second_write_of_one_statement_in_one_batch_stops_instead_of_vanishing(
    write: Write, ids: Ids, appended: Table, upserted: Table
) -> None:
    attempt = Attempt()
    assert write(appended, batch(0, attempt=attempt))
    code, text = stop(write, appended, batch(0, attempt=attempt))
    assert code == "STATEMENT_REPEATED"
    assert "batch 0 of sink writes table" in text
    assert "twice by statement `write`" in text
    assert write(appended, batch(0, statement="second", attempt=attempt))
    assert write(upserted, batch(0, attempt=attempt))
    assert not write(appended, batch(0, attempt=Attempt()))  # the batch is run again
    assert ids(appended) == [0, 0]


def test_of_writes_side_by_side_one_is_the_first() -> None:
    attempt = Attempt()
    with ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(lambda number: attempt.begin(str(number % 3)), range(300)))
    assert begun.count(True) == 3


def test_a_table_that_was_deleted_while_its_checkpoint_stayed_stops_and_is_not_made_anew(
    write: Write, ids: Ids, appended: Table, tmp_path: Path
) -> None:
    write(appended, batch(0))
    backup = tmp_path / "backup"
    shutil.move(appended.path, backup)
    code, text = stop(write, appended, batch(1))
    assert code == "TABLE_BEHIND"
    assert "lacks batch 0 of sink: it holds none of this query" in text
    assert not Path(appended.path).exists()
    shutil.move(backup, appended.path)
    assert write(appended, batch(1))
    assert ids(appended) == [0, 1]


def test_a_table_put_back_from_an_older_copy_stops(write: Write, ids: Ids, upserted: Table, tmp_path: Path) -> None:
    write(upserted, batch(0))
    shutil.copytree(upserted.path, tmp_path / "backup")
    for number in (1, 2):
        write(upserted, batch(number))
    shutil.rmtree(upserted.path)
    shutil.copytree(tmp_path / "backup", upserted.path)
    code, text = stop(write, upserted, batch(3))
    assert code == "TABLE_BEHIND"
    assert "lacks batch 2 of sink: the last that it holds is 0" in text
    assert ids(upserted) == [0]


def restore(spark: SparkSession, table: Table, to: str) -> None:
    spark.sql(f"RESTORE TABLE delta.`{table.path}` TO {to}")


@pytest.mark.parametrize("asked", of_a_kind([1, 2], [1]))
def test_a_table_that_was_restored_to_before_the_last_batch_stops_until_that_is_undone(
    asked: int, write: Write, ids: Ids, spark: SparkSession, appended: Table
) -> None:
    for number in (0, 1):
        write(appended, batch(number))
    restore(spark, appended, "VERSION AS OF 1")
    assert ids(appended) == [0]
    code, text = stop(write, appended, batch(asked))
    assert code == "TABLE_BEHIND"
    assert "lacks batch 1 of sink: its version 2 held it, and its version 3 restored an older one" in text
    assert "restore it to its version 2, or delete it and the checkpoint, both" in text
    restore(spark, appended, "VERSION AS OF 2")
    assert write(appended, batch(asked)) == (asked == 2)
    assert ids(appended) == list(range(asked + 1))


def test_a_restore_that_leaves_out_nothing_of_ours_is_none_of_our_business(
    write: Write, ids: Ids, spark: SparkSession, appended: Table
) -> None:
    write(appended, batch(0))
    events(spark, (99, 1, "by hand")).write.format("delta").mode("append").save(appended.path)
    restore(spark, appended, "VERSION AS OF 1")
    assert write(appended, batch(1))
    assert ids(appended) == [0, 1]


@pytest.mark.exhaustive
def test_a_restore_to_a_moment_stops(write: Write, spark: SparkSession, appended: Table) -> None:
    write(appended, batch(0))
    at = spark.sql(f"DESCRIBE HISTORY delta.`{appended.path}`").where("version = 0").collect()[0].timestamp
    restore(spark, appended, f"TIMESTAMP AS OF '{at}'")
    assert stop(write, appended, batch(1))[0] == "TABLE_BEHIND"


def test_commits_of_others_in_between_are_passed_over(
    write: Write, ids: Ids, spark: SparkSession, appended: Table
) -> None:
    write(appended, batch(0))
    for number in (0, 1):
        write(appended, batch(number, sink="another"))
    for said in ("no JSON", "[1]", '"text"'):
        rows = events(spark, (99, 1, "by hand")).write.format("delta").mode("append")
        rows.option("userMetadata", said).save(appended.path)
    assert write(appended, batch(1))
    assert ids(appended) == [0, 0, 1, 1, 99, 99, 99]


def test_a_batch_that_is_left_out_stops_the_next_but_for_a_statement_that_leaves_some_out(
    write: Write, ids: Ids, appended: Table
) -> None:
    for number in (1, 4):
        assert write(appended, batch(number, statement="sometimes", contiguous=False))
    write(appended, batch(0))
    assert stop(write, appended, batch(2))[0] == "TABLE_BEHIND"
    assert ids(appended) == [0, 1, 4]
