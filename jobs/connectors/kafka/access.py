"""Connects to the brokers, and names how they refuse: wrong password, missing right, and the command that grants it."""

import shlex
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ClusterMetadata

from conf.credentials import certificate_subject
from conf.errors import TidemarkError
from conf.kafka import CLIENT_LOG
from conf.settings import Kafka
from jobs.connectors.kafka.refusals import BY_ERROR

METADATA_TIMEOUT_S = 10
ATTEMPT_S = 2.0
PROBE_S = 2.0
RIGHTS_S = 5.0
Kind = Literal["topic", "group", "cluster", "transactional-id"]
CLUSTER, EVERY = "kafka-cluster", "*"
KIND_OF: dict[int, Kind] = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional-id",
}
CODES = tuple(KIND_OF)
AUTHENTICATION = (
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
)
OTHER_LOGIN = "check kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password against the brokers' users"
OTHER_TOKEN = (
    "check kafka.oauth_token_url, kafka.oauth_client_id and its secret against that server, and what it issues"
)
OTHER_TLS = (
    "check kafka.security_protocol, that kafka.ssl_ca_location has the CA of the brokers' certificates, and that the "
    "brokers know the CA of kafka.ssl_certificate_location, if they ask for one"
)
# The request ApiVersions, version 0, without a client's name: brokers answer it before anybody logs in.
API_VERSIONS = b"\0\0\0\x0a\0\x12\0\0\0\0\0\0\xff\xff"


class Right(NamedTuple):
    """A right that a user needs; operations as `kafka-acls.sh` has them, for example Read and Write.

    Args:
        is_prefix: whether it is needed for every resource whose name begins with `name`.
        without: what is lost without this right, where it is optional; empty where nothing works without it.
    """

    kind: Kind
    name: str
    operations: tuple[str, ...]
    is_prefix: bool = False
    without: str = ""

    @property
    def place(self) -> str:
        """Return the resource, for people."""
        if self.kind == "cluster":
            return "the cluster"
        kind = self.kind.replace("-", " ")
        return f"{kind}s that begin with {self.name}" if self.is_prefix else f"{kind} {self.name}"

    def option(self) -> str:
        """Return the options by which `kafka-acls.sh` takes the resource."""
        if self.kind == "cluster":
            return "--cluster"
        name = f"'{self.name}'" if self.name == EVERY else self.name
        return f"--{self.kind} {name}{' --resource-pattern-type prefixed' if self.is_prefix else ''}"

    def __str__(self) -> str:
        return f"{', '.join(self.operations)} on {self.place}"


def reading(topics: Iterable[str]) -> list[Right]:
    """Return the rights that reading records of `topics` needs."""
    return [Right("topic", topic, ("Read", "Describe")) for topic in topics]


def writing(topics: Iterable[str]) -> list[Right]:
    """Return the rights that writing records to `topics` needs."""
    return [Right("topic", topic, ("Write", "Describe")) for topic in topics]


def publishing(topics: Iterable[str]) -> list[Right]:
    """Return the rights that writing to `topics` needs, and optional ones that help."""
    listed = list(topics)
    without = "what a topic takes (largest record, time ahead, retention) is known only when brokers refuse"
    return [
        *(Right("topic", topic, ("Write",)) for topic in listed),
        *(Right("topic", topic, ("DescribeConfigs",), without=without) for topic in listed),
    ]


def grant(right: Right, principal: str, servers: str) -> str:
    """Return the command that grants the right to `principal`."""
    operations = " ".join(f"--operation {operation}" for operation in right.operations)
    options = f"--add --allow-principal {shlex.quote(principal)} {operations} {right.option()}"
    return f"`kafka-acls.sh --bootstrap-server {servers} {options}`"


def not_authorized(error: KafkaError, rights: Sequence[Right], connection: Mapping[str, Any]) -> TidemarkError:
    """Return the NOT_AUTHORIZED error for one of CODES, where the user of the `connection` needs these `rights`."""
    needed = [right for right in rights if right.kind == KIND_OF[error.code()]]
    return denied(error.name(), error.str(), needed, connection)


def denied(name: str, said: str, wanted: Sequence[Right], connection: Mapping[str, Any]) -> TidemarkError:
    """Return the NOT_AUTHORIZED error for Kafka's error `said`: one of the rights `wanted` is lacking.

    Args:
        name: what the message begins with.
        connection: of the user's client; empty where it is not known.
    """
    missing = (_lacking(wanted, connection) if connection else []) or wanted
    whoever = _whoever(connection)
    if not missing:
        remedy = "let an administrator grant it by an ACL on the brokers, then start the same again"
        return TidemarkError("NOT_AUTHORIZED", f"{name}: {whoever} may not do this: {said}", remedy)
    what = ", and ".join(map(str, missing))
    commands = " and ".join(granting(right, connection)[1] for right in missing)
    return TidemarkError(
        "NOT_AUTHORIZED",
        f"{name}: {whoever} lacks the right to {what}",
        f"let an administrator grant it, and remove what denies it: {commands} (`local/tidemark acls plan` lists "
        "all that a job or command needs); then start the same again",
    )


