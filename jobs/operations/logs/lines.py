"""Decides which records are log lines by the Elastic Common Schema, and makes columns of them."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.durations import milliseconds
from conf.regex_growth import LONGEST_TEXT
from jobs.connectors.avro import decode
from jobs.connectors.kafka import source_sink
from jobs.ingest.quarantine import NOT_ECS, NOT_JSON
from jobs.pipeline import rules
from jobs.pipeline.log_labels import NANOSECONDS, TASKS

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


def decide(records: DataFrame, clock: Column, max_ahead: str) -> DataFrame:
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
        .when(F.col(LINE).isNull() | F.col(LINE)[CORRUPT].isNotNull(), NOT_JSON)
        .when(~is_ecs, NOT_ECS)
        .when(ahead, rules.FUTURE_EVENT_TIME)
    )
    return read.withColumn("error", error)


def accepted(decided: DataFrame) -> DataFrame:
    """Return the log lines among what `decide` gives, a row each.

    Returns:
        `at` timestamp; `level`, `logger`, `message`, `pattern` (the message without what varies), `job`, `query`,
        `offsets`, `host`, `error_type`, `error_message`, `stack_trace` string; `batch` long, `duration_ms` long;
        `topic` string, `partition` int, `offset` long.
    """
    lower = F.lower(_field("log.level"))
    level = F.coalesce(*(F.when(lower == name, known) for name, known in LEVELS.items()), F.upper(lower))
    duration = F.coalesce(F.col(LINE)["event.duration"], F.col(LINE)["event"]["duration"])
    return decided.where(F.col("error").isNull()).select(
        "at",
        level.alias("level"),
        F.coalesce(_field("log.logger"), F.lit("")).alias("logger"),
        F.col(LINE)["message"].alias("message"),
        pattern(F.col(LINE)["message"]).alias("pattern"),
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


def pattern(message: Column) -> Column:
    """Return the first line of a message, of its first LONGEST_TEXT characters, without its numbers, ids and paths: the
    same for all lines of one statement.
    """
    # The square of a text's length is what these expressions may take: a line may be a megabyte.
    first = F.substring(F.substring_index(message, "\n", 1), 1, LONGEST_TEXT)
    for variable in VARIABLE:
        first = F.regexp_replace(first, variable, "#")
    return F.substring(first, 1, LONGEST_PATTERN)


def rejected(decided: DataFrame) -> DataFrame:
    """Return the other records, as `jobs.ingest.quarantine.envelope` takes them."""
    none = F.lit(None)
    columns = (*source_sink.COLUMNS, none.cast("int").alias("schema_id"), "error", none.cast("string").alias("rule"))
    return decided.where(F.col("error").isNotNull()).select(*columns)


def _label(name: str) -> Column:
    labels = F.col(LINE)["labels"]
    return F.coalesce(labels[name], labels[f"{TASKS}{name}"])


def _field(name: str) -> Column:
    outer, inner = name.split(".")
    return F.coalesce(F.col(LINE)[name], F.col(LINE)[outer][inner])
