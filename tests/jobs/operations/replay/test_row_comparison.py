"""Rows of any type have one fingerprint exactly where they are equal, and are compared one by one by the same rule."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, DataType, MapType, StructField, StructType, _parse_datatype_string

from jobs.operations.replay.row_comparison import align_all, differences, fingerprint, first_differences, row_hash

# Few values of each, so that those of two rows are often the same, or the same in another place.
LEAVES: dict[str, Sequence[Any]] = {
    "string": ["", "a", "b"],
    "binary": [b"", b"a", b"\0"],
    "int": [0, 1],
    "bigint": [0, 1, -1],
    "boolean": [False, True],
    "double": [0.0, -0.0, 1.0, math.nan, math.inf],
    "float": [0.0, -0.0, 1.0, math.nan],
    "decimal(9,2)": [Decimal("0.00"), Decimal("1.00")],
    "decimal(38,2)": [Decimal("0.00"), Decimal("1.00"), Decimal("1" * 36)],
    "date": [date(1970, 1, 1), date(1970, 1, 2)],
    "timestamp_ntz": [datetime(1970, 1, 1), datetime(1970, 1, 2)],
}
KEYS = ("string", "int", "binary", "decimal(9,2)")


def kinds() -> st.SearchStrategy[DataType]:
    leaves = st.sampled_from(sorted(LEAVES)).map(_parse_datatype_string)
    keys = st.sampled_from(KEYS).map(_parse_datatype_string)
    return st.recursive(
        leaves,
        lambda within: st.one_of(
            within.map(ArrayType),
            st.builds(MapType, keys, within),
            st.lists(within, min_size=1, max_size=3).map(record),
        ),
        max_leaves=4,
    )


def record(kinds: Sequence[DataType]) -> StructType:
    return StructType([StructField(name, kind) for name, kind in zip("pqr", kinds, strict=False)])


def values(kind: DataType, null: bool = True) -> st.SearchStrategy[Any]:
    found: st.SearchStrategy[Any]
    if isinstance(kind, StructType):
        found = st.tuples(*(values(field.dataType) for field in kind))
    elif isinstance(kind, ArrayType):
        found = st.lists(values(kind.elementType), max_size=2)
    elif isinstance(kind, MapType):
        found = st.dictionaries(values(kind.keyType, null=False), values(kind.valueType), max_size=2)
    else:
        found = st.sampled_from(LEAVES[kind.simpleString()])
    return st.one_of(st.none(), found) if null else found


def plain(value: Any) -> Any:
    """What is equal by Python's rules exactly where the values are by Spark's, to which NaN is equal to itself."""
    if isinstance(value, dict):
        return "map", frozenset((plain(key), plain(held)) for key, held in value.items())
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(map(plain, value))
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


@dataclass(frozen=True)
class Drawn:
    kind: StructType
    left: list[tuple[Any, ...]]
    right: list[tuple[Any, ...]]


@st.composite
def tables(draw: st.DrawFn) -> Drawn:
    """Rows of nested types on two sides; some on the right are those on the left, and maps in another order."""
    kind = record(draw(st.lists(kinds(), min_size=1, max_size=3)))
    rows = st.lists(values(kind, null=False), min_size=1, max_size=8)
    left, right = draw(rows), draw(rows)
    kept = draw(st.lists(st.sampled_from(left), max_size=4))
    return Drawn(kind, left, [*right, *map(turned, kept)])


def turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: turned(held) for key, held in reversed(value.items())}
    return type(value)(map(turned, value)) if isinstance(value, list | tuple) else value


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=tables())
def test_rows_of_any_type_have_one_hash_exactly_where_they_are_equal(spark: SparkSession, drawn: Drawn) -> None:
    rows = [*drawn.left, *drawn.right]
    hashed = spark.createDataFrame(rows, drawn.kind).select(row_hash(drawn.kind).alias("hash"))
    hashes = [row.hash for row in hashed.collect()]
    for one, one_hash in zip(rows, hashes, strict=True):
        for other, other_hash in zip(rows, hashes, strict=True):
            assert (one_hash == other_hash) is (plain(one) == plain(other)), (one, other)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=tables())
def test_rows_of_any_type_differ_where_their_fingerprints_do(spark: SparkSession, drawn: Drawn) -> None:
    left, right = (spark.createDataFrame(side, drawn.kind) for side in (drawn.left, drawn.right))
    counts = [Counter(map(plain, side)) for side in (drawn.left, drawn.right)]
    lacking = [(counts[0] - counts[1]).total(), (counts[1] - counts[0]).total()]
    assert (fingerprint(left) == fingerprint(right)) is (lacking == [0, 0])
    unpaired = differences(left, right, ()).collect()
    assert [sum(row[side] is not None for row in unpaired) for side in ("left", "right")] == lacking
    assert differences(left, right, [drawn.kind.names[0]]).isEmpty() is (lacking == [0, 0])


ALIKE_IN_LEAVES = [
    ("1 AS a, null AS b, 'x' AS c", "1 AS a, 'x' AS b, null AS c"),
    ("array() AS a", "cast(null AS array<string>) AS a"),
    ("array(null, 'x') AS a", "array('x') AS a"),
    ("array(array('x'), array('y')) AS a", "array(array('x', 'y')) AS a"),
    ("array(array('x'), array()) AS a", "array(array('x')) AS a"),
    ("named_struct('p', cast(null AS string)) AS a", "cast(null AS struct<p: string>) AS a"),
    ("named_struct('p', 'x', 'q', null) AS a", "named_struct('p', null, 'q', 'x') AS a"),
    ("named_struct('p', null) AS a, 'x' AS p", "named_struct('p', 'x') AS a, null AS p"),
    ("map('a', null, 'b', 'x') AS a", "map('a', 'x', 'b', null) AS a"),
    ("map('a', 'b') AS a", "map('b', 'a') AS a"),
    ("map('a', map('b', 'c')) AS a", "map('a', map('c', 'b')) AS a"),
    ("parse_json('1') AS a", """parse_json('"1"') AS a"""),
    ("parse_json('null') AS a", "cast(null AS variant) AS a"),
    ("to_variant_object(array(date'2013-01-01')) AS a", "to_variant_object(array('2013-01-01')) AS a"),
    ("x'' AS a, x'01' AS b", "x'01' AS a, x'' AS b"),
]
EQUAL = [
    ("map('a', 1, 'b', 2) AS a", "map('b', 2, 'a', 1) AS a"),
    ("array(map('a', map('c', 1, 'd', 2))) AS a", "array(map('a', map('d', 2, 'c', 1))) AS a"),
    ("array(-0.0D) AS a, double('NaN') AS b", "array(0.0D) AS a, double('NaN') AS b"),
    ("""parse_json('{"b": [1], "a": null}') AS a""", """parse_json('{"a": null, "b": [1]}') AS a"""),
    ("'x' AS b, 1 AS a", "1 AS a, 'x' AS b"),
]


def typed(spark: SparkSession, left: str, right: str) -> list[DataFrame]:
    """Both in the types that have room for either."""
    one, other = (spark.sql(f"SELECT {number} AS side, {row}") for number, row in enumerate((left, right)))
    both = one.unionByName(other)
    return [both.where(f"side = {number}").drop("side") for number in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "same"), [*((*each, False) for each in ALIKE_IN_LEAVES), *((*each, True) for each in EQUAL)]
)
def test_shapes_nulls_and_names_count_and_orders_do_not(spark: SparkSession, one: str, other: str, same: bool) -> None:
    left, right = typed(spark, one, other)
    assert (fingerprint(left) == fingerprint(right)) is same
    assert differences(left, right, ()).isEmpty() is same
    assert differences(left.selectExpr("1 AS k", "*"), right.selectExpr("1 AS k", "*"), ["k"]).isEmpty() is same


def test_a_key_that_one_side_has_twice_is_a_difference(spark: SparkSession) -> None:
    once, twice = (spark.createDataFrame([("a", 1.0)] * count, "id string, level double") for count in (1, 2))
    assert differences(once, twice, ["id"]).count() == 1
    assert differences(twice, twice, ["id"]).isEmpty()


@pytest.mark.parametrize("other", [math.inf, -math.inf, math.nan])
def test_what_is_no_finite_number_is_near_no_other(spark: SparkSession, other: float) -> None:
    both = [math.inf, 1.0, other]
    left, right = (spark.createDataFrame(enumerate(each), "id int, level double") for each in (both, both[::-1]))
    assert differences(left, right, ["id"]).count() == (0 if other == math.inf else 2)
    assert differences(left, left, ["id"]).isEmpty()


def test_a_column_that_came_and_is_null_or_was_widened_changes_no_fingerprint(spark: SparkSession) -> None:
    before = spark.sql("SELECT 1 AS b, named_struct('q', 1) AS s, float('0.1') AS f")
    after = spark.sql("""
        SELECT cast(null AS string) AS a, 1L AS b, named_struct('p', cast(null AS int), 'q', 1L) AS s,
               double(float('0.1')) AS f
    """)
    assert fingerprint(before) == fingerprint(after)


def test_frames_are_aligned_by_names_at_any_depth_and_keep_what_only_one_has(spark: SparkSession) -> None:
    left = spark.sql("SELECT 1 AS a, array(named_struct('p', 'x', 'q', 'y')) AS s, map('k', named_struct('p', 1)) AS m")
    right = spark.sql("""
        SELECT 'z' AS b, 1 AS A, array(named_struct('q', 'y', 'r', 2, 'P', 'x')) AS s,
               map('k', named_struct('q', 2, 'p', 1)) AS m, 0 AS at
    """)
    one, other, none = align_all((left, right, None), ("at",))
    assert one.schema.simpleString() == other.schema.simpleString() == none.schema.simpleString()
    assert none.isEmpty()
    (row,), (second,) = ([row.asDict(recursive=True) for row in side.collect()] for side in (one, other))
    assert row == {
        "a": 1,
        "s": [{"p": "x", "q": "y", "r": None}],
        "m": {"k": {"p": 1, "q": None}},
        "b": None,
    }
    assert second == {"a": 1, "s": [{"p": "x", "q": "y", "r": 2}], "m": {"k": {"p": 1, "q": 2}}, "b": "z"}


SCHEMA = "hour timestamp, id string, level double"


def hour(number: int) -> datetime:
    return datetime(2013, 1, 1, number)


def frame(spark: SparkSession, *rows: tuple[int, str, float | None]) -> DataFrame:
    return spark.createDataFrame([(hour(number), id, level) for number, id, level in rows], SCHEMA)


def test_a_fingerprint_does_not_depend_on_the_order_of_rows_and_counts_repeats(spark: SparkSession) -> None:
    rows = [(1, "a", 1.0), (2, "b", None), (1, "a", 1.0)]
    assert fingerprint(frame(spark, *rows)) == fingerprint(frame(spark, *reversed(rows)).repartition(3))
    assert fingerprint(frame(spark, *rows)) != fingerprint(frame(spark, *rows[:2]))
    assert fingerprint(frame(spark, *rows).select("id", "level", "hour")) == fingerprint(frame(spark, *rows))


def test_rows_are_paired_by_their_keys_and_sums_may_differ_by_a_billionth(spark: SparkSession) -> None:
    left = frame(spark, (1, "a", 1.0), (1, "b", 2.0), (2, "c", None), (3, "d", 0.1 + 0.2))
    right = frame(spark, (1, "a", 1.0), (1, "b", 3.0), (2, "c", None), (3, "d", 0.3), (4, "e", 5.0))
    found = first_differences(differences(left, right, ["hour", "id"]), ["hour", "id"])
    levels = {each.key["id"]: [side and side["level"] for side in (each.left, each.right)] for each in found}
    assert levels == {"b": [2.0, 3.0], "e": [None, 5.0]}


def test_without_keys_equal_rows_are_taken_off_each_other_one_for_one(spark: SparkSession) -> None:
    left = frame(spark, (1, "a", 1.0), (1, "a", 1.0), (2, "b", 2.0))
    right = frame(spark, (1, "a", 1.0), (2, "b", 2.0), (2, "b", 2.0))
    found = first_differences(differences(left, right, ()), ())
    assert sorted((each.key["id"], each.left is None) for each in found) == [("a", False), ("b", True)]
