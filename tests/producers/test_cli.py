"""The command as a user runs it: exit codes, lines, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from conf import ROOT
from conf.errors import TidemarkError
from conf.topics import load_topics
from local.broker import Cluster
from local.processes import wait_for
from producers.cli import main
from producers.files import publish
from producers.flights.events import TOPICS

DAY = ["flights", "--from", "2013-03-10", "--to", "2013-03-11"]


@pytest.fixture(scope="module")
def flight_topics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker with the declared topics, which other tests must not see filled."""
    folder = tmp_path_factory.mktemp("flight_topics")
    with Cluster(folder, folder / "logs", attached=True) as cluster:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0})
        for future in admin.create_topics([NewTopic(name, load_topics()[name].partitions) for name in TOPICS]).values():
            future.result()
        wait_for(lambda: can_be_asked(cluster), 30, TimeoutError)
        yield cluster


def can_be_asked(broker: Cluster) -> bool:
    """Whether every partition's leader knows that it is one."""
    try:
        offsets(broker)
    except KafkaException:
        return False
    return True


def command(broker: Cluster, registry: Path, *argv: str) -> list[str]:
    settings = [f"kafka.bootstrap_servers={broker.bootstrap_servers}", f"registry.path={registry}"]
    return [sys.executable, "-m", "producers.cli", *argv, *(part for each in settings for part in ("--set", each))]


def run(broker: Cluster, registry: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(broker, registry, *argv), cwd=ROOT, capture_output=True, text=True, timeout=60)


