"""What follows from the last marker: the protocol's decisions, without a broker."""

import json
from dataclasses import replace

import pytest

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.ledger import BatchId, Done, Plan, is_done, offsets_hash, open_marker, parse, plan_due

SINK = "tidemark.flights.delay_alerts"
MINE = BatchId("query", 5, "hash")
BEFORE = replace(MINE, batch=4, offsets_hash="earlier")
TOPICS = {"alerts": "id-1"}


def planned(id: BatchId = MINE, **rest: object) -> Plan:
    return Plan(id, "key", 4, topics=TOPICS, **rest)  # type: ignore[arg-type]


def test_the_first_batch_of_a_new_ledger_and_the_next_one_are_planned() -> None:
    first = planned(replace(MINE, batch=0))
    assert plan_due(None, first, SINK) == first
    assert plan_due(planned(BEFORE), planned(), SINK) == planned()


def test_a_plan_that_is_there_is_taken_over_with_its_shards() -> None:
    there = planned()
    assert plan_due(there, replace(planned(), shards=2), SINK) is there


def test_topics_of_earlier_plans_are_remembered() -> None:
    last = Plan(BEFORE, "key", 4, topics={"old": "id-0"})
    assert plan_due(last, planned(), SINK).topics == {"old": "id-0", **TOPICS}


@pytest.mark.parametrize(
    ("last", "code", "said"),
    [
        (None, "LEDGER_GAP", "is empty, and batch 5 asks"),
        (planned(replace(BEFORE, batch=3)), "LEDGER_GAP", "ends with batch 3, and batch 5 asks"),
        (planned(replace(BEFORE, query_id="other")), "CHECKPOINT_REPLACED", "by query other up to batch 4"),
        (planned(replace(MINE, batch=6)), "CHECKPOINT_ROLLED_BACK", "holds batch 6 of this query, and batch 5"),
        (planned(replace(MINE, offsets_hash="another")), "BATCH_CHANGED", "with other source offsets"),
        (Plan(BEFORE, "key", 4, topics={"alerts": "id-2"}), "TOPIC_RECREATED", "topic alerts"),
        (Plan(MINE, "source", 3, "ranges", topics=TOPICS), "LAYOUT_CHANGED", "a shard for each source partition"),
        (Plan(MINE, "state", 2, topics=TOPICS), "LAYOUT_CHANGED", "a shard for each of 2 partitions of its state"),
    ],
)
def test_a_plan_that_does_not_follow_stops_by_name(last: Plan | None, code: str, said: str) -> None:
    with pytest.raises(TidemarkError) as stopped:
        plan_due(last, planned(), SINK)
    assert stopped.value.code == code
    assert said in stopped.value.message
    assert SINK in stopped.value.message


def test_a_batch_planned_by_key_is_finished_by_key_though_it_could_be_cut_by_source_now() -> None:
    there = planned()
    assert plan_due(there, Plan(MINE, "source", 3, "ranges", topics=TOPICS), SINK) is there


@pytest.mark.parametrize(
    "there", [Plan(MINE, "source", 3, "ranges", topics=TOPICS), Plan(MINE, "state", 2, topics=TOPICS)]
)
def test_a_batch_planned_by_the_same_partitions_is_taken_over(there: Plan) -> None:
    assert plan_due(there, replace(there, code="newer"), SINK) is there


def test_a_batch_planned_by_state_stops_where_the_state_has_been_repartitioned() -> None:
    with pytest.raises(TidemarkError, match="and the query now has others") as stopped:
        plan_due(Plan(MINE, "state", 2, topics=TOPICS), Plan(MINE, "state", 4, topics=TOPICS), SINK)
    assert stopped.value.code == "LAYOUT_CHANGED"


def test_a_shard_is_done_where_its_last_marker_is_of_the_same_batch() -> None:
    assert not is_done(None, MINE, SINK)
    assert not is_done(Done(BEFORE, 0), MINE, SINK)
    assert is_done(Done(MINE, 0), MINE, SINK)


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (replace(MINE, offsets_hash="another"), "BATCH_CHANGED"),
        (replace(MINE, batch=6), "CHECKPOINT_ROLLED_BACK"),
        (replace(BEFORE, query_id="other"), "CHECKPOINT_REPLACED"),
    ],
)
def test_a_shard_that_others_have_written_stops_by_name(last: BatchId, code: str) -> None:
    with pytest.raises(TidemarkError, match=code):
        is_done(Done(last, 0), MINE, SINK)


def test_markers_come_back_from_their_json() -> None:
    plan = planned(checkpoint={"offsets/5": "v1\n{}\n{}"}, stateful=True, code="0.1.0")
    done = Done(MINE, 3, n=7, checksum=2**64 - 1, topics=("a", "b"))
    assert parse(plan.to_json()) == plan
    assert parse(done.to_json()) == done


def test_what_marks_no_progress_is_none_and_what_newer_code_adds_is_passed_over() -> None:
    assert parse(open_marker("writer")) is None
    assert parse(None) is None
    newer = json.loads(Done(MINE, 3).to_json()) | {"added": 1}
    assert parse(json.dumps(newer).encode()) == Done(MINE, 3)


def test_the_hash_is_of_the_text_of_the_offset_log() -> None:
    assert offsets_hash("v1\n{}") != offsets_hash("v1\n{ }")
    assert offsets_hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
