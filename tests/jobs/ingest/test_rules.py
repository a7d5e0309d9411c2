"""Data rules in whole runs: what they reject, count, stop and write into the table as constraints."""

import importlib
import json
import sys
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.rules import Action, Pattern, Range, Reference, Required, Unique
from jobs.connectors.delta import table as delta_table
from jobs.ingest import job as ingest_job
from jobs.pipeline import rules
from jobs.pipeline.progress import Counted
from jobs.pipeline.supervision import Failures
from tests.jobs.ingest.test_job import coordinates, failing
from tests.jobs.scratch import Row, Scratch
from tests.sent import T0, Record

pytestmark = pytest.mark.slow

HOUR = 3_600_000


def low(action: Action, high: int = 10) -> Range:
    return Range(name="low", on_failure=action, field="level", max=high)


def constraints(scratch: Scratch, table: str) -> list[str]:
    path = str(scratch.folder / "tables" / table)
    found = scratch.spark.sql(f"SHOW TBLPROPERTIES delta.`{path}`").where("key LIKE 'delta.constraints.%'").collect()
    return sorted(row.key.removeprefix("delta.constraints.").rsplit("_", 1)[0] for row in found)


def readings(scratch: Scratch, topic: str, *levels: int, **more: Any) -> list[Row]:
    return scratch.send(topic, *(scratch.reading(topic, f"{level}", level, **more) for level in levels))


def test_failures_are_counted_by_rule_and_batch_and_a_warning_lets_the_event_pass(scratch: Scratch) -> None:
    topic = scratch.topic()
    odd = Pattern(name="one_digit", on_failure="warn", field="id", pattern=r"\d")
    scratch.declare(topic, odd, low("quarantine"), Required(name="known", on_failure="stop", field="id"))
    readings(scratch, topic, 1, 10, 11)
    run = scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}", "level") == [(1,), (10,)]
    assert scratch.rows("quarantine", "offset", "rule") == [(2, "low")]
    counted = scratch.rows("rule_counts", "topic", "batch", "rule", "action", "failed", "records")
    assert counted == [(topic, 0, "low", "quarantine", 1, 3), (topic, 0, "one_digit", "warn", 2, 3)]
    size = sum(len(part or b"") for row in scratch.rows(f"bronze/{topic}", "key", "value") for part in row)
    assert list(run.counted.values()) == [Counted(3, 1, {"one_digit": 2, "low": 1}, {"RULE_FAILED": 1}, size)]
    readings(scratch, topic, 1)
    scratch.ingest(topic)
    assert len(scratch.rows("rule_counts")) == 2