def offsets(broker: Cluster, level: IsolationLevel = IsolationLevel.READ_UNCOMMITTED) -> Counter[str]:
    """Topic -> the offsets that readers of this isolation come to: records, and the markers of transactions."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    partitions = [TopicPartition(name, number) for name in TOPICS for number in range(load_topics()[name].partitions)]
    found: Counter[str] = Counter()
    for partition, future in admin.list_offsets(dict.fromkeys(partitions, latest), isolation_level=level).items():
        found[partition.topic] += future.result().offset
    return found


def counts(line: str) -> dict[str, int]:
    return {topic: int(count.replace(",", "")) for topic, count in re.findall(r"(\w+) ([\d,]+)(?=,|$)", line)}


def test_a_day_of_flights_arrives_whole_and_the_summary_says_so(flight_topics: Cluster, tmp_path: Path) -> None:
    before = offsets(flight_topics)
    done = run(flight_topics, tmp_path, *DAY)
    assert (done.returncode, done.stderr) == (0, "")
    read, published = done.stdout.splitlines()
    assert read == (
        "read 908 flights = 903 departures + 5 cancellations; 902 arrivals (0 diverted), 1 never arrived; "
        "69 weather observations; 3,322 planes"
    )
    arrived = offsets(flight_topics) - before
    assert arrived == {"planes": 3322, "departures": 903, "arrivals": 902, "cancellations": 5, "weather": 69}
    assert published.startswith(f"published {sum(arrived.values()):,} events in ")
    assert counts(published.partition(": ")[2]) == arrived


def test_ctrl_c_flushes_says_what_was_delivered_and_exits_with_130(flight_topics: Cluster, tmp_path: Path) -> None:
    paced = command(flight_topics, tmp_path, *DAY, "--rate", "500")
    before = offsets(flight_topics)
    with subprocess.Popen(paced, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while (offsets(flight_topics) - before)["planes"] < 200:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "interrupted: what comes after that was not published\n"
    delivered = counts(out.splitlines()[1].partition(": ")[2])
    assert delivered == offsets(flight_topics) - before
    assert 200 <= delivered["planes"] < 3322


@pytest.mark.slow
def test_flights_are_published_exactly_once_however_often_the_command_runs(
    flight_topics: Cluster, tmp_path: Path
) -> None:
    first = run(flight_topics, tmp_path, *DAY, "--exactly-once")
    # The broker puts a transaction's markers down a little after it has answered.
    committed = partial(offsets, flight_topics, IsolationLevel.READ_COMMITTED)
    wait_for(lambda: committed() == offsets(flight_topics), 30, TimeoutError)
    before = offsets(flight_topics)
    again = run(flight_topics, tmp_path, *DAY, "--exactly-once")
    other = run(flight_topics, tmp_path, *DAY, "--exactly-once", "2013-03-10_2013-03-11", "--duplicates", "0.1")
    assert [each.returncode for each in (first, again, other)] == [0, 0, 1]
    assert "published 5,201 events in " in first.stdout
    name = "2013-03-10_2013-03-11"
    assert f"exactly once: {name} is complete since an earlier run, 5,201 events (5,201 delivered)" in again.stdout
    assert other.stderr.startswith(f"error: INPUT_CHANGED: {name} was begun with other --duplicates, --seed, order")
    assert offsets(flight_topics) == before


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["flight"],
        ["flights", "--from", "soon"],
        ["flights", "--from", "2013-02-01", "--to", "2013-02-01"],
        ["flights", "--speed", "0"],
        ["flights", "--duplicates", "2"],
        ["flights", "--disorder", "10"],
        ["flights", "--disorder", f"{'9' * 400}d"],
        ["flights", "--seed", "-1"],
        ["auctions", "--disorder", f"{'9' * 400}d"],
        ["auctions", "--count", "9" * 5000],
        ["auctions", "--count", str(10**9), "--events-per-second", "0.000001"],
        ["auctions", "--count", str(10**9), "--rate", "1"],
        ["transfers", "--accounts", "1"],
        ["auctions", "--events-per-second", "1e-300"],
        ["file", "--topic", "t"],
        ["file", "in.csv", "--topic", "t"],
        ["file", "in.csv", "--topic", "t", "--key", "id", "--header", "novalue"],
        ["file", "in.csv", "--topic", "t", "--key", "id", "--time-zone", "Mars/Olympus"],
        ["file", "in.csv", "--topic", "t", "--key", "id", "--max-rejects", "-1"],
        ["file", "in.csv", "--topic", "t", "--key", "id", "--delimiter", "ab"],
        ["file", "in.csv", "--topic", "t", "--key", "id", "--exactly-once", "more.csv"],
        ["file", "in.csv", "--topic", "t", "--key", "id", "--exactly-once", "LICENSE"],
        ["flights", "--exactly-once", "a.b"],
    ],
)
def test_wrong_usage_exits_with_2_and_shows_the_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert "usage: local/tidemark publish" in capsys.readouterr().err


FILE = ["file", "in.csv", "--topic", "t", "--key", "id"]


@pytest.mark.parametrize("number", ["-1", str(2**63), str(10**30), "9" * 5000])
@pytest.mark.parametrize(
    "option",
    [
        [*FILE, "--partitions"],
        [*FILE, "--max-rejects"],
        ["flights", "--seed"],
        ["auctions", "--seed"],
        ["auctions", "--count"],
        ["transfers", "--seed"],
        ["transfers", "--count"],
        ["transfers", "--accounts"],
        ["friendships", "--seed"],
        ["friendships", "--count"],
    ],
)
def test_a_number_that_nothing_has_room_for_is_wrong_usage(
    option: list[str], number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*option, number])
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"error: argument {option[-1]}: " in last and " is no " in last
    assert len(last) < 200


@pytest.mark.parametrize(
    "words",
    [
        [*FILE, "--partitions", "0"],
        [*FILE, "--partitions", str(2**31)],
        [*FILE, "--partitions", "3000000000"],
        ["transfers", "--accounts", str(2**31)],
        ["auctions", "--count", "0"],
        ["auctions", "--count", str(10**9 + 1)],
    ],
)
def test_a_number_beyond_what_it_is_for_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert f"{words[-1]!r} is no whole number from " in capsys.readouterr().err


def test_no_option_of_a_command_takes_any_number() -> None:
    for package in ("jobs", "local", "producers", "schemas"):
        for path in (ROOT / package).rglob("*.py"):
            assert not re.search(r"add_argument\([^)]*type=(int|float)\b", path.read_text()), path


def test_a_missing_topic_is_one_line_and_exit_code_1(broker: Cluster, tmp_path: Path) -> None:
    done = run(broker, tmp_path, *DAY)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: NO_TOPIC: no topic arrivals cancellations departures planes weather on ")
    assert "local/tidemark topics apply" in done.stderr


def test_no_broker_at_all_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    environment["TIDEMARK_STATE"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "producers.cli", *DAY],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"error: NO_BROKER: .*local/tidemark broker start.*\n", done.stderr)


def test_a_file_is_published_with_a_schema_inferred_for_it(broker: Cluster, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,at\n1,2013-01-01\n2,\n")
    schema = ["--schema", str(tmp_path / "in.avsc")]
    file = ["file", str(tmp_path / "in.csv"), "--topic", "cli-file", *schema]
    inferred = run(broker, tmp_path / "registry", *file, "--infer-only")
    assert (inferred.returncode, "in.avsc for review" in inferred.stdout) == (0, True)
    options = ["--key", "id", "--event-time", "at", "--create-topic", "--rejects", str(tmp_path / "rejects")]
    done = run(broker, tmp_path / "registry", *file, *options)
    assert done.returncode == 0
    assert "read 2 rows = 1 accepted + 1 rejected" in done.stdout
    assert "published 1 events in" in done.stdout
    assert "in.csv line 3: field `at`: it is null, and a record needs it" in done.stderr


ID = {"name": "id", "type": "string"}


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ([{**ID, "name": "an-id"}], "INVALID_SCHEMA: bad-value: not a valid Avro schema: field `an-id` of `Row`"),
        ([ID, {"name": "_Offset", "type": "int"}], "BAD_SCHEMA: bad-value: field _Offset: silver has a column"),
        ([ID, {"name": "n", "type": "int", "pii": "mask"}], "BAD_SCHEMA: bad-value: field n: only text can be masked"),
    ],
)
def test_a_bad_schema_is_one_line_before_a_topic_is_created_or_a_schema_registered(
    fields: list[dict[str, str]], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a topic that is still to be created, this is all that the command asks the broker before it looks at schemas.
    monkeypatch.setattr(publish, "is_missing", lambda kafka, topic: True)
    monkeypatch.setattr(publish, "create_topic", lambda *asked: pytest.fail("a topic was created"))
    (tmp_path / "in.csv").write_text("id,n,_Offset\na,1,2\n")
    (tmp_path / "bad.avsc").write_text(json.dumps({"type": "record", "name": "Row", "fields": fields}))
    file = ["file", str(tmp_path / "in.csv"), "--topic", "bad", "--key", "id", "--create-topic"]
    settings = [f"registry.path={tmp_path / 'registry'}", "kafka.bootstrap_servers=127.0.0.1:1"]
    with pytest.raises(TidemarkError) as stopped:
        main([*file, "--schema", str(tmp_path / "bad.avsc"), *(part for each in settings for part in ("--set", each))])
    assert str(stopped.value).startswith(line)
    assert "\n" not in str(stopped.value)
    assert not (tmp_path / "registry").exists()
