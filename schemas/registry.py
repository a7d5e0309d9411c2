"""Which schema an id stands for: registered versions, by subject and by id, wherever they are kept.

A registered schema never changes. Two texts are the same schema when they are equal as JSON: white space and the order
of attributes do not count; docs, defaults, aliases and logical types do. Avro's Parsing Canonical Form would ignore all
four, and so give one id to two decimals of different scale, which readers would then decode to wrong numbers.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from conf.settings import Registry as RegistrySettings
from schemas.patience import Patience
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


def open_registry(settings: RegistrySettings, patience: Patience | None = None) -> Registry:
    """The registry that the settings name: over HTTP where `registry.url` is set, else the folder `registry.path`.

    Args:
        patience: how long a registry that does not answer is waited for; a command's, where it is left out.

    Raises:
        TidemarkError: BAD_SETTING, where `registry.ca_location` holds no certificates.
    """
    # Each store is imported where it is used: the client alone takes as long to import as all else that a command does.
    if settings.url:
        from schemas.http_registry import HttpRegistry

        return HttpRegistry(settings, patience or Patience())
    from schemas.file_registry import FileRegistry

    return FileRegistry(settings.path, settings.compatibility)


def fingerprint(text: str) -> str:
    """SHA-256 of the normalized schema, in hexadecimal; raises TidemarkError INVALID_SCHEMA."""
    return hashlib.sha256(normalized(text).encode()).hexdigest()
