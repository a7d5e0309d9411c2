"""Every way to log in that the connection block has, by both clients, against a broker that asks for it."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation, ResourceType
from pyspark.sql import SparkSession

from conf.settings import Settings, load
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.source_sink import Subscription
from producers.kafka.publisher import Batch, Publisher
from tests.kinds import of_a_kind
from tests.secured import LOGIN, MTLS, PASSWORD, SASL, USER, SecuredCluster
from tests.tokens import SCOPE, TokenEndpoint, token_endpoint

pytestmark = pytest.mark.slow
# A JAAS file takes both for its own.
KEY_PASSWORD = 'k"ey\\word'


@pytest.fixture(scope="module")
def tokens(secured: SecuredCluster) -> Iterator[TokenEndpoint]:
    with token_endpoint(secured.certificate, secured.token_key) as endpoint:
        yield endpoint


@pytest.fixture
def access(secured: SecuredCluster, tokens: TokenEndpoint, tmp_path: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """By the way to log in: the user, and the settings."""
    plain, encrypted = (
        secured.clients.issue(tmp_path / user, user, password)
        for user, password in (("plain", ""), ("key", KEY_PASSWORD))
    )
    tokens.secrets["streams"] = PASSWORD
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "key-password").write_text(KEY_PASSWORD)
    login = {
        "security_protocol": "SASL_SSL",
        "ssl_ca_location": str(secured.ca),
        "bootstrap_servers": secured.address(LOGIN),
    }
    by_password = login | {"sasl_username": USER, "sasl_password_file": str(tmp_path / "password")}
    by_certificate = {
        "security_protocol": "SSL",
        "ssl_ca_location": str(secured.ca),
        "bootstrap_servers": secured.address(MTLS),
    }
    by_token = {
        "sasl_mechanism": "OAUTHBEARER",
        "oauth_token_url": tokens.url,
        "oauth_client_id": "streams",
        "oauth_client_secret_file": str(tmp_path / "password"),
        "oauth_scope": SCOPE,
        "oauth_ca_location": str(secured.ca),
    }
    return {
        **{
            name: (USER, by_password | {"sasl_mechanism": name}) for name in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
        },
        "SCRAM without TLS": (
            USER,
            by_password
            | {
                "sasl_mechanism": "SCRAM-SHA-256",
                "security_protocol": SASL,
                "bootstrap_servers": secured.address(SASL),
            },
        ),
        "certificate": (
            "CN=plain",
            by_certificate | {"ssl_certificate_location": plain[0], "ssl_key_location": plain[1]},
        ),
        "certificate, encrypted key": (
            "CN=key",
            by_certificate
            | {
                "ssl_certificate_location": encrypted[0],
                "ssl_key_location": encrypted[1],
                "ssl_key_password_file": str(tmp_path / "key-password"),
            },
        ),
        "token": ("streams", login | by_token),
    }


WAYS = (
    *("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "SCRAM without TLS"),
    *("certificate", "certificate, encrypted key", "token"),
)


@pytest.mark.parametrize("way", of_a_kind(WAYS, ("certificate, encrypted key", "token")))
def test_both_clients_log_in_and_neither_shows_a_secret(
    way: str,
    spark: SparkSession,
    secured: SecuredCluster,
    access: dict[str, tuple[str, dict[str, str]]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    user, block = access[way]
    topic = secured.topic(f"way-{uuid.uuid4().hex[:8]}")
    secured.allow(ResourceType.TOPIC, topic, AclOperation.READ, AclOperation.WRITE, user=user)
    secured.allow(ResourceType.GROUP, "*", AclOperation.READ, user=user)
    settings = load("local", [f"kafka.{key}={value}" for key, value in block.items()])

    report = Publisher(settings.kafka, settings.producer, [topic]).publish([Batch([topic], [b"1"], ["k"], [0])])
    report.require_complete()
    require_read(spark, settings, topic, capfd)


def require_read(spark: SparkSession, settings: Settings, topic: str, capfd: pytest.CaptureFixture[str]) -> None:
    read = source_sink.read_batch(spark, settings.kafka, settings.source, Subscription((topic,)))
    values = read.selectExpr("cast(cast(value as string) as int) + 1 AS value").selectExpr(
        "cast(value as string) value"
    )
    source_sink.write_batch(values, settings.kafka, settings.sink, topic)
    assert [bytes(row.value) for row in read.select("value").collect()] == [b"1", b"2"]
    stream = source_sink.read_stream(spark, settings.kafka, settings.source, Subscription((topic,)))
    stream.explain(extended=True)
    plan = stream._jdf.queryExecution().logical().toString()
    said = "".join([*capfd.readouterr(), plan])
    assert "kafka.security.protocol" in said
    for secret in (PASSWORD, KEY_PASSWORD, "PRIVATE KEY"):
        assert secret not in said