def granting(right: Right, connection: Mapping[str, Any]) -> tuple[str, str]:
    """Return who the client of a connection is, for people, and the command that grants it a right."""
    user, servers = user_of(connection), str(connection.get("bootstrap.servers", "HOST:PORT"))
    return _whoever(connection), grant(right, f"User:{user or 'NAME'}", servers)


def _whoever(connection: Mapping[str, Any]) -> str:
    user = user_of(connection)
    return f"user {user}" if user else "this client"


def _lacking(rights: Sequence[Right], connection: Mapping[str, Any]) -> list[Right]:
    """Ask the brokers which of the rights on topics are lacking; none where they cannot be asked."""
    names = [right.name for right in rights if right.kind == "topic"]
    if not names:
        return []
    admin = AdminClient({**connection, "log_level": 0})
    try:
        asked = admin.describe_topics(
            TopicCollection(names), include_authorized_operations=True, request_timeout=RIGHTS_S
        )
        allowed = {name: _allowed(described) for name, described in asked.items()}
    except (KafkaException, TimeoutError) as exc:
        CLIENT_LOG.warning("the brokers do not say which rights are lacking: %s", exc)
        return []
    all_lacking = []
    for right in rights:
        lacking = tuple(
            operation for operation in right.operations if operation.upper() not in allowed.get(right.name, ())
        )
        all_lacking += [right._replace(operations=lacking)] if lacking else []
    return all_lacking


def _allowed(described: Any) -> set[str]:
    try:
        return {operation.name for operation in described.result(2 * RIGHTS_S).authorized_operations or ()}
    except KafkaException as exc:
        if exc.args[0].code() not in CODES:
            raise
        return set()


def user_of(connection: Mapping[str, Any]) -> str:
    """Return the user that brokers take the client for; empty where it is unknown: for tokens only the broker knows."""
    if user := connection.get("sasl.username"):
        return str(user)
    is_by_certificate = connection.get("security.protocol") == "SSL" and "ssl.certificate.location" in connection
    return certificate_subject(connection["ssl.certificate.location"]) if is_by_certificate else ""


def kafka_failed(what: str, cause: str) -> TidemarkError:
    """Return the KAFKA_FAILED error of what has no name of its own."""
    return TidemarkError("KAFKA_FAILED", f"{what}: {cause}", "see the brokers' logs, then start the same again")


def client_error(what: str, error: KafkaError, rights: Sequence[Right], connection: Mapping[str, Any]) -> TidemarkError:
    """Return the error for one of a client's: NOT_AUTHORIZED, where one of these rights is lacking, else what REFUSALS
    say, or KAFKA_FAILED."""
    if error.code() in CODES:
        return not_authorized(error, rights, connection)
    if known := BY_ERROR.get(error.name()):
        return TidemarkError(known.code, f"{what}: {error.str()}", f"{known.remedy}, then start the same again")
    return kafka_failed(what, error.str())


