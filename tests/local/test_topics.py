"""Topics as code: the difference is shown, carried out, and nothing is shrunk or deleted."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from conf.errors import TidemarkError
from conf.topics import Topic
from local import topics
from local.broker import Cluster
from local.topics import Change, Existing, apply, bring_in_step, compare, plan, read_cluster

FOREVER = {"cleanup.policy": "delete", "retention.ms": "-1"}


def topic(name: str = "t", partitions: int = 2, **rest: object) -> Topic:
    return Topic(name=name, partitions=partitions, key="k", schema="s", **rest)  # type: ignore[arg-type]


def planned(declared: Topic, existing: Mapping[str, Existing], brokers: int = 1) -> list[tuple[str, str]]:
    changes = plan([declared], existing, brokers=brokers, replication_factor=1)
    return [(change.kind, change.text) for change in changes]


def test_a_missing_topic_is_created_as_declared() -> None:
    (change,) = plan([topic(cleanup_policy="compact")], {}, brokers=1, replication_factor=1)
    assert (change.kind, change.partitions, change.replication_factor) == ("create", 2, 1)
    assert change.config == {"cleanup.policy": "compact", "retention.ms": "-1"}


def test_a_topic_as_declared_needs_nothing() -> None:
    assert planned(topic(), {"t": Existing(2, 1, FOREVER)}) == []


def test_partitions_grow_and_keys_are_warned_about() -> None:
    ((kind, text),) = planned(topic(partitions=4), {"t": Existing(2, 1, FOREVER)})
    assert kind == "grow"
    assert text.startswith("partitions 2 -> 4; new records of a key")


def test_growth_of_a_compacted_topic_says_what_decides_between_two_partitions() -> None:
    compacted = {"t": Existing(2, 1, FOREVER | {"cleanup.policy": "compact"})}
    ((kind, text),) = planned(topic(partitions=4, cleanup_policy="compact"), compacted)
    assert kind == "grow"
    assert "silver keeps the later by the records' timestamps" in text


def test_fewer_partitions_are_refused() -> None:
    ((kind, text),) = planned(topic(partitions=1), {"t": Existing(2, 1, FOREVER)})
    assert (kind, text) == ("refuse", "2 partitions cannot become 1: Kafka never takes partitions away")


def test_another_replication_factor_is_refused() -> None:
    ((kind, text),) = planned(topic(replication_factor=3), {"t": Existing(2, 1, FOREVER)}, brokers=3)
    assert (kind, text) == ("refuse", "replication factor 1 cannot become 3 here: reassign the partitions")


def test_more_copies_than_brokers_are_refused() -> None:
    ((kind, text),) = planned(topic(replication_factor=3), {})
    assert (kind, text) == ("refuse", "replication factor 3 needs 3 brokers, there are 1")


def test_only_settings_that_differ_are_changed() -> None:
    (change,) = plan([topic(retention_ms=60_000)], {"t": Existing(2, 1, FOREVER)}, brokers=1, replication_factor=1)
    assert (change.kind, change.config) == ("configure", {"retention.ms": "60000"})


def test_undeclared_topics_are_named_and_left() -> None:
    changes = plan([], {"other": Existing(1, 1, {})}, brokers=1, replication_factor=1)
    assert [str(change) for change in changes] == ["? other: on the cluster, not declared; left as it is"]


@pytest.fixture
def admin(broker: Cluster) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})


def against(admin: AdminClient, declared: Topic) -> list[Change]:
    return [change for change in compare(admin, [declared], 1) if change.kind != "undeclared"]


def test_after_apply_the_cluster_is_in_step(admin: AdminClient) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    bring_in_step(admin, [topic(name, retention_ms=60_000)], 1)
    assert against(admin, topic(name, retention_ms=60_000)) == []
    grown = topic(name, partitions=5, cleanup_policy="compact")
    assert [change.kind for change in against(admin, grown)] == ["grow", "configure"]
    bring_in_step(admin, [grown], 1)
    assert against(admin, grown) == []
    existing, _ = read_cluster(admin, [grown])
    assert existing[name] == Existing(5, 1, {"cleanup.policy": "compact", "retention.ms": "-1"})


def test_refusals_do_not_keep_the_rest_from_being_done(admin: AdminClient) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    bring_in_step(admin, [topic(name)], 1)
    smaller = topic(name, partitions=1, retention_ms=60_000)
    assert [c.kind for c in bring_in_step(admin, [smaller], 1) if c.topic == name] == ["refuse", "configure"]
    assert [change.kind for change in against(admin, smaller)] == ["refuse"]


def test_settings_that_are_not_declared_are_kept(admin: AdminClient) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    admin.create_topics([NewTopic(name, 2, 1, config={"max.message.bytes": "5000"})])[name].result()
    declared = topic(name, cleanup_policy="compact")
    bring_in_step(admin, [declared], 1)
    kept = ConfigResource(ResourceType.TOPIC, name)
    assert admin.describe_configs([kept])[kept].result()["max.message.bytes"].value == "5000"


def test_a_topic_that_another_command_created_meanwhile_is_brought_in_step(
    admin: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    # The first look comes before the other command's topic is to be seen.
    looks: Iterator[dict[str, Existing] | None] = chain([{}], repeat(None))

    def late_view(
        admin: AdminClient, declared: Sequence[Topic], connection: Mapping[str, Any]
    ) -> tuple[Mapping[str, Existing], int]:
        seen = next(looks)
        return (seen, 1) if seen is not None else read_cluster(admin, declared)

    admin.create_topics([NewTopic(name, 1, 1)])[name].result()
    monkeypatch.setattr(topics, "read_cluster", late_view)
    done = bring_in_step(admin, [topic(name, partitions=3, cleanup_policy="compact")], 1)
    assert [change.kind for change in done if change.topic == name] == ["create", "grow", "configure"]
    existing, _ = read_cluster(admin, [topic(name)])
    assert existing[name] == Existing(3, 1, {"cleanup.policy": "compact", "retention.ms": "-1"})


def test_a_broker_that_refuses_is_quoted(admin: AdminClient) -> None:
    change = Change("create", "bad name", "", partitions=1, replication_factor=1, config={})
    with pytest.raises(TidemarkError, match=r"TOPIC_FAILED: `bad name`, create: .*bad name"):
        apply(admin, [change])


def test_the_command_prints_the_plan_and_exits_with_1_on_a_refusal(
    broker: Cluster, admin: AdminClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    servers = ["--set", f"kafka.bootstrap_servers={broker.bootstrap_servers}"]
    monkeypatch.setattr(topics, "load_topics", lambda: {name: topic(name)})
    assert topics.main(["plan", *servers]) == 0
    assert f"+ {name}: create with partitions 2" in capsys.readouterr().out
    assert topics.main(["apply", *servers]) == 0
    assert topics.main(["plan", *servers]) == 0
    assert "in step: " in capsys.readouterr().out
    monkeypatch.setattr(topics, "load_topics", lambda: {name: topic(name, partitions=1)})
    assert topics.main(["apply", *servers]) == 1
    assert f"! {name}: 2 partitions cannot become 1" in capsys.readouterr().err


def test_no_broker_is_one_clear_line() -> None:
    with pytest.raises(TidemarkError, match=r"BROKER_UNREACHABLE: no Kafka broker answers at 127\.0\.0\.1:1"):
        topics.main(["plan", "--set", "kafka.bootstrap_servers=127.0.0.1:1"])
