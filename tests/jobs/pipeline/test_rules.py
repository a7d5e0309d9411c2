"""Which events fail which rule, what follows, and which rules are refused."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DecimalType, StructField, StructType

from conf.errors import TidemarkError
from conf.rules import Action, Freshness, Pattern, Range, Required, Rule, Unique
from jobs.pipeline import rules, validation

WARN: dict[str, Any] = {"name": "r", "on_failure": "warn"}
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
FIELDS = "id: string, level: int, at: timestamp, site: struct<name: string>"
EVENT = f"event struct<{FIELDS}>"
DECODED = f"topic string, partition int, offset long, timestamp timestamp, timestampType int, {EVENT}, error string"


def at(hour: int, day: int = 31) -> datetime:
    return datetime(2026, 1, day, hour, tzinfo=UTC)


def decoded(spark: SparkSession, *events: tuple[Any, ...] | None, stamped: int = 0) -> DataFrame:
    """One record an event (id, level, at, site); None is one that could not be decoded."""
    rows = [
        ("readings", 0, offset, at(10), stamped, event, None if event else "UNDECODABLE")
        for offset, event in enumerate(events)
    ]
    return spark.createDataFrame(rows, DECODED).withColumn("rule", F.lit(None).cast("string"))


def event_type(frame: DataFrame) -> DataType:
    return frame.schema["event"].dataType


def judged(frame: DataFrame, *declared: Rule, ahead: str | None = None) -> list[tuple[Any, ...]]:
    stateless = rules.stateless(declared)
    future = rules.event_time_error("at", F.lit(NOW), ahead) if ahead else None
    found = validation.apply_rules(frame, stateless, rules.failures(stateless, event_type(frame)), future)
    return [tuple(row) for row in found.orderBy("offset").select("error", "rule").collect()]


def failing(frame: DataFrame, rule: Rule) -> list[int]:
    """The offsets of the events that fail `rule`."""
    found = validation.apply_rules(frame, [rule], rules.failures(rules.stateless([rule]), event_type(frame)))
    return [row[0] for row in found.where(f"{rules.FAILED}{rule.name}").orderBy("offset").select("offset").collect()]


def ranged(action: Action, name: str = "level", low: float = 0, high: float = 10) -> Range:
    return Range(name=name, on_failure=action, field="level", min=low, max=high)


EVENTS = (
    ("a-1", 0, at(9), ("north",)),
    ("a-1\n", 11, at(8), (None,)),
    ("xa-1", -1, at(10), None),
    (None, None, None, ("",)),
    None,
)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (Required, {"field": "id"}, [3]),
        (Required, {"field": "site.name"}, [1, 2]),
        (Range, {"field": "level", "min": 0, "max": 10}, [1, 2]),
        (Range, {"field": "level", "min": 0}, [2]),
        (Range, {"field": "level", "max": 10.5}, [1]),
        (Pattern, {"field": "id", "pattern": r"a-\d"}, [1, 2]),
        (Pattern, {"field": "id", "pattern": r"x?a-[^'\\]\s?"}, []),
        (Pattern, {"field": "id", "pattern": r"\p{L}+-\p{N}"}, [1]),
        (Pattern, {"field": "site.name", "pattern": "'|north"}, [3]),
        (Freshness, {"field": "at", "max_age": "1 hour"}, [1]),
    ],
)
def test_a_rule_fails_for_the_events_that_break_it_and_for_no_null_unless_required(
    spark: SparkSession, kind: type[Rule], options: dict[str, Any], expected: list[int]
) -> None:
    assert failing(decoded(spark, *EVENTS), kind(name="rule", on_failure="warn", **options)) == expected


@pytest.mark.parametrize("pattern", [r".*@.*", r"[^@]+@[^@]+\.[^@]+|.*", r"(?:a|@|\.)*"])
def test_a_pattern_that_a_text_could_keep_busy_matches_none_beyond_its_bound(spark: SparkSession, pattern: str) -> None:
    texts = ["a@" + "." * length for length in (10, 998, 999, 1_000_000)]
    rule = Pattern(name="rule", on_failure="warn", field="id", pattern=pattern)
    assert failing(decoded(spark, *((text, 0, at(9), None) for text in texts)), rule) == [2, 3]


NUMBERS = (
    (0.0, 0.1, 0, Decimal("0.1")),
    (-0.0, -0.0, 10**16 + 1, Decimal("-0.1")),
    (float("nan"), float("nan"), -(2**63), Decimal("9" * 28 + "." + "9" * 10)),
    (float("inf"), float("inf"), 2**63 - 1, None),
    (float("-inf"), float("-inf"), None, None),
)


@pytest.mark.parametrize(
    ("field", "bounds", "expected"),
    [
        ("x", {"min": 0}, [2, 4]),
        ("x", {"max": 0}, [2, 3]),
        ("x", {"min": -(10**40), "max": 10**40}, [2, 3, 4]),
        ("f", {"min": 0.1}, [1, 2, 4]),
        ("f", {"max": 0.1}, [2, 3]),
        ("n", {"min": 0}, [2]),
        ("n", {"max": 1e16}, [1, 3]),
        ("n", {"min": -1e300, "max": 9.5e15}, [1, 3]),
        ("d", {"min": -0.1, "max": 0.1}, [2]),
        ("d", {"max": 10**28}, []),
    ],
)
def test_a_number_lies_between_the_ends_of_a_range_and_nan_lies_nowhere(
    spark: SparkSession, field: str, bounds: dict[str, Any], expected: list[int]
) -> None:
    columns = "topic string, partition int, offset long, timestamp timestamp, timestampType int"
    event = "event struct<x: double, f: float, n: long, d: decimal(38, 10)>, error string"
    rows = [("numbers", 0, offset, at(10), 0, numbers, None) for offset, numbers in enumerate(NUMBERS)]
    frame = spark.createDataFrame(rows, f"{columns}, {event}").withColumn("rule", F.lit(None).cast("string"))
    assert failing(frame, Range(**WARN, field=field, **bounds)) == expected


@pytest.mark.parametrize(
    ("scale", "bounds", "sql"),
    [
        (0, {"min": 0.5, "max": 9.5}, "`x` >= 1 AND `x` <= 9"),
        (0, {"min": -0.5, "max": 0.0}, "`x` >= 0 AND `x` <= 0"),
        (2, {"min": 0.25, "max": 0.255}, "`x` >= 0.25 AND `x` <= 0.25"),
        (2, {"min": 1e-300}, "`x` >= 0.01"),
        (2, {"max": 5}, "`x` <= 5"),
    ],
)
def test_a_bound_has_no_more_digits_behind_its_point_than_the_decimal_it_is_compared_with(
    scale: int, bounds: dict[str, Any], sql: str
) -> None:
    event = StructType([StructField("x", DecimalType(38, scale))])
    assert rules.holds(Range(**WARN, field="x", **bounds), event) == f"(`x` IS NULL OR ({sql}))"


def test_a_warning_accepts_and_of_rules_that_quarantine_the_first_that_fails_is_named(spark: SparkSession) -> None:
    frame = decoded(spark, ("a", 5, NOW, None), ("b", 50, NOW, None), ("c", 500, NOW, None), None)
    declared = (ranged("warn", "odd", high=1), ranged("quarantine", "much", high=100), ranged("quarantine", "more"))
    failed = (rules.RULE_FAILED, "much")
    assert judged(frame, *declared) == [(None, None), (rules.RULE_FAILED, "more"), failed, ("UNDECODABLE", None)]


def test_a_rule_that_stops_fails_the_pass_with_rule_and_place(spark: SparkSession) -> None:
    frame = decoded(spark, ("a", 5, NOW, None), ("b", 50, NOW, None))
    with pytest.raises(Exception, match=r"RULE_STOPPED: rule `level` of topic readings fails at partition 0, offset 1"):
        judged(frame, ranged("stop"))
    assert judged(frame.where("offset = 0"), ranged("stop")) == [(None, None)]


def test_an_event_time_too_far_ahead_of_the_clock_is_rejected_whatever_rules_say(spark: SparkSession) -> None:
    frame = decoded(
        spark, ("a", 50, at(13), None), ("b", 5, at(12), None), ("c", 5, datetime.max, None), ("d", 5, None, None)
    )
    future = (rules.FUTURE_EVENT_TIME, None)
    expected = [(rules.RULE_FAILED, "level"), (None, None), future, (rules.NO_EVENT_TIME, None)]
    assert judged(frame, ranged("quarantine"), ahead="1 hour") == expected
    assert judged(frame.where("offset = 0"), ranged("quarantine"), ahead="59 minutes") == [future]


def test_of_records_that_the_broker_stamped_the_stamp_is_the_clock(spark: SparkSession) -> None:
    frame = decoded(spark, ("a", 5, at(11), None), ("b", 5, at(12), None), stamped=rules.LOG_APPEND_TIME)
    assert judged(frame, ahead="1 hour") == [(None, None), (rules.FUTURE_EVENT_TIME, None)]


@pytest.mark.parametrize(
    ("rule", "event_time", "expected"),
    [
        (Required(**WARN, field="lvel"), None, "no `lvel`; did you mean `level`"),
        (
            Required(**WARN, field="id.x"),
            None,
            "no `x`; a dot leads into a record",
        ),
        (
            Range(**WARN, field="id", min=1),
            None,
            "asks for a number, and id is string",
        ),
        (
            Pattern(**WARN, field="at", pattern="x"),
            None,
            "a string, and at is timest",
        ),
        (
            Unique(**WARN, fields=("id",), within="1 day"),
            None,
            "declares none; decl",
        ),
        (Pattern(**WARN, field="id", pattern="("), None, "no regular expression of Java: "),
        (Unique(**WARN, fields=("tags",), within="1 hour"), "at", "compares tags, a map, and maps have no equals"),
        (ranged("warn"), "level", "event_time of topic readings in conf/topics.toml asks for a timestamp"),
    ],
)
def test_a_rule_that_does_not_fit_the_schema_is_refused_by_name(
    spark: SparkSession, rule: Rule, event_time: str | None, expected: str
) -> None:
    event = StructType.fromDDL(f"{FIELDS}, tags: map<string, int>")
    with pytest.raises(TidemarkError) as refused:
        rules.require_fields("readings", [rule], event_time, event)
    assert refused.value.code == "BAD_RULES"
    assert expected in str(refused.value)
