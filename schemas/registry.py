"""Defines a registry, which says what schema an id stands for, and keeps one in a folder, committed with the contracts.

A registered schema never changes. Two texts are the same schema when they are equal as JSON: white space and the order
of attributes do not count; docs, defaults, aliases and logical types do. Avro's Parsing Canonical Form would ignore all
four, and so give one id to two decimals of different scale, which readers would then decode to wrong numbers.
"""

import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol, TypeVar

from conf.errors import TidemarkError, nearest
from conf.sections import CompatibilityLevel
from schemas.compatibility import require_compatible
from schemas.schema_text import AVRO, normalized
from schemas.validity import load_schema

COMMAND_SECONDS = 30.0  # a registry that is restarted is back by then
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
LINE_SECONDS = 30.0
INDEX = "index.json"
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
        return self.kind == AVRO


class Registry(Protocol):
    """A registry as producers and jobs need it, wherever it is kept.

    Where it is asked over HTTP, each call also raises TidemarkError REGISTRY_UNAVAILABLE, REGISTRY_REFUSED or
    NOT_A_REGISTRY; where it is a folder, REGISTRY_DAMAGED.
    """

    place: str  # its folder, or its URL

    def register(self, subject: str, text: str) -> int:
        """Return the id of `text` under `subject`; the same schema has the same id, however often registered.

        Raises:
            TidemarkError: INVALID_SCHEMA; INCOMPATIBLE_SCHEMA, where a new version may not follow the earlier ones;
                REGISTRY_NOT_WRITABLE.
        """

    def schema(self, schema_id: int) -> str:
        """Return the text that `schema_id` stands for; raises TidemarkError UNKNOWN_SCHEMA_ID; UNSUPPORTED_SCHEMA,
        where it is no Avro; BAD_SCHEMA, where types that it refers to cannot be found."""

    def latest(self, subject: str) -> RegisteredSchema:
        """Return the newest version that is Avro; raises what `versions` does."""
        return self.versions(subject)[-1]

    def versions(self, subject: str) -> list[RegisteredSchema]:
        """Return every version that is Avro, oldest first; raises TidemarkError UNKNOWN_SUBJECT; UNSUPPORTED_SCHEMA,
        where none of them is Avro."""
        versions = self.all_versions(subject)
        if not versions:
            raise _unknown_subject(subject, self.place, self.subjects())
        return avro_of(versions)

    def all_versions(self, subject: str) -> list[RegisteredSchema]:
        """Return every version, of whatever type, oldest first; none where there is no such subject."""

    def subjects(self) -> list[str]:
        """Return every subject, sorted."""


def avro_of(versions: Sequence[RegisteredSchema]) -> list[RegisteredSchema]:
    """Return those of all versions of a subject that are Avro; raises TidemarkError UNSUPPORTED_SCHEMA, where none of
    them is; there must be one at least."""
    avro = [version for version in versions if version.is_avro]
    if not avro:
        newest = versions[-1]
        what = f"subject {newest.subject} has no Avro schema: version {newest.version} (schema id {newest.id}) is"
        what = f"{what} of type {newest.kind}, and none of those before it is Avro either"
        raise TidemarkError("UNSUPPORTED_SCHEMA", what, AVRO_REMEDY)
    return avro


def _unknown_subject(subject: str, registry: str, known: Sequence[str]) -> TidemarkError:
    """Return the stop UNKNOWN_SUBJECT of a registry that has the subjects `known`, with what helps."""
    topic = subject.removesuffix("-value")
    types = [name for name in known if name.startswith(f"{topic}-") and not name.endswith(("-value", "-key"))]
    several = f"topic {topic} has a subject for each type of event ({', '.join(types)}): declare these as its `schemas`"
    remedy = f"{several} in conf/topics.toml" if types and topic != subject else nearest(subject, list(known))
    return TidemarkError("UNKNOWN_SUBJECT", f"no subject `{subject}` in {registry}", remedy)


def fingerprint(text: str) -> str:
    """Return SHA-256 of the normalized schema, in hexadecimal; raises TidemarkError INVALID_SCHEMA."""
    return hashlib.sha256(normalized(text).encode()).hexdigest()


@dataclass(frozen=True)
class _Entry:
    id: int
    subject: str
    version: int
    sha256: str


