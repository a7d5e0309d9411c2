"""The gate's verdicts, case by case, against its table, Java's own judgement, and what fastavro reads."""

import io
import json
import uuid
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema
from confluent_kafka.schema_registry.error import SchemaRegistryError
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError
from py4j.java_gateway import get_field  # type: ignore[import-untyped]
from pyspark.sql import SparkSession

from schemas.codec import LIBRARY_ERRORS
from schemas.compatibility import conflicts
from schemas.resolution import Type, incompatibilities, parse_type
from tests.contracts.apicurio import Apicurio
from tests.contracts.cases import CASES, Case

PAIRS = [(case.name, old, case.new) for case in CASES for old in case.earlier]
BOTH_WAYS = [pair for name, old, new in PAIRS for pair in ((name, new, old), (f"{name} (turned round)", old, new))]
# What the gate accepts, or refuses for Java's reader alone.
FOR_JAVA = [
    pair
    for pair in BOTH_WAYS
    if all(e.kind == "namespace" for e in incompatibilities(parse_type(pair[1]), parse_type(pair[2])))
]
SCALARS = {
    "null": None,
    "boolean": True,
    "int": 7,
    "long": 2**40,
    "float": 0.5,
    "double": 0.1,
    "string": "text",
    "bytes": b"bytes",
    "uuid": "5a6d1d3c-3f3a-4a51-8a3a-1d0f3f1f2a11",
}
CONFLICT = 409
EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_the_table_is_wide_and_its_names_are_unique() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.level for case in CASES if not case.compatible} > {"backward", "forward", "full"}


@EVERY_CASE
def test_the_verdict_is_the_tables(case: Case) -> None:
    found = conflicts(case.new, case.versions, case.level)
    assert (not found) == case.compatible, [finding.what for finding in found]


@EVERY_CASE
def test_only_what_is_marked_stricter_breaks_by_our_own_rules_alone(case: Case) -> None:
    found = conflicts(case.new, case.versions, case.level)
    assert bool(case.stricter) == (bool(found) and all(finding.incompatibility.strict for finding in found))


@pytest.mark.parametrize(("name", "reader", "writer"), BOTH_WAYS, ids=[pair[0] for pair in BOTH_WAYS])
def test_without_the_strict_rules_java_judges_the_same(
    spark: SparkSession, name: str, reader: str, writer: str
) -> None:
    avro: Any = spark._jvm.org.apache.avro  # type: ignore[union-attr]
    texts = [avro.Schema.Parser().parse(text) for text in (reader, writer)]
    judged = avro.SchemaCompatibility.checkReaderWriterCompatibility(*texts).getType().toString()
    ours = [each for each in incompatibilities(parse_type(reader), parse_type(writer)) if not each.strict]
    assert (not ours) == (judged == "COMPATIBLE"), ours


@pytest.mark.parametrize(("name", "reader", "writer"), FOR_JAVA, ids=[pair[0] for pair in FOR_JAVA])
def test_javas_reader_finds_a_way_through_all_that_we_accept(
    spark: SparkSession, name: str, reader: str, writer: str
) -> None:
    avro: Any = spark._jvm.org.apache.avro  # type: ignore[union-attr]
    read, written = (avro.Schema.Parser().parse(text) for text in (reader, writer))
    renamed = avro.Schema.applyAliases(written, read)
    errors = list(_errors(avro.Resolver.resolve(renamed, read, avro.generic.GenericData.get()), set()))
    assert bool(errors) == bool(incompatibilities(parse_type(reader), parse_type(writer)))


def _errors(action: Any, seen: set[int]) -> Iterator[str]:
    """What a reader of Java's would raise, over all ways that data can take through `action`."""
    if action.hashCode() in seen:
        return
    seen.add(action.hashCode())
    kind = get_field(action, "type").toString()
    if kind == "ERROR":
        yield action.toString()
    within = {"WRITER_UNION": "actions", "RECORD": "fieldActions"}
    parts = list(get_field(action, within[kind])) if kind in within else []
    alone = {"READER_UNION": "actualAction", "CONTAINER": "elementAction"}
    parts += [get_field(action, alone[kind])] if kind in alone else []
    for part in parts:
        yield from _errors(part, seen)


@pytest.mark.registry
@EVERY_CASE
def test_an_apicurio_registry_judges_the_same_but_where_we_are_stricter(apicurio: Apicurio, case: Case) -> None:
    client, subject = apicurio.client(), f"{uuid.uuid4().hex}-value"
    for text in case.earlier:
        client.register_schema(subject, Schema(text, "AVRO"))
    apicurio.set_level(case.level, subject)
    try:
        client.register_schema(subject, Schema(case.new, "AVRO"))
        refusal = None
    except SchemaRegistryError as exc:
        refusal = exc.http_status_code
    assert refusal == (None if case.compatible or case.stricter else CONFLICT)


@pytest.mark.parametrize("case", [case for case in CASES if not case.stricter], ids=lambda case: case.name)
def test_fastavro_reads_exactly_what_the_verdict_promises(case: Case) -> None:
    unreadable = [
        (number, value)
        for number, old in enumerate(case.earlier, 1)
        for reader, writer in _read_pairs(case, number, old)
        for value in samples(parse_type(writer))
        if not _reads(reader, writer, value)
    ]
    assert (not unreadable) == case.compatible, unreadable


def _read_pairs(case: Case, number: int, old: str) -> Iterator[tuple[str, str]]:
    if case.level == "none" or not (case.level.endswith("_transitive") or number == len(case.earlier)):
        return
    if not case.level.startswith("forward"):
        yield case.new, old
    if not case.level.startswith("backward"):
        yield old, case.new


def samples(kind: Type, depth: int = 0) -> list[Any]:
    """Values of a type, among them every branch of its unions and every symbol of its enums."""
    if kind.kind == "union":
        return [
            value for branch in kind.inner if depth < 4 or branch.kind == "null" for value in samples(branch, depth)
        ]
    if kind.kind == "record":
        columns = [samples(field.type, depth + 1) for field in kind.fields]
        return [dict(zip([field.name for field in kind.fields], row, strict=True)) for row in product(*columns)]
    if kind.kind == "enum":
        return list(kind.symbols)
    if kind.kind == "array":
        return [[], samples(kind.inner[0], depth + 1)]
    if kind.kind == "map":
        return [{}, *({"key": value} for value in samples(kind.inner[0], depth + 1))]
    if kind.kind == "fixed":
        return [bytes(kind.size)]
    return [SCALARS["uuid" if kind.logical == "uuid" else kind.kind]]


def _reads(reader: str, writer: str, value: Any) -> bool:
    schemas: list[Any] = [parse_schema(json.loads(text)) for text in (writer, reader)]
    buffer = io.BytesIO()
    schemaless_writer(buffer, schemas[0], value)
    try:
        schemaless_reader(io.BytesIO(buffer.getvalue()), *schemas)
    except (*LIBRARY_ERRORS, SchemaResolutionError):
        return False
    return True
