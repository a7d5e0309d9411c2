"""Finds the Delta tables that the jobs left, for notebooks."""

from collections.abc import Sequence

from pyspark.sql import DataFrame, SparkSession

from conf.errors import TidemarkError
from conf.names import within
from conf.settings import Settings
from jobs.connectors.delta.reading import find_table


def require_tables(settings: Settings, names: Sequence[str]) -> None:
    """Look for `names` under the tables root, and for rows in them.

    Raises:
        TidemarkError: NO_TABLES, with those that are missing; EMPTY_TABLES, with those that hold no row; as
            `naming_damage`.
    """
    tables = {name: find_table(_path(settings, name)) for name in names}
    missing = [name for name, table in tables.items() if table is None]
    if missing:
        message = f"{settings.paths.tables} lacks the tables {', '.join(missing)}"
        raise TidemarkError("NO_TABLES", message, "run `local/tidemark demo` first")
    empty = [name for name, table in tables.items() if table is not None and not table.count()]
    if empty:
        message = f"{settings.paths.tables} has no rows in the tables {', '.join(empty)}"
        raise TidemarkError("EMPTY_TABLES", message, "run `local/tidemark demo` to its end: it goes on where it was")


def read_table(spark: SparkSession, settings: Settings, name: str) -> DataFrame:
    """Return the table `name`, as it is now."""
    return spark.read.format("delta").load(_path(settings, name))


def _path(settings: Settings, name: str) -> str:
    return within(settings.paths.tables, name)
