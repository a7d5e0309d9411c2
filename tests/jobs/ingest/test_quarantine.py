"""What quarantine holds of a record, and that silver and quarantine share a batch without gap or overlap."""

from datetime import UTC, datetime
from typing import Any

import pytest

from conf import code_version
from conf.errors import TidemarkError
from conf.rules import Range
from jobs.connectors.avro import decode
from jobs.connectors.delta import table as delta_table
from jobs.connectors.kafka import source_sink
from jobs.ingest import quarantine
from jobs.pipeline.rules import RULE_FAILED
from schemas.codec import frame
from tests.jobs.ingest.test_job import coordinates, failing
from tests.jobs.scratch import Row, Scratch
from tests.kinds import of_a_kind
from tests.sent import T0, Record

pytestmark = pytest.mark.slow

NOTE: dict[str, Any] = {"name": "note", "type": ["null", "string"], "default": None}
ENVELOPE = (*source_sink.COLUMNS, "schema_id", "error", "rule", "reason", "code_version", "quarantined_at")


def crash_before_quarantine(scratch: Scratch, topic: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(delta_table, "write", failing("quarantine", "before", delta_table.write))
        with pytest.raises(TidemarkError, match="the machine is gone"):
            scratch.ingest(topic)


def verdicts(scratch: Scratch) -> list[Row]:
    return scratch.rows("quarantine", "partition", "offset", "error", "rule")


def limit(high: int) -> Range:
    return Range(name="level_is_low", on_failure="quarantine", field="level", max=high)


def test_the_envelope_holds_the_record_why_when_and_by_which_code_it_was_rejected(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.declare(topic, limit(10))
    sent = scratch.reading(topic, "a", 11)
    scratch.send(topic, Record(sent.value, b"k", headers=[("h", b"1")]))
    began = datetime.now(UTC)
    scratch.ingest(topic)
    table = scratch.spark.read.format("delta").load(str(scratch.folder / "tables" / "quarantine"))
    assert tuple(table.columns) == ENVELOPE
    (row,) = table.collect()
    assert (bytes(row.key), bytes(row.value), row.headers[0].key, row.schema_id) == (b"k", sent.value, "h", 1)
    assert (row.topic, row.partition, row.offset, row.timestampType) == (topic, 0, 0, 0)
    assert row.timestamp.timestamp() * 1000 == T0
    assert (row.error, row.rule) == (RULE_FAILED, "level_is_low")
    assert row.reason == "rule level_is_low: level is above 10"
    assert row.code_version == code_version.version()
    assert began.timestamp() <= row.quarantined_at.timestamp() <= datetime.now(UTC).timestamp()


@pytest.mark.exhaustive
def test_a_quarantine_of_before_gets_the_new_columns_and_keeps_its_rows(scratch: Scratch) -> None:
    topic = scratch.topic()
    older = ("key", "value", "topic", "partition", "offset", "schema_id", "error", "reason")
    path = str(scratch.folder / "tables" / "quarantine")
    kinds = (
        "key binary, value binary, topic string, partition int, offset long, schema_id int, error string, reason string"
    )
    row = (None, bytearray(b"x"), "older", 0, 7, None, decode.BAD_FRAMING, "r")
    scratch.spark.createDataFrame([row], kinds).select(*older).write.format("delta").save(path)
    scratch.send(topic, Record(b"bad"))
    scratch.ingest(topic)
    assert scratch.rows("quarantine", "topic", "offset", "code_version") == sorted(
        [("older", 7, None), (topic, 0, code_version.version())], key=str
    )


def test_a_schema_registered_between_a_crash_and_the_restart_loses_nothing(scratch: Scratch) -> None:
    topic = scratch.topic(2)
    newer = frame(2, scratch.reading(topic, "b", 2).value[5:] + b"\0")  # type: ignore[index]
    sent = scratch.send(topic, scratch.reading(topic, "a", 1), Record(newer, partition=1), Record(b"bad", partition=1))
    crash_before_quarantine(scratch, topic)
    assert verdicts(scratch) == []
    assert scratch.register(topic, NOTE) == 2
    for _ in range(2):
        scratch.ingest(topic)
        assert coordinates(scratch, f"silver/{topic}", "_") == [sent[0]]
        assert verdicts(scratch) == [
            (*sent[1], quarantine.VERDICT_CHANGED, None),
            (*sent[2], decode.BAD_FRAMING, None),
        ]
    more = scratch.send(topic, Record(newer, partition=1))
    scratch.ingest(topic)
    assert coordinates(scratch, f"silver/{topic}", "_") == [sent[0], *more]


@pytest.mark.parametrize(("before", "after"), of_a_kind([(10, 30), (30, 10)], [(10, 30)]))
def test_a_rule_changed_between_a_crash_and_the_restart_loses_and_doubles_nothing(
    before: int, after: int, scratch: Scratch
) -> None:
    topic = scratch.topic()
    scratch.declare(topic, limit(before))
    scratch.send(topic, *(scratch.reading(topic, f"{level}", level) for level in (5, 20, 40)))
    crash_before_quarantine(scratch, topic)
    scratch.declare(topic, limit(after))
    scratch.ingest(topic)
    accepted = [(level,) for level in (5, 20) if level <= before]
    assert sorted(scratch.rows(f"silver/{topic}", "level"), key=lambda row: int(row[0])) == accepted
    changed = [(0, 1, quarantine.VERDICT_CHANGED, None)] if before < after else []
    assert verdicts(scratch) == [*changed, (0, 2, RULE_FAILED, "level_is_low")]


@pytest.mark.exhaustive
def test_of_a_compacted_topic_nothing_but_what_a_newer_event_replaced_is_missing_after_such_a_change(
    scratch: Scratch,
) -> None:
    topic = scratch.topic(compacted=True)
    scratch.declare(topic, limit(10))
    levels = [("a", 5), ("a", 20), ("b", 20), ("b", 6), ("c", 7), ("d", 40)]
    tombstone = Record(None, b"c")
    scratch.send(topic, *(scratch.reading(topic, id, level) for id, level in levels), tombstone, Record(b"bad", b"e"))
    crash_before_quarantine(scratch, topic)
    scratch.declare(topic, limit(30))
    scratch.ingest(topic)
    newest = [("a", 5, 0, False), ("b", 6, 3, False), ("c", None, 6, True)]
    assert scratch.rows(f"silver/{topic}", "id", "level", "_offset", "_deleted") == newest
    # Offset 2 was rejected, and a newer event of its key accepted: as if it had been accepted, and replaced.
    assert verdicts(scratch) == [
        (0, 1, quarantine.VERDICT_CHANGED, None),
        (0, 5, RULE_FAILED, "level_is_low"),
        (0, 7, decode.BAD_FRAMING, None),
    ]


@pytest.mark.exhaustive
def test_rejects_that_go_missing_on_the_way_to_quarantine_are_said(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = scratch.topic()
    scratch.send(topic, Record(b"bad"), Record(b"bad"))
    envelope = quarantine.envelope
    monkeypatch.setattr(quarantine, "envelope", lambda rejected, *more: envelope(rejected.where("offset > 0"), *more))
    with pytest.raises(TidemarkError, match=r"UNACCOUNTED: batch 0 of .* silver rejected 2, 1 went to quarantine"):
        scratch.ingest(topic)


@pytest.mark.exhaustive
def test_a_topic_whose_checkpoint_was_deleted_is_told_how_to_begin_anew_and_then_can(scratch: Scratch) -> None:
    topic, other = scratch.topic(), scratch.topic()
    for each in (topic, other):
        scratch.send(each, Record(b"bad"))
    scratch.ingest(topic, other)
    scratch.forget(topic)
    path = scratch.folder / "tables" / "quarantine"
    delete = f"DELETE FROM delta.`{path}` WHERE topic = '{topic}'"
    with pytest.raises(TidemarkError, match="CHECKPOINT_REPLACED") as stopped:
        scratch.ingest(topic)
    assert f"holds ingest.{topic} up to batch 0" in str(stopped.value)
    assert "other sinks write this table too" in str(stopped.value)
    assert stopped.value.remedy == f"restore that checkpoint, or, to read again, {delete}"
    scratch.spark.sql(delete)
    scratch.send(other, Record(b"bad"))
    scratch.ingest(topic, other)
    assert scratch.rows("quarantine", "topic") == sorted([(topic,), (other,), (other,)])
