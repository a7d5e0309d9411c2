"""Defines every column of a micro-batch's row and every metric: name, type, unit and meaning, in one place.

The recorder, the table `_operations/micro_batches`, the metrics endpoint and docs/operate.md are made of these.
Names of metrics follow Prometheus' conventions (prometheus.io/docs/practices/naming): base units, counters end in
`_total`, which the client library adds.
"""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

TIME = pa.timestamp("us", "UTC")
COUNTS = pa.map_(pa.string(), pa.int64())
OFFSETS = pa.list_(pa.struct({"topic": pa.string(), "partition": pa.int32(), "start": pa.int64(), "end": pa.int64()}))


@dataclass(frozen=True)
class Column:
    """A column of the table of micro-batches; `unit` is empty where there is none."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str


COLUMNS = (
    Column("job", pa.string(), "", "the job's name"),
    Column("query", pa.string(), "", "the query's name: the job's own, or JOB.OUTPUT"),
    Column("run", pa.string(), "", "stream, range (`--from`, `--to`) or replay; null in rows of older versions"),
    Column("query_id", pa.string(), "", "Spark's id of the query, the same for as long as its checkpoint"),
    Column("run_id", pa.string(), "", "Spark's id of this start of the query"),
    Column("batch", pa.int64(), "", "the micro-batch's number in its checkpoint"),
    Column("began_at", TIME, "", "when the micro-batch was triggered; for a killed one, when its write began"),
    Column("ended_at", TIME, "", "when it ended; null for one whose process was killed"),
    Column("outcome", pa.string(), "", "done, failed (the query stopped), or killed (its process was gone)"),
    Column("error", pa.string(), "", "what stopped it: CODE: message; null for a batch that is done"),
    Column("offsets", OFFSETS, "", "by topic and partition: from offset `start` to before offset `end`"),
    Column("lag", pa.int64(), "records", "in the topics and in no micro-batch yet; null where that is not known"),
    Column(
        "rows_in", pa.int64(), "records", "read from the topics; of a range or replay that does not count, its offsets"
    ),
    Column("bytes_in", pa.int64(), "bytes", "of the keys and values of those, where they were counted"),
    Column(
        "rows_out", COUNTS, "rows", "written to each table or topic; 0 for a write that an earlier attempt had made"
    ),
    Column("rejected", pa.int64(), "records", "went to quarantine, or were left out by a job that keeps none"),
    Column("rejected_by_code", COUNTS, "records", "that were rejected, by code"),
    Column("failed_rules", COUNTS, "records", "that fail each data rule, by its name"),
    Column("late", pa.int64(), "rows", "dropped by the watermark, into the table `late`"),
    Column("watermark", TIME, "", "the event time before which the query takes nothing more; null before there is one"),
    Column("max_event_time", TIME, "", "the newest event time of the micro-batch; null without a watermark"),
    Column("state_rows", pa.int64(), "rows", "that the query keeps in its state; null for a query without state"),
    Column("state_bytes", pa.int64(), "bytes", "of memory that the state takes; null for a query without state"),
    Column("phases", COUNTS, "ms", "what each phase took, by Spark's name of it; `triggerExecution` is the whole"),
    Column(
        "write_phases",
        COUNTS,
        "ms",
        "the parts of Spark's phase `addBatch`, see docs/operate.md; some run side by side",
    ),
    Column("code_version", pa.string(), "", "of this code: package version and hash of its sources"),
    Column("host", pa.string(), "", "the machine of the driver"),
    Column("pid", pa.int64(), "", "the driver's process id"),
    Column("boot", pa.string(), "", "Linux's id of the machine's boot; with the next two it names the process"),
    Column("pid_namespace", pa.string(), "", "that the process id is of: a container has its own"),
    Column("pid_started", pa.string(), "", "when that process began, in ticks after the boot"),
)
SCHEMA = pa.schema([pa.field(column.name, column.type) for column in COLUMNS])


@dataclass(frozen=True)
class Metric:
    """A metric of the driver; `labels` in the order in which values are given."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


