"""What a Delta table's log says of past commits, read by the driver one file at a time, newest first.

`DeltaTable.history` is a Spark job over the whole log: too slow to be asked with every micro-batch.
"""

import json
from collections.abc import Mapping
from typing import Any

from pyspark.sql import SparkSession

RESTORE = "RESTORE"


def snapshot(spark: SparkSession, path: str) -> Any:
    """Delta's own newest snapshot of the table at `path`; an empty one, of version -1, where there is no table."""
    jvm: Any = spark._jvm
    none = jvm.scala.Option.empty()
    return jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path).update(False, none, none)


class History:
    """The commits of the table at `path` up to its newest version now, as far back as its log goes."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        newest = snapshot(spark, path)
        self._jvm: Any = spark._jvm
        self._log = newest.deltaLog()
        self._conf = self._log.newDeltaHadoopConf()
        self._newest = int(newest.version())
        self._read: dict[int, Mapping[str, Any] | None] = {}

    def find(self, named: Mapping[str, Any]) -> int | None:
        """The newest version whose metadata has all entries of `named`; None where the log has none."""
        for version in range(self._newest, -1, -1):
            if self._commit(version) is None:
                return None
            if named.items() <= self.metadata(version).items():
                return version
        return None

    def undone_at(self, version: int) -> int | None:
        """The version that restored the table to before `version`; None where the rows of `version` still count.

        A restore to a moment, not to a version, counts as one to before.
        """
        at = self._newest
        while at > version:
            commit = self._commit(at) or {}
            if commit.get("operation") != RESTORE:
                at -= 1
                continue
            restored = commit["operationParameters"]["version"]
            if restored is None or int(restored) < version:
                return at
            at = int(restored)
        return None

    def metadata(self, version: int) -> Mapping[str, Any]:
        """What one of our commits says of itself; nothing for commits of others."""
        try:
            said = json.loads((self._commit(version) or {}).get("userMetadata") or "{}")
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    def _commit(self, version: int) -> Mapping[str, Any] | None:
        """Delta's commitInfo of `version`, None where the log no longer has it."""
        if version not in self._read:
            self._read[version] = self._load(version)
        return self._read[version]

    def _load(self, version: int) -> Mapping[str, Any] | None:
        delta = self._jvm.org.apache.spark.sql.delta
        file = delta.util.FileNames.unsafeDeltaFile(self._log.logPath(), version)
        if not file.getFileSystem(self._conf).exists(file):
            return None
        found = delta.DeltaHistoryManager.getCommitInfoOpt(self._log.store(), file, self._conf)
        # A writer need not say anything of its commit.
        return dict(json.loads(found.get().json())["commitInfo"]) if found.isDefined() else {}
