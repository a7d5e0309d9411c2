"""Finds the contracts (the newest text of each event's schema, one `.avsc` file each) and the subjects of topics."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from conf.errors import TidemarkError, nearest
from conf.names import within
from conf.topics import Topic, subject_of
from schemas.pii_marks import pii_fields_of
from schemas.spark_limits import require_storable, types_within
from schemas.validity import parse_text

FOLDER = Path(__file__).resolve().parent


def contract(name: str, folder: Path = FOLDER) -> str:
    """Return the Avro schema text of contract `name` (a file's stem, as in conf/topics.toml); raises TidemarkError
    UNKNOWN_CONTRACT, with the nearest name; BAD_NAME."""
    path = contract_path(name, folder)
    if not path.is_file():
        raise TidemarkError("UNKNOWN_CONTRACT", f"no contract {path}", nearest(name, contract_names(folder)))
    return path.read_text(encoding="utf-8")


def contract_path(name: str, folder: Path = FOLDER) -> Path:
    """Return where the contract `name` lies; raises TidemarkError BAD_NAME where that would be another folder."""
    return Path(within(str(folder), f"{name}.avsc"))


def contract_names(folder: Path = FOLDER) -> list[str]:
    """Return every contract's name, sorted."""
    return sorted(path.stem for path in folder.glob("*.avsc"))


def require_event(subject: str, text: str) -> None:
    """Check a schema, before it is registered under a topic's subject, as jobs would check it; raises TidemarkError
    INVALID_SCHEMA; BAD_SCHEMA, where no job could read its events, or a mark would be ignored."""
    try:
        require_storable(text)
        pii_fields_of(text)
    except TidemarkError as exc:
        raise TidemarkError(exc.code, f"{subject}: {exc.message}", exc.remedy) from exc


def with_fields(text: str, names: Collection[str], beside: Collection[str] = ()) -> str:
    """Return the schema `text` of an event with the fields `names` alone, those of `beside` that there are, and those
    that declare a type of theirs; raises TidemarkError UNKNOWN_FIELD, with the nearest name."""
    schema = parse_text(text)
    known = [field["name"] for field in schema["fields"]]
    for name in names:
        if name not in known:
            what = f"events of {schema['name']} have no field `{name}`"
            raise TidemarkError("UNKNOWN_FIELD", what, nearest(name, known))
    kept: list[Any] = []
    needed: set[str] = set()
    # From the last one on: a type is declared before it is referred to.
    for field in reversed(schema["fields"]):
        declared, used = _named(field["type"])
        if field["name"] in names or field["name"] in beside or declared & needed:
            kept.insert(0, field)
            needed |= used
    narrow = {name: value for name, value in schema.items() if not name.startswith("__")}
    return json.dumps(narrow | {"fields": kept})


def _named(avro_type: Any) -> tuple[set[str], set[str]]:
    """Return the names of the types that are declared within a type, and of those that it refers to, in parsed form."""
    if isinstance(avro_type, str):
        return set(), {avro_type}
    inner = avro_type if isinstance(avro_type, list) else [avro_type["type"], *types_within(avro_type)]
    within = [_named(part) for part in inner]
    named = {avro_type["name"]} if isinstance(avro_type, dict) and "name" in avro_type else set()
    return named.union(*(declared for declared, _ in within)), set().union(*(used for _, used in within))


def subject_of_stream(stream: str) -> str:
    """Return the subject of a stream; raises TidemarkError UNKNOWN_CONTRACT."""
    topic, _, event = stream.partition("/")
    return f"{topic}-{_record_name(contract(event))}" if event else subject_of(topic)


def stream_of(topic: str, event: str | None, declared: Mapping[str, Topic]) -> str:
    """Return the stream of `event` in `topic`; None stands for the one type of a topic. Raises TidemarkError
    UNKNOWN_EVENT, where the topic has no such type, or several and none is named; NO_CONTRACT, where it holds JSON."""
    if topic in declared:
        declared[topic].require_contract()
    streams = declared[topic].streams if topic in declared else {topic: ""}
    stream = topic if event is None else f"{topic}/{event}"
    if stream not in streams:
        events = [name.partition("/")[2] for name in streams if "/" in name]
        what = f"topic {topic} has no event `{event}`" if event else f"topic {topic} has events of several types"
        remedy = nearest(event or "", events) if events else "it has one type: leave the event out"
        raise TidemarkError("UNKNOWN_EVENT", what, remedy)
    return stream


def subject_for(topic: str, text: str, declared: Topic | None) -> str:
    """Return the subject in which the schema `text` is a version of a type of `topic`'s events; raises TidemarkError
    UNKNOWN_EVENT, where the topic has several types and `text` is of none of them."""
    if declared is None or not declared.schemas:
        return subject_of(topic)
    subjects = [subject_of_stream(stream) for stream in declared.streams]
    name = _record_name(text)
    if f"{topic}-{name}" not in subjects:
        what = f"topic {topic} has no events of type {name}"
        raise TidemarkError("UNKNOWN_EVENT", what, f"its types are those of {', '.join(declared.schemas)}")
    return f"{topic}-{name}"


def _record_name(text: str) -> str:
    schema = parse_text(text)
    return str(schema["name"]) if isinstance(schema, dict) and "name" in schema else ""
