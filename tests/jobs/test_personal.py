"""Personal data is hashed, masked or dropped before a table has it, and the key shows nowhere."""

import hashlib
import hmac

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs import personal
from schemas.personal import Marks
from tests.jobs.scratch import Scratch
from tests.sent import Record

KEY = "correct horse battery staple"


def mac(text: str, key: str = KEY) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize("key", [KEY, "k" * 64, "long key " * 20])
def test_a_hash_is_the_hmac_of_the_values_text(key: str, spark: SparkSession) -> None:
    rows = [("anna@example.org", 7), ("zo\u00eb", -1), ("", 0), (None, None)]
    frame = spark.createDataFrame(rows, "email string, number long")
    hashed = personal.protect(frame, Marks({"email": "hash", "number": "hash"}), personal.hash_key(spark, key))
    expected = [tuple(None if value is None else mac(str(value), key) for value in row) for row in rows]
    assert [tuple(row) for row in hashed.collect()] == expected
    assert hashed.columns == ["email", "number"]


def test_a_mask_keeps_the_shape_and_a_dropped_field_is_gone(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("Anna 7", 1, 2), (None, 3, 4)], "name string, age int, id int")
    shown = personal.protect(frame, Marks({"name": "mask", "age": "drop"}))
    assert shown.columns == ["name", "id"]
    assert [tuple(row) for row in shown.collect()] == [("Xxxx n", 2), (None, 4)]


def test_marks_within_records_arrays_and_maps_are_treated(spark: SparkSession) -> None:
    person = "struct<email:string,age:int>"
    frame = spark.sql(
        f"""select cast(named_struct('email', 'a', 'age', 1) as {person}) as one, cast(null as {person}) as none,
        array(cast(named_struct('email', 'b', 'age', 2) as {person}), null) as many,
        map('k', cast(named_struct('email', 'c', 'age', 3) as {person})) as by_name"""
    )
    within = Marks({"email": "hash", "age": "drop"})
    marks = Marks(dict.fromkeys(("one", "none", "many", "by_name"), within))
    row = personal.protect(frame, marks, personal.hash_key(spark, KEY)).collect()[0].asDict(recursive=True)
    assert row == {
        "one": {"email": mac("a")},
        "none": None,
        "many": [{"email": mac("b")}, None],
        "by_name": {"k": {"email": mac("c")}},
    }


def test_the_key_shows_in_no_plan(spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    frame = spark.createDataFrame([("a",)], "email string").where(F.col("email") != "b")
    protected = personal.protect(frame, Marks({"email": "hash"}), personal.hash_key(spark, KEY))
    protected.explain("extended")
    plan = capsys.readouterr().out
    assert "tidemark_inner" in plan
    pads = [bytes(byte ^ pad for byte in KEY.encode()) for pad in (personal.INNER, personal.OUTER)]
    for secret in (KEY.encode(), *pads):
        for shown in (secret.hex(), secret.decode("latin-1")):
            assert shown.lower() not in plan.lower()


@pytest.mark.parametrize("key", ["", "short"])
def test_without_a_long_key_nothing_is_hashed(key: str, spark: SparkSession) -> None:
    with pytest.raises(TidemarkError, match=r"NO_HASH_KEY: .*; set TIDEMARK_PERSONAL_DATA__HASH_KEY"):
        personal.hash_key(spark, key)


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
