"""What serves metrics in tests: a free port, and the names that Prometheus has."""

import socket

from jobs.pipeline.monitoring.exporter import METRICS
from local.processes import HOST


def free_port() -> int:
    with socket.create_server((HOST, 0)) as held:
        return int(held.getsockname()[1])


def series() -> set[str]:
    """Return the names under which Prometheus knows the metrics."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {metric.name + ending for metric in METRICS for ending in endings[metric.kind]}