QUERY = ("job_name", "query")  # `job` is what Prometheus calls a group of targets
PARTITION = (*QUERY, "topic", "partition")
RECORDS = Metric("tidemark_records_read", "counter", QUERY, "Records of finished micro-batches.")
BYTES = Metric("tidemark_bytes_read", "counter", QUERY, "Bytes of keys and values of those, where they are counted.")
ROWS_OUT = Metric("tidemark_rows_written", "counter", (*QUERY, "place"), "Rows written to each table or topic.")
REJECTED = Metric(
    "tidemark_records_rejected", "counter", (*QUERY, "code"), "Records rejected in finished micro-batches, by code."
)
FAILED_RULES = Metric("tidemark_rule_failures", "counter", (*QUERY, "rule"), "Records that failed a data rule.")
LATE = Metric("tidemark_late_rows", "counter", QUERY, "Rows that the watermark dropped.")
BATCHES = Metric("tidemark_batches", "counter", (*QUERY, "outcome"), "Micro-batches by how they ended: done, failed.")
STOPS = Metric("tidemark_query_stops", "counter", (*QUERY, "code"), "Stops of queries by error code.")
STARTS = Metric("tidemark_query_starts", "counter", QUERY, "Starts of queries; more than one is a restart.")
PHASES = Metric(
    "tidemark_batch_phase_seconds",
    "histogram",
    (*QUERY, "phase"),
    "Seconds per phase of a micro-batch, Spark's and ours.",
)
START = Metric("tidemark_query_start_timestamp_seconds", "gauge", QUERY, "When the query was last started, unix time.")
RUNNING = Metric("tidemark_query_running", "gauge", QUERY, "1 while the query runs, 0 after it has ended.")
LAST_SUCCESS = Metric(
    "tidemark_last_success_timestamp_seconds", "gauge", QUERY, "When the newest finished micro-batch ended, unix time."
)
LAG = Metric("tidemark_lag_records", "gauge", PARTITION, "Records in the partition that no finished micro-batch has.")
LAG_SECONDS = Metric(
    "tidemark_lag_seconds", "gauge", PARTITION, "Age of the first record that no finished micro-batch has; 0 for none."
)
POSITION = Metric("tidemark_position_offset", "gauge", PARTITION, "Offset up to which the partition is processed.")
FRESHNESS = Metric(
    "tidemark_freshness_seconds",
    "gauge",
    QUERY,
    "Age of the newest time up to which the query's output is complete: its watermark, else its first unread record.",
)
OUTPUT_FRESHNESS = Metric(
    "tidemark_output_freshness_seconds", "gauge", (*QUERY, "output"), "The same of each table and topic that it writes."
)
FRESH_WITHIN = Metric(
    "tidemark_fresh_within_seconds",
    "gauge",
    QUERY,
    "What `fresh_within` of the job promises; missing where it is not set.",
)
WATERMARK = Metric("tidemark_watermark_timestamp_seconds", "gauge", QUERY, "The query's watermark, unix time.")
STATE_ROWS = Metric("tidemark_state_rows", "gauge", QUERY, "Rows in the query's state.")
STATE_BYTES = Metric("tidemark_state_bytes", "gauge", QUERY, "Bytes of memory that the query's state takes.")
UNSTABLE = Metric(
    "tidemark_unstable_records",
    "gauge",
    ("topic", "partition"),
    "Offsets past the last stable one: of transactions that are open, which readers wait for.",
)
FREE_BYTES = Metric(
    "tidemark_free_bytes",
    "gauge",
    ("place",),
    "Free bytes of the disk of tables, checkpoints, logs; missing elsewhere.",
)
METRICS = (
    *(RECORDS, BYTES, ROWS_OUT, REJECTED, FAILED_RULES, LATE, BATCHES, STOPS, STARTS, PHASES),
    *(START, RUNNING, LAST_SUCCESS, LAG, LAG_SECONDS, POSITION, FRESHNESS, OUTPUT_FRESHNESS, FRESH_WITHIN),
    *(WATERMARK, STATE_ROWS, STATE_BYTES, UNSTABLE, FREE_BYTES),
)
# Seconds; a phase of a micro-batch takes a millisecond to minutes.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


def series() -> set[str]:
    """Return the names under which Prometheus knows the metrics."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {metric.name + ending for metric in METRICS for ending in endings[metric.kind]}
