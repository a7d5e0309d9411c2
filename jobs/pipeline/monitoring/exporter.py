"""Serves the driver's metrics in Prometheus' text format, with a health and a readiness endpoint beside them.

Paths: `/metrics`; `/healthz` (200 while the driver lives); `/readyz` (200 while queries run, none stands still after a
failure, and the run does not end).
"""

import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from http.client import HTTPException
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app, push_to_gateway
from prometheus_client.metrics import MetricWrapperBase

from conf.settings import Metrics
from jobs.pipeline.monitoring import definitions as d
from jobs.pipeline.monitoring.lag import PartitionLag, freshness
from jobs.pipeline.validation import REJECT_CODES

KINDS: Mapping[str, type[MetricWrapperBase]] = {"counter": Counter, "gauge": Gauge}
Start = Callable[..., Any]
BY_LABEL = ((d.ROWS_OUT, "rows_out"), (d.REJECTED, "rejected_by_code"), (d.FAILED_RULES, "failed_rules"))


class Exporter:
    """Keeps the values of all metrics, whether or not they are served."""

    def __init__(self, settings: Metrics) -> None:
        self._settings = settings
        self.registry = CollectorRegistry()
        self._metrics = {metric.name: _made(metric, self.registry) for metric in d.METRICS}
        self._watermarks: dict[tuple[str, str], datetime] = {}
        self._outputs: dict[tuple[str, str], Sequence[str]] = {}
        self._running: set[str] = set()
        self._failed: dict[str, str] = {}
        self.is_ending = False
        self._server: WSGIServer | None = None

    @property
    def is_serving(self) -> bool:
        """Return whether the metrics are served: some are measured only for that."""
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
        """Stop serving; push what there is, where `metrics.pushgateway` is set.

        Args:
            instance: under which it is pushed, in the place of what was before.
        """
        if self._settings.pushgateway:
            try:
                push_to_gateway(self._settings.pushgateway, "tidemark", self.registry, {"instance": instance})
            except (OSError, ValueError, HTTPException) as exc:
                what = f"metrics.pushgateway takes no metrics: {exc}"
                print(f"note: {what}; nothing else is concerned", file=sys.stderr, flush=True)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def started(
        self, job: str, query: str, fresh_within_seconds: float | None = None, outputs: Sequence[str] = ()
    ) -> None:
        """Count a start of a query, and note what its job promises of its freshness.

        Args:
            outputs: the tables and topics that it writes.
        """
        self._outputs[job, query] = outputs
        self._of(d.START, job, query).set_to_current_time()
        self._of(d.STARTS, job, query).inc()
        # A counter that comes into being with its first count shows no increase.
        for metric in (d.RECORDS, d.BYTES, d.LATE):
            self._of(metric, job, query).inc(0)
        for code in REJECT_CODES:
            self._of(d.REJECTED, job, query, code).inc(0)
        if fresh_within_seconds is not None:
            self._of(d.FRESH_WITHIN, job, query).set(fresh_within_seconds)
        self._of(d.RUNNING, job, query).set(1)
        self._running.add(query)
        self._failed.pop(query, None)

    def terminated(self, job: str, query: str) -> None:
        """Note that a query has ended, well or not."""
        self._of(d.RUNNING, job, query).set(0)
        self._running.discard(query)

    def stopped(self, job: str, query: str, code: str) -> None:
        """Count a stop by its code, and the micro-batch that failed with it."""
        self.left_out(job, query, code)
        self._of(d.BATCHES, job, query, "failed").inc()

    def left_out(self, job: str, query: str, code: str) -> None:
        """Count the stop of a query that did not begin."""
        self._of(d.STOPS, job, query, code).inc()
        self._of(d.RUNNING, job, query).set(0)
        self._failed[query] = code

    def ended(self, row: Mapping[str, Any]) -> None:
        """Take over a row of the table of micro-batches."""
        names = (row["job"], row["query"])
        self._of(d.BATCHES, *names, row["outcome"]).inc()
        for metric, column in ((d.RECORDS, "rows_in"), (d.BYTES, "bytes_in"), (d.LATE, "late")):
            self._of(metric, *names).inc(row.get(column) or 0)
        for metric, column in BY_LABEL:
            for label, count in row[column].items():
                self._of(metric, *names, label).inc(count)
        for phase, milliseconds in {**row["phases"], **row["write_phases"]}.items():
            self._of(d.PHASES, *names, phase).observe(milliseconds / 1000)
        self._of(d.LAST_SUCCESS, *names).set(row["ended_at"].timestamp())
        for metric, column in ((d.STATE_ROWS, "state_rows"), (d.STATE_BYTES, "state_bytes")):
            if row.get(column) is not None:
                self._of(metric, *names).set(row[column])
        if row.get("watermark") is not None:
            self._watermarks[names] = row["watermark"]
            self._of(d.WATERMARK, *names).set(row["watermark"].timestamp())

    def free_bytes(self, place: str, free: int) -> None:
        """Take over how much the disk of tables, checkpoints or logs has left."""
        self._of(d.FREE_BYTES, place).set(free)

    def measured(self, lags: list[PartitionLag]) -> None:
        """Take over what the brokers have answered."""
        for lag in lags:
            place = (lag.job, lag.query, lag.topic, str(lag.partition))
            self._of(d.LAG, *place).set(lag.records)
            self._of(d.LAG_SECONDS, *place).set(lag.seconds)
            self._of(d.POSITION, *place).set(lag.position)
            self._of(d.UNSTABLE, lag.topic, str(lag.partition)).set(lag.unstable)
        for names, seconds in freshness(lags, self._watermarks).items():
            self._of(d.FRESHNESS, *names).set(seconds)
            for output in self._outputs.get(names, ()):
                self._of(d.OUTPUT_FRESHNESS, *names, output).set(seconds)

    def unstable(self, records: Mapping[tuple[str, int], int]) -> None:
        """Take over what open transactions hold back in the topics that are written."""
        for (topic, partition), count in records.items():
            self._of(d.UNSTABLE, topic, str(partition)).set(count)

    def _of(self, metric: d.Metric, *labels: str) -> Any:
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


def _made(metric: d.Metric, registry: CollectorRegistry) -> MetricWrapperBase:
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.meaning, metric.labels, registry=registry, buckets=d.BUCKETS)
    return KINDS[metric.kind](metric.name, metric.meaning, metric.labels, registry=registry)
