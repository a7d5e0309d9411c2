"""A broker that lets only users in whom it knows, by password, certificate or token, and only where an ACL says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from pydantic import SecretStr

from conf.settings import Kafka, load
from jobs.connectors.kafka.access import Right
from jobs.connectors.kafka.acls import RESOURCES
from local import processes
from local.broker import Cluster
from local.broker_node import Node, choose_ports
from local.processes import wait_for
from tests.certificates import Authority, certify
from tests.tokens import AUDIENCE, ISSUER, make_key

SECONDS = 30
USER, PASSWORD = "reader", "open-sesame"
AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
ALLOW, LITERAL = AclPermissionType.ALLOW, ResourcePatternType.LITERAL
SASL, TLS, LOGIN, MTLS = "SASL_PLAINTEXT", "SSL", "SASL_SSL", "MTLS"
MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER")
MODULES = "org.apache.kafka.common.security"
VALIDATOR = f"{MODULES}.oauthbearer.OAuthBearerValidatorCallbackHandler"
SCRAM = f"{MODULES}.scram.ScramLoginModule required;"


class SecuredCluster(Cluster):
    """One node; beside the listener for everybody, who is its administrator: SASL (SCRAM without TLS), TLS, where
    everybody is let in, LOGIN (MECHANISMS over TLS), MTLS (a certificate of `clients`, signed by that authority)."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        certify(home)
        self.ca = home / "ca.pem"
        self.certificate = home / "server.pem"
        self.clients = Authority()
        (home / "clients.pem").write_bytes(self.clients.certificate)
        self.token_key = make_key(home / "jwks.json")
        ports = [port for ports in choose_ports([0, 0], []) for port in astuple(ports)]
        self._ports = dict(zip((SASL, TLS, LOGIN, MTLS), ports, strict=True))
        keys = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={(home / 'jwks.json').as_uri()}"
        super().__init__(home, home / "logs", attached=True, java_options=(keys,))

    def address(self, listener: str) -> str:
        """Where a listener is; any but SASL, TLS, LOGIN and MTLS is the one for everybody."""
        return f"{processes.HOST}:{self._ports[listener]}" if listener in self._ports else self.bootstrap_servers

    def kafka(self, protocol: str, listener: str, user: str = USER, password: str = PASSWORD, ca: str = "") -> Kafka:
        """Settings of a client that speaks `protocol` to that listener."""
        access: dict[str, Any] = {"bootstrap_servers": self.address(listener)}
        access |= {"security_protocol": protocol, "ssl_ca_location": ca}
        if protocol.startswith("SASL"):
            secret = SecretStr(password)
            access |= {"sasl_mechanism": "SCRAM-SHA-256", "sasl_username": user, "sasl_password": secret}
        return load("local").kafka.model_copy(update=access)

    def topic(self, name: str) -> str:
        """Make an empty topic of one partition."""
        admin = self._admin()
        admin.create_topics([NewTopic(name, 1, 1)])[name].result(SECONDS)
        late = AssertionError("the broker does not hear of a topic")
        wait_for(lambda: name in admin.list_topics(timeout=SECONDS).topics, SECONDS, lambda: late)
        return name

    def set_password(self, password: str = PASSWORD, user: str = USER) -> None:
        """Let the user in by that password, and by no other from now on."""
        admin = self._admin()
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            change = UserScramCredentialUpsertion(user, ScramCredentialInfo(mechanism, 4096), password.encode())
            admin.alter_user_scram_credentials([change])[user].result(SECONDS)

    def allow(self, kind: ResourceType, name: str, *operations: AclOperation, user: str = USER) -> None:
        """Let the user do that with what has that name; one that ends with `*` stands for all that begin so."""
        for operation in operations:
            self._add(_rule(kind, name, operation, user, ALLOW))

    @contextmanager
    def denied(self, kind: ResourceType, name: str, operation: AclOperation, user: str = USER) -> Iterator[None]:
        """Within the block the user may not do that, whatever else is allowed."""
        rule = _rule(kind, name, operation, user, AclPermissionType.DENY)
        self._add(rule)
        try:
            yield
        finally:
            self._remove(rule)

    def take_back(self, kind: ResourceType, name: str, operation: AclOperation, user: str = USER) -> None:
        """Let the user do that no longer, where it was allowed for that name."""
        self._remove(_rule(kind, name, operation, user, ALLOW))

    @contextmanager
    def without(self, right: Right, user: str = USER) -> Iterator[None]:
        """Within the block the user has lost a right, of one operation, that an ACL of that very pattern gave it."""
        kind, pattern = RESOURCES[right.kind], ResourcePatternType.PREFIXED if right.is_prefix else LITERAL
        (operation,) = right.operations
        known = {each.name.replace("_", "").lower(): each for each in AclOperation}
        rule = AclBinding(kind, right.name, pattern, f"User:{user}", "*", known[operation.lower()], ALLOW)
        self._remove(rule)
        try:
            yield
        finally:
            self._add(rule)

    def _remove(self, rule: AclBinding) -> None:
        pattern, admin = _pattern(rule), self._admin()
        admin.delete_acls([pattern])[pattern].result(SECONDS)
        late = AssertionError("the broker does not forget an ACL")
        wait_for(lambda: not admin.describe_acls(pattern).result(SECONDS), SECONDS, lambda: late)

    def _add(self, rule: AclBinding) -> None:
        admin = self._admin()
        admin.create_acls([rule])[rule].result(SECONDS)
        # The controller has it; the broker, which hears of it a moment later, tells what it goes by.
        late = AssertionError("the broker does not hear of an ACL")
        wait_for(lambda: bool(admin.describe_acls(_pattern(rule)).result(SECONDS)), SECONDS, lambda: late)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def _settings(self, node: Node) -> dict[str, str]:
        general = super()._settings(node)
        own = ",".join(f"{listener}://{processes.HOST}:{port}" for listener, port in self._ports.items())
        protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT", SASL: SASL, TLS: TLS, LOGIN: LOGIN, MTLS: TLS}
        login, mtls = f"listener.name.{LOGIN.lower()}", f"listener.name.{MTLS.lower()}"
        return general | {
            "listeners": f"{general['listeners']},{own}",
            "advertised.listeners": f"{general['advertised.listeners']},{own}",
            "listener.security.protocol.map": ",".join(f"{name}:{each}" for name, each in protocols.items()),
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            f"listener.name.{SASL.lower()}.sasl.enabled.mechanisms": "SCRAM-SHA-256",
            f"listener.name.{SASL.lower()}.scram-sha-256.sasl.jaas.config": SCRAM,
            f"{login}.scram-sha-256.sasl.jaas.config": SCRAM,
            f"{login}.scram-sha-512.sasl.jaas.config": SCRAM,
            f"{login}.plain.sasl.jaas.config": f'{MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
            f"{login}.oauthbearer.sasl.jaas.config": f"{MODULES}.oauthbearer.OAuthBearerLoginModule required;",
            f"{login}.oauthbearer.sasl.server.callback.handler.class": VALIDATOR,
            "sasl.oauthbearer.jwks.endpoint.url": (node.home.parent / "jwks.json").as_uri(),
            "sasl.oauthbearer.expected.audience": AUDIENCE,
            "sasl.oauthbearer.expected.issuer": ISSUER,
            f"{mtls}.ssl.client.auth": "required",
            f"{mtls}.ssl.truststore.type": "PEM",
            f"{mtls}.ssl.truststore.location": str(node.home.parent / "clients.pem"),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificate),
            "authorizer.class.name": AUTHORIZER,
            "super.users": "User:ANONYMOUS",
        }


def _rule(
    kind: ResourceType, name: str, operation: AclOperation, user: str, permission: AclPermissionType
) -> AclBinding:
    is_prefix = len(name) > 1 and name.endswith("*")
    pattern = ResourcePatternType.PREFIXED if is_prefix else LITERAL
    return AclBinding(kind, name[:-1] if is_prefix else name, pattern, f"User:{user}", "*", operation, permission)


def _pattern(rule: AclBinding) -> AclBindingFilter:
    """What finds that rule alone."""
    own = (rule.restype, rule.name, rule.resource_pattern_type, rule.principal, rule.host)
    return AclBindingFilter(*own, rule.operation, rule.permission_type)


@contextmanager
def secured_cluster(home: Path) -> Iterator[SecuredCluster]:
    """The broker while the block runs, with USER let in by PASSWORD."""
    with SecuredCluster(home) as cluster:
        cluster.set_password()
        yield cluster
