"""Alerts and metrics before the real Prometheus of Debian's package: its tools check them, and it scrapes a driver."""

import json
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from conf import ROOT
from conf.settings import Metrics
from deploy.grafana import dashboard
from jobs.pipeline.monitoring.exporter import Exporter
from jobs.pipeline.monitoring.lag import PartitionLag
from local.processes import HOST, wait_for
from tests.jobs.pipeline.monitoring.serving import free_port

FOLDER = ROOT / "deploy" / "prometheus"
# What Grafana puts in for its variables.
FILLED = {"$job": ".*", "$query": ".*", "$__rate_interval": "1m"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `prometheus` and `promtool`: installed ones, or the package's, which is only unpacked."""
    if installed := shutil.which("promtool"):
        return Path(installed).parent
    if not shutil.which("apt-get"):
        pytest.skip("neither Prometheus nor Debian's packages are here")
    folder = tmp_path_factory.mktemp("prometheus")
    subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True)
    subprocess.run(["apt-get", "download", "-qq", "prometheus"], cwd=folder, check=True, capture_output=True)
    [package] = folder.glob("*.deb")
    subprocess.run(["dpkg", "-x", package, folder / "unpacked"], check=True)
    return folder / "unpacked" / "usr" / "bin"


def checked(tools: Path, *words: str, given: str | None = None) -> str:
    done = subprocess.run(
        [tools / "promtool", *words], cwd=FOLDER, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    serving = Exporter(Metrics(port=free_port(), host=HOST, pushgateway=""))
    serving.serve()
    serving.note_start("j", "j.q", 600, ["silver/t"])
    row: dict[str, Any] = {"job": "j", "query": "j.q", "outcome": "done", "rows_in": 100, "bytes_in": 9000, "late": 0}
    row |= {"rejected_by_code": {"UNDECODABLE": 3}, "rows_out": {"silver/t": 97}, "failed_rules": {"known": 1}}
    row |= {"phases": {"triggerExecution": 300}, "write_phases": {"write silver/t": 250}}
    now = datetime.now(UTC)
    serving.add_row(row | {"ended_at": now, "watermark": now, "state_rows": 1, "state_bytes": 2})
    serving.set_lags([PartitionLag("j", "j.q", "t", 0, 100, 7, 3.5)])
    serving.set_free_bytes("tables", 10**12)
    serving.count_stop("j", "j.p", "TOPIC_RECREATED")
    yield serving
    serving.close()


def metrics(exporter: Exporter) -> str:
    with urllib.request.urlopen(f"{exporter.address}/metrics") as answer:
        return str(answer.read().decode())


def test_every_alert_fires_where_it_should_and_nowhere_else(tools: Path) -> None:
    assert "SUCCESS" in checked(tools, "check", "rules", "rules.yaml")
    assert "SUCCESS" in checked(tools, "check", "config", "prometheus.yaml")
    assert "SUCCESS" in checked(tools, "test", "rules", "rules_test.yaml")


def test_metrics_follow_the_conventions(tools: Path, exporter: Exporter) -> None:
    assert checked(tools, "check", "metrics", given=metrics(exporter)).strip() == ""


@contextmanager
def prometheus(tools: Path, folder: Path, exporter: Exporter) -> Iterator[str]:
    """A Prometheus with our configuration, which scrapes `exporter` each second; its address."""
    port = free_port()
    text = (FOLDER / "prometheus.yaml").read_text().replace("15s", "1s").replace("127.0.0.1:9095", exporter.address[7:])
    (folder / "prometheus.yaml").write_text(text)
    shutil.copy(FOLDER / "rules.yaml", folder)
    options = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    log = (folder / "log").open("w")
    command = [str(tools / "prometheus"), *options, f"--web.listen-address={HOST}:{port}"]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "GOMAXPROCS": "1"})
    try:
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait()
        log.close()


def asked(address: str, query: str) -> list[Any]:
    try:
        with urllib.request.urlopen(f"{address}/api/v1/query?query={urllib.parse.quote(query)}") as answer:
            found: list[Any] = json.loads(answer.read())["data"]["result"]
            return found
    except OSError:
        return []


def test_prometheus_scrapes_a_driver(tools: Path, tmp_path: Path, exporter: Exporter) -> None:
    with prometheus(tools, tmp_path, exporter) as address:

        def failure() -> Exception:
            return AssertionError((tmp_path / "log").read_text())

        wait_for(lambda: bool(asked(address, "tidemark_records_read_total")), 30, failure)
        [series] = asked(address, "tidemark_records_read_total")
        assert series["metric"]["job_name"] == "j"
        assert series["metric"]["job"] == "tidemark"
        assert series["value"][1] == "100"
        for expression in dashboard.expressions():
            require_series(address, reduce(lambda text, filled: text.replace(*filled), FILLED.items(), expression))


def require_series(address: str, query: str) -> None:
    """A rate needs two scrapes, a bad query never has any."""
    wait_for(lambda: bool(asked(address, query)), 30, lambda: AssertionError(f"no series: {query}"))
