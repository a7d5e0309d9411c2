"""Reads the ACLs of a cluster and adds to them; nothing is ever removed."""

import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

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
from jobs.connectors.kafka.access import CODES, connect, denied, not_authorized
from jobs.connectors.kafka.rights import CLUSTER, EVERY, EVERYBODY, Entry, Kind, Right, single

SECONDS = 15.0
PAUSE_SECONDS = 0.1
RESOURCES: dict[Kind, ResourceType] = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "cluster": ResourceType.BROKER,  # the client's name for Kafka's CLUSTER
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
KINDS = {resource: kind for kind, resource in RESOURCES.items()}


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
        future = self._admin.describe_acls(_everything(principal), request_timeout=SECONDS)
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


def _everything(principal: str) -> AclBindingFilter:
    any: Any = None  # the client's own annotations do not know that this is any
    return AclBindingFilter(
        ResourceType.ANY, any, ResourcePatternType.ANY, principal, any, AclOperation.ANY, AclPermissionType.ANY
    )


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
