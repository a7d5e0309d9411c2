"""Which rows of a table a replay makes anew, as an SQL condition, and those rows of the tables that are compared."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.settings import Settings
from jobs.connectors import delta
from jobs.outputs import Replaceable
from jobs.replay.record import FOLDER, Part, Replacement, Replay


def condition(replay: Replay, part: Part, replacement: Replacement) -> str:
    """SQL on the columns of the table; `true` for all of its rows."""
    rows = replacement.rows
    if rows.coordinates:
        return _of_records(replay, part, rows)
    if rows.event_time is None:
        return "true"
    edges = ((">=", replacement.start), ("<", replacement.until))
    parts = [f"`{rows.event_time}` {sign} TIMESTAMP '{at.isoformat(sep=' ')}'" for sign, at in edges if at]
    return " AND ".join(parts) or f"(`{rows.event_time}` IS NOT NULL OR `{rows.event_time}` IS NULL)"


def _of_records(replay: Replay, part: Part, rows: Replaceable) -> str:
    topic, partition, offset = (f"`{name}`" for name in rows.coordinates or ())
    spans = (
        f"({topic} = '{name}' AND {partition} = {number} AND {offset} >= {start}"
        f" AND {offset} < {replay.untils[name][number]})"
        for name in part.topics
        for number, start in replay.starts[name].items()
    )
    return " OR ".join(spans)


def shadow_path(settings: Settings, replay: Replay, table: str) -> str:
    """Where the replay writes what will be the rows of `table`."""
    return f"{settings.paths.tables}/{FOLDER}/{replay.id}/shadow/{table}"


def check_path(settings: Settings, replay: Replay, table: str) -> str:
    """Where the independent recomputation writes them."""
    return f"{settings.paths.tables}/{FOLDER}/{replay.id}/check/{table}"


def live_path(settings: Settings, table: str) -> str:
    """The table that readers know."""
    return f"{settings.paths.tables}/{table}"


def rows_of(spark: SparkSession, path: str, where: str, version: int | None = None) -> DataFrame | None:
    """The rows of the table at `path` that meet `where`, of a version of it; None where there is no table."""
    if not delta.exists(spark, path):
        return None
    reader = spark.read.format("delta")
    return (reader if version is None else reader.option("versionAsOf", version)).load(path).where(where)


def aligned(frame: DataFrame | None, like: DataFrame, without: tuple[str, ...] = ()) -> DataFrame:
    """`frame` in the columns and types of `like`, null where it lacks one; no rows where there is no frame."""
    kept = [each for each in like.schema if each.name not in without]
    if frame is None:
        return like.sparkSession.createDataFrame([], like.schema).select(*(f"`{each.name}`" for each in kept))
    present = {each.name for each in frame.schema}
    columns = [
        (F.col(f"`{each.name}`") if each.name in present else F.lit(None)).cast(each.dataType).alias(each.name)
        for each in kept
    ]
    return frame.select(*columns)
