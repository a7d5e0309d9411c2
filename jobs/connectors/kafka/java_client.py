"""Gives Kafka's Java client its options, for Spark's source and sink too, and asks it which transactions are open.

Options stand in plans and go to executors with each task. A password is there as an option that Spark hides
(`spark.redaction.regex`), and so is a key that the client cannot read by itself. Certificate and any other key are not:
each client reads their files when it is made.

librdkafka's client for administration lists no transactions. Java's is reached through py4j, which brings PySpark's way
of calling a JVM.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from py4j.java_gateway import JavaGateway  # type: ignore[import-untyped]
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]

from conf.credentials import key_for_java
from conf.errors import TidemarkError
from conf.settings import Kafka
from jobs.connectors.kafka.access import CLUSTER, EVERY, Kind, Right, denied, reading

SECURITY = "org.apache.kafka.common.security"
LOGIN_MODULES = {"PLAIN": "plain.PlainLoginModule", "OAUTHBEARER": "oauthbearer.OAuthBearerLoginModule"}
SCRAM = "scram.ScramLoginModule"
DIRECTORY = "org.apache.kafka.common.config.provider.DirectoryConfigProvider"
SECONDS = 30
ERRORS = "org.apache.kafka.common.errors."
KINDS: dict[str, Kind] = {
    "TopicAuthorizationException": "topic",
    "TransactionalIdAuthorizationException": "transactional-id",
    "ClusterAuthorizationException": "cluster",
}
# This right lists and describes transactions: a list lacks those that the user may not describe.
TO_LIST = Right("transactional-id", EVERY, ("Describe",))


def connection_options(kafka: Kafka) -> dict[str, str]:
    """Return the options by name, each with `kafka.` before the client's own."""
    properties = {
        **kafka.spark,
        "bootstrap.servers": kafka.require_bootstrap_servers(),
        "client.id": f"{kafka.client_id}.spark",
        "security.protocol": kafka.security_protocol,
    }
    if kafka.uses_oauth:
        properties["sasl.login.callback.handler.class"] = f"{SECURITY}.oauthbearer.OAuthBearerLoginCallbackHandler"
        properties["sasl.oauthbearer.token.endpoint.url"] = kafka.oauth_token_url
    if kafka.security_protocol.startswith("SASL"):
        properties |= {"sasl.mechanism": kafka.sasl_mechanism, "sasl.jaas.config": _jaas(kafka)}
    if kafka.ssl_ca_location:
        properties |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": kafka.ssl_ca_location}
    if kafka.ssl_certificate_location:
        properties |= _key_store(kafka)
    return {f"kafka.{name}": value for name, value in properties.items()}


def _key_store(kafka: Kafka) -> dict[str, str]:
    """Return the key store: certificate and key by the files that hold them, which only the client itself opens."""
    certificate = PurePosixPath(kafka.ssl_certificate_location)
    key = PurePosixPath(kafka.ssl_key_location or certificate)
    properties = {
        "config.providers": "directory",
        "config.providers.directory.class": DIRECTORY,
        "config.providers.directory.param.allowed.paths": ",".join(sorted({str(certificate.parent), str(key.parent)})),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": f"${{directory:{certificate.parent}:{certificate.name}}}",
        "ssl.keystore.key": f"${{directory:{key.parent}:{key.name}}}",
    }
    if own_key := key_for_java(str(key), kafka.ssl_key_password.get_secret_value()):
        properties["ssl.keystore.key"] = own_key
    return properties


def _jaas(kafka: Kafka) -> str:
    if kafka.uses_oauth:
        words = {
            "clientId": kafka.oauth_client_id,
            "clientSecret": kafka.oauth_client_secret.get_secret_value(),
            "scope": kafka.oauth_scope,
        }
        if kafka.oauth_ca_location:
            words |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": kafka.oauth_ca_location}
    else:
        words = {"username": kafka.sasl_username, "password": kafka.sasl_password.get_secret_value()}
    module = LOGIN_MODULES.get(kafka.sasl_mechanism, SCRAM)
    escapes = str.maketrans({"\\": r"\\", '"': r"\""})
    given = " ".join(f'{name}="{value.translate(escapes)}"' for name, value in words.items() if value)
    return f"{SECURITY}.{module} required {given};"