class Connection:
    """Connects one client to the cluster, and keeps the errors that it hears there.

    Args:
        seconds: how long to ask where nobody answers; METADATA_TIMEOUT_S by default.
    """

    def __init__(self, kafka: Kafka, seconds: float | None = None) -> None:
        self._kafka, self._seconds = kafka, seconds
        self.heard: list[KafkaError] = []

    def config(self) -> dict[str, Any]:
        """Return librdkafka's properties for this one client, secrets included: never to be printed."""
        return {**self._kafka.client_config(), "log_level": 0, "error_cb": self.heard.append}

    def metadata(
        self, client: AdminClient | Consumer, topic: str | None = None, rights: Sequence[Right] = ()
    ) -> ClusterMetadata:
        """Ask the cluster for its topics, or for one, on which the client needs `rights`: to read, if left out.

        Raises:
            TidemarkError: BROKER_UNREACHABLE, BROKER_REFUSES; NOT_AUTHORIZED, where one topic is asked for.
        """
        until = time.monotonic() + (METADATA_TIMEOUT_S if self._seconds is None else self._seconds)
        while True:
            try:
                if topic is None:
                    return client.list_topics(timeout=ATTEMPT_S)
                metadata = client.list_topics(topic, timeout=ATTEMPT_S)
                error = metadata.topics[topic].error
                if error is not None and error.code() in CODES:
                    raise not_authorized(error, rights or reading([topic]), self._kafka.client_config())
                return metadata
            except KafkaException as exc:
                client.poll(0)
                refused = self.refusal(exc.args[0])
                if refused is not None or time.monotonic() > until:
                    raise refused or self._silence(exc.args[0]) from exc

    def failed(
        self, client: AdminClient | Consumer, failure: KafkaException, rights: Sequence[Right] = ()
    ) -> TidemarkError:
        """Return the error of a call of `client` that needs `rights` and ended by `failure`: refused, or unanswered."""
        client.poll(0)
        error = failure.args[0]
        if refused := self.refusal(error, rights=rights):
            return refused
        if error.code() > 0:  # a broker's own answer: librdkafka's codes are below
            if known := BY_ERROR.get(error.name()):
                return TidemarkError(known.code, error.str(), f"{known.remedy}, then start again")
            return TidemarkError("KAFKA_FAILED", error.str(), "see the brokers' logs, then start again")
        return self._silence(error)

    def refusal(self, *told: KafkaError, rights: Sequence[Right] = ()) -> TidemarkError | None:
        """Return BROKER_REFUSES or NOT_AUTHORIZED, by the first error, `told` or heard, with which brokers turned the
        client away; None where they did not.

        Args:
            rights: that the client needs.
        """
        connection = self._kafka.client_config()
        for error in (*told, *self.heard):
            if refused := login_refused(error, connection):
                return refused
            if error.code() in CODES:
                return not_authorized(error, rights, connection)
        return None

    def _silence(self, failure: KafkaError) -> TidemarkError:
        """Return BROKER_UNREACHABLE, or BROKER_REFUSES where a server does not speak the client's protocol."""
        servers, protocol = self._kafka.bootstrap_servers, self._kafka.security_protocol
        detail = next((f": {error.str()}" for error in self.heard if error.code() != KafkaError._ALL_BROKERS_DOWN), "")
        # One that hangs up on the first request speaks another protocol; librdkafka has no code of its own for that.
        if failure.code() == KafkaError._TRANSPORT and any(map(_answers, servers.split(","))):
            what = f"{servers} answers, but not in {protocol}, or not in time{detail}"
            return TidemarkError("BROKER_REFUSES", what, "check kafka.security_protocol, and the port")
        remedy = "check kafka.bootstrap_servers, or start the embedded broker: `local/tidemark broker start`"
        return TidemarkError("BROKER_UNREACHABLE", f"no Kafka broker answers at {servers}{detail}", remedy)


def connect(kafka: Kafka, seconds: float | None = None) -> AdminClient:
    """Return a client of the cluster, `seconds` as `Connection`;
    raises TidemarkError BROKER_UNREACHABLE, BROKER_REFUSES."""
    connection = Connection(kafka, seconds)
    admin = AdminClient({**connection.config(), "socket.connection.setup.timeout.ms": 5000})
    connection.metadata(admin)
    return admin


class LongLivedClient:
    """Keeps a client of the cluster as long as a run lasts: made on first use, and anew once what it logs in by has
    changed; raises what `connect` does."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka, self._credentials = kafka, ""
        self._admin: AdminClient | None = None

    def admin(self) -> AdminClient:
        """Return a working client, reconnected after a change of what it logs in by."""
        credentials = self._kafka.credentials() if self._kafka.rotates else ""
        if self._admin is None or credentials != self._credentials:
            self._admin, self._credentials = connect(self._kafka), credentials
        return self._admin


def _answers(server: str) -> bool:
    """Return whether somebody at that address answers Kafka's first question, or hangs up on it."""
    host, _, port = server.strip().rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_S) as probe:
            probe.sendall(API_VERSIONS)
            probe.recv(1)
    except ConnectionResetError:
        return True
    except (OSError, ValueError):
        return False
    return True


def login_refused(error: KafkaError, connection: Mapping[str, Any]) -> TidemarkError | None:
    """Return BROKER_REFUSES, where that is what an error of the `connection` tells of."""
    servers = connection["bootstrap.servers"]
    if error.code() in AUTHENTICATION:
        user = user_of(connection)
        who = f"user `{user}`" if user else "this client"
        remedy = OTHER_TOKEN if connection.get("sasl.mechanism") == "OAUTHBEARER" else OTHER_LOGIN
        return TidemarkError("BROKER_REFUSES", f"{servers} does not let {who} in: {error.str()}", remedy)
    if error.code() == KafkaError._SSL:
        return TidemarkError("BROKER_REFUSES", f"no TLS connection to {servers}: {error.str()}", OTHER_TLS)
    return None
