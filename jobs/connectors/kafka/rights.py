"""Compares rights on a cluster: what a user must be allowed to do, and what ACLs allow, as `kafka-acls.sh` names it.

An ACL allows or denies one operation on one resource, or on all whose names begin alike; what denies overrides all that
allows. Source: Kafka's StandardAuthorizer (KIP-801), whose rules the other authorizers follow.
"""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["topic", "group", "cluster", "transactional-id"]
CLUSTER, EVERY, ALL = "kafka-cluster", "*", "All"
EVERYBODY = "User:*"
SIZES = "what a topic takes (largest record, time ahead, retention) is known only when brokers refuse"
# These operations are allowed along with the one on the left.
BRINGS = {
    "Read": ("Describe",),
    "Write": ("Describe",),
    "Delete": ("Describe",),
    "Alter": ("Describe",),
    "AlterConfigs": ("DescribeConfigs",),
}


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


def reading(topics: Iterable[str]) -> list[Right]:
    """Return the rights that reading records of `topics` needs."""
    return [Right("topic", topic, ("Read", "Describe")) for topic in topics]


def writing(topics: Iterable[str]) -> list[Right]:
    """Return the rights that writing records to `topics` needs."""
    return [Right("topic", topic, ("Write", "Describe")) for topic in topics]


def publishing(topics: Iterable[str]) -> list[Right]:
    """Return the rights that writing to `topics` needs, and optional ones that help."""
    listed = list(topics)
    return [
        *(Right("topic", topic, ("Write",)) for topic in listed),
        *(Right("topic", topic, ("DescribeConfigs",), without=SIZES) for topic in listed),
    ]


def grant(right: Right, principal: str, servers: str) -> str:
    """Return the command that grants the right to `principal`."""
    operations = " ".join(f"--operation {operation}" for operation in right.operations)
    options = f"--add --allow-principal {shlex.quote(principal)} {operations} {right.option()}"
    return f"`kafka-acls.sh --bootstrap-server {servers} {options}`"


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
