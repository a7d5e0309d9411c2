"""Reads the ACLs of a cluster, compares them with the rights that a user needs, and adds to them; removes none.

An ACL allows or denies one operation on one resource, or on all whose names begin alike; what denies overrides all that
allows. Source: Kafka's StandardAuthorizer (KIP-801), whose rules the other authorizers follow.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from conf.errors import TidemarkError
from conf.settings import Kafka
from jobs.connectors.kafka.access import CLUSTER, CODES, EVERY, Kind, Right, connect, denied, not_authorized

SECONDS = 15.0
PAUSE_SECONDS = 0.1
ALL, EVERYBODY = "All", "User:*"
# These operations are allowed along with the one on the left.
BRINGS = {
    "Read": ("Describe",),
    "Write": ("Describe",),
    "Delete": ("Describe",),
    "Alter": ("Describe",),
    "AlterConfigs": ("DescribeConfigs",),
}
RESOURCES: dict[Kind, ResourceType] = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "cluster": ResourceType.BROKER,  # the client's name for Kafka's CLUSTER
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
KINDS = {resource: kind for kind, resource in RESOURCES.items()}


class Entry(NamedTuple):
    """An ACL of the cluster: it allows, or denies, one operation."""

    kind: str
    name: str
    is_prefix: bool
    principal: str
    host: str
    operation: str
    allows: bool

    def __str__(self) -> str:
        what = "delegation token" if self.kind == "delegation-token" else self.kind.replace("-", " ")
        place = "the cluster" if self.kind == "cluster" else f"{what}{'s that begin with' * self.is_prefix} {self.name}"
        host = "" if self.host == EVERY else f" from {self.host}"
        return f"{self.operation} on {place}{host}"


@dataclass(frozen=True)
class Comparison:
    """The rights that a principal has, held against those that it needs.

    Args:
        held: the needed rights that it has; lacking: those that it has not.
        denied: rights that an entry denies, with that entry: no further entry helps.
        beyond: what it may do though nothing of the plan needs it.
    """

    held: tuple[Right, ...]
    lacking: tuple[Right, ...]
    denied: tuple[tuple[Right, Entry], ...]
    beyond: tuple[Entry, ...]


def cluster_operations(admin: AdminClient) -> set[str]:
    """Return the operations that the client's user may do on the cluster;
    all of them, where no authorizer asks for rights."""
    described = admin.describe_cluster(include_authorized_operations=True, request_timeout=SECONDS).result(2 * SECONDS)
    return {_words(operation) for operation in described.authorized_operations or ()}


class Acls:
    """The ACLs of the settings' cluster.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES; from each method NO_AUTHORIZER, NOT_AUTHORIZED,
            KAFKA_FAILED.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._admin: AdminClient = connect(kafka)

    def of(self, principal: str) -> list[Entry]:
        """Return the ACLs of `principal` and of everybody; none, where the cluster has no authorizer."""
        # The client treats an answer that is an error as one without entries.
        if "Describe" not in cluster_operations(self._admin):
            raise denied("CLUSTER_AUTHORIZATION_FAILED", "", [_on_cluster("Describe")], self._kafka.client_config())
        return [entry for each in (principal, EVERYBODY) for entry in self._of(each)]

    def add(self, principal: str, rights: Iterable[Right]) -> None:
        """Allow `principal` these rights from every host; the brokers show them when this returns."""
        bindings = [_binding(principal, right) for right in single(rights)]
        if not bindings:
            return
        for future in self._admin.create_acls(bindings, request_timeout=SECONDS).values():
            self._answer(future, "Alter")
        wanted = {_entry(binding) for binding in bindings}
        until = time.monotonic() + SECONDS
        while not wanted <= set(self._of(principal)):
            if time.monotonic() > until:
                remedy = "look at the brokers' logs, then run the same again"
                raise TidemarkError("KAFKA_FAILED", f"the ACLs are not to be seen after {SECONDS:g} s", remedy)
            time.sleep(PAUSE_SECONDS)

    def _of(self, principal: str) -> list[Entry]:
        any: Any = None  # the client's own annotations do not know that this is any
        everything = AclBindingFilter(
            ResourceType.ANY, any, ResourcePatternType.ANY, principal, any, AclOperation.ANY, AclPermissionType.ANY
        )
        future = self._admin.describe_acls(everything, request_timeout=SECONDS)
        return [_entry(binding) for binding in self._answer(future, "Describe")]

    def _answer(self, future: "Future[Any]", operation: str) -> Any:
        try:
            return future.result(2 * SECONDS)
        except KafkaException as exc:
            error = exc.args[0]
            servers = self._kafka.bootstrap_servers
            if error.code() == KafkaError.SECURITY_DISABLED:
                what = f"{servers} has no authorizer: everybody may do everything, and ACLs are kept nowhere"
                remedy = "set authorizer.class.name on the brokers first, or leave it: nobody needs a right"
                raise TidemarkError("NO_AUTHORIZER", what, remedy) from exc
            if error.code() in CODES:
                raise not_authorized(error, [_on_cluster(operation)], self._kafka.client_config()) from exc
            raise TidemarkError("KAFKA_FAILED", f"{servers}: {error.str()}", "see the brokers' logs") from exc


