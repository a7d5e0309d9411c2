"""What the gate lets pass, Avro's parser on the JVM takes too, and reads alike."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from schemas.codec import reader
from schemas.validity import load_schema, parse_text
from tests.jobs.connectors.avro.framed import accepted, framed, version
from tests.schemas.hostile_schemas import IGNORED, SOUND, array, damaged, enum, field, fixed, inner, record, texts


def java_refuses(spark: SparkSession, text: str) -> str | None:
    """What Java's parser has against the schema, defaults included; None for nothing."""
    try:
        spark._jvm.org.apache.avro.Schema.Parser().setValidateDefaults(True).parse(text)  # type: ignore[union-attr]
    except Exception as exc:
        return str(getattr(exc, "java_exception", exc))
    return None


def is_let_pass(text: str) -> bool:
    try:
        load_schema(text)
    except TidemarkError as refused:
        assert refused.code == "INVALID_SCHEMA"
        return False
    return True


def test_javas_parser_takes_every_schema_of_the_tables_that_the_gate_lets_pass(spark: SparkSession) -> None:
    passed = {name: text for name, text in texts().items() if is_let_pass(text)}
    assert passed.keys() == SOUND.keys() | IGNORED.keys()
    assert {name: java_refuses(spark, text) for name, text in passed.items()} == dict.fromkeys(passed)
    # The table is worth its lines: much of it only Java refuses.
    refused = [name for name, text in texts().items() if name not in passed and java_refuses(spark, text)]
    assert len(refused) > 40


def test_javas_parser_takes_every_damaged_schema_that_the_gate_lets_pass(spark: SparkSession) -> None:
    seen: Counter[bool] = Counter()

    @settings(max_examples=600, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged())
    def check(text: str) -> None:
        passes = is_let_pass(text)
        seen[passes] += 1
        assert not passes or java_refuses(spark, text) is None

    check()
    assert min(seen[True], seen[False]) > 20


KINDS: list[Any] = [
    *("null", "boolean", "int", "long", "float", "double", "string", "bytes"),
    *(fixed(2), enum(["A"]), array("int"), {"type": "map", "values": "int"}, inner(field("int"))),
]
DEFAULTS: list[Any] = [None, True, 1, 2**40, 0.5, 1e300, "A", "ab", "Δ", [1], ["x"], {"a": 1}, {"k": 1}, {}]


@st.composite
def defaulted(draw: Callable[[st.SearchStrategy[Any]], Any]) -> dict[str, Any]:
    """A field of a union, of any of its types, with a default, which may be of none."""
    kinds = draw(st.lists(st.sampled_from(range(len(KINDS))), min_size=1, max_size=4, unique=True))
    return field([KINDS[kind] for kind in kinds], default=draw(st.sampled_from(DEFAULTS)))


def test_javas_reader_reads_the_default_of_a_union_that_the_gate_lets_pass_as_what_it_says(spark: SparkSession) -> None:
    avro: Any = spark._jvm.org.apache.avro  # type: ignore[union-attr]
    writer = avro.Schema.Parser().parse(json.dumps(record()))
    seen: Counter[bool] = Counter()

    @settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(defaulted())
    def check(union: dict[str, Any]) -> None:
        text = json.dumps(record(union))
        passes = is_let_pass(text)
        seen[passes] += 1
        if passes:
            reader = avro.generic.GenericDatumReader(writer, avro.Schema.Parser().parse(text))
            read = reader.read(None, avro.io.DecoderFactory.get().binaryDecoder(b"", None)).get("a")
            said = union["default"]
            assert _as_json(read) == (pytest.approx(said) if type(said) in (int, float) else said)  # of 32 bits, some

    check()
    assert min(seen[True], seen[False]) > 20


def _as_json(read: Any) -> Any:
    if read is None or isinstance(read, bool | int | float | str):
        return read
    kind = read.getClass().getSimpleName()
    if kind == "HashMap":
        return {str(key): value for key, value in dict(read).items()}
    if kind == "Array":
        return list(read)
    if kind == "Record":
        return {"a": read.get("a")}
    if kind in ("HeapByteBuffer", "Fixed"):
        return bytes(read.array() if kind == "HeapByteBuffer" else read.bytes()).decode("latin-1")
    return read.toString()


def test_a_default_of_a_later_type_comes_into_events(spark: SparkSession) -> None:
    added = [
        field(["string", "null"], default=None),
        {"name": "b", "type": ["int", "string"], "default": "x"},
        {"name": "c", "type": ["string", "long"], "default": 2**40},
        {"name": "d", "type": ["boolean", "string", "null"], "default": None},
        {"name": "e", "type": ["int", "boolean"], "default": False},
    ]
    kept = {"name": "z", "type": "int"}
    versions = [version(1, json.dumps(record(kept))), version(2, json.dumps(record(kept, *added)))]
    assert accepted(spark, [framed(versions[0], {"z": 1})], *versions) == [
        {
            "z": 1,
            "a": None,
            "b": {"member0": None, "member1": "x"},
            "c": {"member0": None, "member1": 2**40},
            "d": None,
            "e": {"member0": None, "member1": False},
        }
    ]


def test_a_logical_type_that_means_nothing_leaves_the_same_bytes_to_every_reader(spark: SparkSession) -> None:
    kinds = {f"f{number}": each for number, each in enumerate(IGNORED.values())}
    text = json.dumps(record(*({"name": name, "type": kind} for name, (kind, _) in kinds.items())))
    event = {name: value.decode() if kind["type"] == "string" else value for name, (kind, value) in kinds.items()}
    writer = version(1, text)
    # By what lies below: fastavro fails on some of the logical types.
    plain = version(1, json.dumps(parse_text(text)))
    value = framed(plain, event)
    assert accepted(spark, [value], writer) == [event]
    assert reader(text)(value[5:]) == event