@dataclass(frozen=True)
class OpenTransaction:
    """A transaction in one partition that has neither been committed nor aborted.

    Args:
        offset: of its first record in the partition.
        since_ms: when it began, or, where no coordinator knows it, when it last wrote; in ms after 1970.
        transactional_id: empty where no coordinator knows it: only an administrator ends such a transaction.
        timeout_ms: after which its coordinator aborts it.
    """

    topic: str
    partition: int
    offset: int
    producer_id: int
    since_ms: int
    transactional_id: str = ""
    timeout_ms: int = 0


class TransactionAdmin:
    """A client of the cluster in the JVM of `gateway`; to be closed.

    Raises:
        TidemarkError: BROKER_UNREACHABLE, NOT_AUTHORIZED or KAFKA_FAILED, from each method.
    """

    def __init__(self, gateway: JavaGateway, kafka: Kafka) -> None:
        self._java, self._kafka = gateway.jvm, kafka
        properties = self._java.java.util.Properties()
        for name, value in connection_options(kafka).items():
            properties.setProperty(name.removeprefix("kafka."), value)
        properties.setProperty("default.api.timeout.ms", str(SECONDS * 1000))
        with self._named():
            self._admin = self._java.org.apache.kafka.clients.admin.Admin.create(properties)

    def close(self) -> None:
        self._admin.close()

    def open_in(self, places: Collection[tuple[str, int]]) -> list[OpenTransaction]:
        """Return the open transactions of each (topic, partition), by place and offset."""
        if not places:
            return []
        place_of = self._java.org.apache.kafka.common.TopicPartition
        with self._named(*reading(sorted({topic for topic, _ in places})), TO_LIST):
            states = self._admin.describeProducers(self._list(place_of(*place) for place in places)).all().get()
            known = self._known()
        found = [
            OpenTransaction(
                str(place.topic()),
                int(place.partition()),
                int(producer.currentTransactionStartOffset().getAsLong()),
                int(producer.producerId()),
                *known.get(int(producer.producerId()), (int(producer.lastTimestamp()),)),
            )
            for place, state in states.items()
            for producer in state.activeProducers()
            if producer.currentTransactionStartOffset().isPresent()
        ]
        return sorted(found, key=lambda each: (each.topic, each.partition, each.offset))

    def fence(self, transactional_id: str) -> None:
        """Let the coordinator abort what is open under an id; its writer can commit nothing more."""
        needed = Right("transactional-id", transactional_id, ("Write", "Describe"))
        with self._named(needed, Right("cluster", CLUSTER, ("IdempotentWrite",))):
            self._admin.fenceProducers(self._list([transactional_id])).all().get()

    def _known(self) -> dict[int, tuple[int, str, int]]:
        """Ask coordinators, by producer id, since when, under which id and for how long a transaction is open."""
        listed = [each for each in self._admin.listTransactions().all().get() if str(each.state()) == "Ongoing"]
        ids = self._list(each.transactionalId() for each in listed)
        described = self._admin.describeTransactions(ids).all().get() if listed else {}
        return {
            int(each.producerId()): (
                int(each.transactionStartTimeMs().orElse(0)),
                str(name),
                int(each.transactionTimeoutMs()),
            )
            for name, each in dict(described).items()
        }

    def _list(self, items: Iterable[Any]) -> Any:
        made = self._java.java.util.ArrayList()
        for item in items:
            made.add(item)
        return made

    @contextlib.contextmanager
    def _named(self, *rights: Right) -> Iterator[None]:
        """Turn Java's errors into ours; `rights` are those that the block needs."""
        try:
            yield
        except Py4JJavaError as exc:
            raise self._failed(exc.java_exception, rights) from exc

    def _failed(self, failure: Any, rights: Sequence[Right]) -> TidemarkError:
        while failure.getCause() is not None:
            failure = failure.getCause()
        kind, said = str(failure.getClass().getName()).removeprefix(ERRORS), str(failure.getMessage())
        servers = self._kafka.bootstrap_servers
        if kind in ("TimeoutException", "DisconnectException"):
            return TidemarkError("BROKER_UNREACHABLE", f"{servers}: {said}", "see that the brokers run, then ask again")
        if kind.endswith("AuthorizationException"):
            needed = [right for right in rights if right.kind == KINDS.get(kind)]
            return denied(kind, said, needed, self._kafka.client_config())
        return TidemarkError("KAFKA_FAILED", f"{servers}: {kind}: {said}", "see the brokers' logs, then ask again")
