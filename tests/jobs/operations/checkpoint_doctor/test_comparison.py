"""What changes mean, without a Spark to ask: the cases that whole runs need minutes for."""

from dataclasses import replace

import pytest
from pyspark.sql.types import LongType, StringType, StructField, StructType

from jobs.operations.checkpoint_doctor.comparison import NewQuery, OldQuery, changes
from jobs.pipeline.query_description import QueryDescription, Step
from jobs.pipeline.state_store import STATE_STORES, Family, Operator

KEY = StructType([StructField("id", StringType())])
VALUE = StructType([StructField("count", LongType())])
COUNT = Operator(0, "stateStoreSave", ("default",), 2, (Family("default", "default", KEY, VALUE),))
WINDOW = Step("window", "Project", "precisetimestampconversion(at % 600000000)")
LATE = Step("watermark", "EventTimeWatermark", "at: 10 minutes")
GROUP = Step("state", "Aggregate", "window; id; count(1)")
FILTER = Step("other", "Filter", "0123456789ab")
RECORD = QueryDescription(
    "update", "0.1.0+x", table="t", keys=("id",), sources=(("a",),), steps=(GROUP, WINDOW, FILTER, LATE)
)
BEFORE = OldQuery(
    (("a",),), {"partitions": "2", "provider": STATE_STORES["rocksdb"]}, [COUNT], RECORD, StructType(KEY.fields)
)
NOW = NewQuery(RECORD, [COUNT], "", 2, STATE_STORES["rocksdb"], StructType(KEY.fields))


def answers(before: OldQuery, now: NewQuery) -> list[tuple[str, str]]:
    return [(change.answer, change.reason) for change in changes(before, now)]


def recorded(**changed: object) -> NewQuery:
    return replace(NOW, record=replace(RECORD, **changed))  # type: ignore[arg-type]


def test_nothing_has_changed() -> None:
    assert answers(BEFORE, NOW) == []


@pytest.mark.parametrize(
    ("before", "now", "answer", "told"),
    [
        (BEFORE, recorded(sources=(("a",), ("b",))), "rebuild", "refuses another count"),
        (replace(BEFORE, sources=(("b",),)), NOW, "rebuild", "other topics"),
        (replace(BEFORE, sources=(None,)), NOW, "", ""),
        (BEFORE, replace(NOW, operators=[]), "rebuild", "operators were stateStoreSave and are none"),
        (BEFORE, replace(NOW, refused="STATE_STORE_X"), "rebuild", "Spark refuses the old state: STATE_STORE_X"),
        (BEFORE, replace(NOW, partitions=3), "repartition", "the state has 2 partitions, and the settings say 3"),
        (BEFORE, replace(NOW, provider=STATE_STORES["heap"]), "rebuild", "lies in RocksDB, and the settings say HDFS"),
        (replace(BEFORE, operators=[]), replace(NOW, operators=[], partitions=3), "", ""),
        (BEFORE, recorded(mode="append"), "rebuild", "output mode was update and is append"),
        (BEFORE, recorded(keys=("id", "x")), "rebuild", "a table merged by id and is a table merged by id, x"),
        (BEFORE, recorded(keys=()), "rebuild", "a table merged by id and is a table appended to"),
        (replace(BEFORE, record=None), NOW, "safe", "were not compared"),
        (replace(BEFORE, table=None), NOW, "rebuild", "TABLE_BEHIND"),
        (BEFORE, replace(NOW, columns=VALUE), "safe", "gets column count"),
        (BEFORE, replace(NOW, columns=StructType([StructField("id", LongType())])), "rebuild", "TYPE_CHANGED"),
    ],
)
def test_a_change_has_its_answer(before: OldQuery, now: NewQuery, answer: str, told: str) -> None:
    found = answers(before, now)
    assert [each for each, _ in found][:1] == ([answer] if answer else [])
    assert told in "".join(reason for _, reason in found)


@pytest.mark.parametrize(
    ("old", "new", "answer", "told"),
    [
        (
            WINDOW,
            replace(WINDOW, text="precisetimestampconversion(at % 1200000000)"),
            "rebuild",
            "% 600000000) and are precise",
        ),
        (GROUP, replace(GROUP, text="window; id; count(level)"), "rebuild", "Aggregate was `window; id; count(1)`"),
        (LATE, replace(LATE, text="at: 1 hours"), "safe", "lateness was at: 10 minutes and is at: 1 hours"),
        (FILTER, replace(FILTER, text="ba9876543210"), "safe", "what flows into the state"),
    ],
)
def test_what_spark_does_not_compare_is_compared(old: Step, new: Step, answer: str, told: str) -> None:
    steps = tuple(new if step == old else step for step in RECORD.steps)
    ((found, reason),) = answers(BEFORE, recorded(steps=steps))
    assert found == answer
    assert told in reason


def test_windows_are_told_in_seconds_where_they_are_known() -> None:
    longer = (GROUP, replace(WINDOW, text="precisetimestampconversion(at % 1200000000)"), FILTER, LATE)
    before = replace(BEFORE, record=replace(RECORD, windows=((600.0, 600.0),)))
    ((answer, reason),) = answers(before, recorded(steps=longer, windows=((1200.0, 600.0),)))
    assert answer == "rebuild"
    assert reason.startswith("windows were 600 s and are 600 s and 1,200 s: ")


def test_what_comes_after_the_state_may_change() -> None:
    later = Step("other", "Project", "fedcba987654")
    assert answers(BEFORE, recorded(steps=(later, *RECORD.steps))) == []


def test_a_state_variable_may_come_and_go() -> None:
    other = Family("default", "timer", KEY, VALUE)
    more = replace(COUNT, families=(*COUNT.families, other))
    assert answers(BEFORE, replace(NOW, operators=[more])) == [
        ("safe", "operator 0 (stateStoreSave): state timer is new, and empty at first")
    ]
    assert answers(replace(BEFORE, operators=[more]), NOW)[0][0] == "safe"