class FileRegistry(Registry):
    """A registry in a folder: `<id>.avsc` holds a schema's text, `index.json` its subject, version and fingerprint.

    It is safe against several processes that register at once; readers need no lock.
    """

    def __init__(self, path: Path, level: CompatibilityLevel = "none") -> None:
        self._path, self._level, self.place = path, level, str(path)

    def register(self, subject: str, text: str) -> int:
        load_schema(text)
        sha256 = fingerprint(text)
        if entry := _find(self._entries(), subject, sha256):
            self._text(entry)
            return entry.id
        with self._locked():
            return self._add(subject, sha256, text)

    def schema(self, schema_id: int) -> str:
        entries = self._entries()
        for entry in entries:
            if entry.id == schema_id:
                return self._text(entry)
        what = f"no schema has id {schema_id} in {self._path}"
        remedy = f"known ids: {', '.join(map(str, sorted({entry.id for entry in entries}))) or 'none'}"
        raise TidemarkError("UNKNOWN_SCHEMA_ID", what, remedy)

    def all_versions(self, subject: str) -> list[RegisteredSchema]:
        return self._registered([entry for entry in self._entries() if entry.subject == subject])

    def subjects(self) -> list[str]:
        return sorted({entry.subject for entry in self._entries()})

    def _add(self, subject: str, sha256: str, text: str) -> int:
        entries = self._entries()
        if entry := _find(entries, subject, sha256):
            return entry.id
        earlier = [entry for entry in entries if entry.subject == subject]
        require_compatible(subject, text, self._registered(earlier), self._level)
        twin = next((entry for entry in entries if entry.sha256 == sha256), None)
        schema_id = twin.id if twin else max((entry.id for entry in entries), default=0) + 1
        version = max((entry.version for entry in earlier), default=0) + 1
        if twin is None:
            _replace(self._path / f"{schema_id}.avsc", text)
        entries.append(_Entry(schema_id, subject, version, sha256))
        lines = ",\n  ".join(json.dumps(asdict(entry)) for entry in entries)
        _replace(self._path / INDEX, f"[\n  {lines}\n]\n")
        return schema_id

    def _registered(self, entries: list[_Entry]) -> list[RegisteredSchema]:
        return [RegisteredSchema(entry.id, entry.subject, entry.version, self._text(entry)) for entry in entries]

    def _entries(self) -> list[_Entry]:
        path = self._path / INDEX
        try:
            listed: Any = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(listed, list):
                raise TypeError("it holds no list")
            entries = [_Entry(**entry) for entry in listed]
            if not all(isinstance(entry.id, int) for entry in entries):  # it names a file
                raise TypeError("an id is no number")
            return entries
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as exc:
            raise _damaged(f"{path} cannot be read: {exc}") from exc

    def _text(self, entry: _Entry) -> str:
        path = self._path / f"{entry.id}.avsc"
        try:
            text = path.read_text(encoding="utf-8")
            actual = fingerprint(text)
        except (OSError, ValueError) as exc:
            raise _damaged(f"{path} cannot be read: {exc}") from exc
        except TidemarkError as exc:
            raise _damaged(f"{path} holds no JSON") from exc
        if actual != entry.sha256:
            raise _damaged(f"{path} was edited after it was registered as id {entry.id}")
        return text

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = None
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            folder = os.open(self._path, os.O_RDONLY)
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        except OSError as exc:
            what = f"a new schema cannot be written to {self._path}: {exc.strerror}"
            remedy = "register it where the folder can be written, or set registry.path"
            raise TidemarkError("REGISTRY_NOT_WRITABLE", what, remedy) from exc
        finally:
            if folder is not None:
                os.close(folder)


def require_registry_in(folder: Path) -> None:
    """Raise TidemarkError NO_REGISTRY where a folder holds none; one that nothing was registered in yet may be none."""
    if not (folder / INDEX).is_file():
        remedy = "name the folder of a registry, as registry.path does"
        raise TidemarkError("NO_REGISTRY", f"there is no registry in {folder}: it lacks {INDEX}", remedy)


def _find(entries: list[_Entry], subject: str, sha256: str) -> _Entry | None:
    return next((entry for entry in entries if (entry.subject, entry.sha256) == (subject, sha256)), None)


def _replace(path: Path, text: str) -> None:
    """Write whole or not at all: a reader sees the old file or the new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _damaged(what: str) -> TidemarkError:
    remedy = "restore it from version control; to change a schema, edit its contract and register that"
    return TidemarkError("REGISTRY_DAMAGED", what, remedy)


class UnavailableError(Exception):
    """A registry cannot answer now; in a few words, why."""


class RetryPolicy:
    """Asks a registry again until there is an answer, for so many seconds at most.

    `once_answered`: without a bound, once this registry has answered: it is the right address, and will be back.
    `ending` ends every wait when it is set.
    """

    def __init__(
        self, seconds: float = COMMAND_SECONDS, once_answered: bool = False, ending: Event | None = None
    ) -> None:
        self._seconds, self._once_answered = seconds, once_answered
        self._ending = ending or Event()
        self.answered = False

    def ask(self, place: str, what: str, ask: Callable[[], Answer]) -> Answer:
        """Call `ask` until it no longer raises `UnavailableError`, and return its answer; raises TidemarkError
        REGISTRY_UNAVAILABLE, with `place` and `what` was asked."""
        began, pause, last_line = time.monotonic(), FIRST_PAUSE_SECONDS, None
        while True:
            try:
                answer = ask()
            except UnavailableError as exc:
                waited = time.monotonic() - began
                unbounded = self._once_answered and self.answered
                if self._ending.is_set() or (waited >= self._seconds and not unbounded):
                    message = f"registry {place} did not answer for {waited:.0f} s ({exc}), asked for {what}"
                    remedy = "start it, or correct registry.url; nothing was lost: run the same again"
                    raise TidemarkError("REGISTRY_UNAVAILABLE", message, remedy) from exc
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


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
