"""Finding the broker and its topics, and logging in unseen."""

import socket
import time
from collections.abc import Callable

import pytest
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Settings, load
from jobs.connectors.kafka import access, java_client, source_sink
from jobs.connectors.kafka.access import METADATA_TIMEOUT_S
from jobs.connectors.kafka.source_sink import Subscription

NewTopicOf = Callable[[int], str]


def test_a_missing_topic_is_told_with_the_nearest_that_is_there(settings: Settings, new_topic: NewTopicOf) -> None:
    topic = new_topic(1)
    source_sink.require_topics(settings.kafka, [topic])
    with pytest.raises(TidemarkError, match="TOPIC_MISSING") as refused:
        source_sink.require_topics(settings.kafka, [topic, f"{topic}x"])
    assert f"topic `{topic}x` is not on" in str(refused.value)
    assert f"did you mean `{topic}`?" in str(refused.value)


def test_a_broker_that_does_not_answer_is_told_within_seconds(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert METADATA_TIMEOUT_S <= 10
    monkeypatch.setattr(access, "METADATA_TIMEOUT_S", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        unreachable = load("local", [f"kafka.bootstrap_servers={address}"]).kafka
        began = time.monotonic()
        with pytest.raises(TidemarkError, match=f"BROKER_UNREACHABLE: no Kafka broker answers at {address}"):
            source_sink.require_topics(unreachable, ["departures"])
        assert time.monotonic() - began < 6
    assert capfd.readouterr().err == ""


PASSWORD = 'p"ss\\word-hunter2'


def test_a_password_reaches_the_client_and_no_plan_or_explanation(
    spark: SparkSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_KAFKA__SASL_PASSWORD", PASSWORD)
    access = ["security_protocol=SASL_SSL", "sasl_mechanism=SCRAM-SHA-512", "sasl_username=reader"]
    secured = load("local", [f"kafka.{pair}" for pair in (*access, "bootstrap_servers=h:1")])
    options = java_client.connection_options(secured.kafka)
    assert options["kafka.sasl.mechanism"] == "SCRAM-SHA-512"
    assert options["kafka.sasl.jaas.config"] == (
        "org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="reader" password="p\\"ss\\\\word-hunter2";'
    )
    stream = source_sink.read_stream(spark, secured.kafka, secured.source, Subscription(("t",)))
    stream.explain(extended=True)
    read = source_sink.read_batch(spark, secured.kafka, secured.source, Subscription(("t",)))
    plans = [frame._jdf.queryExecution().logical().toString() for frame in (stream, read)]
    texts = [capsys.readouterr().out, *plans]
    assert "kafka.sasl.jaas.config" in texts[0] + texts[1]
    assert not any("hunter2" in text for text in texts)


def test_a_plain_login_has_its_own_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_KAFKA__SASL_PASSWORD", PASSWORD)
    access = ["security_protocol=SASL_PLAINTEXT", "sasl_mechanism=PLAIN", "sasl_username=u", "bootstrap_servers=h:1"]
    options = java_client.connection_options(load("local", [f"kafka.{pair}" for pair in access]).kafka)
    assert "plain.PlainLoginModule" in options["kafka.sasl.jaas.config"]
