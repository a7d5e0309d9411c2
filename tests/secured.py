"""A broker that lets only users in whom it knows, over SASL or TLS, and only where an ACL says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from pydantic import SecretStr

from conf.settings import Kafka, load
from local import processes
from local.broker import Cluster
from local.node import Node
from local.processes import wait_for
from tests.certificates import certify

SECONDS = 30
USER, PASSWORD = "reader", "open-sesame"
AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
SASL, TLS = "SASL_PLAINTEXT", "SSL"


class SecuredCluster(Cluster):
    """One node; beside the listener for everybody, who is its administrator, one for SASL (SCRAM) and one for TLS."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        certify(home)
        self.ca = home / "ca.pem"
        self._certificate = home / "server.pem"
        (free,) = processes.choose_ports([0], [])
        self._ports = {SASL: free["port"], TLS: free["controller_port"]}
        super().__init__(home, home / "logs", attached=True)

    def address(self, listener: str) -> str:
        """Where a listener is; any but SASL and TLS is the one for everybody."""
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
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        change = UserScramCredentialUpsertion(user, info, password.encode())
        admin = self._admin()
        admin.alter_user_scram_credentials([change])[user].result(SECONDS)

    def allow(self, kind: ResourceType, name: str, *operations: AclOperation, user: str = USER) -> None:
        """Let the user do that with what has that name."""
        for operation in operations:
            self._add(_rule(kind, name, operation, user, AclPermissionType.ALLOW))

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
        self._remove(_rule(kind, name, operation, user, AclPermissionType.ALLOW))

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

    def _settings(self, node: Node) -> dict[str, str]:
        general = super()._settings(node)
        own = ",".join(f"{protocol}://{processes.HOST}:{port}" for protocol, port in self._ports.items())
        protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT", SASL: SASL, TLS: TLS}
        return general | {
            "listeners": f"{general['listeners']},{own}",
            "advertised.listeners": f"{general['advertised.listeners']},{own}",
            "listener.security.protocol.map": ",".join(f"{name}:{each}" for name, each in protocols.items()),
            "sasl.enabled.mechanisms": "SCRAM-SHA-256",
            f"listener.name.{SASL.lower()}.scram-sha-256.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._certificate),
            "authorizer.class.name": AUTHORIZER,
            "super.users": "User:ANONYMOUS",
        }


def _rule(
    kind: ResourceType, name: str, operation: AclOperation, user: str, permission: AclPermissionType
) -> AclBinding:
    return AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, permission)


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
