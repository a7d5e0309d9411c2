"""Reads the log of a Delta table: what each commit says of itself, newest first, and what a RESTORE took back.

`DeltaLog` reads it without a JVM, wherever `jobs.connectors.files` reads. `snapshot` and `History` ask the session that
writes the table, which knows the newest version already, and whose file systems and credentials are Hadoop's.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import fs

from conf.errors import TidemarkError
from jobs.connectors.files import is_of_store, is_unopened, lacks_folder, not_opened, one_line, storage, store_refuses

if TYPE_CHECKING:  # programs without Spark read logs too, and it takes a second to import
    from pyspark.sql import SparkSession

    from jobs.connectors.spark_internals import DeltaSnapshot

LOG = "_delta_log"
REPLAYS = "replays"  # the folder of what replays write beside the live tables
# What helps where no copy is left of a table that a query writes.
ANEW = "delete the table and its checkpoint, both, to read the topics again"
COMMIT = re.compile(r"^(\d{20})\.json$")
CHECKPOINT = re.compile(r"^(\d{20})\.checkpoint(\..+)?\.(parquet|json)$")
# A commit's other actions, one for each file, may be megabytes.
SAID = (b'{"commitInfo"', b'{"txn"')
DEEPEST = 5  # folders of tables within folders
RESTORE = "RESTORE"
# Delta's names of a log in which files are missing.
LACKS = (
    "DELTA_VERSIONS_NOT_CONTIGUOUS",
    "DELTA_LOG_FILE_NOT_FOUND",
    "DELTA_TRUNCATED_TRANSACTION_LOG",
    "DELTA_MISSING_PART_FILES",
    "DELTA_STATE_RECOVER_ERROR",
)


@dataclass(frozen=True)
class LogCommit:
    """One version of a table.

    Args:
        at: when it was made.
        metadata: our writers' `userMetadata` (`delta.commit.Commit.metadata`); empty for commits of others.
        app_ids: the transaction identifiers that it recorded.
        rows: that it appended, inserted or updated, as Delta counted them; None for an operation that tells none.
    """

    version: int
    at: datetime | None = None
    operation: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    app_ids: tuple[str, ...] = ()
    rows: int | None = None


def undone(commits: Iterable[LogCommit]) -> Iterator[tuple[LogCommit, int | None]]:
    """Yield each of `commits`, newest first, with the version whose RESTORE took it back; None where it holds.

    A RESTORE to a time, not to a version, counts as undoing all commits before it.
    """
    kept, by = None, None
    for commit in commits:
        if by is not None and kept is not None and commit.version <= kept:
            kept, by = None, None
        yield commit, by
        if by is None and commit.operation == RESTORE:
            restored = commit.parameters.get("version")
            kept, by = -1 if restored is None else int(restored), commit.version


class DeltaLog:
    """The log of the table at `path` as it was when this was made; `newest` is its version, `checkpoint` that of its
    newest checkpoint, each -1 where there is none.

    Args:
        anew: what helps where no copy is left.
    """

    def __init__(self, path: str, anew: str = ANEW) -> None:
        self._path, self._anew = path, anew
        self._files, root = storage(path)
        self._folder = f"{root}{LOG}"
        infos = self._files.get_file_info(fs.FileSelector(self._folder, allow_not_found=True))
        names = [info.base_name for info in infos]
        self._versions = {int(found[1]) for name in names if (found := COMMIT.match(name))}
        self.newest = max(self._versions, default=-1)
        checkpoints = {name: int(found[1]) for name in names if (found := CHECKPOINT.match(name))}
        self.checkpoint = max(checkpoints.values(), default=-1)
        self._parts = [name for name, version in checkpoints.items() if version == self.checkpoint]

    def commits(self) -> Iterator[LogCommit]:
        """Yield commits, newest first, as far back as the log goes without a gap.

        Raises:
            TidemarkError: TABLE_LOG_DAMAGED.
        """
        version = self.newest
        while version in self._versions:
            try:
                text = self._read(f"{version:020}.json")
            except FileNotFoundError:  # the log was cleaned meanwhile
                return
            try:
                yield _parsed(version, text)
            except ValueError as exc:
                raise log_damaged(self._path, f"{version:020}.json is empty or cut short", self._anew) from exc
            version -= 1

    def app_ids(self) -> set[str] | None:
        """Return the transaction identifiers that the newest checkpoint of the log holds; None where it has none.

        Raises:
            TidemarkError: TABLE_LOG_DAMAGED, OBJECT_STORE_REFUSES.
        """
        app_ids: set[str] = set()
        for name in self._parts:
            try:
                app_ids |= set(self._app_ids_in(name))
            except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as exc:
                if is_of_store(exc):
                    raise store_refuses(self._path, exc) from exc
                if is_unopened(exc):
                    raise not_opened(self._path, exc) from exc
                what = f"{self._path}/{LOG}/{name} cannot be read: {one_line(str(exc))}"
                older = "Delta then reads the older files of the log, where they were not cleaned yet"
                remedy = f"restore it from a copy, or remove it and {self._path}/{LOG}/_last_checkpoint: {older}"
                raise TidemarkError("TABLE_LOG_DAMAGED", what, remedy) from exc
        return app_ids if self._parts else None

    def _app_ids_in(self, name: str) -> Iterator[str]:
        if name.endswith(".json"):
            actions = map(json.loads, filter(None, self._read(name).splitlines()))
            yield from (action["txn"]["appId"] for action in actions if action.get("txn"))
            return
        import pyarrow.parquet as pq  # starts do not need it

        with self._files.open_input_file(f"{self._folder}/{name}") as file:
            rows = pq.ParquetFile(file).read(columns=["txn.appId"])["txn"]
        yield from (row["appId"] for row in rows.drop_null().to_pylist() if row["appId"])

    def _read(self, name: str) -> bytes:
        with self._files.open_input_stream(f"{self._folder}/{name}") as file:
            return bytes(file.read())


def tables_under(root: str) -> list[str]:
    """Return the Delta tables in the folder `root` and the folders in it, by their path from there, sorted.

    Those that replays write beside the live ones, and those that drivers keep of themselves (`_operations`), are left
    out.
    """
    if lacks_folder(root):
        return []
    files, base = storage(root)
    return sorted(_tables(files, base, "", DEEPEST))


def _tables(files: fs.FileSystem, base: str, within: str, depth: int) -> Iterator[str]:
    infos = files.get_file_info(fs.FileSelector(f"{base}{within}".rstrip("/"), allow_not_found=True))
    folders = [info.base_name for info in infos if info.type == fs.FileType.Directory]
    if LOG in folders:
        yield within.rstrip("/")
    elif depth:
        for name in folders:
            if not within and (name == REPLAYS or name.startswith("_")):
                continue
            yield from _tables(files, base, f"{within}{name}/", depth - 1)


def no_table(path: str) -> TidemarkError:
    """Return the NO_TABLE of a path at which there is none."""
    return TidemarkError("NO_TABLE", f"there is no Delta table at {path}", "check the path")


def log_damaged(path: str, what: str, anew: str = ANEW) -> TidemarkError:
    """Return the TABLE_LOG_DAMAGED of the table at `path`, with the first line of `what`.

    Args:
        anew: what helps where no copy is left.
    """
    message = f"the log of table {path} cannot be read: {what.strip().partition(chr(10))[0]}"
    remedy = f"restore {path}/{LOG} from a copy, or {anew}"
    return TidemarkError("TABLE_LOG_DAMAGED", message, remedy)


def _parsed(version: int, text: bytes) -> LogCommit:
    lines = text.splitlines()
    json.loads(lines[-1] if lines else b"")  # a file that was cut short ends within an action
    actions = [json.loads(line) for line in lines if line.startswith(SAID)]
    info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    return _commit(version, info, tuple(action["txn"]["appId"] for action in actions if "txn" in action))


def _commit(version: int, info: Mapping[str, Any], app_ids: tuple[str, ...] = ()) -> LogCommit:
    """Return a commit by what Delta's commitInfo says of it."""
    at = info.get("timestamp")
    return LogCommit(
        version,
        datetime.fromtimestamp(at / 1000, UTC) if isinstance(at, int | float) else None,
        str(info.get("operation", "")),
        info.get("operationParameters") or {},
        _object(info.get("userMetadata")),
        app_ids,
        _rows(info.get("operationMetrics") or {}),
    )