def test_counts_are_written_once_though_the_batch_is_run_again(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = scratch.topic()
    scratch.declare(topic, low("warn"))
    readings(scratch, topic, 11)
    for statement, when in (("rules", "before"), ("rules", "after")):
        with monkeypatch.context() as patched:
            patched.setattr(delta_table, "write", failing(statement, when, delta_table.write))
            with pytest.raises(TidemarkError, match="the machine is gone"):
                scratch.ingest(topic)
    scratch.ingest(topic)
    assert scratch.rows("rule_counts", "rule", "failed", "records") == [("low", 1, 1)]


def test_a_rule_that_stops_lets_nothing_of_the_batch_pass_until_it_is_mended(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.declare(topic, low("stop"))
    sent = readings(scratch, topic, 1, 11)
    for _ in range(2):
        with pytest.raises(TidemarkError, match="RULE_STOPPED") as stopped:
            scratch.ingest(topic)
        expected = f"RULE_STOPPED: rule `low` of topic {topic} fails at partition 0, offset 1: level is above 10"
        assert expected in stopped.value.message
        assert stopped.value.remedy.startswith(
            "mend the rule in conf/rules.toml, or set its on_failure to quarantine, "
        )
        assert coordinates(scratch, f"silver/{topic}", "_") == []
    scratch.declare(topic, low("quarantine"))
    scratch.ingest(topic)
    assert coordinates(scratch, f"bronze/{topic}") == sent
    assert coordinates(scratch, f"silver/{topic}", "_") == sent[:1]
    assert coordinates(scratch, "quarantine") == sent[1:]


def test_a_topic_that_a_rule_stops_does_not_keep_the_others_from_their_turn(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # the module changes the first entry
    main = importlib.import_module("jobs.main")
    topics = [scratch.topic() for _ in range(3)]
    for topic in topics[:2]:
        scratch.declare(topic, low("stop"))
    for topic in topics:
        readings(scratch, topic, 11)
    run = scratch.run(f"ingest.topics={','.join(topics)}", "spark.queries_at_once=1", job="ingest")
    ingest_job.build(run)
    failures = Failures(run.settings.run)
    args = Namespace(start=None, end=None, adopt=False, until_caught_up=True)

    main._execute(run.spark, run, args, ingest_job.build, failures)

    assert [scratch.rows(f"silver/{topic}", "level") for topic in topics] == [[], [], [(11,)]]
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    for topic, line in zip(topics[:2], told, strict=True):
        assert line.startswith(
            f"error: QUERY_FAILED: query ingest.{topic} stopped: RULE_STOPPED: rule `low` of topic {topic}"
        )
        assert line.endswith("; the other queries go on")
    ended = failures.error()
    assert ended is not None
    assert f"ingest.{topics[0]} (RULE_STOPPED), ingest.{topics[1]} (RULE_STOPPED)" in ended.message


def test_jobs_that_read_the_topic_take_what_silver_holds_and_stop_where_it_stops(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.declare(topic, low("quarantine"))
    readings(scratch, topic, 1, 11)
    run = scratch.run()
    run.append(run.read(topic), "levels")
    scratch.catch_up(run)
    assert scratch.rows("levels") == [("1", 1)]
    scratch.declare(topic, low("stop"))
    readings(scratch, topic, 12)
    run = scratch.run()
    run.append(run.read(topic), "levels")
    with pytest.raises(TidemarkError, match=r"RULE_STOPPED: rule `low` of topic .* at partition 0, offset 2"):
        scratch.catch_up(run)


def test_a_far_future_event_goes_to_quarantine_and_moves_no_watermark(scratch: Scratch) -> None:
    topic = scratch.topic(event_time="at")
    future = int((datetime.now(UTC) + timedelta(days=3)).timestamp() * 1000)
    for at in (T0, future, T0 + HOUR, T0 + 2):
        scratch.send(topic, scratch.reading(topic, "a", 1, at=at))
    scratch.ingest(topic)
    assert scratch.rows("quarantine", "offset", "error") == [(1, rules.FUTURE_EVENT_TIME)]
    run = scratch.run("source.max_offsets_per_trigger=1")
    hours = run.read(topic).withWatermark("at", "2 hours").groupBy(F.window("at", "1 hour")).count()
    run.upsert(hours.select("window.start", "count"), "hours", keys=("start",))
    scratch.catch_up(run)
    assert sorted(row[0] for row in scratch.rows("hours", "count")) == [1, 2]


def test_an_event_without_its_event_time_is_in_quarantine_and_a_tombstone_is_not(scratch: Scratch) -> None:
    topic = scratch.topic(compacted=True, event_time="at")
    readings = [scratch.reading(topic, id, 1, at=at) for id, at in (("a", T0), ("b", None), ("c", T0 + HOUR))]
    scratch.send(topic, *readings, Record(None, b"a"))
    scratch.ingest(topic)
    assert scratch.rows("quarantine", "offset", "error") == [(1, rules.NO_EVENT_TIME)]
    assert scratch.rows(f"silver/{topic}", "id", "_deleted") == [("a", True), ("c", False)]
    run = scratch.run()
    hours = run.read(topic).withWatermark("at", "2 hours").groupBy(F.window("at", "1 hour")).count()
    run.upsert(hours.select("window.start", "count"), "hours", keys=("start",))
    scratch.catch_up(run)
    assert [row[0] for row in scratch.rows("hours", "count")] == [1, 1]


@pytest.mark.exhaustive
def test_the_clock_of_a_replay_can_be_set(scratch: Scratch) -> None:
    topic = scratch.topic(event_time="at")
    scratch.send(topic, *(scratch.reading(topic, "a", 1, at=T0 + hours * HOUR) for hours in (0, 23, 25)))
    as_of = f"quarantine.as_of={datetime.fromtimestamp(T0 / 1000, UTC).isoformat()}"
    scratch.ingest(topic, overrides=[as_of])
    assert scratch.rows("quarantine", "offset", "error") == [(2, rules.FUTURE_EVENT_TIME)]
    run = scratch.run(as_of, bounds=("earliest", "latest"))
    assert run.read(topic).count() == 2


def test_a_batch_that_is_run_again_later_is_judged_by_the_clock_of_its_first_time(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = scratch.topic(event_time="at")
    ahead = int((datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1000)
    scratch.send(topic, scratch.reading(topic, "a", 1, at=ahead))
    with monkeypatch.context() as patched:
        patched.setattr(delta_table, "write", failing("silver", "before", delta_table.write))
        with pytest.raises(TidemarkError, match="the machine is gone"):
            scratch.ingest(topic, overrides=["quarantine.max_ahead=30 minutes"])
    entry = scratch.folder / "checkpoints" / "ingest" / topic / "offsets" / "0"
    version, metadata, *sources = entry.read_text().splitlines()
    planned = {**json.loads(metadata), "batchTimestampMs": ahead + 1}
    (entry.parent / ".0.crc").unlink()
    entry.write_text("\n".join([version, json.dumps(planned), *sources]))
    scratch.ingest(topic, overrides=["quarantine.max_ahead=30 minutes"])
    assert len(scratch.rows(f"silver/{topic}")) == 1


@pytest.mark.exhaustive
def test_a_reference_holds_for_values_that_the_other_table_has(scratch: Scratch) -> None:
    sites, topic = scratch.topic(compacted=True), scratch.topic()
    readings(scratch, sites, 1, 2)
    scratch.send(sites, Record(None, b"2"))
    known = Reference(name="known", on_failure="quarantine", field="id", table=f"silver/{sites}", column="id")
    scratch.declare(topic, known)
    readings(scratch, topic, 1, 2, 3, 1)
    with pytest.raises(TidemarkError, match=f"TABLE_MISSING: there is no table .*silver/{sites}"):
        scratch.ingest(topic)
    scratch.ingest(sites)
    scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}", "id", "_offset") == [("1", 0), ("1", 3)]
    assert scratch.rows("quarantine", "offset", "rule") == [(1, "known"), (2, "known")]


def test_a_repeat_within_the_delay_fails_whether_the_first_is_in_the_batch_or_in_silver(scratch: Scratch) -> None:
    topic = scratch.topic(event_time="at")
    scratch.declare(topic, Unique(name="once", on_failure="quarantine", fields=("id",), within="1 hour"))

    def send(*readings: tuple[str, int | None]) -> None:
        times = [(id, None if hours is None else T0 + hours * HOUR // 2) for id, hours in readings]
        scratch.send(topic, *(scratch.reading(topic, id, 1, at=at) for id, at in times))

    send(("a", 0), ("a", 2), ("a", 5), ("b", 0), ("c", None), ("c", None))
    scratch.ingest(topic)
    untimed = [(4, None), (5, None)]
    assert scratch.rows("quarantine", "offset", "rule") == [(1, "once"), *untimed]
    send(("a", 6), ("b", 3), ("b", -2), ("d", 6))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(delta_table, "write", failing("silver", "after", delta_table.write))
        with pytest.raises(TidemarkError, match="the machine is gone"):
            scratch.ingest(topic)
    scratch.ingest(topic)
    assert scratch.rows("quarantine", "offset", "rule") == [(1, "once"), *untimed, (6, "once"), (8, "once")]
    assert sorted(row[0] for row in scratch.rows(f"silver/{topic}", "_offset")) == [0, 2, 3, 7, 9]


def test_rules_that_reject_are_constraints_of_the_table_which_others_read_as_before(scratch: Scratch) -> None:
    topic = scratch.topic()
    quoted = Pattern(name="quoted", on_failure="quarantine", field="id", pattern=r"[^'\\]+")
    scratch.declare(topic, low("stop"), quoted, Required(name="odd", on_failure="warn", field="level"))
    readings(scratch, topic, 1)
    for _ in range(2):
        scratch.ingest(topic)
    assert constraints(scratch, f"silver/{topic}") == ["rule_low", "rule_quoted"]
    path = str(scratch.folder / "tables" / "silver" / topic)
    assert DeltaTable(path).to_pandas()["level"].tolist() == [1]
    with pytest.raises(Exception, match="DELTA_VIOLATE_CONSTRAINT"):
        scratch.spark.sql(f"UPDATE delta.`{path}` SET level = 11")
    scratch.declare(topic, low("quarantine", high=20))
    readings(scratch, topic, 11)
    scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}", "level") == [(1,), (11,)]
    assert constraints(scratch, f"silver/{topic}") == ["rule_low"]


@pytest.mark.exhaustive
def test_rows_that_break_a_new_rule_are_kept_without_a_constraint_and_said(
    scratch: Scratch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = scratch.topic()
    readings(scratch, topic, 11)
    scratch.ingest(topic)
    scratch.declare(topic, low("quarantine"))
    readings(scratch, topic, 1)
    scratch.ingest(topic)
    assert (
        f"warning: rows of table silver/{topic} break rule low: it gets no CHECK constraint" in capsys.readouterr().err
    )
    assert constraints(scratch, f"silver/{topic}") == []
    assert scratch.rows(f"silver/{topic}", "level") == [(1,), (11,)]


@pytest.mark.exhaustive
def test_nan_is_in_no_range_and_a_table_that_let_it_pass_goes_on_with_a_new_constraint(
    scratch: Scratch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, nan = scratch.topic(), float("nan")
    scratch.register(topic, {"name": "level", "type": "double"})
    positive = Range(name="positive", on_failure="quarantine", field="level", min=0)
    path = str(scratch.folder / "tables" / "silver" / topic)

    def send(*levels: float) -> None:
        scratch.send(topic, *(scratch.reading(topic, "a", level) for level in levels))  # type: ignore[arg-type]
        scratch.ingest(topic)

    send(nan)
    # As this project wrote it before.
    scratch.spark.sql(f"ALTER TABLE delta.`{path}` ADD CONSTRAINT rule_positive_0 CHECK (level IS NULL OR level >= 0)")
    scratch.declare(topic, positive)
    send(nan, -0.0, 1.0)
    assert scratch.rows("quarantine", "offset", "rule") == [(1, "positive")]
    assert scratch.rows(f"silver/{topic}", "_offset") == [(0,), (2,), (3,)]
    assert constraints(scratch, f"silver/{topic}") == []
    assert "break rule positive: it gets no CHECK constraint" in capsys.readouterr().err
    scratch.spark.sql(f"DELETE FROM delta.`{path}` WHERE isnan(level)")
    send(2.0)
    assert constraints(scratch, f"silver/{topic}") == ["rule_positive"]
    with pytest.raises(Exception, match="DELTA_VIOLATE_CONSTRAINT"):
        scratch.spark.sql(f"UPDATE delta.`{path}` SET level = double('NaN')")


@pytest.mark.exhaustive
def test_a_reference_to_a_column_of_another_type_is_refused_by_name(scratch: Scratch) -> None:
    sites, topic = scratch.topic(), scratch.topic()
    readings(scratch, sites, 1)
    scratch.ingest(sites)
    scratch.declare(
        topic, Reference(name="site", on_failure="warn", field="id", table=f"silver/{sites}", column="level")
    )
    scratch.send(topic, scratch.reading(topic, "no number", 1))
    with pytest.raises(TidemarkError, match=r"BAD_RULES: rule `site` compares id with level .* string, the other int"):
        scratch.ingest(topic)


@pytest.mark.exhaustive
def test_a_tombstone_passes_the_constraints_of_a_compacted_topic(scratch: Scratch) -> None:
    topic = scratch.topic(compacted=True)
    scratch.declare(topic, Required(name="known", on_failure="quarantine", field="level"))
    readings(scratch, topic, 1, 2)
    scratch.ingest(topic)
    scratch.send(topic, Record(None, b"1"), Record(None, b"3"))
    scratch.ingest(topic)
    assert constraints(scratch, f"silver/{topic}") == ["rule_known"]
    assert scratch.rows(f"silver/{topic}", "id", "level") == [("1", None), ("2", 2), ("3", None)]


@pytest.mark.exhaustive
def test_a_reference_to_a_column_that_is_not_there_and_unique_events_of_a_compacted_topic_are_refused(
    scratch: Scratch,
) -> None:
    compacted, topic = scratch.topic(compacted=True, event_time="at"), scratch.topic()
    readings(scratch, compacted, 1)
    readings(scratch, topic, 1)
    scratch.ingest(compacted)
    known = Reference(name="known", on_failure="warn", field="id", table=f"silver/{compacted}", column="di")
    scratch.declare(topic, known)
    with pytest.raises(TidemarkError, match=r"BAD_RULES: rule `known` .* no column `di`; did you mean `id`"):
        scratch.ingest(topic)
    scratch.declare(compacted, Unique(name="once", on_failure="warn", fields=("id",), within="1 hour"))
    with pytest.raises(TidemarkError, match=r"BAD_RULES: .* is compacted, and has a rule that asks for unique events"):
        scratch.ingest(compacted)


def test_a_rule_for_a_field_that_events_lack_stops_before_anything_is_read(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.declare(topic, Range(name="low", on_failure="warn", field="levle", max=1))
    with pytest.raises(TidemarkError, match=r"BAD_RULES: rule `low` of topic .* no `levle`; did you mean `level`"):
        scratch.ingest(topic)
    with pytest.raises(TidemarkError, match="BAD_RULES"):
        scratch.run().read(topic)