def _on_cluster(operation: str) -> Right:
    return Right("cluster", CLUSTER, (operation,))


def _binding(principal: str, right: Right) -> AclBinding:
    (operation,) = right.operations
    pattern = ResourcePatternType.PREFIXED if right.is_prefix else ResourcePatternType.LITERAL
    known = {_words(each): each for each in AclOperation}
    return AclBinding(
        RESOURCES[right.kind], right.name, pattern, principal, EVERY, known[operation], AclPermissionType.ALLOW
    )


def _entry(binding: AclBinding) -> Entry:
    resource, operation = ResourceType(binding.restype), AclOperation(binding.operation)
    kind = KINDS[resource] if resource in KINDS else resource.name.lower()
    is_prefix = binding.resource_pattern_type == ResourcePatternType.PREFIXED
    allows = binding.permission_type == AclPermissionType.ALLOW
    return Entry(kind, binding.name, is_prefix, binding.principal, binding.host, _words(operation), allows)


def _words(operation: AclOperation) -> str:
    """Return the operation as `kafka-acls.sh` has it: DESCRIBE_CONFIGS is DescribeConfigs."""
    return "".join(part.capitalize() for part in operation.name.split("_"))


def compare(needed: Sequence[Right], entries: Sequence[Entry], principal: str) -> Comparison:
    """Compare the rights that `principal` needs with the cluster's entries; each right is split by operation.

    An entry for one host alone counts if it denies, not if it allows.
    """
    of_principal = [entry for entry in entries if entry.principal in (principal, EVERYBODY)]
    held: list[Right] = []
    lacking: list[Right] = []
    denied: list[tuple[Right, Entry]] = []
    for right in single(needed):
        denying = [entry for entry in of_principal if not entry.allows and _denies(entry, right)]
        denied += [(right, entry) for entry in denying[:1]]
        allowed = any(entry.allows and entry.host == EVERY and _allows(entry, right) for entry in of_principal)
        (held if allowed else lacking).append(right)
    own = (entry for entry in entries if entry.allows and entry.principal == principal)
    beyond = tuple(entry for entry in own if not any(_is_within(entry, right) for right in needed))
    return Comparison(tuple(held), tuple(lacking), tuple(denied), beyond)


def single(rights: Iterable[Right]) -> list[Right]:
    """Split rights into one operation each, without repeats; leave out what another right brings with it."""
    listed = list(rights)
    found: dict[tuple[str, str, bool, str], Right] = {}
    for right in listed:
        brought = {
            more
            for other in listed
            if other[:2] == right[:2] and other.is_prefix == right.is_prefix and (right.without or not other.without)
            for operation in other.operations
            for more in BRINGS.get(operation, ())
        }
        for operation in right.operations:
            if operation not in brought:
                key = (right.kind, right.name, right.is_prefix, operation)
                # A required right is not replaced by an optional one.
                if key not in found or found[key].without:
                    found[key] = right._replace(operations=(operation,))
    return list(found.values())


def _names(entry: Entry, right: Right) -> bool:
    """Return whether the entry is about every resource of the right."""
    if entry.kind != right.kind:
        return False
    if entry.is_prefix:
        return right.name.startswith(entry.name)
    return entry.name == EVERY or (entry.name == right.name and not right.is_prefix)


def _allows(entry: Entry, right: Right) -> bool:
    (operation,) = right.operations
    is_enough = entry.operation in (ALL, operation) or operation in BRINGS.get(entry.operation, ())
    return is_enough and _names(entry, right)


def _denies(entry: Entry, right: Right) -> bool:
    """Return whether the entry takes away the right, or what it brings with it,
    for a resource of the right at least."""
    (operation,) = right.operations
    if entry.kind != right.kind or entry.operation not in (ALL, operation, *BRINGS.get(operation, ())):
        return False
    if entry.is_prefix and right.is_prefix:
        return right.name.startswith(entry.name) or entry.name.startswith(right.name)
    if right.is_prefix:
        return entry.name == EVERY or entry.name.startswith(right.name)
    return _names(entry, right)


def _is_within(entry: Entry, right: Right) -> bool:
    """Return whether all that the entry allows is needed for that right."""
    brought = {more for operation in right.operations for more in BRINGS.get(operation, ())}
    if entry.kind != right.kind or entry.operation not in {*right.operations, *brought}:
        return False
    if right.is_prefix:
        return entry.name.startswith(right.name) and entry.name != EVERY
    return entry.name == right.name and not entry.is_prefix
