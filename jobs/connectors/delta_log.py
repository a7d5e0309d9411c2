"""The log of a Delta table, read without a JVM: what each commit says of itself, newest first.

A table may lie in a folder or in an object store (`s3a://`, `s3://`, whatever deltalake knows); credentials come from
the environment, as deltalake reads them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq
from pyarrow import fs

from jobs.connectors.delta_commit import REPLAYS
from jobs.connectors.files import storage

LOG = "_delta_log"
COMMIT = re.compile(r"^(\d{20})\.json$")
CHECKPOINT = re.compile(r"^(\d{20})\.checkpoint(\..+)?\.(parquet|json)$")
# A commit's other actions, one for each file, may be megabytes.
SAID = (b'{"commitInfo"', b'{"txn"')
DEEPEST = 5  # folders of tables within folders


@dataclass(frozen=True)
class LogCommit:
    """One version of a table.

    Args:
        at: when it was made.
        metadata: our writers' `userMetadata` (`delta_commit.Commit.metadata`); empty for commits of others.
        app_ids: the transaction identifiers that it recorded.
    """

    version: int
    at: datetime | None = None
    operation: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    app_ids: tuple[str, ...] = ()


class DeltaLog:
    """The log of the table at `path` as it was when this was made; `newest` is -1 where there is no table."""

    def __init__(self, path: str) -> None:
        self._files, root = storage(path)
        self._folder = f"{root}{LOG}"
        names = [info.base_name for info in self._files.get_file_info(_selector(self._folder))]
        self._versions = {int(found[1]) for name in names if (found := COMMIT.match(name))}
        self.newest = max(self._versions, default=-1)
        checkpoints = {name: int(found[1]) for name in names if (found := CHECKPOINT.match(name))}
        self._checkpoint = max(checkpoints.values(), default=-1)
        self._parts = [name for name, version in checkpoints.items() if version == self._checkpoint]

    def commits(self) -> Iterator[LogCommit]:
        """Newest first, as far back as the log goes without a gap."""
        version = self.newest
        while version in self._versions:
            try:
                text = self._read(f"{version:020}.json")
            except FileNotFoundError:  # the log was cleaned meanwhile
                return
            yield _parsed(version, text)
            version -= 1

    def app_ids(self) -> set[str] | None:
        """The transaction identifiers that the newest checkpoint of the log holds; None where it has none."""
        found: set[str] = set()
        for name in self._parts:
            if name.endswith(".json"):
                actions = map(json.loads, filter(None, self._read(name).splitlines()))
                found |= {action["txn"]["appId"] for action in actions if action.get("txn")}
            else:
                with self._files.open_input_file(f"{self._folder}/{name}") as file:
                    rows = pq.ParquetFile(file).read(columns=["txn.appId"])["txn"]
                found |= {row["appId"] for row in rows.drop_null().to_pylist() if row["appId"]}
        return found if self._parts else None

    @property
    def checkpoint(self) -> int:
        """The version of the newest checkpoint of the log; -1 where it has none."""
        return self._checkpoint

    def _read(self, name: str) -> bytes:
        with self._files.open_input_stream(f"{self._folder}/{name}") as file:
            return bytes(file.read())


def tables_under(root: str) -> list[str]:
    """The Delta tables in the folder `root` and the folders in it, by their path from there, sorted.

    Those that replays write beside the live ones are left out.
    """
    if not urlsplit(root).scheme and not Path(root).is_dir():
        return []
    files, base = storage(root)
    return sorted(_tables(files, base, "", DEEPEST))


def _tables(files: fs.FileSystem, base: str, within: str, depth: int) -> Iterator[str]:
    infos = files.get_file_info(_selector(f"{base}{within}".rstrip("/")))
    folders = [info.base_name for info in infos if info.type == fs.FileType.Directory]
    if LOG in folders:
        yield within.rstrip("/")
    elif depth:
        for name in folders:
            if not within and name == REPLAYS:
                continue
            yield from _tables(files, base, f"{within}{name}/", depth - 1)


def _selector(folder: str) -> fs.FileSelector:
    return fs.FileSelector(folder, allow_not_found=True)


def _parsed(version: int, text: bytes) -> LogCommit:
    actions = [json.loads(line) for line in text.splitlines() if line.startswith(SAID)]
    info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    at = info.get("timestamp")
    return LogCommit(
        version,
        datetime.fromtimestamp(at / 1000, UTC) if isinstance(at, int | float) else None,
        str(info.get("operation", "")),
        info.get("operationParameters") or {},
        _object(info.get("userMetadata")),
        tuple(action["txn"]["appId"] for action in actions if "txn" in action),
    )


def _object(text: Any) -> dict[str, Any]:
    try:
        said = json.loads(text or "{}")
    except (TypeError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
