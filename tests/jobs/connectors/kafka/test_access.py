"""How brokers say no, and what a user is told: never that nobody answers."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from confluent_kafka.admin import AclOperation, ResourceType
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Kafka, load
from jobs.connectors.exactly_once.transaction import FENCE_SECONDS, Transaction, Writer
from jobs.connectors.kafka import access, offsets, source_sink
from jobs.connectors.kafka.access import METADATA_TIMEOUT_S, connect
from jobs.connectors.kafka.offsets import OffsetLookup
from jobs.connectors.kafka.source_sink import Subscription
from jobs.operations.replay.replay_lock import ReplayLock
from jobs.pipeline.errors import with_rights
from jobs.pipeline.termination import single_line_errors
from producers.kafka.publisher import open_topics
from tests.kafka_commands import follow
from tests.secured import PASSWORD, SASL, TLS, USER, SecuredCluster
from tests.sent import Record, send


def lease(settings: Kafka) -> None:
    with ReplayLock(load("local").model_copy(update={"kafka": settings}), "probe"):
        raise AssertionError("a lease was had")


CONTACTS: dict[str, Callable[[Kafka], object]] = {
    "a job asks for its topics": lambda settings: source_sink.require_topics(settings, ["departures"]),
    "a range is resolved": lambda settings: offsets.resolve_offsets(settings, "departures", datetime.now(UTC)),
    "coverage": access.connect,
    "a replay is planned": lambda settings: OffsetLookup(settings).edges("departures"),
    "a replay is run": lease,
    "topics": connect,
    "publish": lambda settings: open_topics(settings, ["departures"]),
}


@pytest.mark.parametrize("contact", CONTACTS)
def test_a_wrong_password_is_said_wherever_brokers_are_asked(contact: str, secured: SecuredCluster) -> None:
    began = time.monotonic()
    with pytest.raises(TidemarkError, match="BROKER_REFUSES") as stopped:
        CONTACTS[contact](secured.kafka(SASL, SASL, password="wrong"))
    assert "SCRAM-SHA-256" in stopped.value.message
    assert f"user `{USER}`" in stopped.value.message
    assert "kafka.sasl_password" in stopped.value.remedy
    assert "wrong" not in str(stopped.value)
    assert time.monotonic() - began < METADATA_TIMEOUT_S


@pytest.mark.slow
def test_a_writer_of_transactions_is_told_so_too_and_does_not_wait_for_its_turn(secured: SecuredCluster) -> None:
    connection = secured.kafka(SASL, SASL, password="wrong").client_config()
    began = time.monotonic()
    with pytest.raises(TidemarkError, match=f"BROKER_REFUSES: .*user `{USER}`"):
        Transaction(Writer("probe", "departures", 0, connection, 60_000)).__enter__()
    assert time.monotonic() - began < FENCE_SECONDS / 2


@pytest.mark.parametrize(
    ("protocol", "listener", "knows_ca", "said", "remedy"),
    [
        (TLS, TLS, False, "certificate", "kafka.ssl_ca_location"),
        (TLS, SASL, True, "SSL", "kafka.security_protocol"),
        ("PLAINTEXT", TLS, False, "", "kafka.security_protocol"),
        ("PLAINTEXT", SASL, False, "", "kafka.security_protocol"),
        (SASL, "PLAINTEXT", False, "", "kafka.s"),
    ],
)
def test_another_protocol_and_an_unknown_ca_are_said(
    protocol: str,
    listener: str,
    knows_ca: bool,
    said: str,
    remedy: str,
    secured: SecuredCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access, "METADATA_TIMEOUT_S", 3)
    settings = secured.kafka(protocol, listener, ca=str(secured.ca) if knows_ca else "")
    with pytest.raises(TidemarkError, match="BROKER_REFUSES") as stopped:
        source_sink.require_topics(settings, ["departures"])
    assert said in stopped.value.message
    assert remedy in stopped.value.remedy


def test_the_right_ca_and_the_right_password_are_let_in(secured: SecuredCluster) -> None:
    name = secured.topic("let-in")
    secured.allow(ResourceType.TOPIC, name, AclOperation.DESCRIBE)
    source_sink.require_topics(secured.kafka(SASL, SASL, password=PASSWORD), [name])
    source_sink.require_topics(secured.kafka(TLS, TLS, ca=str(secured.ca)), [name])


def test_a_topic_without_rights_is_not_said_to_be_missing(secured: SecuredCluster) -> None:
    name = secured.topic("hidden")
    settings = secured.kafka(SASL, SASL)
    with pytest.raises(TidemarkError, match=f"NOT_AUTHORIZED: .*user {USER} .* to Read, Describe on topic {name}; "):
        source_sink.require_topics(settings, [name])
    with pytest.raises(TidemarkError, match=f"NOT_AUTHORIZED: .*user {USER} .* to Write, Describe on topic {name}; "):
        source_sink.require_topics(settings, [name], to_write=True)
    with pytest.raises(TidemarkError, match=f"NOT_AUTHORIZED: .*user {USER} .* to Write, Describe on topic {name}; "):
        open_topics(settings, [name])
    with pytest.raises(TidemarkError, match=f"NOT_AUTHORIZED: .*user {USER} .*kafka-acls.*--topic {name}"):
        offsets.resolve_offsets(settings, name, "earliest")
    secured.allow(ResourceType.TOPIC, name, AclOperation.DESCRIBE)
    source_sink.require_topics(settings, [name])


def stop_of_spark(spark: SparkSession, settings: Kafka, topic: str) -> TidemarkError:
    """What a job is told where Spark's own client, Java's, is turned away."""

    tell = partial(with_rights, connection=settings.client_config(), read=[topic])
    with pytest.raises(TidemarkError) as stopped, single_line_errors(tell):
        read(spark, settings, topic)
    return stopped.value


def read(spark: SparkSession, settings: Kafka, topic: str) -> None:
    source_sink.read_batch(spark, settings, load("local").source, Subscription((topic,))).collect()


@pytest.mark.slow
def test_what_sparks_own_client_is_told_has_the_same_names(spark: SparkSession, secured: SecuredCluster) -> None:
    topic = secured.topic("unread")
    wrong = stop_of_spark(spark, secured.kafka(SASL, SASL, password="wrong"), topic)
    assert (wrong.code, "SaslAuthenticationException" in wrong.message) == ("BROKER_REFUSES", True)
    denied = stop_of_spark(spark, secured.kafka(SASL, SASL), topic)
    assert str(denied).startswith(
        f"NOT_AUTHORIZED: TopicAuthorizationException: user {USER} lacks the right to Read, Describe on topic {topic}; "
    )
    missing = stop_of_spark(spark, secured.kafka("PLAINTEXT", "PLAINTEXT"), "not-there")
    assert (missing.code, bool(missing.remedy)) == ("TOPIC_MISSING", True)


@pytest.mark.slow
def test_who_follows_what_a_denied_read_says_reads(spark: SparkSession, secured: SecuredCluster) -> None:
    topic, settings = secured.topic("described"), secured.kafka(SASL, SASL)
    secured.allow(ResourceType.TOPIC, topic, AclOperation.DESCRIBE)
    send(secured, topic, Record(b"1"))
    denied = stop_of_spark(spark, settings, topic)
    assert f"user {USER} lacks the right to Read on topic {topic}; " in str(denied)
    assert follow(str(denied), **{secured.address(SASL): secured.bootstrap_servers})
    read(spark, settings, topic)


@pytest.mark.parametrize("other", ["TLS", "HTTP"])
def test_a_publisher_at_another_protocols_port_is_told_so(other: str, secured: SecuredCluster) -> None:
    settings = secured.kafka("PLAINTEXT", TLS)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        if other == "HTTP":
            settings = settings.model_copy(update={"bootstrap_servers": f"127.0.0.1:{http.server_port}"})
        with pytest.raises(TidemarkError, match=f"BROKER_REFUSES: {settings.bootstrap_servers} answers, but not in PL"):
            open_topics(settings, ["departures"])
        http.shutdown()
