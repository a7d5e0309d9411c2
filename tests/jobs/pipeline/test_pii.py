"""Personal data is hashed, masked or dropped before a table has it, and the key shows nowhere."""

import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.rules import Pattern, Range
from jobs.connectors.avro import decode
from jobs.pipeline import pii
from notebooks import tables
from schemas.pii_marks import PiiFields, pii_fields_of
from tests.jobs.connectors.avro.avro_examples import named
from tests.jobs.connectors.avro.framed import events_of, framed, records, version
from tests.jobs.pipeline.test_progress import lines
from tests.jobs.scratch import TIME, Scratch
from tests.sent import T0, Record

KEY = "correct horse battery staple"
HOUR = 3_600_000  # milliseconds
SECRET, OPEN = "5ecret-", "open-"


def mac(text: str, key: str = KEY) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize("key", [KEY, "k" * 64, "long key " * 20])
def test_a_hash_is_the_hmac_of_the_values_text(key: str, spark: SparkSession) -> None:
    rows = [("anna@example.org", 7), ("zo\u00eb", -1), ("", 0), (None, None)]
    frame = spark.createDataFrame(rows, "email string, number long")
    hashed = pii.Protection(PiiFields({"email": "hash", "number": "hash"}), pii.hash_key(spark, key))(frame)
    expected = [tuple(None if value is None else mac(str(value), key) for value in row) for row in rows]
    assert [tuple(row) for row in hashed.collect()] == expected
    assert hashed.columns == ["email", "number"]


def test_a_mask_keeps_the_shape_and_a_dropped_field_is_gone(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("Anna 7", 1, 2), (None, 3, 4)], "name string, age int, id int")
    shown = pii.Protection(PiiFields({"name": "mask", "age": "drop"}))(frame)
    assert shown.columns == ["name", "id"]
    assert [tuple(row) for row in shown.collect()] == [("Xxxx n", 2), (None, 4)]


MASKED = {
    "Anna 7": "Xxxx n",
    "ZOË-Λάμδα, ǅ.": "XXX-Xxxxx, X.",
    "王小明": "xxx",
    "山田太郎 ー 々": "xxxx x x",
    "김철수": "xxx",
    "مريم": "xxxx",
    "דוד (דָּוִד)": "xxx (xxxxxx)",
    "สมชาย": "xxxxx",
    "अनिता": "xxxxx",
    "e\u0301 \u200d\u2066": "xx xx",
    "٣४٧ Ⅷ ½ ²": "nnn n n n",
    "😀👍🏽 𝒜𐐀𐐨 𠀀": "xxx XXx x",
    "+1 555-0100 $": "xn nnn-nnnn x",
    "a\u00a0b\u3000c\td\ne": "x\u00a0x\u3000x\tx\nx",
    "「王」、a@b.example!": "「x」、x@x.xxxxxxx!",
    "": "",
}


def test_a_mask_leaves_no_script_and_no_symbol_in_clear_and_keeps_the_number_of_characters(spark: SparkSession) -> None:
    every = "".join(map(chr, [*range(1, 0xD800), *range(0xE000, 0x110000)]))
    frame = spark.createDataFrame([(text,) for text in [*MASKED, every]], "name string").coalesce(1)
    *shown, of_all = [row.name for row in pii.Protection(PiiFields({"name": "mask"}))(frame).collect()]
    assert dict(zip(MASKED, shown, strict=True)) == MASKED
    assert len(of_all) == len(every)
    left = {before for before, after in zip(every, of_all, strict=True) if before == after}
    assert {unicodedata.category(each)[0] for each in left - set("xXn\t\n\x0b\f\r")} == {"P", "Z"}
    assert {after for before, after in zip(every, of_all, strict=True) if before != after} == set("xXn")


def test_marked_items_and_values_are_treated_one_by_one(spark: SparkSession) -> None:
    frame = spark.sql(
        """select array('Anna', null) as names, map('k', 'b') as by_key, array(array(7L)) as deep,
        cast(null as array<string>) as none, array(named_struct('tags', array('c'))) as within"""
    )
    marks = PiiFields(
        {"names": "mask", "by_key": "hash", "deep": "hash", "none": "hash", "within": PiiFields({"tags": "mask"})}
    )
    row = pii.Protection(marks, pii.hash_key(spark, KEY))(frame).collect()[0].asDict(recursive=True)
    assert row == {
        "names": ["Xxxx", None],
        "by_key": {"k": mac("b")},
        "deep": [[mac("7")]],
        "none": None,
        "within": [{"tags": ["x"]}],
    }


