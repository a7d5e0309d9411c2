"""What ships logs: configurations of shippers, and the dashboard; a driver's own lines go through a real rsyslog."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, TopicPartition

from conf import ROOT
from conf.settings import load
from conf.topics import load_topics
from deploy.logging import dashboards
from jobs.connectors.kafka.access import connect
from local import driver
from local.broker import Cluster
from local.processes import wait_for
from local.topics import bring_in_step
from tests.jvm import OPTIONS
from tests.sent import Record, send

FOLDER = ROOT / "deploy" / "logging"
SAVED = [json.loads(line) for line in dashboards.PATH.read_text().splitlines()]
JOB = "operations.log_analytics"
LOGS = "/var/lib/tidemark/logs/*.ecs.json"


def test_the_committed_dashboard_is_what_the_script_makes() -> None:
    assert dashboards.PATH.read_text() == dashboards.text(), "run: python -m deploy.logging.dashboards"


def test_saved_objects_refer_to_each_other_and_hold_json_in_their_texts() -> None:
    known = {(saved["type"], saved["id"]) for saved in SAVED}
    assert len(known) == len(SAVED)
    for saved in SAVED:
        assert {(each["type"], each["id"]) for each in saved["references"]} <= known
        texts = [text for name, text in flat(saved["attributes"]) if name.endswith("JSON") or name == "visState"]
        named = {name for text in texts for name in names(json.loads(text))}
        assert named == {each["name"] for each in saved["references"]}


def flat(attributes: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        pair
        for name, value in attributes.items()
        for pair in (flat(value) if isinstance(value, dict) else [(name, value)])
    ]


def names(value: Any) -> set[str]:
    """The references that a text makes by name."""
    if isinstance(value, list):
        return set().union(*map(names, value))
    if not isinstance(value, dict):
        return set()
    own = {value[key] for key in ("indexRefName", "panelRefName") if key in value}
    return own.union(*map(names, value.values()))


def test_shippers_read_the_files_that_drivers_write_and_write_the_topic_that_is_declared() -> None:
    vector, filebeat = (yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) for name in ("vector", "filebeat"))
    assert vector["sources"]["drivers"]["include"] == filebeat["filebeat.inputs"][0]["paths"] == [LOGS]
    assert vector["sinks"]["app_logs"]["topic"] == filebeat["output.kafka"]["topic"] == "app_logs"
    assert "app_logs" in load_topics()
    settings = load("local", ["logging.format=ecs"])
    for path in (driver.log_file(settings, "flights.overdue"), Path(LOGS)):
        assert path.name.endswith(".ecs.json")
    rsyslog = (FOLDER / "rsyslog.conf").read_text()
    assert f'file="{LOGS}"' in rsyslog
    assert 'topic="app_logs"' in rsyslog


@pytest.fixture(scope="module")
def rsyslogd(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of an installed rsyslogd with its module for Kafka, or of Debian's packages, only unpacked."""
    if shutil.which("rsyslogd") and list(Path("/usr/lib").glob("*/rsyslog/omkafka.so")):
        return ["rsyslogd"]
    if not shutil.which("apt-get"):
        pytest.skip("neither rsyslog nor Debian's packages are here")
    folder = tmp_path_factory.mktemp("rsyslog")
    packages = ["rsyslog", "rsyslog-kafka", "libestr0", "libfastjson4", "librdkafka1"]
    subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True)
    subprocess.run(["apt-get", "download", "-qq", *packages], cwd=folder, check=True, capture_output=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "unpacked"], check=True)
    [modules] = (folder / "unpacked").glob("usr/lib/*/rsyslog")
    libraries = f"LD_LIBRARY_PATH={modules.parent}"
    return ["env", libraries, str(folder / "unpacked" / "usr" / "sbin" / "rsyslogd"), "-M", str(modules)]


def run_job(servers: str, folder: Path) -> None:
    """Run a job that logs as shippers take it."""
    settings = {"kafka.bootstrap_servers": servers, "paths.logs": str(folder / "logs"), "logging.format": "ecs"}
    settings["spark.driver_java_options"] = OPTIONS
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    roots = ["--tables", str(folder / "tables"), "--checkpoints", str(folder / "checkpoints")]
    command = [str(ROOT / "spark-submit.sh"), JOB, *sets, *roots, "--until-caught-up"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280, check=False)
    assert ran.returncode == 0, ran.stdout


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Cluster]:
    """One of the test's own, with the declared topics and one line in app_logs."""
    with Cluster(tmp_path / "broker", tmp_path / "broker-logs", attached=True) as started:
        servers = f"kafka.bootstrap_servers={started.bootstrap_servers}"
        bring_in_step(connect(load(overrides=[servers]).kafka), [load_topics()["app_logs"]], 1)
        line = {"@timestamp": "2026-01-31T10:00:00Z", "log.level": "WARN", "message": "sent before"}
        send(started, "app_logs", Record(json.dumps(line).encode(), timestamp=0))
        yield started


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_lines_of_a_driver_reach_the_topic_by_way_of_rsyslog(
    rsyslogd: list[str], broker: Cluster, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    run_job(broker.bootstrap_servers, tmp_path)

    written = {path.name: path.read_text().splitlines() for path in logs.glob("*.ecs.json")}
    assert written.keys() == {f"{JOB}.ecs.json", f"{JOB}.python.ecs.json"}
    labelled = [json.loads(line).get("labels", {}) for lines in written.values() for line in lines]
    query = {"job": JOB, "query": f"{JOB}.app_logs", "batch": "0"}
    assert query | {"offsets": "app_logs-0:0-1 app_logs-1:0-0"} in labelled
    for lines in written.values():
        assert any(json.loads(line)["labels"].get("query") == query["query"] for line in lines if "labels" in line)

    text = (FOLDER / "rsyslog.conf").read_text()
    for ours, its in (
        ("/var/spool/rsyslog", str(tmp_path)),
        ("/var/lib/tidemark/logs", str(logs)),
        ("localhost:9092", broker.bootstrap_servers),
    ):
        assert ours in text
        text = text.replace(ours, its)
    configuration = tmp_path / "rsyslog.conf"
    configuration.write_text(text)
    subprocess.run([*rsyslogd, "-N1", "-f", str(configuration)], check=True, capture_output=True)
    command = [*rsyslogd, "-n", "-iNONE", "-f", str(configuration)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        expected = sorted(line for lines in written.values() for line in lines)
        sent: list[str] = []
        consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "shipped"})
        consumer.assign([TopicPartition("app_logs", 0, 1), TopicPartition("app_logs", 1, 0)])

        def all_there() -> bool:
            for message in consumer.consume(1000, timeout=0.5):
                assert message.error() is None
                sent.append((message.value() or b"").decode())
            return len(sent) >= len(expected)

        wait_for(all_there, 60, lambda: AssertionError(f"{len(sent)} of {len(expected)} lines were sent"))
        consumer.close()
    finally:
        process.terminate()
        process.wait(30)
    assert sorted(sent) == expected
