"""Each change of a type that Avro allows: silver takes it with the right values, or says what helps."""

import io
import json
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer

from conf.errors import TidemarkError
from conf.rules import Pattern, Range, Required
from conf.topics import Topic
from schemas.codec import frame
from schemas.registry import RegisteredSchema
from schemas.resolution import incompatibilities, parse_type
from schemas.silver_columns import column_conflicts
from schemas.spark_limits import require_storable
from tests.jobs.ingest.test_rules import constraints
from tests.jobs.scratch import Scratch
from tests.kinds import of_a_kind
from tests.sent import Record

Schema = dict[str, Any]
Named = Callable[[str], Any]
ID = {"name": "id", "type": "int"}
NewTopic = Callable[[int], str]


def logical(kind: str, name: str, **more: int) -> Named:
    return lambda _: {"type": kind, "logicalType": name, **more}


def plain(kind: Any) -> Named:
    return lambda _: kind


# Types by a word for each, with a value; those that have names get one of their field's.
TYPES: dict[str, tuple[Named, Any]] = {
    "null": (plain("null"), None),
    **{kind: (plain(kind), value) for kind, value in (("boolean", True), ("int", 5), ("long", 2**40))},
    **{
        kind: (plain(kind), value)
        for kind, value in (("float", 0.5), ("double", 0.1), ("bytes", b"y"), ("string", "x"))
    },
    "date": (logical("int", "date"), 3),
    "time-millis": (logical("int", "time-millis"), 1000),
    "time-micros": (logical("long", "time-micros"), 1000),
    **{
        name: (logical("long", name), 1_357_020_000_000_000 // (1000 if name.endswith("millis") else 1))
        for name in ("timestamp-millis", "timestamp-micros", "local-timestamp-millis", "local-timestamp-micros")
    },
    "uuid": (logical("string", "uuid"), "b5aa7a5a-7c3a-4d4b-8d8e-6a3c1f6d1a11"),
    "decimal": (logical("bytes", "decimal", precision=9, scale=2), b"\x7b"),
    "fixed": (lambda name: {"type": "fixed", "name": f"Fixed_{name}", "size": 2}, b"zz"),
    "enum": (lambda name: {"type": "enum", "name": f"Enum_{name}", "symbols": ["A"]}, "A"),
    "larger enum": (lambda name: {"type": "enum", "name": f"Enum_{name}", "symbols": ["A", "B"]}, "B"),
    **{f"null or {kind}": (plain(["null", kind]), value) for kind, value in (("int", 5), ("long", 9), ("string", "x"))},
    "long or null": (plain(["long", "null"]), 9),
    "null or time": (plain(["null", {"type": "long", "logicalType": "local-timestamp-micros"}]), 5),
    "int or string": (plain(["int", "string"]), "x"),
    "null, int or string": (plain(["null", "int", "string"]), 7),
    "null, string or bytes": (plain(["null", "string", "bytes"]), b"q"),
}
INNER = ("int", "long", "float", "double", "string", "bytes", "null or int", "null or long", "null, int or string")
for word in INNER:
    kind, value = TYPES[word]
    TYPES |= {
        f"record of {word}": (
            lambda name, kind=kind: {  # type: ignore[misc]
                "type": "record",
                "name": f"Record_{name}",
                "fields": [{"name": "x", "type": kind(name)}],
            },
            {"x": value},
        ),
        f"list of {word}": (lambda name, kind=kind: {"type": "array", "items": kind(name)}, [value]),  # type: ignore[misc]
        f"map of {word}": (lambda name, kind=kind: {"type": "map", "values": kind(name)}, {"k": value}),  # type: ignore[misc]
    }


def record(fields: Mapping[str, Any], **renamed: str) -> Schema:
    """An event of these fields; `renamed`: the former names of some, by the new ones."""
    more = [
        {"name": name, "type": kind, **({"aliases": [renamed[name]]} if name in renamed else {})}
        for name, kind in fields.items()
    ]
    return {"type": "record", "name": "Reading", "fields": [ID, *more]}


def is_allowed(before: str, after: str) -> bool:
    """Whether Avro's rules allow the change, and silver can hold both types at all."""
    old, new = (json.dumps(record({"f": TYPES[word][0]("f")})) for word in (before, after))
    try:
        require_storable(old)
        require_storable(new)
    except TidemarkError:
        return False
    return old != new and not incompatibilities(parse_type(new), parse_type(old))


PAIRS = [(before, after) for before in TYPES for after in TYPES if is_allowed(before, after)]


def encoded(scratch: Scratch, topic: str, schema: Schema, values: Mapping[str, Any]) -> Record:
    id, buffer = scratch.registry.register(f"{topic}-value", json.dumps(schema)), io.BytesIO()
    schemaless_writer(buffer, parse_schema(json.loads(json.dumps(schema))), values)
    return Record(frame(id, buffer.getvalue()), str(values["id"]).encode())


def declared(scratch: Scratch, topic: str, is_compacted: bool) -> str:
    scratch.declared[topic] = Topic(topic, 1, "id", "reading", cleanup_policy="compact" if is_compacted else "delete")
    return topic


def silver(scratch: Scratch, topic: str) -> dict[Any, dict[str, Any]]:
    rows = scratch.spark.read.format("delta").load(f"{scratch.folder}/tables/silver/{topic}")
    return {row["id"]: row.asDict(recursive=True) for row in rows.select(*sorted(rows.columns)).collect()}


def registered(schema: Schema) -> RegisteredSchema:
    return RegisteredSchema(1, "reading-value", 1, json.dumps(schema))


def refused_by_the_gate() -> set[str]:
    """The fields whose change the gate refuses for silver's sake."""
    paths = set()
    for number, pair in enumerate(PAIRS):
        old, new = (record({f"f{number}": TYPES[word][0]("f")}) for word in pair)
        paths |= {conflict.path for conflict in column_conflicts(json.dumps(new), [registered(old)])}
    return {path.removesuffix("[]").removesuffix("{}") for path in paths}


def bare(value: Any) -> Any:
    """The value without the nulls in records: of fields that came later, or are gone."""
    if isinstance(value, dict):
        return {name: bare(inner) for name, inner in value.items() if inner is not None}
    return [bare(item) for item in value] if isinstance(value, list) else value


def renamed_inside(kind: Schema) -> Schema:
    (field,) = kind["fields"]
    return {**kind, "fields": [{**field, "name": "new_x", "aliases": ["x"]}]}


@pytest.mark.slow
@pytest.mark.parametrize("is_compacted", of_a_kind([False, True], [False]))
def test_every_change_that_avro_allows_is_taken_or_its_remedy_works(
    is_compacted: bool, scratch: Scratch, new_topic: NewTopic
) -> None:
    before, after = ({f"f{number}": TYPES[pair[side]] for number, pair in enumerate(PAIRS)} for side in (0, 1))
    first, second = (record({name: kind(name) for name, (kind, _) in side.items()}) for side in (before, after))
    old, new = ({name: value for name, (_, value) in side.items()} for side in (before, after))
    topic = declared(scratch, new_topic(1), is_compacted)
    scratch.send(topic, encoded(scratch, topic, first, {"id": 1, **old}))
    scratch.ingest(topic)
    was = silver(scratch, topic)[1]
    scratch.send(topic, encoded(scratch, topic, second, {"id": 2, **new}))
    with pytest.raises(TidemarkError, match=r"TYPE_CHANGED: table ") as refused:
        scratch.ingest(topic)
    assert list(silver(scratch, topic)) == [1]
    # The remedy, followed to the letter.
    (listed,) = re.findall(r"each of these fields \(([^)]*)\) another name", str(refused.value))
    inside = {field.removesuffix(".x") for field in listed.split(", ") if field.endswith(".x")}
    names = {name: f"new_{name}" if name in listed.split(", ") else name for name in new}
    kinds = {name: renamed_inside(kind(name)) if name in inside else kind(name) for name, (kind, _) in after.items()}
    former = {now: name for name, now in names.items() if now != name}
    third = record({names[name]: kind for name, kind in kinds.items()}, **former)
    values = {names[name]: {"new_x": value["x"]} if name in inside else value for name, value in new.items()}
    assert former
    assert inside
    assert set(listed.split(", ")) <= refused_by_the_gate()
    assert not column_conflicts(json.dumps(third), [registered(first), registered(second)])
    sent = [(first, old), (second, new), (third, values), (first, old)]
    scratch.send(topic, *(encoded(scratch, topic, sent[id - 1][0], {"id": id, **sent[id - 1][1]}) for id in (3, 4)))
    scratch.ingest(topic)
    live = silver(scratch, topic)
    assert sorted(live) == [1, 2, 3, 4]
    # A table of the same records that the last version has made from the beginning says what is right.
    fresh = declared(scratch, new_topic(1), is_compacted)
    scratch.send(fresh, *(encoded(scratch, fresh, one, {"id": id, **of}) for id, (one, of) in enumerate(sent, 1)))
    scratch.ingest(fresh)
    right = silver(scratch, fresh)
    assert scratch.rows("quarantine") == []
    for (name, now), pair in zip(names.items(), PAIRS, strict=True):
        assert bare(live[1][name]) == bare(was[name]), pair  # as it was written
        for id in (2, 3, 4):
            assert bare(live[id][now]) == bare(right[id][now]), (id, pair)
            assert name == now or live[id][name] is None, (id, pair)


RULES = (
    Range(name="low", on_failure="quarantine", field="n", min=0.1),
    Range(name="inner", on_failure="quarantine", field="p.n", min=0),
    Required(name="known", on_failure="quarantine", field="p"),
    Pattern(name="word", on_failure="quarantine", field="s", pattern="[a-z]+"),
)


@pytest.mark.slow
@pytest.mark.parametrize("is_compacted", of_a_kind([False, True], [True]))
@pytest.mark.parametrize(
    ("before", "after"), of_a_kind([("int", "long"), ("float", "double"), ("int", "double")], [("int", "long")])
)
def test_a_field_with_rules_that_gets_wider_keeps_its_rules(
    before: str, after: str, is_compacted: bool, scratch: Scratch, new_topic: NewTopic
) -> None:
    def schema(kind: str) -> Schema:
        inner = {"type": "record", "name": "P", "fields": [{"name": "n", "type": kind}]}
        return record({"n": kind, "p": ["null", inner], "s": "string"})

    def reading(id: int, n: float) -> dict[str, Any]:
        return {"id": id, "n": n, "p": {"n": n}, "s": "word"}

    topic = declared(scratch, new_topic(1), is_compacted)
    scratch.declare(topic, *RULES)
    scratch.send(topic, encoded(scratch, topic, schema(before), reading(1, 1)))
    scratch.ingest(topic)
    wider = [encoded(scratch, topic, schema(after), reading(id, n)) for id, n in ((2, 2**30), (3, -1))]
    scratch.send(topic, *wider)
    scratch.ingest(topic)
    rows = silver(scratch, topic)
    assert {id: (row["n"], row["p"]["n"]) for id, row in rows.items()} == {1: (1, 1), 2: (2**30, 2**30)}
    assert scratch.rows("quarantine", "offset", "error", "rule") == [(2, "RULE_FAILED", "low")]
    assert constraints(scratch, f"silver/{topic}") == [f"rule_{name}" for name in ("inner", "known", "low", "word")]


def keyed(kind: str, **more: str) -> Schema:
    return {"type": "record", "name": "Reading", "fields": [{"name": "id", "type": kind}], **more}


@pytest.mark.slow
def test_a_topic_that_stops_by_the_type_of_its_key_goes_on_with_the_old_type_and_holds_up_no_other(
    scratch: Scratch, new_topic: NewTopic
) -> None:
    topic, other = declared(scratch, new_topic(1), True), scratch.topic()
    scratch.send(topic, encoded(scratch, topic, keyed("string"), {"id": "a"}))
    scratch.ingest(topic)
    scratch.send(topic, encoded(scratch, topic, keyed("bytes"), {"id": b"b"}))
    scratch.send(other, scratch.reading(other, "x", 1))
    with pytest.raises(TidemarkError, match=rf"ingest.{topic} stopped: TYPE_CHANGED: .*the key keeps its type"):
        scratch.ingest(topic, other)
    scratch.ingest(other)
    assert scratch.rows(f"silver/{other}", "id") == [("x",)]
    scratch.registry.register(f"{topic}-value", json.dumps(keyed("string", doc="as before")))
    scratch.ingest(topic)
    assert set(silver(scratch, topic)) == {"a", "b"}
    assert scratch.rows("quarantine") == []


@pytest.mark.slow
def test_a_topic_whose_key_cannot_have_its_old_type_is_read_again(scratch: Scratch, new_topic: NewTopic) -> None:
    topic = declared(scratch, new_topic(1), True)
    scratch.send(topic, encoded(scratch, topic, keyed("int"), {"id": 1}))
    scratch.ingest(topic)
    scratch.send(topic, encoded(scratch, topic, keyed("float"), {"id": 2.5}))
    with pytest.raises(TidemarkError, match=r"TYPE_CHANGED: .*move away, together") as refused:
        scratch.ingest(topic)
    moved = (f"checkpoints/ingest/{topic}", f"tables/bronze/{topic}", f"tables/silver/{topic}")
    for number, name in enumerate(moved):
        assert name.removeprefix("tables/").removeprefix("checkpoints/") in refused.value.remedy or number == 0
        shutil.move(scratch.folder / name, scratch.folder / f"moved-{number}")
    scratch.ingest(topic)
    assert set(silver(scratch, topic)) == {1.0, 2.5}
    assert len(scratch.rows(f"bronze/{topic}")) == 2
