"""Compares the topics of conf/topics.toml with the cluster: `plan` shows the differences, `apply` removes them.

Nothing is ever shrunk or deleted.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from conf import command_line
from conf.errors import TidemarkError, exit_on_error
from conf.topics import Topic, load_topics
from jobs.connectors.kafka.access import CODES, Right, connect, not_authorized
from jobs.connectors.kafka.offsets import topic_ids
from local.processes import wait_for

TIMEOUT_SECONDS = 15
ClientConfig = Mapping[str, Any] | None
Kind = Literal["create", "grow", "configure", "refuse", "undeclared"]
PASSED_OVER: tuple[Kind, ...] = ("refuse", "undeclared")
NEEDED: dict[Kind, str] = {"create": "Create", "grow": "Alter", "configure": "AlterConfigs"}
SIGNS: dict[Kind, str] = {"create": "+", "grow": "~", "configure": "~", "refuse": "!", "undeclared": "?"}


@dataclass(frozen=True)
class Existing:
    """A topic as the cluster has it; `config` holds the settings that a declaration can make."""

    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """One difference between declaration and cluster, and what `apply` needs to remove it."""

    kind: Kind
    topic: str
    text: str
    partitions: int = 0
    replication_factor: int = 0
    config: Mapping[str, str] | None = None

    def __str__(self) -> str:
        return f"{SIGNS[self.kind]} {self.topic}: {self.text}"


def main(argv: Sequence[str]) -> int:
    """Compare conf/topics.toml with the cluster (plan), or make the cluster so (apply); 1 on a refusal."""
    parser = argparse.ArgumentParser(
        prog="local/tidemark topics", description=main.__doc__, parents=[command_line.settings_options()]
    )
    parser.add_argument("action", choices=("plan", "apply"))
    options = command_line.parse(parser, argv)
    settings = command_line.settings_of(options)
    act = bring_in_step if options.action == "apply" else compare
    declared = list(load_topics().values())
    connection = settings.kafka.client_config()
    changes = act(connect(settings.kafka), declared, settings.kafka.replication_factor, connection)
    for change in changes:
        print(change, file=sys.stderr if change.kind == "refuse" else sys.stdout)
    if all(change.kind == "undeclared" for change in changes):
        print(f"in step: {settings.kafka.bootstrap_servers} has every declared topic as declared")
    else:
        print("applied" if options.action == "apply" else "nothing was changed: `local/tidemark topics apply` does it")
    return int(any(change.kind == "refuse" for change in changes))


def plan(
    declared: Iterable[Topic], existing: Mapping[str, Existing], *, brokers: int, replication_factor: int
) -> list[Change]:
    """Return what would make the cluster as declared; nothing where they are in step.

    Args:
        replication_factor: of topics that declare none.
    """
    changes: list[Change] = []
    undeclared = set(existing)
    for topic in declared:
        undeclared.discard(topic.name)
        copies = topic.replication_factor or replication_factor
        if topic.name in existing:
            changes += _differences(topic, existing[topic.name], copies)
        elif copies > brokers:
            text = f"replication factor {copies} needs {copies} brokers, there are {brokers}"
            changes.append(Change("refuse", topic.name, text))
        else:
            settings = ", ".join(f"{key}={value}" for key, value in topic.config.items())
            text = f"create with partitions {topic.partitions}, replication factor {copies}, {settings}"
            changes.append(Change("create", topic.name, text, topic.partitions, copies, topic.config))
    text = "on the cluster, not declared; left as it is"
    return changes + [Change("undeclared", name, text) for name in sorted(undeclared)]


def _differences(topic: Topic, existing: Existing, copies: int) -> list[Change]:
    changes = []
    if topic.partitions > existing.partitions:
        growth = f"partitions {existing.partitions} -> {topic.partitions}"
        text = f"{growth}; new records of a key may go to another partition"
        if topic.cleanup_policy == "compact":
            text += (
                ", where Kafka keeps its old ones beside them; of the two, silver keeps the later by the records' "
                "timestamps (docs/quarantine.md#a-key-in-two-partitions)"
            )
        changes.append(Change("grow", topic.name, text, partitions=topic.partitions))
    elif topic.partitions < existing.partitions:
        text = f"{existing.partitions} partitions cannot become {topic.partitions}: Kafka never takes partitions away"
        changes.append(Change("refuse", topic.name, text))
    if copies != existing.replication_factor:
        text = f"replication factor {existing.replication_factor} cannot become {copies} here: reassign the partitions"
        changes.append(Change("refuse", topic.name, text))
    config = {key: value for key, value in topic.config.items() if existing.config.get(key) != value}
    if config:
        text = ", ".join(f"{key} {existing.config.get(key)} -> {value}" for key, value in config.items())
        changes.append(Change("configure", topic.name, text, config=config))
    return changes


def read_cluster(
    admin: AdminClient, declared: Iterable[Topic], connection: ClientConfig = None
) -> tuple[dict[str, Existing], int]:
    """Return the cluster's topics that this user may see, Kafka's own left out, and the number of its brokers.

    Args:
        connection: of the client, for the command that grants a lacking right; so below.

    Raises:
        TidemarkError: NOT_AUTHORIZED.
    """
    metadata = admin.list_topics(timeout=TIMEOUT_SECONDS)
    known = {name: topic for name, topic in metadata.topics.items() if not name.startswith("__")}
    configs = _read_configs(admin, [topic for topic in declared if topic.name in known], connection)
    topics = {
        name: Existing(len(topic.partitions), len(topic.partitions[0].replicas), configs.get(name, {}))
        for name, topic in known.items()
    }
    return topics, len(metadata.brokers)


def _read_configs(admin: AdminClient, topics: Sequence[Topic], connection: ClientConfig) -> dict[str, dict[str, str]]:
    if not topics:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, topic.name) for topic in topics]
    answers = admin.describe_configs(resources, request_timeout=TIMEOUT_SECONDS)
    entries = {}
    for resource, answer in answers.items():
        try:
            entries[resource.name] = answer.result()
        except KafkaException as exc:
            raise _failed(resource.name, "its settings", exc.args[0], "DescribeConfigs", connection) from exc
    return {topic.name: {key: entries[topic.name][key].value for key in topic.config} for topic in topics}


def apply(admin: AdminClient, changes: Iterable[Change], connection: ClientConfig = None) -> None:
    """Carry out what can be carried out; a topic that somebody else has created meanwhile is left as it is.

    Raises:
        TidemarkError: TOPIC_FAILED, with the topic and what the broker said; NOT_AUTHORIZED.
    """
    for change in changes:
        answer = _send(admin, change)
        try:
            if answer is not None:
                answer.result(TIMEOUT_SECONDS)
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            raise _failed(change.topic, change.kind, exc.args[0], NEEDED[change.kind], connection) from exc


def _failed(topic: str, what: str, error: KafkaError, operation: str, connection: ClientConfig) -> TidemarkError:
    if error.code() in CODES:
        return not_authorized(error, [Right("topic", topic, (operation, "Describe"))], connection or {})
    remedy = "mend that and run the same command again"
    return TidemarkError("TOPIC_FAILED", f"`{topic}`, {what}: {error.str()}", remedy)


def _send(admin: AdminClient, change: Change) -> "Future[None] | None":
    if change.kind == "create":
        new = NewTopic(change.topic, change.partitions, change.replication_factor, config=dict(change.config or {}))
        return admin.create_topics([new])[change.topic]
    if change.kind == "grow":
        return admin.create_partitions([NewPartitions(change.topic, change.partitions)])[change.topic]
    if change.kind == "configure":
        setting = partial(ConfigEntry, incremental_operation=AlterConfigOpType.SET)
        entries = [setting(key, value) for key, value in (change.config or {}).items()]
        resource = ConfigResource(ResourceType.TOPIC, change.topic, incremental_configs=entries)
        return next(iter(admin.incremental_alter_configs([resource]).values()))
    return None


def compare(
    admin: AdminClient, declared: Sequence[Topic], replication_factor: int, connection: ClientConfig = None
) -> list[Change]:
    """Return the plan for a cluster as it is now; raises TidemarkError NOT_AUTHORIZED, KAFKA_FAILED."""
    existing, brokers = read_cluster(admin, declared, connection)
    # The list lacks topics that this user may not see: these are not missing.
    topic_ids(admin, [topic.name for topic in declared if topic.name not in existing], connection)
    return plan(declared, existing, brokers=brokers, replication_factor=replication_factor)


def bring_in_step(
    admin: AdminClient, declared: Sequence[Topic], replication_factor: int, connection: ClientConfig = None
) -> list[Change]:
    """Apply the plan and return it when the brokers show its effect, which comes a little after their answer.

    A topic that the brokers show only now, by this command or another, is compared then, and changed where it differs.

    Raises:
        TidemarkError: TOPIC_FAILED, NOT_AUTHORIZED, KAFKA_FAILED.
    """
    changes = compare(admin, declared, replication_factor, connection)
    apply(admin, changes, connection)
    what = f"the changes are not to be seen after {TIMEOUT_SECONDS} s"
    late = TidemarkError("TOPIC_FAILED", what, "look at the brokers' logs")

    def all_seen() -> bool:
        left = compare(admin, declared, replication_factor, connection)
        new = [change for change in left if change not in changes]
        apply(admin, new, connection)
        changes.extend(new)
        return all(change.kind in PASSED_OVER for change in left)

    wait_for(all_seen, TIMEOUT_SECONDS, lambda: late)
    return changes


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
