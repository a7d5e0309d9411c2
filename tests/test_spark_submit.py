"""Jobs as users start them: through spark-submit.sh, to their exit code."""

import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from confluent_kafka import Producer
from deltalake import DeltaTable

from conf import ROOT
from conf.settings import load
from conf.topics import load_topics
from jobs.connectors.kafka.access import connect
from local.broker import Cluster
from local.processes import end_group, wait_for
from local.topics import bring_in_step
from producers import cli
from producers.flights.data_set import package_data
from tests.faults.oracle import read_all
from tests.jvm import OPTIONS, SERVER_OPTIONS
from tests.leaks.search import LOOPBACK, of_folder, told
from tests.leaks.watch import watched
from tests.standalone import SPILLS, free_port, standalone_cluster

DAYS = ["--from", "2013-01-01", "--to", "2013-01-08"]


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker of this module's own with a week of flights."""
    folder = tmp_path_factory.mktemp("flights")
    with Cluster(folder, folder / "logs", attached=True) as broker:
        servers = f"kafka.bootstrap_servers={broker.bootstrap_servers}"
        bring_in_step(connect(load(overrides=[servers]).kafka), list(load_topics().values()), 1)
        assert cli.main(["flights", *DAYS, "--set", servers]) == 0
        yield broker


def arguments(servers: str, folder: Path, *more: str) -> list[str]:
    """Job options that read from `servers` and keep all that is written under `folder`."""
    settings = {"kafka.bootstrap_servers": servers, "paths.logs": str(folder / "logs")}
    settings["spark.driver_java_options"] = OPTIONS
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return [*sets, "--tables", str(folder / "tables"), "--checkpoints", str(folder / "checkpoints"), *more]


