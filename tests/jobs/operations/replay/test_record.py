"""The record of a replay: what it says, further attempts, and one that is damaged."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conf.errors import TidemarkError
from conf.settings import load
from jobs.operations.replay.record import WITHDRAWN, Part, Replacement, Replay, ReplayPaths, Replays, Slice
from jobs.pipeline.outputs import RowSelector


def day(number: int) -> datetime:
    return datetime(2013, 1, number, tzinfo=UTC)


def test_a_record_that_is_empty_is_damaged_and_not_missing(tmp_path: Path) -> None:
    settings = load(overrides=[f"paths.tables={tmp_path}"])
    replays = Replays(settings)
    assert replays.all() == [] and replays.find("r1") is None
    record = Path(ReplayPaths(settings, "r1").record)
    record.parent.mkdir(parents=True)
    record.touch()
    with pytest.raises(TidemarkError, match="BAD_REPLAY"):
        replays.all()


def test_what_was_taken_back_or_given_up_is_planned_as_a_further_attempt(tmp_path: Path) -> None:
    replays = Replays(load("local", [f"paths.tables={tmp_path}"]))
    request = {"from": day(1).isoformat(), "to": day(2).isoformat()}
    planned = Replay("id", "j", "range", request, {}, (Slice({}),), (), "", day(2))
    assert [replays.begin(planned), replays.begin(planned)] == [planned, planned]
    for number, state in enumerate(WITHDRAWN, 2):
        replays.keep(replays.begin(planned), state=state)
        assert replays.begin(planned) == replace(planned, id=f"id-{number}")
    done = replays.keep(replays.begin(planned), state="done")
    assert replays.begin(planned) == done
    assert done.command.endswith("--from 2013-01-01T00:00:00+00:00 --to 2013-01-02T00:00:00+00:00 --again")
    assert replays.begin(planned, again=True).id == "id-4"
    assert [replay.id for replay in replays.all()] == ["id", "id-2", "id-3", "id-4"]


def test_a_record_has_the_names_that_it_had_before_and_reads_back_the_same() -> None:
    table = Replacement(RowSelector("t", ("k",), "at"), day(1), None, version=3)
    part = Part("j.t", "t", ("topic",), (table,), back_s=60.0, sends_since=day(1))
    slices = (Slice({"topic": {0: 5}}, -1, "2013"), Slice({"topic": {0: 9}}, 1))
    request = {"from": "2013-01-01", "to": "latest"}
    replay = Replay("id", "j", "range", request, {"topic": {0: 1}}, slices, (part,), "code", day(5), findings={"a": 1})
    text = replay.to_json()
    fields = json.loads(text)
    assert set(fields) == {
        *("id", "job", "kind", "asked", "starts", "slices", "parts", "code", "planned_at", "records", "bytes", "state"),
        *("findings", "tables"),
    }
    assert fields["slices"][0] == {"until": {"topic": {"0": 5}}, "trusted": -1, "ends_at": "2013"}
    assert (fields["asked"], fields["tables"]) == (request, {"t": {"version": 3}})
    assert Replay.from_json(text) == replay


def test_a_record_of_before_records_for_topics_had_a_range_sends_them_all() -> None:
    replay = Replay("id", "j", "range", {}, {}, (Slice({}),), (Part("j.t", "t", (), (), "out"),), "code", day(5))
    fields = json.loads(replay.to_json())
    for name in ("sends_since", "sends_until"):
        del fields["parts"][0][name]
    assert Replay.from_json(json.dumps(fields)) == replay
