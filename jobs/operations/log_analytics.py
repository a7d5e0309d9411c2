"""What do the logs say: which errors, how often, which batches were slow, and what was never said before?

topic app_logs -> JSON, checked -> Delta tables app_logs, quarantine -> index app_logs-DAY in OpenSearch
topic app_logs -> JSON, checked -> Delta tables app_log_errors, app_log_slow_batches, app_log_messages
    ./spark-submit.sh operations.log_analytics --set search.url=http://localhost:9200 --set logging.format=plain

The topic holds log lines by the Elastic Common Schema, as drivers write them with logging.format = "ecs" and shippers
send them on. Shippers repeat themselves where they are cut short: a line is a record, and two records are two lines.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf import code_version
from conf.regex_growth import LONGEST_TEXT
from conf.setting_types import milliseconds
from jobs.connectors.avro import decode
from jobs.connectors.delta import table as delta_table
from jobs.connectors.kafka import source_sink
from jobs.ingest import quarantine
from jobs.operations.log_index import LogIndex
from jobs.pipeline import paths, rules
from jobs.pipeline.outputs import Batch, Output, RowSelector
from jobs.pipeline.progress import SIZE, Counted
from jobs.pipeline.run import Run
from jobs.pipeline.session import NANOSECONDS, TASKS

TOPIC = TABLE = "app_logs"
WINDOW = "5 minutes"
LATENESS = "1 day"  # a shipper sends what has gathered on a machine that was cut off
ERRORS = ("ERROR", "FATAL")
SLOW_SECONDS = 60  # twelve times the default trigger
STAMPS = ("code_version", "quarantined_at")
# Fields come with dots in their names, or as objects, by library and shipper; both are read.
NESTED = (
    "log struct<level:string,logger:string>, service struct<name:string>, host struct<name:string>, "
    "event struct<duration:bigint>, error struct<type:string,message:string,stack_trace:string>"
)
DOTTED = ("log.level", "log.logger", "service.name", "host.name", "error.type", "error.message", "error.stack_trace")
CORRUPT = "_corrupt"
FIELDS = (
    "`@timestamp` string, message string, labels map<string,string>, `event.duration` bigint, "
    + ", ".join(f"`{name}` string" for name in DOTTED)
    + f", {NESTED}, {CORRUPT} string"
)
LINE = "line"
LEVELS = {"warning": "WARN", "critical": "FATAL"}  # Python's names, as the JVM's
LONGEST_PATTERN = 300
# What differs between two lines of one statement, from the longest to the shortest.
VARIABLE = (
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
    r"0x[0-9a-fA-F]+|\b[0-9a-fA-F]*[0-9][0-9a-fA-F]{7,}\b",
    r"(?<![\w.])/[\w./%=-]+",
    r"[0-9]+",
)
COORDINATES = ("topic", "partition", "offset")


def parse_lines(records: DataFrame, clock: Column, max_ahead: str) -> DataFrame:
    """Say of each record whether it is a log line.

    Args:
        records: Kafka's eight columns.
        clock: what times are compared with, timestamp.
        max_ahead: how far after it a line's time may be, as quarantine.max_ahead.

    Returns:
        those columns, `line` struct (FIELDS), `at` timestamp, and `error` string: the code of a reject, null for none.
    """
    line = F.from_json(F.col("value").cast("string"), FIELDS, {"columnNameOfCorruptRecord": CORRUPT})
    read = records.withColumn(LINE, line).withColumn("at", F.try_to_timestamp(F.col(LINE)["@timestamp"]))
    is_ecs = F.col("at").isNotNull() & _field("log.level").isNotNull() & F.col(LINE)["message"].isNotNull()
    ahead = F.col("at") > clock + F.expr(f"INTERVAL {milliseconds(max_ahead) // 1000} SECONDS")
    error = (
        F.when(F.col("value").isNull(), decode.NO_VALUE)
        .when(F.col(LINE).isNull() | F.col(LINE)[CORRUPT].isNotNull(), quarantine.NOT_JSON)
        .when(~is_ecs, quarantine.NOT_ECS)
        .when(ahead, rules.FUTURE_EVENT_TIME)
    )
    return read.withColumn("error", error)


def log_lines(parsed: DataFrame) -> DataFrame:
    """Return the log lines among what `parse_lines` gives, a row each.

    Returns:
        `at` timestamp; `level`, `logger`, `message`, `pattern` (the message without what varies), `job`, `query`,
        `offsets`, `host`, `error_type`, `error_message`, `stack_trace` string; `batch` long, `duration_ms` long;
        `topic` string, `partition` int, `offset` long.
    """
    lower = F.lower(_field("log.level"))
    level = F.coalesce(*(F.when(lower == name, known) for name, known in LEVELS.items()), F.upper(lower))
    duration = F.coalesce(F.col(LINE)["event.duration"], F.col(LINE)["event"]["duration"])
    return parsed.where(F.col("error").isNull()).select(
        "at",
        level.alias("level"),
        F.coalesce(_field("log.logger"), F.lit("")).alias("logger"),
        F.col(LINE)["message"].alias("message"),
        message_pattern(F.col(LINE)["message"]).alias("pattern"),
        F.coalesce(_label("job"), _field("service.name"), F.lit("")).alias("job"),
        _label("query").alias("query"),
        _label("batch").try_cast("bigint").alias("batch"),
        _label("offsets").alias("offsets"),
        (duration / NANOSECONDS).cast("long").alias("duration_ms"),
        _field("host.name").alias("host"),
        _field("error.type").alias("error_type"),
        _field("error.message").alias("error_message"),
        _field("error.stack_trace").alias("stack_trace"),
        *COORDINATES,
    )


def message_pattern(message: Column) -> Column:
    """Return the first line of a message, of its first LONGEST_TEXT characters, without its numbers, ids and paths: the
    same for all lines of one statement.
    """
    # The square of a text's length is what these expressions may take: a line may be a megabyte.
    first = F.substring(F.substring_index(message, "\n", 1), 1, LONGEST_TEXT)
    for variable in VARIABLE:
        first = F.regexp_replace(first, variable, "#")
    return F.substring(first, 1, LONGEST_PATTERN)


def rejected_records(parsed: DataFrame) -> DataFrame:
    """Return the other records, as `jobs.ingest.quarantine.envelope` takes them."""
    none = F.lit(None)
    columns = (*source_sink.COLUMNS, none.cast("int").alias("schema_id"), "error", none.cast("string").alias("rule"))
    return parsed.where(F.col("error").isNotNull()).select(*columns)


def _label(name: str) -> Column:
    labels = F.col(LINE)["labels"]
    return F.coalesce(labels[name], labels[f"{TASKS}{name}"])


def _field(name: str) -> Column:
    outer, inner = name.split(".")
    return F.coalesce(F.col(LINE)[name], F.col(LINE)[outer][inner])


def errors(logs: DataFrame) -> DataFrame:
    """Return how many errors each logger of each job had, by five minutes.

    Args:
        logs: as `log_lines` gives them.

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
    return logs.select("job", "logger", "pattern", first, "level", "message", *COORDINATES, earliness)