def submit(job: str, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a job; `stdout` holds what it printed on either stream: spark-submit gives a script only one of the two."""
    command = [str(ROOT / "spark-submit.sh"), job, *options]
    pipe, both, env = subprocess.PIPE, subprocess.STDOUT, os.environ | variables
    return subprocess.run(command, stdout=pipe, stderr=both, env=env, text=True, timeout=280, check=False)


def hours(folder: Path) -> list[tuple[object, ...]]:
    """The rows of hourly_delays, sorted."""
    table = DeltaTable(str(folder / "tables" / "hourly_delays")).to_pyarrow_table().to_pylist()
    return sorted(tuple(row.values()) for row in table)


def departures_by_the_file() -> int:
    """Flights of the week that left, counted in the CSV file."""
    flights = pd.read_csv(package_data() / "flights.csv.zip", usecols=["month", "day", "dep_time"])
    return int(((flights["month"] == 1) & (flights["day"] <= 7) & flights["dep_time"].notna()).sum())


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.mark.slow
def test_a_job_that_catches_up_exits_with_0_and_shows_its_batches(flights: Cluster, tmp_path: Path) -> None:
    ran = submit("flights.hourly_delays", *arguments(flights.bootstrap_servers, tmp_path, "--until-caught-up"))

    assert ran.returncode == 0, ran.stdout
    assert errors(ran.stdout) == []
    assert any("Z flights.hourly_delays " in line and "lag 0" in line for line in ran.stdout.splitlines())
    assert sum(int(str(row[3])) for row in hours(tmp_path)) == departures_by_the_file()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_missing_topic_is_one_line_and_exit_code_1(broker: Cluster, tmp_path: Path) -> None:
    ran = submit("flights.hourly_delays", *arguments(broker.bootstrap_servers, tmp_path, "--until-caught-up"))

    assert ran.returncode == 1
    assert len(errors(ran.stdout)) == 1
    assert "TOPIC_MISSING: topic `departures`" in ran.stdout and "topics apply" in ran.stdout
    assert "Traceback" not in ran.stdout and "\tat " not in ran.stdout


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_broker_that_is_not_there_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    ran = submit("flights.hourly_delays", *arguments(f"127.0.0.1:{free_port()}", tmp_path, "--until-caught-up"))

    assert ran.returncode == 1
    assert len(errors(ran.stdout)) == 1
    assert "BROKER_UNREACHABLE" in ran.stdout and "Traceback" not in ran.stdout


@pytest.mark.slow
def test_a_query_that_fails_says_why_in_one_line(flights: Cluster, tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("a file where the tables' folder should be")

    ran = submit("flights.hourly_delays", *arguments(flights.bootstrap_servers, tmp_path, "--until-caught-up"))

    assert ran.returncode == 1
    [error] = errors(ran.stdout)
    assert error.startswith("error: QUERY_FAILED: query flights.hourly_delays stopped: ")
    assert "Traceback" not in ran.stdout and "\tat " not in ran.stdout


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_stack_is_shown_where_it_is_asked_for(broker: Cluster, tmp_path: Path) -> None:
    options = arguments(broker.bootstrap_servers, tmp_path, "--until-caught-up")
    ran = submit("flights.hourly_delays", *options, TIDEMARK_DEBUG="1")

    assert ran.returncode == 1
    assert "Traceback" in ran.stdout and "TOPIC_MISSING" in ran.stdout


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_range_of_days_is_one_batch_in_a_folder_of_its_own_and_the_same_again(
    flights: Cluster, tmp_path: Path
) -> None:
    options = arguments(flights.bootstrap_servers, tmp_path, "--from", "2013-01-02", "--to", "2013-01-03T00:00:00Z")
    first, again = (submit("flights.hourly_delays", *options) for _ in range(2))

    assert (first.returncode, again.returncode) == (0, 0), first.stdout + again.stdout
    [folder] = (tmp_path / "tables").glob("range-*")
    assert folder.name.startswith("range-")
    rows = DeltaTable(str(folder / "hourly_delays")).to_pyarrow_table().to_pylist()
    day = datetime(2013, 1, 2, tzinfo=UTC)
    assert {row["hour"].date() for row in rows} == {day.date()}
    for text in (first.stdout, again.stdout):
        assert f"{len(rows)} rows  {folder / 'hourly_delays'}" in text
        assert "departures " in text
    assert len(DeltaTable(str(folder / "hourly_delays")).history()) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "signalled", "code", "told"),
    [
        # As a terminal sends it: to all of the group. As `kill`, Kubernetes and systemd send it: to one process.
        pytest.param(signal.SIGINT, os.killpg, 130, "interrupted", marks=pytest.mark.exhaustive),
        (signal.SIGTERM, os.kill, 0, "stopped by SIGTERM; a new run goes on"),
        # As a terminal that is closed sends it.
        pytest.param(signal.SIGHUP, os.killpg, 129, "interrupted by SIGHUP", marks=pytest.mark.exhaustive),
    ],
)
def test_a_signal_amid_batches_ends_a_job_in_one_line_and_a_later_run_goes_on(
    flights: Cluster, tmp_path: Path, number: int, signalled: Callable[[int, int], None], code: int, told: str
) -> None:
    small = ["--set", "jobs.flights.hourly_delays.max_offsets_per_trigger=500"]
    options = arguments(flights.bootstrap_servers, tmp_path)
    command = [str(ROOT / "spark-submit.sh"), "flights.hourly_delays", *options, *small, "--continuous"]
    printed = tmp_path / "output"
    with printed.open("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, text=True, process_group=0)
        try:
            wait_for(lambda: "batch 1 " in printed.read_text(), 240, lambda: AssertionError("no batch was written"))
            signalled(process.pid, number)
            assert process.wait(60) == code
        finally:
            end_group(process)
    lines = printed.read_text().splitlines()
    assert [line for line in lines if "Z flights.hourly_delays " not in line] == [told]

    again = submit("flights.hourly_delays", *options, "--until-caught-up")

    assert again.returncode == 0, again.stdout
    assert sum(int(str(row[3])) for row in hours(tmp_path)) == departures_by_the_file()


@pytest.mark.exhaustive
@pytest.mark.timeout(400)
def test_under_isolate_a_query_that_fails_leaves_the_others_at_work_and_the_run_ends_by_its_name(
    flights: Cluster, tmp_path: Path
) -> None:
    [(key, value, _), *others], _ = read_all(flights.bootstrap_servers, "weather", committed=True)
    known = len(others) + 1
    producer = Producer({"bootstrap.servers": flights.bootstrap_servers, "log_level": 0})
    producer.produce("planes", b"no framing at all", b"one")
    producer.produce("planes", b"no framing at all", b"one")
    assert producer.flush(30) == 0
    sets = {"run.on_failure": "isolate", "spark.trigger": "1 second", "quarantine.max_consecutive": "1"}
    words = [word for key, text in sets.items() for word in ("--set", f"{key}={text}")]
    words += ["--set", "ingest.topics=planes,weather"]
    command = [str(ROOT / "spark-submit.sh"), "ingest", *arguments(flights.bootstrap_servers, tmp_path, *words)]
    printed, weather = tmp_path / "output", tmp_path / "tables" / "silver" / "weather"

    def rows() -> int:
        return int(DeltaTable(str(weather)).count()) if DeltaTable.is_deltatable(str(weather)) else 0

    def await_in_output(told: Callable[[], bool]) -> None:
        wait_for(told, 240, lambda: AssertionError(printed.read_text()))

    with printed.open("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, text=True, process_group=0)
        try:
            await_in_output(lambda: "; the other queries go on" in printed.read_text() and rows() == known)
            producer.produce("weather", value, key)
            assert producer.flush(30) == 0
            await_in_output(lambda: rows() == known + 1)
            assert process.poll() is None
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(60) == 1
        finally:
            end_group(process)
    first, last = errors(printed.read_text())
    assert first.startswith("error: QUERY_FAILED: query ingest.planes stopped: REJECT_LIMIT: ")
    assert first == f"{last}; the other queries go on"
    assert "Z ingest.planes" not in printed.read_text()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_corrupt_record_goes_to_quarantine_and_the_job_goes_on(flights: Cluster, tmp_path: Path) -> None:
    producer = Producer({"bootstrap.servers": flights.bootstrap_servers, "log_level": 0})
    producer.produce("cancellations", b"no framing at all", b"somebody", headers=[("trace", b"42")])
    assert producer.flush(30) == 0

    ran = submit(
        "ingest",
        *arguments(flights.bootstrap_servers, tmp_path, "--until-caught-up", "--set", "ingest.topics=cancellations"),
    )

    assert ran.returncode == 0, ran.stdout
    [row] = DeltaTable(str(tmp_path / "tables" / "quarantine")).to_pyarrow_table().to_pylist()
    assert (row["topic"], row["key"], row["value"]) == ("cancellations", b"somebody", b"no framing at all")
    assert (row["error"], row["schema_id"]) == ("BAD_FRAMING", None)
    assert row["headers"] == [{"key": "trace", "value": b"42"}]


@pytest.mark.cluster
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "job", [pytest.param("flights.hourly_delays", marks=pytest.mark.exhaustive), "flights.overdue"]
)
def test_a_standalone_cluster_gives_the_rows_that_one_machine_gives(
    flights: Cluster, tmp_path: Path, job: str, rows_of: Callable[[Path, str], list[tuple[str, ...]]]
) -> None:
    alone, spread, secret = tmp_path / "alone", tmp_path / "spread", f"canary-{uuid.uuid4().hex}"
    assert submit(job, *arguments(flights.bootstrap_servers, alone, "--until-caught-up")).returncode == 0

    with standalone_cluster(tmp_path, workers=2, secret=secret) as master, watched(tmp_path / SPILLS) as seen:
        options = ["--master", master, "--executor-memory", "700m", "--conf", "spark.driver.host=127.0.0.1"]
        options += ["--conf", f"spark.executor.extraJavaOptions={' '.join(SERVER_OPTIONS)}"]
        words = [*arguments(flights.bootstrap_servers, spread, "--until-caught-up"), "--set", "spark.encryption=true"]
        ran = submit(job, *words, "--", *options, TIDEMARK_SPARK__ENCRYPTION_SECRET=secret)

    assert ran.returncode == 0, ran.stdout
    table = job.split(".")[1]
    assert rows_of(spread, table) == rows_of(alone, table) != []
    executors = [line for line in seen.lines if b"ExecutorBackend" in line]
    assert len(executors) >= 2
    for option in (b"-Dspark.authenticate=true", b"-Dspark.network.crypto.enabled=true"):
        assert all(option in line for line in executors)
    assert set(seen.spilled.values()) == {False}
    told_by = [ran.stdout.encode(), *seen.lines, *seen.workers, *of_folder(spread), *of_folder(tmp_path / SPILLS)]
    assert told({"secret": secret}, told_by) == set()
    assert {address for address, _ in seen.addresses} <= LOOPBACK


@pytest.mark.cluster
@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("secret", ["", "another-secret"])
def test_a_cluster_with_a_secret_lets_nobody_else_in(flights: Cluster, tmp_path: Path, secret: str) -> None:
    settings = ["--set", "spark.encryption=true"] if secret else []
    with standalone_cluster(tmp_path, workers=1, secret="the-clusters-secret") as master:
        words = [*arguments(flights.bootstrap_servers, tmp_path, "--until-caught-up"), *settings]
        options = ["--master", master, "--conf", "spark.driver.host=127.0.0.1"]
        ran = submit("flights.hourly_delays", *words, "--", *options, TIDEMARK_SPARK__ENCRYPTION_SECRET=secret)
    assert ran.returncode == 1
    assert not (tmp_path / "tables" / "hourly_delays").exists()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_encryption_without_the_secret_of_the_cluster_is_one_line(flights: Cluster, tmp_path: Path) -> None:
    words = arguments(flights.bootstrap_servers, tmp_path, "--until-caught-up", "--set", "spark.encryption=true")
    ran = submit("flights.hourly_delays", *words, "--", "--master", f"spark://127.0.0.1:{free_port()}")
    assert ran.returncode == 1
    [error] = errors(ran.stdout)
    assert error.startswith("error: BAD_SETTING: spark.encryption needs the secret")
    assert "TIDEMARK_SPARK__ENCRYPTION_SECRET" in error


@pytest.fixture
def rows_of() -> Callable[[Path, str], list[tuple[str, ...]]]:
    """A table's rows as text, sorted."""

    def read(folder: Path, table: str) -> list[tuple[str, ...]]:
        rows = DeltaTable(str(folder / "tables" / table)).to_pyarrow_table().to_pylist()
        return sorted(tuple(str(value) for value in row.values()) for row in rows)

    return read
