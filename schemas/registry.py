"""Which schema an id stands for: registered versions, by subject and by id, wherever they are kept.

A registered schema never changes. Two texts are the same schema when they are equal as JSON: white space and the order
of attributes do not count; docs, defaults, aliases and logical types do. Avro's Parsing Canonical Form would ignore all
four, and so give one id to two decimals of different scale, which readers would then decode to wrong numbers.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from schemas.validity import normalized


@dataclass(frozen=True)
class RegisteredSchema:
    """One version of a subject; `id` names the schema text, across subjects."""

    id: int
    subject: str
    version: int
    text: str


class Registry(Protocol):
    """What producers and jobs need of a registry, wherever it is kept.

    Where it is asked over HTTP, each call also raises TidemarkError REGISTRY_UNAVAILABLE, REGISTRY_REFUSED or
    NOT_A_REGISTRY.
    """

    def register(self, subject: str, text: str) -> int:
        """The id of `text` under `subject`; the same schema has the same id, however often registered.

        Raises:
            TidemarkError: INVALID_SCHEMA; INCOMPATIBLE_SCHEMA, where a new version may not follow the earlier ones.
        """

    def schema(self, schema_id: int) -> str:
        """The text that `schema_id` stands for; raises TidemarkError UNKNOWN_SCHEMA_ID."""

    def latest(self, subject: str) -> RegisteredSchema:
        """The newest version; raises TidemarkError UNKNOWN_SUBJECT."""

    def versions(self, subject: str) -> list[RegisteredSchema]:
        """Every version, oldest first; raises TidemarkError UNKNOWN_SUBJECT."""

    def subjects(self) -> list[str]:
        """Every subject, sorted."""


def fingerprint(text: str) -> str:
    """SHA-256 of the normalized schema, in hexadecimal; raises TidemarkError INVALID_SCHEMA."""
    return hashlib.sha256(normalized(text).encode()).hexdigest()
