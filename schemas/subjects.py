"""Under which subject the registry keeps the schemas of a topic's values.

The events of one type in one topic are a stream: `<topic>`, or `<topic>/<event>` in a topic of several types, the event
named by its contract. The subject is `<topic>-value`, or `<topic>-<full name of the record>` (what Confluent calls
TopicRecordNameStrategy): each type has versions of its own.
"""

from collections.abc import Mapping

from conf.errors import TidemarkError, nearest
from conf.topics import Topic, subject_of
from schemas.codec import parsed
from schemas.contracts import contract


def subject_of_stream(stream: str) -> str:
    """The subject of a stream; raises TidemarkError UNKNOWN_CONTRACT."""
    topic, _, event = stream.partition("/")
    return f"{topic}-{_record_name(contract(event))}" if event else subject_of(topic)


def stream_of(topic: str, event: str | None, declared: Mapping[str, Topic]) -> str:
    """The stream of `event` in `topic`; None stands for the one type of a topic.

    Raises:
        TidemarkError: UNKNOWN_EVENT, where the topic has no such type, or several and none is named.
    """
    streams = declared[topic].streams if topic in declared else {topic: ""}
    stream = topic if event is None else f"{topic}/{event}"
    if stream not in streams:
        events = [name.partition("/")[2] for name in streams if "/" in name]
        what = f"topic {topic} has no event `{event}`" if event else f"topic {topic} has events of several types"
        remedy = nearest(event or "", events) if events else "it has one type: leave the event out"
        raise TidemarkError("UNKNOWN_EVENT", what, remedy)
    return stream


def subject_for(topic: str, text: str, declared: Topic | None) -> str:
    """The subject in which the schema `text` is a version of a type of `topic`'s events.

    Raises:
        TidemarkError: UNKNOWN_EVENT, where the topic has several types and `text` is of none of them.
    """
    if declared is None or not declared.schemas:
        return subject_of(topic)
    subjects = [subject_of_stream(stream) for stream in declared.streams]
    subject = f"{topic}-{_record_name(text)}"
    if subject not in subjects:
        what = f"topic {topic} has no events of type {_record_name(text)}"
        raise TidemarkError("UNKNOWN_EVENT", what, f"its types are those of {', '.join(declared.schemas)}")
    return subject


def _record_name(text: str) -> str:
    schema = parsed(text)
    return str(schema["name"]) if isinstance(schema, dict) and "name" in schema else ""
