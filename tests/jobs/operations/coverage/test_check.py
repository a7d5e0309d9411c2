"""Whatever is missing, doubled or out of reach is named to the offset; what only looks so is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from tests.jobs.operations.coverage.holdings import Holdings, send, send_in_transaction

Topic = Callable[[int], str]


@pytest.fixture(autouse=True)
def apart(covered: Holdings, tmp_path: Path) -> None:
    """Other tests publish on the same broker."""
    covered.application = tmp_path.name


@pytest.fixture
def topic(covered: Holdings, new_topic: Topic) -> str:
    """With ten records in partition 0 and six in partition 1."""
    name = new_topic(2)
    send(covered.servers, name, 10)
    send(covered.servers, name, 6, partition=1)
    return name


def remove_records(covered: Holdings, topic: str, before: int) -> None:
    admin = AdminClient({"bootstrap.servers": covered.servers, "log_level": 0})
    admin.delete_records([TopicPartition(topic, 0, before)])[TopicPartition(topic, 0)].result(30)


def with_silver(covered: Holdings, topic: str, rejected: list[tuple[int, int]], written: list[tuple[int, int]]) -> None:
    """Bronze with all, silver without `rejected`, quarantine with `written`."""
    ends = {0: 10, 1: 6}
    covered.batches(topic, ends)
    covered.batches(topic, ends, table=f"silver/{topic}", statement="silver", without=rejected)
    said = {"sink": f"ingest.{topic}", "query_id": "q1", "statement": "quarantine", "batch": 0, "every_batch": False}
    covered.write("quarantine", written, said | {"offsets": {}}, {"topic": topic})
    covered.write("quarantine", [(0, 1)], {}, {"topic": "another"})


def test_a_table_with_each_record_once_is_well(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 4, 1: 0}, {0: 9, 1: 6}, {0: 10, 1: 6})
    assert covered.check() == (0, [])
    code, lines = covered.command("check")
    assert (code, lines[-1]) == (0, "1 table, 0 output topics, 16 offsets, 16 rows compared: all well")


def test_rows_that_were_deleted_are_named(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 10, 1: 6})
    covered.delta(f"bronze/{topic}").delete('partition = 0 AND "offset" IN (2, 3, 4, 9)')
    code, lines = covered.check()
    remedy = f"version 1 of bronze/{topic} deleted rows: where that was not meant, RESTORE it to the version before"
    assert code == 1
    assert lines == [
        f"MISSING: {topic} partition 0: offsets 2 to 4 missing in bronze/{topic}; {remedy}",
        f"MISSING: {topic} partition 0: offset 9 missing in bronze/{topic}; {remedy}",
    ]


def test_a_data_file_that_is_lost_or_cut_short_is_named_and_the_others_are_checked(
    covered: Holdings, topic: str
) -> None:
    for table, statement in ((f"bronze/{topic}", "bronze"), ("apart", "write"), ("well", "write")):
        covered.batches(topic, {0: 4, 1: 0}, {0: 10, 1: 6}, table=table, statement=statement)
    lost, cut = (next(Path(covered.path(table)).glob("*.parquet")) for table in (f"bronze/{topic}", "apart"))
    size = cut.stat().st_size
    cut.write_bytes(cut.read_bytes()[:100])
    lost.unlink()
    code, lines = covered.check()
    again = "restore it from a copy, or delete the table and its checkpoint, both, to read the topics again"
    assert code == 1
    assert sorted(lines) == [
        f"DATA_FILE_DAMAGED: apart: its data file {cut} has 100 bytes, its log says {size:,}; {again}",
        f"DATA_FILE_LOST: bronze/{topic}: its data file {lost} is not there; {again}",
    ]
    assert covered.check("well") == (0, [])
    shutil.rmtree(covered.path("apart"))
    shutil.rmtree(covered.path(f"bronze/{topic}"))
    covered.batches(topic, {0: 10, 1: 6}, query="q2")
    assert covered.check() == (0, [])


@pytest.mark.parametrize("kept", [0.0, 0.5, None], ids=["empty", "cut short", "missing in the middle"])
def test_a_damaged_log_stops_the_check_by_name(kept: float | None, covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 4, 1: 0}, {0: 8, 1: 2}, {0: 10, 1: 6})
    log = Path(covered.path(f"bronze/{topic}")) / "_delta_log" / f"{2 if kept is not None else 1:020}.json"
    if kept is None:
        log.unlink()
    else:
        log.write_bytes(log.read_bytes()[: int(log.stat().st_size * kept)])
    with pytest.raises(TidemarkError, match=f"TABLE_LOG_DAMAGED: the log of table .*bronze/{topic} cannot be read"):
        covered.command("check")


MOVE_AWAY = "move the table away: it is begun anew, and its queries go on"
REMEDIES = {
    "quarantine": MOVE_AWAY,
    "late": MOVE_AWAY,
    "rule_counts": MOVE_AWAY,
    "redrives": "move the table away: `local/tidemark quarantine audit` makes it anew",
    "outbox/job.output": "publish into a topic and from a job of another name",
    "range-1/quarantine": "remove the folder range-1 of its range, and run that range again",
    "own": "delete the table and its checkpoint, both, to read the topics again",
}


def damaged(covered: Holdings, topic: str, table: str) -> Path:
    """The folder of a table of three commits, beside silver and quarantine."""
    with_silver(covered, topic, rejected=[(0, 2)], written=[(0, 2)])
    for batch in range(0 if table == "quarantine" else 3):
        offsets = {"from": [{topic: {"0": batch}}], "until": [{topic: {"0": batch + 1}}], "since": [{topic: {"0": 0}}]}
        said = {"sink": "a.b", "query_id": "q2", "statement": "write", "batch": batch, "offsets": offsets}
        covered.write(table, [(0, 2)], said | {"every_batch": False}, {"topic": topic})
    return Path(covered.path(table))


@pytest.mark.parametrize("table", REMEDIES)
def test_a_lost_data_file_has_the_remedy_of_its_table(table: str, covered: Holdings, topic: str) -> None:
    # Quarantine has a file of rows that nothing is compared with, too.
    lost = next(
        file
        for file in damaged(covered, topic, table).glob("*.parquet")
        if topic in pq.read_table(file)["topic"].to_pylist()
    )
    lost.unlink()
    assert covered.command("show")[0] == 0
    said = f"DATA_FILE_LOST: {table}: its data file {lost} is not there; restore it from a copy, or {REMEDIES[table]}"
    assert covered.check() == (1, [said])


@pytest.mark.parametrize("command", ["show", "check"])
@pytest.mark.parametrize("how", ["cut short", "all gone"])
@pytest.mark.parametrize("table", REMEDIES)
def test_a_damaged_log_has_the_remedy_of_its_table(
    table: str, how: str, command: str, covered: Holdings, topic: str
) -> None:
    logs = sorted((damaged(covered, topic, table) / "_delta_log").glob("*.json"))
    if how == "cut short":
        logs[-1].write_bytes(logs[-1].read_bytes()[:30])
    for log in logs if how == "all gone" else ():
        log.unlink()
    with pytest.raises(TidemarkError) as stopped:
        covered.command(command)
    assert stopped.value.code == "TABLE_LOG_DAMAGED"
    assert stopped.value.remedy == f"restore {logs[0].parent} from a copy, or {REMEDIES[table]}"


@pytest.mark.parametrize("table", REMEDIES)
def test_a_log_without_its_beginning_has_the_remedy_of_its_table(table: str, covered: Holdings, topic: str) -> None:
    log = min((damaged(covered, topic, table) / "_delta_log").glob("*.json"))
    log.unlink()
    with pytest.raises(TidemarkError, match=rf"TABLE_LOG_DAMAGED: .*{log.name} is not there") as stopped:
        covered.command("check")
    assert stopped.value.remedy == f"restore {log.parent} from a copy, or {REMEDIES[table]}"


def test_where_quarantine_is_not_there_its_rows_are_missing_and_it_is_to_be_restored(
    covered: Holdings, topic: str
) -> None:
    shutil.rmtree(damaged(covered, topic, "quarantine"))
    code, (line,) = covered.check()
    assert (code, line.split(";")[0]) == (
        1,
        f"MISSING: {topic} partition 0: offset 2 missing in silver/{topic} and quarantine",
    )
    assert "there is no table quarantine: restore it from a copy, where there was one" in line


def test_a_row_that_was_doubled_and_one_that_no_commit_claims_are_named(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 10, 1: 6})
    covered.insert(f"bronze/{topic}", (1, 3), (1, 3), (0, 10))
    code, lines = covered.check()
    assert code == 1
    assert [line.split(";")[0] for line in lines] == [
        f"UNCLAIMED: {topic} partition 0: offset 10 in bronze/{topic} by no commit",
        f"DOUBLED: {topic} partition 1: offset 3 doubled in bronze/{topic}",
    ]


def test_ends_of_transactions_and_aborted_records_are_no_holes(covered: Holdings, new_topic: Topic) -> None:
    topic = new_topic(1)
    send(covered.servers, topic, 2)
    send_in_transaction(covered.servers, topic, 3)  # offsets 2 to 4, and the marker 5
    send_in_transaction(covered.servers, topic, 4, commit=False)  # 6 to 9, and 10
    send_in_transaction(covered.servers, topic, 2)  # 11 and 12, and 13
    no_records = [(0, 5), *((0, offset) for offset in range(6, 11)), (0, 13)]
    covered.batches(topic, {0: 14}, without=no_records)
    assert covered.check() == (0, [])
    covered.delta(f"bronze/{topic}").delete('"offset" IN (4, 11)')
    code, lines = covered.check()
    assert code == 1
    assert [line.split(";")[0] for line in lines] == [
        f"MISSING: {topic} partition 0: offset 4 missing in bronze/{topic}",
        f"MISSING: {topic} partition 0: offset 11 missing in bronze/{topic}",
    ]


def test_holes_far_from_each_other_are_looked_up_one_by_one(
    covered: Holdings, new_topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.connectors.kafka.consumer.NEAR", 2)
    topic = new_topic(1)
    for _ in range(6):
        send_in_transaction(covered.servers, topic, 4)
    covered.batches(topic, {0: 30}, without=[(0, offset) for offset in (4, 9, 14, 17, 19, 24, 28, 29)])
    _, lines = covered.check()
    assert [line.split(";")[0].split(": ")[-1] for line in lines] == [
        f"offset 17 missing in bronze/{topic}",
        f"offset 28 missing in bronze/{topic}",
    ]


def test_a_gap_and_an_overlap_between_batches_are_named(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 4, 1: 2})
    covered.batches(topic, {0: 10, 1: 6}, first=1, start={0: 6, 1: 1})
    code, lines = covered.check()
    assert code == 1
    found = {line.split(";")[0] for line in lines}
    sink = f"ingest.{topic}"
    assert (
        f"GAP: {topic} partition 0: offsets 4 to 5 are not in bronze/{topic}: between batch 0 and batch 1"
        f" of {sink}" in found
    )
    assert f"OVERLAP: {topic} partition 1: offset 1 is in bronze/{topic} by batch 0 and by batch 1 of {sink}" in found
    assert f"DOUBLED: {topic} partition 1: offset 1 doubled in bronze/{topic}" in found


def test_what_a_restore_took_back_is_named(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 4, 1: 2}, {0: 10, 1: 6})
    covered.delta(f"bronze/{topic}").restore(0)
    code, lines = covered.check()
    assert code == 1
    assert lines[0] == (
        f"TAKEN_BACK: {topic} partition 0: offsets 4 to 9 taken back: version 1 of bronze/{topic} held them, version 2 "
        "restored an older one; restore it to its version 1, or delete the table and its checkpoint, both, to read the "
        "topics again"
    )
    assert f"note: bronze/{topic} is 10 offsets behind the topic {topic}; run its job until it has caught up" in lines


def test_being_behind_is_told_and_a_problem_only_where_asked(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 4, 1: 6})
    text = f"bronze/{topic} is 6 offsets behind the topic {topic}; run its job until it has caught up"
    assert covered.check() == (0, [f"note: {text}"])
    assert covered.check("--complete") == (1, [f"BEHIND: {text}"])


def test_a_table_that_begins_late_lacks_the_records_before(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 10, 1: 6}, start={0: 3, 1: 0})
    code, lines = covered.check()
    assert code == 1
    assert lines[0].startswith(f"NOT_FROM_START: {topic} partition 0: offsets 0 to 2 are in the topic and not in")


def test_what_retention_removed_after_it_was_read_is_only_told(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 10, 1: 6})
    remove_records(covered, topic, before=7)
    told = f"note: bronze/{topic}: 7 of its offsets are no longer in the topic {topic}"
    assert covered.check() == (0, [told])
    covered.delta(f"bronze/{topic}").delete('partition = 0 AND "offset" IN (2, 8)')
    code, lines = covered.check()
    assert code == 1
    assert [line.split(";")[0] for line in lines] == [
        f"CANNOT_TELL: {topic} partition 0: 1 offset has no row in bronze/{topic}, and the topic no longer has it",
        f"MISSING: {topic} partition 0: offset 8 missing in bronze/{topic}",
        told,
    ]


def test_where_nothing_was_deleted_what_retention_removed_is_no_matter(covered: Holdings, new_topic: Topic) -> None:
    topic = new_topic(1)
    for _ in range(2):
        send_in_transaction(covered.servers, topic, 4)
    covered.batches(topic, {0: 10}, without=[(0, 4), (0, 9)])
    remove_records(covered, topic, before=7)
    code, lines = covered.check()
    assert code == 0
    assert lines[1].startswith(f"note: {topic} partition 0: 1 offset has no row in bronze/{topic}, and the topic no")


def test_what_retention_removed_before_it_was_read_is_lost(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 4, 1: 6})
    remove_records(covered, topic, before=7)
    code, lines = covered.check()
    assert code == 1
    assert lines[0].startswith(f"DATA_LOST: {topic} partition 0: offsets 4 to 6 gone from the topic before")


def test_offsets_beyond_the_topics_end_and_a_topic_that_is_gone_are_named(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 12, 1: 6})
    covered.batches("gone", {0: 2})
    code, lines = covered.check()
    assert code == 1
    assert any(line.startswith(f"BEYOND_TOPIC: {topic} partition 0: offsets 10 to 11 are in") for line in lines)
    assert any(line.startswith("TOPIC_MISSING: bronze/gone: its topic gone is not on the cluster") for line in lines)


def test_a_topic_that_was_created_again_is_named(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 10, 1: 6})
    checkpoint = covered.folder / "checkpoints" / "ingest" / topic
    (checkpoint / "tidemark").mkdir(parents=True)
    (checkpoint / "metadata").write_text('{"id": "q1"}')
    (checkpoint / "tidemark" / "source-topics.json").write_text(json.dumps({topic: "another"}))
    code, lines = covered.check()
    assert code == 1
    assert lines[0].startswith(f"TOPIC_RECREATED: bronze/{topic}: topic {topic} was deleted and created again since")
    way_on = "restore the topic; or delete the table and its checkpoint, both, to read the topics again"
    assert lines[0].endswith(f"; its offsets mean other records now: {way_on}")


def test_silver_and_quarantine_together_hold_each_record_once(covered: Holdings, topic: str) -> None:
    with_silver(covered, topic, rejected=[(0, 2), (1, 5)], written=[(0, 2), (1, 5)])
    assert covered.check() == (0, [])


@pytest.mark.parametrize("features", [set(), {"typeWidening"}])
def test_what_is_in_neither_or_in_both_is_named(
    features: set[str], covered: Holdings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.operations.coverage.row_checks._features", lambda table: features)
    with_silver(covered, topic, rejected=[(0, 2), (0, 3), (1, 5)], written=[(0, 2), (1, 4)])
    code, lines = covered.check()
    assert code == 1
    both = f"silver/{topic} and quarantine"
    assert [line.split(";")[0] for line in lines] == [
        f"MISSING: {topic} partition 0: offset 3 missing in {both}",
        f"DOUBLED: {topic} partition 1: offset 4 doubled in {both}",
        f"MISSING: {topic} partition 1: offset 5 missing in {both}",
    ]


def test_events_of_several_types_are_counted_together(covered: Holdings, topic: str) -> None:
    evens, odds = ([(p, o) for p in (0, 1) for o in range(10) if o % 2 == n] for n in (0, 1))
    ends = {0: 10, 1: 6}
    covered.batches(topic, ends, table=f"silver/{topic}/even", statement="silver", without=odds)
    covered.batches(topic, ends, table=f"silver/{topic}/odd", statement="silver", without=[*evens, (1, 3)])
    code, lines = covered.check()
    both = f"silver/{topic}/even and silver/{topic}/odd and quarantine"
    assert (code, lines[0].split(";")[0]) == (1, f"MISSING: {topic} partition 1: offset 3 missing in {both}")
    assert len(lines) == 1
    assert covered.check(f"silver/{topic}/even") == (code, lines)


def test_of_a_table_with_the_newest_row_of_each_key_holes_are_none(covered: Holdings, topic: str) -> None:
    older = [(0, offset) for offset in range(8)]
    ends = {0: 10, 1: 6}
    covered.batches(
        topic, ends, table=f"silver/{topic}", statement="silver", without=older, columns={"_deleted": False}
    )
    assert covered.check() == (0, [])
    covered.insert(f"silver/{topic}", (0, 9))
    assert covered.check()[1][0].startswith(f"DOUBLED: {topic} partition 0: offset 9")


def test_of_many_lines_of_a_kind_the_first_are_shown(covered: Holdings, new_topic: Topic) -> None:
    topic = new_topic(1)
    send(covered.servers, topic, 100)
    covered.batches(topic, {0: 100}, without=[(0, offset) for offset in range(0, 100, 2)])
    _, lines = covered.check()
    assert len(lines) == 21
    assert lines[-1] == f"MISSING: bronze/{topic}: {topic} partition 0: 30 more like these; --json shows them all"
    _, objects = covered.command("check", "--json")
    found = [json.loads(line) for line in objects]
    assert len(found) == 51
    assert (found[0]["code"], found[0]["partition"], found[0]["from"], found[0]["to"]) == ("MISSING", 0, 0, 1)
    assert found[-1] == {
        "code": "SUMMARY", "tables": 1, "output_topics": 0, "offsets": 100, "rows": 50, "problems": 50
    }  # fmt: skip


def test_only_what_is_named_is_checked_and_an_unknown_name_is_refused(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 10, 1: 6})
    covered.batches("gone", {0: 2})
    for name in (topic, f"bronze/{topic}", f"ingest.{topic}"):
        assert covered.check(name) == (0, [])
    with pytest.raises(TidemarkError, match=r"NOTHING_COVERED: .*`bronze/gon`.*did you mean `bronze/gone`"):
        covered.check("bronze/gon")


def test_show_needs_no_broker(holdings: Holdings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path / "no-broker"))
    assert holdings.command("show") == (0, ["no table and no output topic says what it holds"])
    holdings.batches("t", {0: 3, 1: 2}, {0: 5, 1: 4})
    code, lines = holdings.command("show")
    assert code == 0
    assert [line.split()[:8] for line in lines[1:]] == [
        ["bronze/t", "ingest.t/bronze", "q1", "t", "0", "0", "5", "2"],
        ["bronze/t", "ingest.t/bronze", "q1", "t", "1", "0", "4", "2"],
    ]
    _, objects = holdings.command("show", "--json")
    first = json.loads(objects[0])
    assert (first["kind"], first["table"], first["from"], first["to"]) == ("table", "bronze/t", 0, 5)


def test_wrong_usage_has_exit_code_2(covered: Holdings) -> None:
    with pytest.raises(SystemExit, match="2"):
        covered.command("chek")


def test_rows_that_were_deleted_on_purpose_may_be_read_again_by_a_new_query(covered: Holdings, topic: str) -> None:
    ends = {0: 10, 1: 6}
    covered.batches(topic, ends)
    covered.delta(f"bronze/{topic}").delete()
    covered.batches(topic, ends, query="q2")
    assert covered.check() == (0, [])


def test_a_new_query_that_reads_what_an_older_one_has_read_is_named(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 4, 1: 2})
    covered.batches(topic, {0: 10, 1: 6}, query="q2", start={0: 3, 1: 2})
    code, lines = covered.check()
    assert code == 1
    assert [line.split(";")[0] for line in lines] == [
        f"OVERLAP: {topic} partition 0: offset 3 is in bronze/{topic} by query q1 and by query q2 of ingest.{topic}",
        f"DOUBLED: {topic} partition 0: offset 3 doubled in bronze/{topic}",
    ]


def test_commits_of_older_code_in_a_cleaned_log_accuse_nobody(covered: Holdings, topic: str) -> None:
    covered.batches(topic, {0: 4, 1: 2}, {0: 10, 1: 6}, since=False)
    covered.delta(f"bronze/{topic}").create_checkpoint()
    (Path(covered.path(f"bronze/{topic}")) / "_delta_log" / f"{0:020}.json").unlink()
    code, lines = covered.check()
    assert code == 0
    assert [line.split(";")[0] for line in lines] == [
        f"note: bronze/{topic}: the links between batches are verified from version 1 on"
    ]
