"""CHECK constraints of Delta tables: what a table itself refuses, whoever writes it.

A constraint's name ends in a hash of its condition, so that a changed one is another one.
"""

import hashlib
from collections.abc import Mapping

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from jobs.connectors.delta_history import snapshot

PREFIX = "rule_"  # begins the names of ours; others are left alone
PROPERTY = "delta.constraints."
VIOLATED = "DELTA_NEW_CHECK_CONSTRAINT_VIOLATION"


def drop_outdated(spark: SparkSession, path: str, wanted: Mapping[str, str]) -> None:
    """Drop our constraints of the table at `path` that are not among `wanted` (conditions by name) any more."""
    for name in _there(spark, path) - {_full(*each) for each in wanted.items()}:
        spark.sql(f"ALTER TABLE delta.`{path}` DROP CONSTRAINT IF EXISTS {name}")


def add_missing(spark: SparkSession, path: str, wanted: Mapping[str, str]) -> list[str]:
    """Add those of `wanted` that the table lacks; the names of those that rows in it violate, which are not added."""
    there, violated = _there(spark, path), []
    for name, condition in wanted.items():
        if _full(name, condition) in there:
            continue
        try:
            spark.sql(f"ALTER TABLE delta.`{path}` ADD CONSTRAINT {_full(name, condition)} CHECK ({condition})")
        except AnalysisException as exc:
            if VIOLATED not in str(exc):
                raise
            violated.append(name)
    return violated


def _there(spark: SparkSession, path: str) -> set[str]:
    configuration = snapshot(spark, path).metadata().configuration()
    keys = str(configuration.keys().mkString(" ")).split()
    names = {key.removeprefix(PROPERTY) for key in keys if key.startswith(PROPERTY)}
    return {name for name in names if name.startswith(PREFIX)}


def _full(name: str, condition: str) -> str:
    return f"{PREFIX}{name}_{hashlib.sha256(condition.encode()).hexdigest()[:8]}"
