"""Defines a registry, which says what schema an id stands for, and how long its answers are waited for.

A registered schema never changes. Two texts are the same schema when they are equal as JSON: white space and the order
of attributes do not count; docs, defaults, aliases and logical types do. Avro's Parsing Canonical Form would ignore all
four, and so give one id to two decimals of different scale, which readers would then decode to wrong numbers.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Protocol, TypeVar

from conf.errors import TidemarkError
from schemas.schema_text import normalized

COMMAND_SECONDS = 30.0  # a registry that is restarted is back by then
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
LINE_SECONDS = 30.0
AVRO = "AVRO"
AVRO_REMEDY = (
    "let its producers write Avro, and register that as the next version (a registry may refuse another type until the "
    "subject's compatibility is NONE), or leave the topic out"
)
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RegisteredSchema:
    """One version of a subject; `id` names the schema text, across subjects.

    Args:
        text: with every type that it needs, though the registry may hold some of them under other subjects.
        kind: AVRO, or another type that a registry keeps, as PROTOBUF and JSON.
        problem: why types that the text refers to are not in it, and what to do, each in a few words.
    """

    id: int
    subject: str
    version: int
    text: str
    kind: str = AVRO
    problem: tuple[str, str] | None = None

    @property
    def is_avro(self) -> bool:
        """Return whether records can be read by it at all."""
        return self.kind == AVRO


class Registry(Protocol):
    """A registry as producers and jobs need it, wherever it is kept.

    Where it is asked over HTTP, each call also raises TidemarkError REGISTRY_UNAVAILABLE, REGISTRY_REFUSED or
    NOT_A_REGISTRY.
    """

    def register(self, subject: str, text: str) -> int:
        """Return the id of `text` under `subject`; the same schema has the same id, however often registered.

        Raises:
            TidemarkError: INVALID_SCHEMA; INCOMPATIBLE_SCHEMA, where a new version may not follow the earlier ones.
        """

    def schema(self, schema_id: int) -> str:
        """Return the text that `schema_id` stands for.

        Raises:
            TidemarkError: UNKNOWN_SCHEMA_ID; UNSUPPORTED_SCHEMA, where it is no Avro; BAD_SCHEMA, where types that it
                refers to cannot be found.
        """

    def latest(self, subject: str) -> RegisteredSchema:
        """Return the newest version that is Avro; raises what `versions` does."""

    def versions(self, subject: str) -> list[RegisteredSchema]:
        """Return every version that is Avro, oldest first.

        Raises:
            TidemarkError: UNKNOWN_SUBJECT; UNSUPPORTED_SCHEMA, where none of them is Avro.
        """

    def all_versions(self, subject: str) -> list[RegisteredSchema]:
        """Return every version, of whatever type, oldest first; none where there is no such subject."""

    def subjects(self) -> list[str]:
        """Return every subject, sorted."""


def avro_of(versions: Sequence[RegisteredSchema]) -> list[RegisteredSchema]:
    """Return those of all versions of a subject that are Avro.

    Raises:
        TidemarkError: UNSUPPORTED_SCHEMA, where none of them is; there must be one at least.
    """
    found = [version for version in versions if version.is_avro]
    if not found:
        newest = versions[-1]
        what = f"subject {newest.subject} has no Avro schema: version {newest.version} (schema id {newest.id}) is"
        what = f"{what} of type {newest.kind}, and none of those before it is Avro either"
        raise TidemarkError("UNSUPPORTED_SCHEMA", what, AVRO_REMEDY)
    return found


class UnavailableError(Exception):
    """A registry cannot answer now; in a few words, why."""


class RetryPolicy:
    """Asks a registry again until there is an answer.

    Args:
        seconds: how long at most.
        once_answered: without a bound, once this registry has answered: it is the right address, and will be back.
        ending: ends every wait when it is set.
    """

    def __init__(
        self, seconds: float = COMMAND_SECONDS, once_answered: bool = False, ending: Event | None = None
    ) -> None:
        self._seconds, self._once_answered = seconds, once_answered
        self._ending = ending or Event()
        self.answered = False

    def ask(self, place: str, what: str, ask: Callable[[], Answer]) -> Answer:
        """Call `ask` until it no longer raises `UnavailableError`, and return its answer.

        Raises:
            TidemarkError: REGISTRY_UNAVAILABLE, with `place` and `what` was asked.
        """
        began, pause, last_line = time.monotonic(), FIRST_PAUSE_SECONDS, None
        while True:
            try:
                answer = ask()
            except UnavailableError as exc:
                waited = time.monotonic() - began
                self._require_more_time(place, what, exc, waited)
                if last_line is None or waited - last_line >= LINE_SECONDS:
                    _print(f"registry {place} does not answer ({exc}): waiting for {what}, {waited:.0f} s so far")
                    last_line = waited
                self._ending.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            if last_line is not None:
                _print(f"registry {place} answers again after {time.monotonic() - began:.0f} s")
            self.answered = True
            return answer

    def _require_more_time(self, place: str, what: str, exc: UnavailableError, waited: float) -> None:
        unbounded = self._once_answered and self.answered
        if self._ending.is_set() or (waited >= self._seconds and not unbounded):
            message = f"registry {place} did not answer for {waited:.0f} s ({exc}), asked for {what}"
            remedy = "start it, or correct registry.url; nothing was lost: run the same again"
            raise TidemarkError("REGISTRY_UNAVAILABLE", message, remedy) from exc


def fingerprint(text: str) -> str:
    """Return SHA-256 of the normalized schema, in hexadecimal;
    raises TidemarkError INVALID_SCHEMA where it is no JSON."""
    return hashlib.sha256(normalized(text).encode()).hexdigest()


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
