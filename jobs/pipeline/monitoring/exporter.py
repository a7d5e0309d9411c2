"""Defines the driver's metrics, and serves them in Prometheus' text format, with health and readiness beside them.

Names of metrics follow Prometheus' conventions (prometheus.io/docs/practices/naming): base units, counters end in
`_total`, which the client library adds.

Paths: `/metrics`; `/healthz` (200 while the driver lives); `/readyz` (200 while queries run, none stands still after a
failure, and the run does not end).
"""

import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from socketserver import ThreadingMixIn
from typing import Any, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app, push_to_gateway
from prometheus_client.metrics import MetricWrapperBase

from conf.settings import Metrics
from jobs.pipeline.monitoring.lag import PartitionLag, freshness
from jobs.pipeline.validation import REJECT_CODES


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
KINDS: Mapping[str, type[MetricWrapperBase]] = {"counter": Counter, "gauge": Gauge}
Start = Callable[..., Any]
BY_LABEL = ((ROWS_OUT, "rows_out"), (REJECTED, "rejected_by_code"), (FAILED_RULES, "failed_rules"))


class Exporter:
    """Keeps the values of all metrics, whether or not they are served."""

    def __init__(self, settings: Metrics) -> None:
        self._settings = settings
        self.registry = CollectorRegistry()
        self._metrics = {metric.name: _new_metric(metric, self.registry) for metric in METRICS}
        self._watermarks: dict[tuple[str, str], datetime] = {}
        self._outputs: dict[tuple[str, str], Sequence[str]] = {}
        self._running: set[str] = set()
        self._failed: dict[str, str] = {}
        self.is_ending = False
        self._server: WSGIServer | None = None

    @property
    def is_serving(self) -> bool:
        return self._server is not None

    @property
    def address(self) -> str:
        """Return where the metrics are served; empty where they are not."""
        return f"http://{self._settings.host}:{self._settings.port}" if self._server is not None else ""

    def serve(self) -> None:
        """Serve from now on, where `metrics.port` is set; a port in use is reported, and the queries go on."""
        if not self._settings.port:
            return
        try:
            address = (self._settings.host, self._settings.port)
            self._server = make_server(*address, self._app(), _Server, _QuietHandler)
        except OSError as exc:
            what = f"metrics.port {self._settings.port} of {self._settings.host} cannot be served: {exc.strerror}"
            print(f"note: {what}; the queries go on without", file=sys.stderr, flush=True)
            return
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self, instance: str = "") -> None:
        """Stop serving; push what there is, where `metrics.pushgateway` is set. `instance`: under which it is pushed,
        in the place of what was before."""
        if self._settings.pushgateway:
            try:
                push_to_gateway(self._settings.pushgateway, "tidemark", self.registry, {"instance": instance})
            except (OSError, ValueError, HTTPException) as exc:
                what = f"metrics.pushgateway takes no metrics: {exc}"
                print(f"note: {what}; nothing else is concerned", file=sys.stderr, flush=True)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def note_start(
        self, job: str, query: str, fresh_within_seconds: float | None = None, outputs: Sequence[str] = ()
    ) -> None:
        """Count a start of a query, and note what its job promises of its freshness; `outputs`: the tables and topics
        that it writes."""
        self._outputs[job, query] = outputs
        self._of(START, job, query).set_to_current_time()
        self._of(STARTS, job, query).inc()
        # A counter that comes into being with its first count shows no increase.
        for metric in (RECORDS, BYTES, LATE):
            self._of(metric, job, query).inc(0)
        for code in REJECT_CODES:
            self._of(REJECTED, job, query, code).inc(0)
        if fresh_within_seconds is not None:
            self._of(FRESH_WITHIN, job, query).set(fresh_within_seconds)
        self._of(RUNNING, job, query).set(1)
        self._running.add(query)
        self._failed.pop(query, None)

    def note_end(self, job: str, query: str) -> None:
        self._of(RUNNING, job, query).set(0)
        self._running.discard(query)

    def count_stop(self, job: str, query: str, code: str) -> None:
        """Count a stop by its code, and the micro-batch that failed with it."""
        self.count_left_out(job, query, code)
        self._of(BATCHES, job, query, "failed").inc()

    def count_left_out(self, job: str, query: str, code: str) -> None:
        """Count the stop of a query that did not begin."""
        self._of(STOPS, job, query, code).inc()
        self._of(RUNNING, job, query).set(0)
        self._failed[query] = code

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Take over a row of the table of micro-batches."""
        names = (row["job"], row["query"])
        self._of(BATCHES, *names, row["outcome"]).inc()
        for metric, column in ((RECORDS, "rows_in"), (BYTES, "bytes_in"), (LATE, "late")):
            self._of(metric, *names).inc(row.get(column) or 0)
        for metric, column in BY_LABEL:
            for label, count in row[column].items():
                self._of(metric, *names, label).inc(count)
        for phase, milliseconds in {**row["phases"], **row["write_phases"]}.items():
            self._of(PHASES, *names, phase).observe(milliseconds / 1000)
        self._of(LAST_SUCCESS, *names).set(row["ended_at"].timestamp())
        for metric, column in ((STATE_ROWS, "state_rows"), (STATE_BYTES, "state_bytes")):
            if row.get(column) is not None:
                self._of(metric, *names).set(row[column])
        if row.get("watermark") is not None:
            self._watermarks[names] = row["watermark"]
            self._of(WATERMARK, *names).set(row["watermark"].timestamp())

    def set_free_bytes(self, place: str, free: int) -> None:
        """Take over how much the disk of tables, checkpoints or logs has left."""
        self._of(FREE_BYTES, place).set(free)

    def set_lags(self, lags: list[PartitionLag]) -> None:
        for lag in lags:
            place = (lag.job, lag.query, lag.topic, str(lag.partition))
            self._of(LAG, *place).set(lag.records)
            self._of(LAG_SECONDS, *place).set(lag.seconds)
            self._of(POSITION, *place).set(lag.position)
            self._of(UNSTABLE, lag.topic, str(lag.partition)).set(lag.unstable)
        for names, seconds in freshness(lags, self._watermarks).items():
            self._of(FRESHNESS, *names).set(seconds)
            for output in self._outputs.get(names, ()):
                self._of(OUTPUT_FRESHNESS, *names, output).set(seconds)

    def set_unstable(self, records: Mapping[tuple[str, int], int]) -> None:
        """Take over what open transactions hold back in the topics that are written."""
        for (topic, partition), count in records.items():
            self._of(UNSTABLE, topic, str(partition)).set(count)

    def _of(self, metric: Metric, *labels: str) -> Any:
        return self._metrics[metric.name].labels(*labels)

    def _not_ready(self) -> str:
        if self.is_ending:
            return "the run ends"
        if self._failed:
            return f"stopped: {', '.join(f'{query} ({code})' for query, code in sorted(self._failed.items()))}"
        return "" if self._running else "no query runs"

    def _app(self) -> Callable[..., Iterable[bytes]]:
        metrics = make_wsgi_app(self.registry)

        def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            if path == "/metrics":
                return metrics(environ, start)  # type: ignore[no-any-return]
            if path == "/healthz":
                return _answer(start, "200 OK", "the driver is alive")
            if path == "/readyz":
                why = self._not_ready()
                if not why:
                    return _answer(start, "200 OK", f"{len(self._running)} queries run")
                return _answer(start, "503 Service Unavailable", why)
            return _answer(start, "404 Not Found", "there are /metrics, /healthz and /readyz")

        return app


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: requests are no news."""


def _answer(start: Start, status: str, text: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]


def _new_metric(metric: Metric, registry: CollectorRegistry) -> MetricWrapperBase:
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.meaning, metric.labels, registry=registry, buckets=BUCKETS)
    return KINDS[metric.kind](metric.name, metric.meaning, metric.labels, registry=registry)