def test_marks_within_records_arrays_and_maps_are_treated(spark: SparkSession) -> None:
    person = "struct<email:string,age:int>"
    frame = spark.sql(
        f"""select cast(named_struct('email', 'a', 'age', 1) as {person}) as one, cast(null as {person}) as none,
        array(cast(named_struct('email', 'b', 'age', 2) as {person}), null) as many,
        map('k', cast(named_struct('email', 'c', 'age', 3) as {person})) as by_name"""
    )
    within = PiiFields({"email": "hash", "age": "drop"})
    marks = PiiFields(dict.fromkeys(("one", "none", "many", "by_name"), within))
    row = pii.Protection(marks, pii.hash_key(spark, KEY))(frame).collect()[0].asDict(recursive=True)
    assert row == {
        "one": {"email": mac("a")},
        "none": None,
        "many": [{"email": mac("b")}, None],
        "by_name": {"k": {"email": mac("c")}},
    }


def test_the_key_shows_in_no_plan(spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    frame = spark.createDataFrame([("a",)], "email string").where(F.col("email") != "b")
    protected = pii.Protection(PiiFields({"email": "hash"}), pii.hash_key(spark, KEY))(frame)
    protected.explain("extended")
    plan = capsys.readouterr().out
    assert "tidemark_inner" in plan
    pads = [bytes(byte ^ pad for byte in KEY.encode()) for pad in (pii.INNER, pii.OUTER)]
    for secret in (KEY.encode(), *pads):
        for shown in (secret.hex(), secret.decode("latin-1")):
            assert shown.lower() not in plan.lower()


@pytest.mark.parametrize("key", ["", "short"])
def test_without_a_long_key_nothing_is_hashed(key: str, spark: SparkSession) -> None:
    with pytest.raises(TidemarkError, match=r"NO_HASH_KEY: .*; set TIDEMARK_PERSONAL_DATA__HASH_KEY"):
        pii.hash_key(spark, key)


def test_marked_fields_are_treated_in_silver_and_in_jobs_and_bronze_keeps_the_record(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_PERSONAL_DATA__HASH_KEY", KEY)
    topic = scratch.topic()
    marked = {"email": "hash", "name": "mask", "age": "drop"}
    kinds = {"email": "string", "name": ["null", "string"], "age": "int"}
    scratch.register(topic, *({"name": n, "type": kinds[n], "pii": marked[n]} for n in marked))
    sent = scratch.reading(topic, "a", 1, email="anna@example.org", name="Anna", age=40)
    scratch.send(topic, sent)
    scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}", "id", "email", "name") == [("a", mac("anna@example.org"), "Xxxx")]
    assert "age" not in scratch.spark.read.format("delta").load(f"{scratch.folder}/tables/silver/{topic}").columns
    assert [bytes(value) for (value,) in scratch.rows(f"bronze/{topic}", "value")] == [sent.value]
    run = scratch.run()
    run.append(run.read(topic), "seen")
    scratch.catch_up(run)
    assert scratch.rows("seen", "email", "name", "id", "level") == [(mac("anna@example.org"), "Xxxx", "a", 1)]


def test_a_job_that_leaves_out_the_hashed_fields_needs_no_key(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = scratch.topic()
    scratch.register(topic, {"name": "email", "type": "string", "pii": "hash"})
    scratch.declare(topic, Pattern(name="at_sign", on_failure="quarantine", field="email", pattern=".+@.+"))
    scratch.send(topic, *(scratch.reading(topic, "a", 1, email=email) for email in ("a@b", "ab")))

    def read(*fields: str) -> list[tuple[Any, ...]]:
        events = scratch.run(bounds=("earliest", "latest")).read(topic, fields=fields)
        assert events.columns == [*fields]
        return [tuple(row) for row in events.collect()]

    assert read("level", "id") == [(1, "a")]
    with pytest.raises(TidemarkError, match="NO_HASH_KEY"):
        read("email")
    monkeypatch.setenv("TIDEMARK_PERSONAL_DATA__HASH_KEY", KEY)
    assert read("email") == [(mac("a@b"),)]


@pytest.mark.slow
def test_nothing_readable_says_a_marked_value_of_a_record_that_is_late_fails_a_rule_or_cannot_be_read(
    scratch: Scratch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TIDEMARK_PERSONAL_DATA__HASH_KEY", KEY)
    topic = scratch.topic(event_time="at")
    person = {"type": "record", "name": "Person", "fields": [{"name": "name", "type": "string", "pii": "mask"}]}
    both = [{"name": "by", "type": person}, {"name": "cc", "type": {"type": "array", "items": "Person"}}]
    at = {"name": "at", "type": TIME}
    scratch.register(topic, at, {"name": "email", "type": {"type": "string", "pii": "hash"}}, *both)
    at_sign = Pattern(name="at_sign", on_failure="quarantine", field="email", pattern=".+@.+")
    scratch.declare(topic, at_sign, Range(name="level", on_failure="quarantine", field="level", min=0))
    people: dict[str, Any] = {"by": {"name": f"{SECRET}Anna"}, "cc": [{"name": f"{SECRET}Zoë"}]}
    good, ahead, bad = (
        scratch.reading(topic, "a", 1, email=f"{SECRET}{sign}example.org", at=T0 + hours * HOUR, **people)
        for sign, hours in (("@", 0), ("@", 5), (".", 0))
    )
    cut_short = Record((good.value or b"")[:-4], SECRET.encode())
    # By threes: the last one comes a batch after the one that moved the watermark, and is late by it.
    scratch.send(topic, bad, cut_short, Record(SECRET.encode(), SECRET.encode()), good, *[ahead] * 5, good)
    jvm_log = Path(str(scratch.spark._jvm.java.lang.System.getProperty("tidemark.log")))  # type: ignore[union-attr]
    logged = jvm_log.stat().st_size
    with caplog.at_level("DEBUG"):
        scratch.ingest(topic)
        run = scratch.run("source.max_offsets_per_trigger=3")
        hours = run.read(topic).withWatermark("at", "1 hour").groupBy(F.window("at", "1 hour"), "email", "by").count()
        run.upsert(hours.select("window.start", "email", "by", "count"), "hours", keys=("start", "email"))
        told = "".join(lines(scratch, run, capsys, 4))
    rows = scratch.rows(f"silver/{topic}", "email", "by", "cc")
    assert rows == [(mac(f"{SECRET}@example.org"), ("nxxxxx-Xxxx",), [("nxxxxx-Xxx",)])] * 7
    reasons = scratch.rows("quarantine", "error", "rule", "reason", "schema_id", "code_version")
    assert {reason[0] for reason in reasons} == {"BAD_FRAMING", "RULE_FAILED", "UNDECODABLE"}
    late = scratch.rows("late")
    assert [mac(f"{SECRET}@example.org") in str(row) for row in late] == [True]
    names = ["late", "hours", "rule_counts", f"silver/{topic}"]
    tables.require_tables(run.settings, names)
    shown = [str(tables.read_table(scratch.spark, run.settings, name).collect()) for name in names]
    kept = [*scratch.folder.rglob("*.json"), *(scratch.folder / "checkpoints").rglob("*")]
    texts = [path.read_text(errors="replace") for path in kept if path.is_file()]
    assert [text for text in texts if "delta.constraints." in text]
    printed = capsys.readouterr()
    texts += [jvm_log.read_bytes()[logged:].decode(), told, printed.out, printed.err, caplog.text]
    readable = [str(reasons), str(late), *shown, *texts]
    assert not [text for text in readable if SECRET in text]


@pytest.mark.slow
def test_the_key_of_a_compacted_topic_is_hashed_for_events_and_tombstones_alike(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_PERSONAL_DATA__HASH_KEY", KEY)
    topic = scratch.topic(compacted=True)
    scratch.register(topic, {"name": "id", "type": "string", "pii": "hash"})
    scratch.send(topic, scratch.reading(topic, "a", 1), scratch.reading(topic, "b", 2))
    scratch.ingest(topic)
    scratch.send(topic, Record(None, b"a"))
    scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}", "id", "level", "_deleted") == sorted(
        [(mac("a"), None, True), (mac("b"), 2, False)], key=str
    )


@pytest.mark.parametrize("treatment", ["mask", "drop"])
def test_the_key_of_a_compacted_topic_must_stay_a_key(scratch: Scratch, treatment: str) -> None:
    topic = scratch.topic(compacted=True)
    scratch.register(topic, {"name": "id", "type": "string", "pii": treatment})
    scratch.send(topic, scratch.reading(topic, "a", 1))
    with pytest.raises(TidemarkError, match=rf"BAD_SCHEMA: .*`id` is the key of {topic}.*{treatment}"):
        scratch.ingest(topic)


PLAIN = ["string", "long", "bytes", {"type": "enum", "symbols": ["A"]}, {"type": "fixed", "size": 11}]


@st.composite
def marked_types(draw: Callable[[st.SearchStrategy[Any]], Any], depth: int = 3, hidden: bool = False) -> Any:
    """A type without names yet, with marks anywhere that may stand, and a value of it.

    Args:
        hidden: whether a mark around it drops all of it. Then every text in the value is a secret, as marked ones are.
    """
    shape = draw(st.sampled_from(["plain", "array", "map", "record", "null"] if depth else ["plain"]))
    inner = marked_types(depth=depth - 1, hidden=hidden)
    if shape == "plain":
        kind = draw(st.sampled_from(PLAIN))
        choices = ["hash", "mask"] if kind == "string" else ["hash"]
        mark = draw(st.sampled_from([None, *choices]))
        named: dict[str, Any] = {"type": kind} if isinstance(kind, str) else {**kind}
        text = f"{SECRET if mark or hidden else OPEN}{draw(st.integers(1000, 9999))}"
        number = int(f"{6660000 if mark or hidden else 1110000}{text[-4:]}")
        value = {"string": text, "long": number, "bytes": text.encode(), "enum": "A"}.get(named["type"])
        of_type = {**named, "pii": mark} if mark else named
        return of_type, text.encode().ljust(11)[:11] if named["type"] == "fixed" else value
    if shape == "null":
        kind, value = draw(inner.filter(lambda made: not isinstance(made[0], list)))
        return ["null", kind], value
    if shape == "array":
        kind, value = draw(inner)
        return {"type": "array", "items": kind}, [value, value]
    if shape == "map":
        kind, value = draw(inner)
        return {"type": "map", "values": kind}, {"k": value}
    fields, record = [{"name": "kept", "type": "int"}], {"kept": 1}
    for number in range(draw(st.integers(1, 3))):
        drops = draw(st.booleans())
        kind, record[f"f{number}"] = draw(marked_types(depth=depth - 1, hidden=hidden or drops))
        fields.append({"name": f"f{number}", "type": kind} | ({"pii": "drop"} if drops else {}))
    return {"type": "record", "fields": fields}, record


@settings(
    max_examples=3, deadline=None, database=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck)
)
@given(made=st.lists(marked_types(), min_size=15, max_size=15))
def test_no_marked_value_is_left_wherever_its_mark_stands(spark: SparkSession, made: list[Any]) -> None:
    """Fifteen random types as the fields of one event, then some of them again by name."""
    schema = named({"type": "record", "fields": [{"name": f"f{n}", "type": kind} for n, (kind, _) in enumerate(made)]})
    event = {f"f{number}": value for number, (_, value) in enumerate(made)}
    again = [each for each in schema["fields"] if isinstance(each["type"], dict) and "name" in each["type"]]
    for number, each in enumerate(again):
        schema["fields"].append({"name": f"again{number}", "type": each["type"]["name"]})
        event[f"again{number}"] = event[each["name"]]
    writer = version(1, json.dumps(schema))
    frame = events_of(decode.decode(records(spark, [framed(writer, event)]), [writer], writer.text))
    protected = pii.Protection(pii_fields_of(writer.text), pii.hash_key(spark, KEY))(frame)
    row = str(protected.collect()[0].asDict(recursive=True))
    assert SECRET not in row
    assert "6660000" not in row
    wanted = re.findall(rf"{OPEN}\d+|1110000\d+", str(event))
    assert all(row.count(text) >= 1 for text in wanted)
