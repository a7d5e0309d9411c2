"""Topics as code: what conf/topics.toml declares against what the cluster has; `plan` shows it, `apply` carries it out.

Nothing is ever shrunk or deleted.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
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

from conf.errors import TidemarkError, exit_on_error
from conf.settings import ENVIRONMENTS, Settings, load
from conf.topics import Topic, load_topics
from local.processes import wait_for

TIMEOUT_SECONDS = 15
Kind = Literal["create", "grow", "configure", "refuse", "undeclared"]
PASSED_OVER: tuple[Kind, ...] = ("refuse", "undeclared")
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


def declared_config(topic: Topic) -> dict[str, str]:
    """The topic-level settings that a declaration makes."""
    return {"cleanup.policy": topic.cleanup_policy, "retention.ms": str(topic.retention_ms)}


def plan(
    declared: Iterable[Topic], existing: Mapping[str, Existing], *, brokers: int, replication_factor: int
) -> list[Change]:
    """What would make the cluster as declared; nothing where they are in step.

    Args:
        replication_factor: of topics that declare none.
    """
    changes = []
    names = set()
    for topic in declared:
        names.add(topic.name)
        copies = topic.replication_factor or replication_factor
        if topic.name in existing:
            changes += _differences(topic, existing[topic.name], copies)
        else:
            changes.append(_creation(topic, copies, brokers))
    changes += [
        Change("undeclared", name, "on the cluster, not declared; left as it is")
        for name in sorted(existing.keys() - names)
    ]
    return changes


def _creation(topic: Topic, copies: int, brokers: int) -> Change:
    if copies > brokers:
        return Change("refuse", topic.name, f"replication factor {copies} needs {copies} brokers, there are {brokers}")
    config = declared_config(topic)
    settings = ", ".join(f"{key}={value}" for key, value in config.items())
    text = f"create with partitions {topic.partitions}, replication factor {copies}, {settings}"
    return Change("create", topic.name, text, topic.partitions, copies, config)


def _differences(topic: Topic, there: Existing, copies: int) -> list[Change]:
    changes = []
    if topic.partitions > there.partitions:
        text = f"partitions {there.partitions} -> {topic.partitions}; new records of a key may go to another partition"
        changes.append(Change("grow", topic.name, text, partitions=topic.partitions))
    elif topic.partitions < there.partitions:
        text = f"{there.partitions} partitions cannot become {topic.partitions}: Kafka never takes partitions away"
        changes.append(Change("refuse", topic.name, text))
    if copies != there.replication_factor:
        text = f"replication factor {there.replication_factor} cannot become {copies} here: reassign the partitions"
        changes.append(Change("refuse", topic.name, text))
    config = {key: value for key, value in declared_config(topic).items() if there.config.get(key) != value}
    if config:
        text = ", ".join(f"{key} {there.config.get(key)} -> {value}" for key, value in config.items())
        changes.append(Change("configure", topic.name, text, config=config))
    return changes


def connect(settings: Settings) -> AdminClient:
    """A client of the cluster, once that has answered.

    Raises:
        TidemarkError: NO_BROKER, where none is configured or none answers, with what the connection failed of.
    """
    failures: list[KafkaError] = []
    config: dict[str, Any] = {**settings.kafka.client_config(), "log_level": "0", "error_cb": failures.append}
    admin = AdminClient(config)
    until = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            admin.list_topics(timeout=1)
            return admin
        except KafkaException as exc:
            admin.poll(0)
            all_down = any(failure.code() == KafkaError._ALL_BROKERS_DOWN for failure in failures)
            if all_down or time.monotonic() > until:
                cause = failures[0] if failures else exc.args[0]
                remedy = "check kafka.bootstrap_servers and that the broker runs (`local/tidemark broker status`)"
                raise TidemarkError("NO_BROKER", f"the cluster does not answer: {cause.str()}", remedy) from exc


def read_cluster(admin: AdminClient, declared: Iterable[Topic]) -> tuple[dict[str, Existing], int]:
    """The cluster's topics, Kafka's own left out, and the number of its brokers."""
    metadata = admin.list_topics(timeout=TIMEOUT_SECONDS)
    found = {name: topic for name, topic in metadata.topics.items() if not name.startswith("__")}
    configs = _read_configs(admin, [topic for topic in declared if topic.name in found])
    topics = {
        name: Existing(len(topic.partitions), len(topic.partitions[0].replicas), configs.get(name, {}))
        for name, topic in found.items()
    }
    return topics, len(metadata.brokers)


def _read_configs(admin: AdminClient, topics: Sequence[Topic]) -> dict[str, dict[str, str]]:
    if not topics:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, topic.name) for topic in topics]
    answers = admin.describe_configs(resources, request_timeout=TIMEOUT_SECONDS)
    entries = {resource.name: answer.result() for resource, answer in answers.items()}
    return {topic.name: {key: entries[topic.name][key].value for key in declared_config(topic)} for topic in topics}


def apply(admin: AdminClient, changes: Iterable[Change]) -> None:
    """Carry out what can be carried out; a topic that somebody else has created meanwhile is left as it is.

    Raises:
        TidemarkError: TOPIC_FAILED, with the topic and what the broker said.
    """
    for change in changes:
        answer = _send(admin, change)
        try:
            if answer is not None:
                answer.result(TIMEOUT_SECONDS)
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            message = f"`{change.topic}`, {change.kind}: {exc.args[0].str()}"
            raise TidemarkError("TOPIC_FAILED", message, "mend that and run the same command again") from exc


def _send(admin: AdminClient, change: Change) -> "Future[None] | None":
    if change.kind == "create":
        new = NewTopic(change.topic, change.partitions, change.replication_factor, config=dict(change.config or {}))
        return admin.create_topics([new])[change.topic]
    if change.kind == "grow":
        return admin.create_partitions([NewPartitions(change.topic, change.partitions)])[change.topic]
    if change.kind == "configure":
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in (change.config or {}).items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, change.topic, incremental_configs=entries)
        return next(iter(admin.incremental_alter_configs([resource]).values()))
    return None


def compare(admin: AdminClient, declared: Sequence[Topic], replication_factor: int) -> list[Change]:
    """The plan for a cluster as it is now."""
    existing, brokers = read_cluster(admin, declared)
    return plan(declared, existing, brokers=brokers, replication_factor=replication_factor)


def bring_in_step(admin: AdminClient, declared: Sequence[Topic], replication_factor: int) -> list[Change]:
    """Apply the plan and return it when the brokers show its effect, which comes a little after their answer.

    A topic that the brokers show only now, by this command or another, is compared then, and changed where it differs.

    Raises:
        TidemarkError: TOPIC_FAILED.
    """
    changes = compare(admin, declared, replication_factor)
    apply(admin, changes)
    remedy = "look at the brokers' logs"
    late = TidemarkError("TOPIC_FAILED", f"the changes are not to be seen after {TIMEOUT_SECONDS} s", remedy)

    def all_seen() -> bool:
        left = compare(admin, declared, replication_factor)
        new = [change for change in left if change not in changes]
        apply(admin, new)
        changes.extend(new)
        return all(change.kind in PASSED_OVER for change in left)

    wait_for(all_seen, TIMEOUT_SECONDS, lambda: late)
    return changes


def main(argv: Sequence[str]) -> int:
    """Compare conf/topics.toml with the cluster (plan), or make the cluster so (apply); 1 on a refusal."""
    parser = argparse.ArgumentParser(prog="local/tidemark topics", description=main.__doc__)
    parser.add_argument("action", choices=("plan", "apply"))
    parser.add_argument("--env", choices=ENVIRONMENTS)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(argv)
    settings = load(options.env, options.set)
    act = bring_in_step if options.action == "apply" else compare
    changes = act(connect(settings), list(load_topics().values()), settings.kafka.replication_factor)
    for change in changes:
        print(change, file=sys.stderr if change.kind == "refuse" else sys.stdout)
    if all(change.kind == "undeclared" for change in changes):
        print(f"in step: {settings.kafka.bootstrap_servers} has every declared topic as declared")
    else:
        print("applied" if options.action == "apply" else "nothing was changed: `local/tidemark topics apply` does it")
    return int(any(change.kind == "refuse" for change in changes))


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
