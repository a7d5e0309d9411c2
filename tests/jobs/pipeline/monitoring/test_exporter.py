"""What Prometheus, a probe and a Pushgateway are given by a driver."""

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conf.settings import Metrics
from jobs.pipeline.monitoring.exporter import METRICS, Exporter
from jobs.pipeline.monitoring.lag import PartitionLag
from local.processes import HOST
from tests.jobs.pipeline.monitoring.serving import free_port

NAMES = {"job_name": "j", "query": "j.q"}


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    serving = Exporter(Metrics(port=free_port(), host=HOST, pushgateway=""))
    serving.serve()
    yield serving
    serving.close()


def fetch(exporter: Exporter, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{exporter.address}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


def samples(exporter: Exporter) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    _, text = fetch(exporter, "/metrics")
    found = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}


def value(exporter: Exporter, name: str, **labels: str) -> float:
    return samples(exporter)[name, tuple(sorted({**NAMES, **labels}.items()))]


def ended(**more: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    row = {
        "job": "j",
        "query": "j.q",
        "outcome": "done",
        "rows_in": 100,
        "rejected": 3,
        "late": 0,
        "bytes_in": 4000,
        "rejected_by_code": {"RULE_FAILED": 2, "UNDECODABLE": 1},
        "failed_rules": {"known": 2},
        "rows_out": {"silver/t": 97},
        "write_phases": {"write silver/t": 150},
    }
    row |= {"phases": {"addBatch": 250}, "ended_at": now, "state_rows": None, "state_bytes": None, "watermark": None}
    return row | more


def test_batches_are_counted_and_their_phases_are_in_seconds(exporter: Exporter) -> None:
    exporter.note_start("j", "j.q")
    exporter.add_row(ended())
    exporter.add_row(ended(rejected_by_code={"UNDECODABLE": 1}, failed_rules={}, bytes_in=None))
    assert value(exporter, "tidemark_records_read_total") == 200
    assert value(exporter, "tidemark_bytes_read_total") == 4000
    assert value(exporter, "tidemark_rows_written_total", place="silver/t") == 194
    assert value(exporter, "tidemark_records_rejected_total", code="UNDECODABLE") == 2
    assert (
        value(exporter, "tidemark_records_rejected_total", code="BAD_KEY") == 0
    )  # a counter is there before it counts
    assert value(exporter, "tidemark_batch_phase_seconds_sum", phase="write silver/t") == 0.3
    assert value(exporter, "tidemark_rule_failures_total", rule="known") == 2
    assert value(exporter, "tidemark_batch_phase_seconds_sum", phase="addBatch") == 0.5
    assert value(exporter, "tidemark_query_running") == 1


def test_lag_is_in_records_and_seconds_and_freshness_is_the_watermarks_where_there_is_one(exporter: Exporter) -> None:
    lags = [PartitionLag("j", "j.q", "t", 0, 5, 0, 0.0), PartitionLag("j", "j.q", "t", 1, 7, 4, 90.0)]
    exporter.set_lags(lags)
    assert value(exporter, "tidemark_lag_records", topic="t", partition="1") == 4
    assert value(exporter, "tidemark_lag_seconds", topic="t", partition="1") == 90
    assert value(exporter, "tidemark_freshness_seconds") == 90
    exporter.add_row(ended(watermark=datetime.now(UTC) - timedelta(hours=1)))
    exporter.set_lags(lags)
    assert 3600 <= value(exporter, "tidemark_freshness_seconds") < 3700


def test_probes_tell_a_driver_that_lives_from_one_whose_queries_run(exporter: Exporter) -> None:
    assert fetch(exporter, "/healthz")[0] == 200
    assert fetch(exporter, "/readyz") == (503, "no query runs\n")
    exporter.note_start("j", "j.q")
    assert fetch(exporter, "/readyz")[0] == 200
    exporter.count_stop("j", "j.q", "TOPIC_RECREATED")
    exporter.note_end("j", "j.q")
    assert fetch(exporter, "/readyz") == (503, "stopped: j.q (TOPIC_RECREATED)\n")
    # Liveness is not lost with a query: a new process would end those that go on.
    assert fetch(exporter, "/healthz")[0] == 200
    exporter.note_start("j", "j.q")
    assert fetch(exporter, "/readyz")[0] == 200
    exporter.is_ending = True
    assert fetch(exporter, "/readyz") == (503, "the run ends\n")
    assert value(exporter, "tidemark_query_stops_total", code="TOPIC_RECREATED") == 1
    assert fetch(exporter, "/secrets")[0] == 404


def test_a_port_in_use_is_said_and_nothing_stops(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        exporter = Exporter(Metrics(port=other.getsockname()[1], host="127.0.0.1", pushgateway=""))
        exporter.serve()
        exporter.note_start("j", "j.q")
        exporter.close()
    assert "cannot be served: Address already in use; the queries go on without" in capsys.readouterr().err


def test_a_pushgateway_that_is_not_there_is_said_and_nothing_stops(capsys: pytest.CaptureFixture[str]) -> None:
    Exporter(Metrics(port=0, host=HOST, pushgateway=f"{HOST}:{free_port()}")).close()
    assert "note: metrics.pushgateway takes no metrics: " in capsys.readouterr().err


def test_a_pushgateway_that_no_client_can_ask_ends_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    for address in ("http://u:hunter2@127.0.0.1:x", "http://[::1", f"http://{HOST}:1/a b"):
        # As settings refuse it.
        Exporter(Metrics.model_construct(port=0, host=HOST, pushgateway=address)).close()
        said = capsys.readouterr().err
        assert "takes no metrics" in said
        assert "hunter2" not in said


def test_metrics_of_a_run_that_ends_are_pushed_in_the_place_of_the_same_jobs_before() -> None:
    pushed: list[str] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            pushed.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are no news."""

    with HTTPServer((HOST, 0), Gateway) as gateway:
        thread = threading.Thread(target=gateway.handle_request)
        thread.start()
        Exporter(Metrics(port=0, host=HOST, pushgateway=f"{HOST}:{gateway.server_port}")).close("flights.hourly_delays")
        thread.join()
    assert pushed == ["/metrics/job/tidemark/instance/flights.hourly_delays"]


def test_names_follow_prometheus_conventions() -> None:
    for metric in METRICS:
        assert metric.name.startswith("tidemark_")
        assert not metric.name.endswith("_total")  # the client adds it
        assert metric.meaning.endswith(".")
