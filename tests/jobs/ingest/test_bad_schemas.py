"""A schema that no job can read stops it with topic, subject and field; a better one lets it go on."""

import json
from typing import Any

import pytest

from conf.errors import TidemarkError
from jobs.ingest import job
from schemas.registry import fingerprint
from tests.jobs.scratch import FIELDS, Row, Scratch

ID = {"name": "id", "type": "string"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 50}


def hold(scratch: Scratch, subject: str, schema: dict[str, Any]) -> None:
    """Put a schema into the registry as somebody else's would hold it, unasked."""
    folder, text = scratch.folder / "registry", json.dumps(schema)
    entries = json.loads((folder / "index.json").read_text())
    entry = {"id": len(entries) + 1, "subject": subject, "version": 2, "sha256": fingerprint(text)}
    (folder / f"{entry['id']}.avsc").write_text(text)
    (folder / "index.json").write_text(json.dumps([*entries, entry]))


@pytest.mark.parametrize(
    ("fields", "more", "says"),
    [
        ([ID], {"namespace": "srv-1.inv"}, "namespace `srv-1.inv` of `Reading`"),
        ([ID, {"name": "n", "type": ["null", ["int", "string"]]}], {}, "field `n` of `Reading`: a union lies within"),
        ([ID, {"name": "n", "type": "long", "default": 2**63}], {}, "field `n` of `Reading`: the default"),
        ([ID, {"name": "_Offset", "type": "int"}], {}, "field _Offset: silver has a column `_offset`"),
        ([ID, {"name": "ID", "type": "string"}], {}, "two fields `id` that differ in case alone"),
        ([ID, {"name": "n", "type": DECIMAL}], {}, "field n: a decimal of 50 digits"),
        ([ID, {"name": "n", "type": ["null"]}], {}, "field n: nothing but null can be there"),
        ([ID, {"name": "n", "type": "int", "pii": "mask"}], {}, "field n: only text can be masked"),
    ],
)
def test_a_job_says_topic_subject_and_field_before_it_reads_anything(
    fields: list[Any], more: dict[str, Any], says: str, scratch: Scratch
) -> None:
    topic = scratch.topic()
    hold(scratch, f"{topic}-value", {"type": "record", "name": "Reading", "fields": fields, **more})
    run = scratch.run(f"ingest.topics={topic}", job="ingest")
    with pytest.raises(TidemarkError) as stopped:
        job.build(run)
    assert stopped.value.code == "BAD_SCHEMA"
    assert f"topic {topic}, subject {topic}-value, version 2 (schema id 2): " in stopped.value.message
    assert says in stopped.value.message


@pytest.mark.slow
def test_a_version_that_comes_while_a_job_runs_stops_it_by_name_and_a_better_one_mends_it(
    scratch: Scratch,
) -> None:
    topic = scratch.topic()
    run = scratch.run(f"ingest.topics={topic}", job="ingest")
    job.build(run)
    scratch.register(topic, {"name": "_offset", "type": "int"})
    scratch.send(topic, scratch.reading(topic, "a", 1, _offset=7))
    with pytest.raises(TidemarkError, match=rf"BAD_SCHEMA: topic {topic}, .* field _offset: ") as stopped:
        scratch.catch_up(run)
    assert "a new run goes on" not in str(stopped.value)
    # The remedy: another name, and the old one among the aliases.
    renamed = {"name": "at_offset", "type": "int", "aliases": ["_offset"]}
    schema = {"type": "record", "name": "Reading", "fields": [*FIELDS, renamed]}
    scratch.registry.register(f"{topic}-value", json.dumps(schema))
    scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}", "id", "level", "at_offset", "_offset") == [("a", 1, 7, 0)]


OFFSET = {"type": "record", "name": "Reading", "fields": [*FIELDS, {"name": "_offset", "type": ["null", "int"]}]}


def test_all_topics_that_never_ran_and_cannot_are_named_before_any_is_read(scratch: Scratch) -> None:
    sound, bad, unknown = scratch.topic(), scratch.topic(), f"{scratch.topic()}-unknown"
    hold(scratch, f"{bad}-value", OFFSET)
    run = scratch.run(f"ingest.topics={bad},{sound},{unknown}", job="ingest")
    run.left_out.is_allowed = True
    with pytest.raises(TidemarkError) as refused:
        job.build(run)
    said = str(refused.value)
    assert said.startswith("TOPICS_REFUSED: 2 topics cannot be read: (1) BAD_SCHEMA: ")
    assert f"topic {bad}, subject {bad}-value, version 2 (schema id 4): field _offset: " in said
    assert "; (2) UNKNOWN_SUBJECT: " in said
    assert f"{unknown}-value" in said
    assert said.endswith(f"read the others alone: --set ingest.topics={sound}")


@pytest.mark.slow
def test_a_topic_that_turned_bad_is_left_out_by_name_and_the_others_go_on(
    scratch: Scratch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, bad, sound = (scratch.topic() for _ in range(3))

    def execute() -> None:
        run = scratch.run(f"ingest.topics={damaged},{bad},{sound}", job="ingest")
        run.left_out.is_allowed = True
        job.build(run)
        scratch.catch_up(run)
        if error := run.left_out.error():
            raise error

    def levels(topic: str) -> list[Row]:
        return scratch.rows(f"silver/{topic}", "level")

    execute()
    hold(scratch, f"{bad}-value", OFFSET)
    offsets = scratch.folder / "checkpoints" / "ingest" / damaged / "metadata"
    metadata = offsets.read_bytes()
    offsets.write_bytes(b"")
    for topic in (damaged, sound):
        scratch.send(topic, scratch.reading(topic, "a", 1))

    with pytest.raises(TidemarkError) as ended:
        execute()

    assert ended.value.code == "QUERY_FAILED"
    assert f"query ingest.{bad} was left out: BAD_SCHEMA: topic {bad}, " in ended.value.message
    assert f"query ingest.{damaged} was left out: CHECKPOINT_DAMAGED: " in ended.value.message
    told = [line for line in capsys.readouterr().err.splitlines() if "is left out" in line]
    assert [line.split()[1] for line in told] == [f"ingest.{bad}", f"ingest.{damaged}"]
    assert (levels(sound), levels(damaged)) == ([(1,)], [])

    # Mended, it goes on where it was.
    offsets.write_bytes(metadata)
    renamed = {"name": "at_offset", "type": ["null", "int"], "default": None, "aliases": ["_offset"]}
    scratch.registry.register(f"{bad}-value", json.dumps({**OFFSET, "fields": [*FIELDS, renamed]}))
    scratch.send(bad, scratch.reading(bad, "a", 2, at_offset=None))
    execute()
    assert (levels(sound), levels(damaged), levels(bad)) == ([(1,)], [(1,)], [(2,)])
