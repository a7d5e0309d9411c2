"""Keeps the registry as a folder: committed beside the contracts, reviewed with them.

`<id>.avsc` holds a schema's text, `index.json` its subject, version and fingerprint.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conf.errors import TidemarkError, nearest
from conf.settings import CompatibilityLevel
from schemas.compatibility import require_compatible
from schemas.registry import RegisteredSchema, fingerprint
from schemas.validity import load_schema

INDEX = "index.json"


@dataclass(frozen=True)
class _Entry:
    id: int
    subject: str
    version: int
    sha256: str


class FileRegistry:
    """A registry in a folder, safe against several processes that register at once; readers need no lock.

    Args:
        level: what a new version must be to the earlier ones.
    """

    def __init__(self, path: Path, level: CompatibilityLevel = "none") -> None:
        self._path, self._level = path, level

    def register(self, subject: str, text: str) -> int:
        """See `Registry`; raises TidemarkError REGISTRY_DAMAGED or REGISTRY_NOT_WRITABLE too."""
        load_schema(text)
        sha256 = fingerprint(text)
        entry = _find(self._entries(), subject, sha256)
        if entry:
            self._text(entry)
            return entry.id
        with self._locked():
            return self._add(subject, sha256, text)

    def schema(self, schema_id: int) -> str:
        """See `Registry`; raises TidemarkError REGISTRY_DAMAGED too, where the text was changed."""
        entries = self._entries()
        for entry in entries:
            if entry.id == schema_id:
                return self._text(entry)
        what = f"no schema has id {schema_id} in {self._path}"
        remedy = f"known ids: {', '.join(sorted({str(entry.id) for entry in entries}, key=int)) or 'none'}"
        raise TidemarkError("UNKNOWN_SCHEMA_ID", what, remedy)

    def latest(self, subject: str) -> RegisteredSchema:
        """See `Registry`."""
        return self.versions(subject)[-1]

    def versions(self, subject: str) -> list[RegisteredSchema]:
        """See `Registry`."""
        entries = self._entries()
        of_subject = [entry for entry in entries if entry.subject == subject]
        if not of_subject:
            what = f"no subject `{subject}` in {self._path}"
            remedy = nearest(subject, sorted({entry.subject for entry in entries}))
            raise TidemarkError("UNKNOWN_SUBJECT", what, remedy)
        return self._registered(of_subject)

    def all_versions(self, subject: str) -> list[RegisteredSchema]:
        """See `Registry`; all that is kept here is Avro."""
        return self._registered([entry for entry in self._entries() if entry.subject == subject])

    def subjects(self) -> list[str]:
        """See `Registry`."""
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
        return [RegisteredSchema(e.id, e.subject, e.version, self._text(e)) for e in entries]

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
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            folder = os.open(self._path, os.O_RDONLY)
        except OSError as exc:
            raise _not_writable(self._path, exc) from exc
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        except OSError as exc:
            raise _not_writable(self._path, exc) from exc
        finally:
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


def _not_writable(path: Path, exc: OSError) -> TidemarkError:
    what = f"a new schema cannot be written to {path}: {exc.strerror}"
    remedy = "register it where the folder can be written, or set registry.path"
    return TidemarkError("REGISTRY_NOT_WRITABLE", what, remedy)
