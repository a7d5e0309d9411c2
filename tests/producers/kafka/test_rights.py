"""A user who lacks a right: which one and on what is said in one line, and following it is the way on."""

import uuid
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from conf.errors import TidemarkError
from conf.settings import Settings, load
from producers.kafka.preflight import connect
from producers.kafka.publisher import Batch, Publisher
from producers.kafka.transactional import TransactionalPublisher
from producers.quarantine.work_queue import open_queue
from tests.faults.oracle import read_all
from tests.kafka_commands import follow
from tests.secured import PASSWORD, SASL, SecuredCluster

pytestmark = pytest.mark.slow

FACTS = {"contents": "abc"}


@pytest.fixture(scope="module")
def user(secured: SecuredCluster) -> str:
    """One who may do nothing as yet."""
    secured.set_password(user="bob")
    return "bob"


@pytest.fixture
def settings(secured: SecuredCluster, user: str, tmp_path: Path) -> Settings:
    own = [f"ledger.application=app-{uuid.uuid4().hex[:8]}", f"paths.tables={tmp_path / 'tables'}"]
    kafka = secured.kafka(SASL, SASL, user=user, password=PASSWORD)
    return load("local", own).model_copy(update={"kafka": kafka})


@pytest.fixture
def topic(secured: SecuredCluster) -> str:
    return secured.topic(f"out-{uuid.uuid4().hex[:8]}")


def publish(settings: Settings, topic: str, name: str = "name") -> None:
    publisher = TransactionalPublisher(settings, topic, name, [topic])
    start = publisher.begin(FACTS)
    if not start.complete:
        publisher.publish([Batch([topic] * 3, [b"0", b"1", b"2"], ["k"] * 3, [0] * 3)]).require_complete()


def require_published(secured: SecuredCluster, topic: str) -> None:
    records, stuck = read_all(secured.bootstrap_servers, topic, committed=True)
    assert not stuck
    assert [value for _, value, _ in records] == [b"0", b"1", b"2"]


def test_who_follows_each_remedy_ends_by_publishing(
    secured: SecuredCluster, user: str, settings: Settings, topic: str, capfd: pytest.CaptureFixture[str]
) -> None:
    secured.allow(ResourceType.TOPIC, topic, AclOperation.DESCRIBE, user=user)
    for _ in range(6):
        try:
            publish(settings, topic)
            break
        except TidemarkError as error:
            assert error.code == "NOT_AUTHORIZED"
            assert f"user {user} lacks the right to " in error.message
            assert follow(str(error), **{secured.address(SASL): secured.bootstrap_servers})
    require_published(secured, topic)
    assert "rdkafka" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("what", "operation"),
    [
        ("ledger", AclOperation.WRITE),
        ("ledger", AclOperation.READ),
        ("ledger", AclOperation.DESCRIBE),
        ("topic", AclOperation.WRITE),
        ("transactional id", AclOperation.WRITE),
    ],
)
def test_a_right_that_is_denied_is_named_and_once_it_is_not_the_run_goes_on(
    what: str,
    operation: AclOperation,
    secured: SecuredCluster,
    user: str,
    settings: Settings,
    topic: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    identity = f"{settings.ledger.application}.publish.{topic}.name"
    for allowed in (ResourceType.TOPIC, ResourceType.TRANSACTIONAL_ID):
        secured.allow(allowed, "*", AclOperation.ALL, user=user)
    secured.topic(f"__{identity}.ledger")
    denied = {
        "ledger": (ResourceType.TOPIC, f"__{identity}.ledger"),
        "topic": (ResourceType.TOPIC, topic),
        "transactional id": (ResourceType.TRANSACTIONAL_ID, identity),
    }[what]
    with secured.denied(*denied, operation, user=user), pytest.raises(TidemarkError, match="NOT_AUTHORIZED") as stop:
        publish(settings, topic)
    place = f"{'transactional id' if what == 'transactional id' else 'topic'} {denied[1]}"
    assert f"{operation.name.capitalize()}" in stop.value.message
    assert f"on {place}" in stop.value.message
    assert "Purged" not in str(stop.value)
    assert f"--allow-principal User:{user}" in stop.value.remedy
    assert "rdkafka" not in capfd.readouterr().err
    publish(settings, topic)
    require_published(secured, topic)


def test_without_transactions_a_topic_that_may_not_be_written_to_is_named_with_the_command(
    secured: SecuredCluster, user: str, settings: Settings, topic: str
) -> None:
    secured.allow(ResourceType.TOPIC, topic, AclOperation.ALL, user=user)
    events = [Batch([topic] * 3, [b"0", b"1", b"2"], ["k"] * 3, [0] * 3)]
    with secured.denied(ResourceType.TOPIC, topic, AclOperation.WRITE, user=user):
        report = Publisher(settings.kafka, settings.producer, [topic]).publish(events)
    with pytest.raises(TidemarkError, match=rf"TOPIC_AUTHORIZATION_FAILED.*kafka-acls.*--topic {topic}"):
        report.require_complete()
    Publisher(settings.kafka, settings.producer, [topic]).publish(events).require_complete()
    require_published(secured, topic)


def test_the_queue_says_which_right_on_its_group_is_lacking(
    secured: SecuredCluster, user: str, settings: Settings
) -> None:
    secured.allow(ResourceType.TOPIC, "*", AclOperation.ALL, user=user)
    admin, name = connect(settings.kafka), f"{settings.ledger.application}.quarantine"
    with pytest.raises(TidemarkError, match=rf"NOT_AUTHORIZED.*AlterConfigs.*on group {name}") as stop:
        open_queue(settings, admin)
    assert follow(str(stop.value), **{secured.address(SASL): secured.bootstrap_servers})
    open_queue(settings, admin)
