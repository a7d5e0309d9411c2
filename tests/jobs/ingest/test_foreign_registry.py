"""What others keep in a registry beside plain Avro: types in other subjects, versions of other types, keys' schemas."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer

from conf.errors import TidemarkError
from conf.settings import load
from conf.topics import Topic
from jobs.ingest import job
from jobs.pipeline.tombstones import BAD_KEY
from jobs.pipeline.validation import NOT_AVRO, Validator
from schemas.codec import frame
from schemas.registry import RegisteredSchema, RetryPolicy
from schemas.registry_http import HttpRegistry
from tests.jobs.scratch import FIELDS, Scratch
from tests.schemas.fake_registry import FakeRegistry, answering
from tests.sent import Record

LACKS = (404, {"error_code": 40401, "message": "no such subject"})
PROTO = 'syntax = "proto3"; message Reading { string id = 1; }'
PLACE = {"type": "record", "name": "Place", "namespace": "geo", "fields": [{"name": "city", "type": "string"}]}


def reading(*more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Reading", "fields": [*FIELDS, *more]}


def avro(id: int, schema: Any, value: Any) -> bytes:
    buffer = io.BytesIO()
    schemaless_writer(buffer, parse_schema(json.loads(json.dumps(schema))), value)
    return frame(id, buffer.getvalue())


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with answering(LACKS) as server:
        yield server


@pytest.mark.slow
def test_references_and_other_types_stop_no_topic_and_every_record_is_accounted_for(
    scratch: Scratch, registry: FakeRegistry
) -> None:
    topic, url = scratch.topic(), f"registry.url={registry.url}"
    lent = {"name": "place", "type": ["null", "geo.Place"], "default": None}
    whole = reading({**lent, "type": ["null", PLACE]})
    registry.keep(f"{topic}-value", 1, 1, PROTO, schemaType="PROTOBUF")
    registry.keep(f"{topic}-value", 2, 2, json.dumps(reading()))
    scratch.send(topic, Record(avro(2, reading(), {"id": "a", "level": 1})), Record(frame(1, b"\0\n\1a")))
    scratch.ingest(topic, overrides=[url])

    registry.keep("place", 1, 3, json.dumps(PLACE))
    refers = [{"name": "geo.Place", "subject": "place", "version": 1}]
    registry.keep(f"{topic}-value", 3, 4, json.dumps(reading(lent)), references=refers)
    registry.keep(f"{topic}-value", 4, 5, "{}", schemaType="JSON")
    event = {"id": "b", "level": 2, "place": {"city": "Rome"}}
    scratch.send(topic, Record(avro(4, whole, event)), Record(frame(5, b"{}")), Record(frame(6, b"")))
    scratch.ingest(topic, overrides=[url])

    assert scratch.rows(f"silver/{topic}", "id", "place.city", "_offset") == [("a", None, 0), ("b", "Rome", 2)]
    rejected = scratch.rows("quarantine", "offset", "error", "schema_id")
    assert rejected == [(1, NOT_AVRO, 1), (3, NOT_AVRO, 5), (4, "UNKNOWN_SCHEMA_ID", 6)]
    reasons = {reason for error, reason in scratch.rows("quarantine", "error", "reason") if error == NOT_AVRO}
    assert reasons == {"the schema with this id is registered for the topic, and is no Avro: PROTOBUF, JSON or such"}


def test_where_nothing_can_be_read_topic_subject_and_version_are_named_and_the_way_out_is_one(
    scratch: Scratch, registry: FakeRegistry
) -> None:
    topic, url = scratch.topic(), f"registry.url={registry.url}"

    def build() -> None:
        job.build(scratch.run(f"ingest.topics={topic}", url, job="ingest"))

    registry.keep(f"{topic}-value", 1, 7, PROTO, schemaType="PROTOBUF")
    says = rf"UNSUPPORTED_SCHEMA: topic {topic}: subject {topic}-value has no Avro schema: version 1 \(schema id 7\) is"
    with pytest.raises(TidemarkError, match=says):
        build()
    registry.keep(f"{topic}-value", 2, 8, json.dumps(reading({"name": "place", "type": "geo.Place"})), references=[
        {"name": "geo.Place", "subject": "place", "version": 1}
    ])  # fmt: skip
    says = rf"BAD_SCHEMA: topic {topic}, subject {topic}-value, version 2 \(schema id 8\): it refers to version 1 of"
    with pytest.raises(TidemarkError, match=rf"{says} subject place, .*; register that there again"):
        build()
    registry.keep("place", 1, 9, json.dumps(PLACE))
    build()


@pytest.mark.slow
def test_tombstones_with_framed_keys_delete_their_rows_and_what_names_none_is_kept(
    scratch: Scratch, registry: FakeRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    topic, url = scratch.topic(compacted=True), f"registry.url={registry.url}"
    registry.keep(f"{topic}-value", 1, 1, json.dumps(reading()))
    keys = [avro(2, "string", id) for id in ("a", "b", "c")]
    events = [Record(avro(1, reading(), {"id": id, "level": 1}), key) for id, key in zip("abc", keys, strict=True)]
    scratch.send(topic, *events, Record(None, keys[0]), Record(None, b'\0\0\0\0\0\0\0"'))
    scratch.ingest(topic, overrides=[url])
    assert scratch.rows(f"silver/{topic}", "id", "_deleted") == [("a", False), ("b", False), ("c", False)]
    assert scratch.rows("quarantine", "offset", "error") == [(3, BAD_KEY), (4, BAD_KEY)]
    [told] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: topic")]
    assert told.startswith(
        f"warning: topic {topic}, partition 0, offset 0: the record key is not that of the event's `id`"
    )
    assert told.endswith(f"register their schema as {topic}-key")

    # The remedy: their schema is registered.
    registry.keep(f"{topic}-key", 1, 2, '"string"')
    scratch.send(topic, Record(None, keys[1]), Record(None, b"c"))
    scratch.ingest(topic, overrides=[url])
    assert scratch.rows(f"silver/{topic}", "id", "_deleted") == [("a", False), ("b", True), ("c", True)]
    assert len(scratch.rows("quarantine", "offset")) == 2
    assert "warning: topic" not in capfd.readouterr().err


@pytest.mark.parametrize(("code", "goes_on"), [("REGISTRY_REFUSED", True), ("REGISTRY_UNAVAILABLE", False)])
def test_a_user_who_may_not_see_the_keys_subject_reads_the_topic_all_the_same(
    code: str, goes_on: bool, registry: FakeRegistry
) -> None:
    registry.keep("t-value", 1, 1, json.dumps(reading()))
    settings = load("local", [f"registry.url={registry.url}"])

    class Limited(HttpRegistry):
        def all_versions(self, subject: str) -> list[RegisteredSchema]:
            if subject == "t-key":
                raise TidemarkError(code, "it answers 403", "log in as another")
            return super().all_versions(subject)

    topics = {"t": Topic("t", 1, "id", "reading", cleanup_policy="compact")}
    validator = Validator(settings, Limited(settings.registry, RetryPolicy(0)), topics, {})
    if goes_on:
        assert validator.versions("t").of_keys == ()
    else:
        with pytest.raises(TidemarkError, match=code):
            validator.versions("t")
