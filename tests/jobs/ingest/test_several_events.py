"""Several event types in one topic: each has its table and its stream, and every record is in one place."""

from datetime import UTC, datetime
from typing import Any

import pytest

from conf.errors import TidemarkError
from conf.topics import Topic
from jobs.connectors.avro import decode
from schemas.codec import Encoder, frame
from schemas.contracts import contract, subject_for, subject_of_stream
from tests.jobs.scratch import Scratch
from tests.sent import Record

pytestmark = pytest.mark.slow

NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)
PLANE: dict[str, Any] = dict.fromkeys(("year", "type", "manufacturer", "model", "engines", "seats"))
EVENTS: dict[str, dict[str, Any]] = {
    "plane": PLANE | {"tail_number": "N1", "speed_mph": None, "engine": None},
    "weather_observation": {"station": "JFK", "observed_at": NOON},
}


def record(scratch: Scratch, topic: str, event: str) -> Record:
    text = contract(event)
    declared = Topic(topic, 1, "id", schemas=tuple(EVENTS))
    id = scratch.registry.register(subject_for(topic, text, declared), text)
    return Record(Encoder(id, text)(EVENTS[event]), b"k")


def test_ingest_gives_each_type_a_table_and_every_record_one_place(scratch: Scratch) -> None:
    topic = scratch.topic(schemas=tuple(EVENTS))
    plane, weather = (record(scratch, topic, event) for event in EVENTS)
    assert plane.value and weather.value
    strays = [Record(None), Record(b"{}"), Record(frame(99, b"x"))]
    broken = [Record(plane.value[:-1]), Record(weather.value + b"x")]
    sent = scratch.send(topic, plane, weather, *strays, *broken, plane)
    scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}/plane", "tail_number", "_offset") == [("N1", 0), ("N1", 7)]
    assert scratch.rows(f"silver/{topic}/weather_observation", "station", "_offset") == [("JFK", 1)]
    assert scratch.rows("quarantine", "offset", "error") == [
        (2, decode.NO_VALUE),
        (3, decode.BAD_FRAMING),
        (4, decode.UNKNOWN_SCHEMA_ID),
        (5, decode.UNDECODABLE),
        (6, decode.UNDECODABLE),
    ]
    assert len(scratch.rows(f"bronze/{topic}")) == len(sent)


def test_a_job_reads_one_type_and_the_others_are_neither_rows_nor_rejects(scratch: Scratch) -> None:
    topic = scratch.topic(schemas=tuple(EVENTS))
    scratch.send(topic, *(record(scratch, topic, event) for event in EVENTS), Record(b"{}"))
    run = scratch.run(bounds=("earliest", "latest"))
    run.append(run.read(topic, event="plane").select("tail_number"), "planes")
    line, _ = run.write_range()
    assert line.endswith("rejected 1")
    assert scratch.rows(f"{run.tables_root.rsplit('/', 1)[1]}/planes") == [("N1",)]


def test_each_type_has_a_subject_of_its_own() -> None:
    assert subject_of_stream("fleet/plane") == "fleet-tidemark.flights.Plane"
    assert subject_of_stream("planes") == "planes-value"


@pytest.mark.parametrize(
    ("event", "message"),
    [(None, "has events of several types; known: plane"), ("plan", "has no event `plan`; did you mean `plane`?")],
)
def test_an_event_that_is_not_named_or_not_there_is_said_so(event: str | None, message: str, scratch: Scratch) -> None:
    topic = scratch.topic(schemas=tuple(EVENTS))
    with pytest.raises(TidemarkError, match=f"UNKNOWN_EVENT.*{message}".replace("?", r"\?")):
        scratch.run().read(topic, event=event)


def test_a_schema_of_no_type_of_the_topic_is_not_registered_for_it() -> None:
    with pytest.raises(TidemarkError, match="UNKNOWN_EVENT: topic fleet has no events of type"):
        subject_for("fleet", contract("departure"), Topic("fleet", 1, "id", schemas=tuple(EVENTS)))
