"""What the gate lets pass, Avro's parser on the JVM takes too, and reads alike."""

import json
from collections import Counter

from hypothesis import HealthCheck, given, settings
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from schemas.codec import parsed, reader
from schemas.validity import load_schema
from tests.jobs.connectors.avro.framed import accepted, framed, version
from tests.schemas.hostile_schemas import IGNORED, SOUND, damaged, record, texts


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


def test_a_logical_type_that_means_nothing_leaves_the_same_bytes_to_every_reader(spark: SparkSession) -> None:
    kinds = {f"f{number}": each for number, each in enumerate(IGNORED.values())}
    text = json.dumps(record(*({"name": name, "type": kind} for name, (kind, _) in kinds.items())))
    event = {name: value.decode() if kind["type"] == "string" else value for name, (kind, value) in kinds.items()}
    writer = version(1, text)
    # By what lies below: fastavro fails on some of the logical types.
    plain = version(1, json.dumps(parsed(text)))
    value = framed(plain, event)
    assert accepted(spark, [value], writer) == [event]
    assert reader(text)(value[5:]) == event