@dataclass(frozen=True, kw_only=True)
class LinesOutput(Output):
    """Keeps every record of the topic: lines in the table, all else in quarantine; then brings the index up to date."""

    run: Run = field(repr=False)
    index: LogIndex = field(repr=False)

    @property
    def tables(self) -> tuple[RowSelector, ...]:
        table = RowSelector(TABLE, event_time="at", coordinates=COORDINATES)
        return table, RowSelector(paths.QUARANTINE, coordinates=COORDINATES, stamps=STAMPS)

    def open(self) -> None:
        self._fill()

    def write(self, batch: Batch) -> None:
        counts = {"records": F.count("*"), "rejected": F.count("error"), SIZE: source_sink.size()}
        counted = batch.frame.agg(*(column.alias(name) for name, column in counts.items())).collect()[0]
        delta_table.write(log_lines(batch.frame), self.run.table(TABLE), batch.commit("lines"))
        if counted["rejected"]:
            rejects = quarantine.envelope(rejected_records(batch.frame), (), code_version.version(), datetime.now(UTC))
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
    parsed = parse_lines(run.records(TOPIC), run.clock(None), run.settings.quarantine.max_ahead)
    index = LogIndex(run.settings.search, TOPIC, paths.table(run.settings.paths.tables, TABLE))
    run.declare(LinesOutput(job=run.job, name=TABLE, frame=parsed, run=run, index=index))
    logs = log_lines(parsed)
    run.upsert(errors(logs), table="app_log_errors", keys=("since", "job", "logger"))
    run.append(slow_batches(logs), table="app_log_slow_batches", event_time="at")
    order = ("earliness", "partition", "offset")
    run.upsert(messages(logs), table="app_log_messages", keys=("job", "logger", "pattern"), newest_by=order)