def _rows(metrics: Mapping[str, Any]) -> int | None:
    # What a MERGE calls its output are rows that it only copied, too.
    names = ["numTargetRowsInserted", "numTargetRowsUpdated"]
    counts = [metrics[name] for name in (names if names[0] in metrics else ["numOutputRows"]) if name in metrics]
    return sum(map(int, counts)) if counts else None


def _object(text: Any) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (TypeError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def snapshot(spark: "SparkSession", path: str) -> "DeltaSnapshot":
    """Return Delta's own newest snapshot of the table at `path`; an empty one, of version -1, where there is no table.

    Raises:
        TidemarkError: TABLE_LOG_DAMAGED, where files are missing in its log.
    """
    from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException

    from jobs.connectors.causes import causes
    from jobs.connectors.spark_internals import DeltaSnapshot

    try:
        return DeltaSnapshot(spark, path)
    except (Py4JJavaError, PySparkException) as exc:
        lacks = next((cause for cause in causes(exc) if cause.condition in LACKS), None)
        if lacks is None:
            raise
        what = f"{path}/{LOG} lacks files: {lacks.line}"
        raise TidemarkError("TABLE_LOG_DAMAGED", what, "restore them from a copy") from exc


class History:
    """The commits of the table at `path` up to its newest version now, as far back as its log goes.

    `DeltaTable.history` is a Spark job over the whole log: too slow to be asked with every micro-batch.
    """

    def __init__(self, spark: "SparkSession", path: str) -> None:
        self._snapshot = snapshot(spark, path)
        self._read: dict[int, LogCommit | None] = {}

    def commits(self) -> Iterator[LogCommit]:
        """Yield commits, newest first; each file is read when it is asked for, once."""
        for version in range(self._snapshot.version, -1, -1):
            commit = self._load(version)
            if commit is None:
                return
            yield commit

    def find(self, named: Mapping[str, Any]) -> int | None:
        """Return the newest version whose metadata has all entries of `named`; None where the log has none."""
        return next((commit.version for commit in self.commits() if named.items() <= commit.metadata.items()), None)

    def newest(self, named: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the metadata of the newest commit that has all entries of `named`; empty where the log has none."""
        version = self.find(named)
        return {} if version is None else self.metadata(version)

    def undone_at(self, version: int) -> int | None:
        """Return the version that restored the table to before `version`;
        None where the rows of `version` still count."""
        return next((by for commit, by in undone(self.commits()) if commit.version == version), None)

    def metadata(self, version: int) -> Mapping[str, Any]:
        """Return the metadata that one of our commits has; empty for commits of others."""
        commit = self._load(version)
        return {} if commit is None else commit.metadata

    def _load(self, version: int) -> LogCommit | None:
        if version not in self._read:
            info = self._snapshot.commit_info(version)
            self._read[version] = None if info is None else _commit(version, info)
        return self._read[version]
