"""Aliases that make one of what was written as two: Java's reader, which Spark uses, takes no such version."""

from typing import Any

import pytest
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from jobs.connectors.avro.spark_schema import promoted_ints
from schemas.compatibility import obstacles
from schemas.registry import RegisteredSchema
from schemas.validity import parse_text
from tests.schemas.test_silver_columns import array, event, field, part

OLD, BOTH = field("string", "old"), [field("string", "old"), field("string", "new", default="")]
A, B = part("A"), part("B")
CLASHES: dict[str, tuple[str, str, str]] = {
    "the field had that name beside it": (
        event(*BOTH),
        event(field("string", "new", default="", aliases=["old"])),
        "new: .* takes `new` and `old`",
    ),
    "two aliases of one field": (
        event(*BOTH),
        event(field("string", "newest", aliases=["old", "new"])),
        "newest: .* takes `old` and `new`",
    ),
    "within a record": (
        event(field(part("P", *BOTH))),
        event(field(part("P", field("string", "new", default="", aliases=["old"])))),
        "f.new: .* takes `new` and `old`",
    ),
    "two types of a union": (
        event(field([A, B])),
        event(field([part("B", aliases=["A"]), "null"])),
        "f: .* takes A and B, which one union had",
    ),
    "of a union in an array": (
        event(field(array([A, B]))),
        event(field(array(part("B", aliases=["A"])))),
        "f.*: .* takes A and B, which one union had",
    ),
}
EACH = pytest.mark.parametrize(("old", "new", "says"), CLASHES.values(), ids=CLASHES)


@EACH
def test_the_gate_refuses_it(old: str, new: str, says: str) -> None:
    found = obstacles(new, [RegisteredSchema(1, "e-value", 1, old)], "backward_transitive")
    assert len([each for each in found if "by an alias" in each.what]) == 1
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found[0].what)


@EACH
def test_of_anothers_registry_it_is_refused_before_a_record_is_read(old: str, new: str, says: str) -> None:
    with pytest.raises(
        TidemarkError, match=r"BAD_SCHEMA: field `\w+` of `\w+` .*by an alias.*; register a version without"
    ):
        promoted_ints(parse_text(old), parse_text(new))


@EACH
def test_javas_reader_refuses_it_too(spark: SparkSession, old: str, new: str, says: str) -> None:
    avro: Any = spark._jvm.org.apache.avro  # type: ignore[union-attr]
    with pytest.raises(Exception, match=r"Duplicate (field new|field newest|in union)"):
        avro.Schema.applyAliases(*(avro.Schema.Parser().parse(text) for text in (old, new)))


def test_the_remedy_is_one() -> None:
    versions = [event(OLD), event(*BOTH), event(field("string", "new", default="", aliases=["old"]))]
    registered = [RegisteredSchema(n, "e-value", n, text) for n, text in enumerate(versions, 1)]
    for mended in (event(field("string", "new", default="")), event(field("string", "old", default=""), BOTH[1])):
        assert list(obstacles(mended, registered, "backward_transitive")) == []
        for version in versions:
            promoted_ints(parse_text(version), parse_text(mended))
