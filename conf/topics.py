"""Loads the topics that `topics.toml` declares: what each should be, apart from the cluster that holds it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from conf import ROOT
from conf.errors import TidemarkError, nearest
from conf.names import TOPIC_RULE, is_topic
from conf.setting_sources import read_toml
from conf.setting_types import DURATION_EXAMPLE, INT, milliseconds

CleanupPolicy = Literal["delete", "compact"]
Format = Literal["avro", "json"]
FOREVER_MS = -1
MOST = {"partitions": INT, "replication_factor": 2**15 - 1}  # that Kafka's protocol has room for
DECLARED = {
    *("partitions", "replication_factor", "retention", "cleanup_policy"),
    *("key", "schema", "schemas", "format", "event_time"),
}


@dataclass(frozen=True)
class Topic:
    """One declared topic; `replication_factor` None means the environment's, `retention_ms` -1 means forever.

    It has `schema`, the contract of its events, or `schemas`, those of its several types of events; with the format
    "json" it has neither: others write it, and the job that reads it checks it.
    """

    name: str
    partitions: int
    key: str
    schema: str = ""
    event_time: str | None = None
    replication_factor: int | None = None
    retention_ms: int = FOREVER_MS
    cleanup_policy: CleanupPolicy = "delete"
    schemas: tuple[str, ...] = ()
    format: Format = "avro"

    def require_contract(self) -> None:
        """Raise TidemarkError NO_CONTRACT for a topic of JSON."""
        if self.format == "json":
            what = f'topic {self.name} holds JSON without a contract (format = "json" in conf/topics.toml)'
            raise TidemarkError("NO_CONTRACT", what, "leave it to the job that reads such lines")

    @property
    def subject(self) -> str:
        """Return the registry subject of the record values, of a topic with events of one type."""
        return subject_of(self.name)

    @property
    def compaction_key(self) -> str | None:
        """Return the field that keys the records of a compacted topic; None for all others."""
        return self.key if self.cleanup_policy == "compact" else None

    @property
    def config(self) -> dict[str, str]:
        """Return the topic-level settings that the declaration makes, by Kafka's names."""
        return {"cleanup.policy": self.cleanup_policy, "retention.ms": str(self.retention_ms)}

    @property
    def streams(self) -> dict[str, str]:
        """Return the contract of each stream, by its name: the topic's own, or `<topic>/<event>` for each type."""
        if self.format == "json":
            return {}
        return {f"{self.name}/{event}": event for event in self.schemas} or {self.name: self.schema}


def subject_of(topic: str) -> str:
    """Return the registry subject of the record values of `topic`, which has events of one type."""
    return f"{topic}-value"


def load_topics(path: Path | None = None) -> dict[str, Topic]:
    """Return every declared topic by name; raises TidemarkError BAD_TOPICS, with the file, the topic and the key."""
    path = path or ROOT / "conf" / "topics.toml"
    declared, _ = read_toml(path, "BAD_TOPICS")
    return {name: _topic(path, name, table) for name, table in declared.items()}


def find_topic(name: str, topics: dict[str, Topic]) -> Topic:
    """Return the declared topic `name`; UNKNOWN_TOPIC with the nearest name otherwise."""
    if name not in topics:
        what = f"topic `{name}` is not declared in conf/topics.toml"
        raise TidemarkError("UNKNOWN_TOPIC", what, nearest(name, list(topics)))
    return topics[name]


def _topic(path: Path, name: str, table: Any) -> Topic:
    if not isinstance(table, dict):
        raise _bad(path, name, "is not a table", "write it as [name] with its keys below")
    if not is_topic(name):
        raise _bad(path, name, "has a name that Kafka does not take", f"write {TOPIC_RULE}")
    for key in table.keys() - DECLARED:
        raise _bad(path, name, f"has an unknown key `{key}`", nearest(key, sorted(DECLARED)))
    for key in ("partitions", "key"):
        if key not in table:
            raise _bad(path, name, f"lacks `{key}`", "every topic declares partitions, key and schema")
    if table.get("format", "avro") not in get_args(Format):
        raise _bad(path, name, f"has format = {table['format']!r}", "write `avro` or `json`")
    if table.get("format") == "json":
        if "schema" in table or "schemas" in table:
            raise _bad(path, name, "has a schema, and format = 'json'", "leave one of them out")
    elif ("schema" in table) == ("schemas" in table):
        raise _bad(path, name, "lacks `schema`, or has `schemas` beside it", "write one of them")
    values = {key: table[key] for key in DECLARED - {"retention"} if key in table}
    if "schemas" in values:
        listed = values["schemas"]
        is_list = isinstance(listed, list) and all(isinstance(schema, str) and schema for schema in listed)
        if not is_list or not listed or len(set(listed)) < len(listed):
            raise _bad(path, name, f"has schemas = {listed!r}", "write a list of different names in quotes")
        if table.get("cleanup_policy") == "compact":
            what = "is compacted and has several schemas: a record without a value would not say of which type it is"
            raise _bad(path, name, what, "give each type a topic of its own")
        values["schemas"] = tuple(listed)
    retention = table.get("retention", "forever")
    try:
        values["retention_ms"] = FOREVER_MS if retention == "forever" else milliseconds(str(retention))
    except ValueError:
        raise _bad(path, name, f"has retention = {retention!r}", f'write "forever", or {DURATION_EXAMPLE}') from None
    _check(path, name, table)
    return Topic(name=name, **values)


def _check(path: Path, name: str, table: dict[str, Any]) -> None:
    for key, most in MOST.items():
        if key in table and (type(table[key]) is not int or not 1 <= table[key] <= most):
            raise _bad(path, name, f"has {key} = {table[key]!r}", f"write a whole number from 1 to {most:,}")
    for key in ("key", "schema", "event_time"):
        if key in table and not (isinstance(table[key], str) and table[key]):
            raise _bad(path, name, f"has {key} = {table[key]!r}", "write a name in quotes")
    policy = table.get("cleanup_policy", "delete")
    if policy not in get_args(CleanupPolicy):
        raise _bad(path, name, f"has cleanup_policy = {policy!r}", "write `delete` or `compact`")


def _bad(path: Path, name: str, what: str, remedy: str) -> TidemarkError:
    return TidemarkError("BAD_TOPICS", f"{path}: topic `{name}` {what}", remedy)
