"""What do the logs say: which errors, how often, which batches were slow, and what was never said before?

topic app_logs -> JSON, checked -> Delta tables app_logs, quarantine -> index app_logs-DAY in OpenSearch
topic app_logs -> JSON, checked -> Delta tables app_log_errors, app_log_slow_batches, app_log_messages
    ./spark-submit.sh operations.log_analytics --set search.url=http://localhost:9200 --set logging.format=plain

The topic holds log lines by the Elastic Common Schema, as drivers write them with logging.format = "ecs" and shippers
send them on. Shippers repeat themselves where they are cut short: a line is a record, and two records are two lines.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf import code_version
from jobs.connectors.delta import table as delta_table
from jobs.connectors.kafka import source_sink
from jobs.ingest import quarantine
from jobs.operations.logs import lines
from jobs.operations.logs.index import LogIndex
from jobs.pipeline import paths
from jobs.pipeline.outputs import Batch, Output, RowSelector
from jobs.pipeline.progress import SIZE, Counted
from jobs.pipeline.run import Run

TOPIC = TABLE = "app_logs"
WINDOW = "5 minutes"
LATENESS = "1 day"  # a shipper sends what has gathered on a machine that was cut off
ERRORS = ("ERROR", "FATAL")
SLOW_SECONDS = 60  # twelve times the default trigger
STAMPS = ("code_version", "quarantined_at")


def errors(logs: DataFrame) -> DataFrame:
    """Return how many errors each logger of each job had, by five minutes.

    Args:
        logs: as `lines.accepted` gives them.

    Returns:
        `since` timestamp, `job`, `logger` string, `errors` long, `last_message` string (of the window's last error).
    """
    counted = (
        logs.withWatermark("at", LATENESS)
        .where(F.col("level").isin(*ERRORS))
        .groupBy(F.window("at", WINDOW), "job", "logger")
        .agg(F.count("*").alias("errors"), F.max(F.struct("at", "message")).alias("last"))
    )
    return counted.select(
        F.col("window.start").alias("since"), "job", "logger", "errors", F.col("last.message").alias("last_message")
    )


def slow_batches(logs: DataFrame) -> DataFrame:
    """Return the micro-batches that took SLOW_SECONDS or more:
    `at`, `job`, `query`, `batch` long, `seconds`, `offsets`."""
    slow = logs.where(F.col("batch").isNotNull() & (F.col("duration_ms") >= SLOW_SECONDS * 1000))
    return slow.select("at", "job", "query", "batch", (F.col("duration_ms") / 1000).alias("seconds"), "offsets")


def messages(logs: DataFrame) -> DataFrame:
    """Return every line as the first of its job, logger and pattern: the one of the earliest time stays in the table.

    Returns:
        `job`, `logger`, `pattern` string, `first_seen_at` timestamp, `level`, `message` string, `topic` string,
        `partition` int, `offset` long, `earliness` long: the greater, the earlier.
    """
    earliness = (-F.unix_micros("at")).alias("earliness")
    first = F.col("at").alias("first_seen_at")
    return logs.select("job", "logger", "pattern", first, "level", "message", *lines.COORDINATES, earliness)


@dataclass(frozen=True, kw_only=True)
class LinesOutput(Output):
    """Keeps every record of the topic: lines in the table, all else in quarantine; then brings the index up to date."""

    run: Run = field(repr=False)
    index: LogIndex = field(repr=False)

    @property
    def tables(self) -> tuple[RowSelector, ...]:
        table = RowSelector(TABLE, event_time="at", coordinates=lines.COORDINATES)
        return table, RowSelector(paths.QUARANTINE, coordinates=lines.COORDINATES, stamps=STAMPS)

    def open(self) -> None:
        self._fill()

    def write(self, batch: Batch) -> None:
        counts = {"records": F.count("*"), "rejected": F.count("error"), SIZE: source_sink.size()}
        counted = batch.frame.agg(*(column.alias(name) for name, column in counts.items())).collect()[0]
        delta_table.write(lines.accepted(batch.frame), self.run.table(TABLE), batch.commit("lines"))
        if counted["rejected"]:
            rejects = quarantine.envelope(lines.rejected(batch.frame), (), code_version.version(), datetime.now(UTC))
            commit = batch.commit("quarantine", contiguous=False, delete_predicate=f"topic = '{TOPIC}'")
            delta_table.write(rejects, self.run.table(paths.QUARANTINE), commit)
        codes = batch.frame.where("error IS NOT NULL").groupBy("error").count().collect() if counted["rejected"] else []
        by_code = {row["error"]: row["count"] for row in codes}
        self.run.count(batch, Counted(counted["records"], counted["rejected"], codes=by_code, size=counted[SIZE]))
        self._fill()

    def _fill(self) -> None:
        # A range only tries out the past, in tables of its own.
        if not self.run.is_apart:
            self.index.fill(self.run.spark, datetime.now(UTC))


def build(run: Run) -> None:
    decided = lines.decide(run.records(TOPIC), run.clock(None), run.settings.quarantine.max_ahead)
    index = LogIndex(run.settings.search, TOPIC, paths.table(run.settings.paths.tables, TABLE))
    run.declare(LinesOutput(job=run.job, name=TABLE, frame=decided, run=run, index=index))
    logs = lines.accepted(decided)
    run.upsert(errors(logs), table="app_log_errors", keys=("since", "job", "logger"))
    run.append(slow_batches(logs), table="app_log_slow_batches", event_time="at")
    order = ("earliness", "partition", "offset")
    run.upsert(messages(logs), table="app_log_messages", keys=("job", "logger", "pattern"), newest_by=order)
