"""With the rights of the plan alone everything works, and each that is taken away is named, with what gives it back."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclOperation, ResourceType
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Settings, load
from conf.topics import Topic, load_topics
from jobs import catalog
from jobs.connectors.kafka.access import Right, connect
from jobs.connectors.kafka.acls import BRINGS, Acls, Entry
from jobs.operations.replay.replay_lock import ReplayLock
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from local import acls, kafka_commands
from local.processes import wait_for
from local.topics import bring_in_step
from producers import cli as publish_cli
from producers.quarantine import cli as quarantine_cli
from tests.kafka_commands import follow
from tests.kinds import of_a_kind
from tests.producers.quarantine.ward import Ward
from tests.secured import PASSWORD, SASL, SecuredCluster

pytestmark = pytest.mark.slow

DAY = ("flights", "--from", "2013-01-01", "--to", "2013-01-02")
INGESTED = "ingest.topics=planes"
SECONDS = 30


@dataclass
class Person:
    """A user of the secured brokers who may do nothing yet, with tables and an application of its own."""

    secured: SecuredCluster
    spark: SparkSession
    folder: Path
    name: str = field(default_factory=lambda: f"user-{uuid.uuid4().hex[:8]}")

    @property
    def principal(self) -> str:
        return f"User:{self.name}"

    @property
    def own(self) -> list[str]:
        """What is its own, whoever asks."""
        folders = [f"paths.{name}={self.folder / name}" for name in ("tables", "checkpoints", "logs")]
        return [f"ledger.application={self.name}", INGESTED, *folders]

    @property
    def sets(self) -> list[str]:
        kafka = {"bootstrap_servers": self.secured.address(SASL), "security_protocol": SASL}
        kafka |= {"sasl_mechanism": "SCRAM-SHA-256", "sasl_username": self.name}
        return [*(f"kafka.{key}={value}" for key, value in kafka.items()), *self.own]

    @property
    def options(self) -> list[str]:
        return as_options(self.sets)

    @property
    def settings(self) -> Settings:
        return load("local", self.sets)

    @property
    def administrator(self) -> list[str]:
        """The options of who may do everything: everybody at the open listener."""
        return as_options([*self.own, f"kafka.bootstrap_servers={self.secured.bootstrap_servers}"])

    def apply(self, *who: str) -> int:
        return acls.main(["apply", *who, "--principal", self.principal, "--least", *self.administrator])

    def follow(self, stop: TidemarkError) -> list[str]:
        return follow(str(stop), **{self.secured.address(SASL): self.secured.bootstrap_servers})

    def run_job(self, name: str) -> None:
        run = Run(self.spark, self.settings, name)
        catalog.load(name).build(run)
        await_all(self.spark, run.start(continuous=False))

    def rows(self, table: str) -> int:
        return self.spark.read.format("delta").load(str(self.folder / "tables" / table)).count()


def as_options(sets: list[str]) -> list[str]:
    return [part for each in sets for part in ("--set", each)]


@pytest.fixture(scope="module", autouse=True)
def declared_topics(secured: SecuredCluster) -> None:
    for name in load_topics():
        secured.topic(name)


@pytest.fixture
def person(secured: SecuredCluster, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    monkeypatch.setenv("TIDEMARK_KAFKA__SASL_PASSWORD", PASSWORD)
    one = Person(secured, spark, tmp_path)
    secured.set_password(user=one.name)
    return one


def publish(person: Person, *more: str) -> None:
    assert publish_cli.main([*DAY, *more, *person.options]) == 0


OFFSETS = count()


def reject(person: Person) -> None:
    Ward(person.folder, "", "departures").reject({"offset": next(OFFSETS)})


def quarantine(person: Person, *argv: str) -> None:
    reject(person)
    assert quarantine_cli.main([*argv, *person.options]) == 0


def job(name: str) -> Callable[[Person], None]:
    def run(person: Person) -> None:
        publish_cli.main([*DAY, *person.administrator])
        person.run_job(name)

    return run


def hold_lease(person: Person) -> None:
    with ReplayLock(person.settings, "ingest"):
        pass


ACTS: dict[str, Callable[[Person], None]] = {
    "publish flights": publish,
    "publish flights --exactly-once day": lambda person: publish(person, "--exactly-once", "day"),
    "ingest": job("ingest"),
    "flights.delay_alerts": job("flights.delay_alerts"),
    "quarantine list departures": lambda person: quarantine(person, "list"),
    "quarantine audit": lambda person: quarantine(person, "audit"),
    "quarantine redrive departures": lambda person: quarantine(person, "redrive", "--all"),
    "quarantine queue fill departures": lambda person: quarantine(person, "queue", "fill", "--all"),
    "quarantine queue status": lambda person: quarantine(person, "queue", "status"),
}


@pytest.mark.exhaustive
def test_with_the_plan_alone_a_user_publishes_ingests_and_publishes_exactly_once(
    person: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    who = ("publish flights --exactly-once day", "ingest", "flights.delay_alerts")
    person.secured.allow(ResourceType.TOPIC, "beside-it", AclOperation.READ, user=person.name)
    assert acls.main(["plan", *who, "--principal", person.principal, "--least", *person.administrator]) == 0
    shown = capsys.readouterr().out.splitlines()
    added = [line.removeprefix("+ ").partition("  (")[0] for line in shown if line.startswith("+ ")]
    assert "? Read on topic beside-it  beyond the plan; left as it is" in shown
    assert [entry.name for entry in entries(person)] == ["beside-it"]

    assert person.apply(*who) == 0
    assert {str(entry) for entry in entries(person)} == {*added, "Read on topic beside-it"}
    assert person.apply(*who) == 0
    assert f"nothing to add: {person.principal} is allowed all of it" in capsys.readouterr().out

    publish(person, "--exactly-once", "day")
    person.run_job("ingest")
    person.run_job("flights.delay_alerts")
    assert person.rows("silver/planes") > 0


def entries(person: Person) -> list[Entry]:
    admin = load("local", [f"kafka.bootstrap_servers={person.secured.bootstrap_servers}"])
    return Acls(admin.kafka).of(person.principal)


@pytest.mark.parametrize("who", of_a_kind(ACTS, proven_by=["quarantine redrive departures"]))
def test_each_right_that_is_taken_away_is_named_and_nothing_works_without(who: str, person: Person) -> None:
    assert person.apply(who) == 0
    if who == "quarantine queue status":
        assert person.apply("quarantine queue fill departures") == 0
        ACTS["quarantine queue fill departures"](person)
    needs = acls.needed(person.settings, [who], least=True)[who]
    # What makes a topic is asked for once; what lets it grow, never here.
    creating = [right for right in needs if right.operations == ("Create",)]
    others = [right for right in needs if right.operations not in (("Create",), ("Alter",))]
    for right in creating:
        require_named(who, person, right)
    ACTS[who](person)
    for right in others:
        require_named(who, person, right)
    ACTS[who](person)


def require_named(who: str, person: Person, right: Right) -> None:
    with person.secured.without(right, person.name), pytest.raises(TidemarkError) as stop:
        ACTS[who](person)
        pytest.fail(f"{who} works without {right}")
    require_said(str(stop.value), person, right)


def require_said(said: str, person: Person, right: Right) -> None:
    """The line names the user, the right, or what comes with it, the resource and the command."""
    (operation,) = right.operations
    assert "NOT_AUTHORIZED" in said, right
    assert f"user {person.name} lacks the right to " in said
    assert any(each in said for each in (operation, *BRINGS.get(operation, ()))), (right, said)
    assert f"{right.kind.replace('-', ' ')} {right.name}" in said, (right, said)
    assert f"`kafka-acls.sh --bootstrap-server {person.secured.address(SASL)} --add" in said
    assert f"--allow-principal User:{person.name} " in said
    assert "Purged" not in said


def test_topics_as_code_name_the_right_that_is_lacking_for_each_change(person: Person) -> None:
    name = f"made-{person.name}"
    admin, connection = connect(person.settings.kafka), person.settings.kafka.client_config()

    def apply(partitions: int, retention_ms: int = -1) -> None:
        wanted = Topic(name, partitions, "k", "s", retention_ms=retention_ms)
        bring_in_step(admin, [wanted], 1, connection)

    changes = {"Create": (1,), "DescribeConfigs": (1,), "Alter": (2,), "AlterConfigs": (2, 60_000)}
    person.secured.allow(ResourceType.TOPIC, name, AclOperation.DESCRIBE, user=person.name)
    for operation, change in changes.items():
        with pytest.raises(TidemarkError) as stop:
            apply(*change)
        require_said(str(stop.value), person, Right("topic", name, (operation,)))
        assert person.follow(stop.value)
    apply(*changes["AlterConfigs"])


def test_who_may_not_replay_is_told_so_and_not_that_somebody_else_does(person: Person) -> None:
    assert person.apply("replay ingest") == 0
    lease = acls.needed(person.settings, ["replay ingest"], least=True)["replay ingest"]
    of_lease = [right for right in lease if "leases" in right.name or right.kind == "group"]
    for right in sorted(of_lease, key=lambda right: right.operations != ("Create",)):
        with person.secured.without(right, person.name), pytest.raises(TidemarkError) as stop:
            hold_lease(person)
        require_said(str(stop.value), person, right)
        if right.operations == ("Create",):
            hold_lease(person)


def test_who_may_not_describe_a_transaction_is_not_told_that_nobody_knows_it(
    person: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = person.secured.topic(f"held-{person.name}")
    servers = person.secured.bootstrap_servers
    own = {"bootstrap.servers": servers, "transactional.id": f"etl-{person.name}", "log_level": 0}
    somebody = Producer({**own, "transaction.timeout.ms": 600_000})
    somebody.init_transactions(SECONDS)
    somebody.begin_transaction()
    somebody.produce(topic, b"never committed")
    assert somebody.flush(SECONDS) == 0
    person.secured.allow(ResourceType.TOPIC, topic, AclOperation.DESCRIBE, user=person.name)
    with pytest.raises(TidemarkError) as stop:
        kafka_commands.transactions(person.options)
    require_said(str(stop.value), person, Right("topic", topic, ("Read",)))
    assert person.follow(stop.value)

    assert kafka_commands.transactions(person.options) == 0
    told = capsys.readouterr().out
    assert f"user {person.name} lacks the right to Describe on transactional id *: `kafka-acls.sh" in told
    assert person.apply("transactions") == 0
    assert kafka_commands.transactions(person.options) == 0
    assert f"etl-{person.name}" in capsys.readouterr().out
    somebody.abort_transaction(SECONDS)


def test_who_may_not_see_acls_is_told_so_and_not_that_there_are_none(person: Person) -> None:
    for operation, action in (("Describe", "plan"), ("Alter", "apply")):
        with pytest.raises(TidemarkError) as stop:
            acls.main([action, "publish friendships", "--principal", "User:bob", *person.options])
        assert f"user {person.name} lacks the right to {operation} on the cluster; " in str(stop.value)
        assert person.follow(stop.value)
    late = AssertionError("the brokers do not hear of an ACL")
    wanted = ["apply", "publish friendships", "--principal", "User:bob", *person.options]
    wait_for(lambda: acls.main(wanted) == 0, SECONDS, lambda: late)


def test_what_is_denied_is_told_with_the_command_that_removes_it(
    person: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    with person.secured.denied(ResourceType.TOPIC, "friendships", AclOperation.ALL, user=person.name):
        assert person.apply("publish friendships") == 1
        said = capsys.readouterr()
        assert "! Write on topic friendships  (publish friendships)" in said.out
        assert follow(said.err.replace("--operation All", "--operation ALL"))
        capsys.readouterr()
        assert person.apply("publish friendships") == 0
