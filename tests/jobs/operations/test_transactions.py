"""Who holds readers back: transactions of ours, living and dead, and one of somebody's, on a real broker."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from conf import ROOT
from jobs.connectors.exactly_once.ledger import Ledger, author_of, open_marker
from jobs.connectors.exactly_once.process import Author
from jobs.connectors.kafka.consumer import read_to_end
from jobs.connectors.kafka.java_client import OpenTransaction
from jobs.operations.transactions import judge, ledger_of, lines, owner_of
from local import kafka_commands
from local.broker import Cluster

LEDGERS = ["__app.alerts.ledger", "__app.publish.file.rows.ledger", "alerts", "app.redriven", "app.quarantine.queued"]
OURS = OpenTransaction("alerts", 0, 7, 1, 0, "app.alerts.1", 60_000)
AUTHOR = Author("host", "boot", "namespace", 42, "7")


@pytest.mark.parametrize(
    ("id", "ledger", "owner"),
    [
        ("app.alerts.1", "__app.alerts.ledger", "sink app.alerts, shard 1"),
        ("app.alerts.plan", "__app.alerts.ledger", "sink app.alerts, plan"),
        ("app.publish.file.rows", "__app.publish.file.rows.ledger", "publisher app.publish.file.rows"),
        ("app.redrive.alerts", "app.redriven", "quarantine redrive of alerts"),
        ("app.quarantine.fill", "app.quarantine.queued", "quarantine queue fill"),
    ],
)
def test_an_id_names_sink_or_publisher_where_its_ledger_is_there(id: str, ledger: str, owner: str) -> None:
    assert ledger_of(id, LEDGERS) == ledger
    assert owner_of(id, ledger) == owner


@pytest.mark.parametrize("id", ["app.other.1", "somebody", "alerts", "1", ""])
def test_other_ids_are_of_no_ledger(id: str) -> None:
    assert ledger_of(id, LEDGERS) is None


def test_only_a_process_that_is_known_to_be_gone_proves_a_transaction_dead() -> None:
    def state(ledger: str | None, author: Author | None, gone: bool | None, id: str = "app.alerts.1") -> str:
        return judge(OpenTransaction("alerts", 0, 7, 1, 0, id), ledger, author, gone)[0]

    assert state(LEDGERS[0], AUTHOR, True) == "dead"
    assert state(LEDGERS[0], AUTHOR, False) == "lives"
    assert state(LEDGERS[0], AUTHOR, None) == "unproven"
    assert state(LEDGERS[0], None, None) == "unproven"
    assert state(None, None, None) == "foreign"
    assert state(LEDGERS[0], AUTHOR, True, id="") == "hanging"


def test_an_open_marker_tells_its_author_and_an_older_one_tells_none() -> None:
    author = author_of(open_marker("app.alerts.1"), "app.alerts.1")
    assert author is not None and author.pid > 0
    assert author_of(open_marker("app.alerts.1"), "app.alerts.2") is None
    assert author_of(b'{"kind": "open", "writer": "x"}', "x") is None
    assert author_of(b'{"kind": "plan"}', "x") is author_of(None, "x") is None


def test_nothing_open_is_a_line() -> None:
    assert list(lines([], "", 0)) == ["no transaction is open: readers of committed records get all there is"]


HANG = """
import sys, time
from jobs.connectors.exactly_once.transaction import Transaction, Writer
servers, ledger, id, topic = sys.argv[1:]
transaction = Transaction(Writer(id, ledger, 1, {"bootstrap.servers": servers}, 600_000))
transaction.last_marker()
transaction.producer.produce(topic, b"never committed")
transaction.producer.flush()
print("open", flush=True)
time.sleep(600)
"""


@contextmanager
def shard(servers: str, sink: str, topic: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that has the transaction of shard 0 of `sink` open, with a record in `topic`."""
    ledger = Ledger(f"__{sink}.ledger", 1)
    ledger.require_shards(AdminClient({"bootstrap.servers": servers, "log_level": 0}), 1)
    command = [sys.executable, "-c", HANG, servers, ledger.name, f"{sink}.0", topic]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def committed(servers: str, topic: str) -> list[bytes | None]:
    values: list[bytes | None] = []
    place = TopicPartition(topic, 0, 0)
    read_to_end({"bootstrap.servers": servers}, place, 30, lambda message: values.append(message.value()))
    return values


@pytest.mark.slow
def test_each_is_named_the_dead_one_is_ended_and_the_living_and_the_foreign_are_left_alone(
    broker: Cluster, new_topic: Callable[[int], str], capsys: pytest.CaptureFixture[str]
) -> None:
    servers = broker.bootstrap_servers
    settings = ["--set", f"kafka.bootstrap_servers={servers}"]
    by_the_dead, by_the_living, foreign = (new_topic(1) for _ in range(3))
    long = {"transaction.timeout.ms": 600_000, "log_level": 0}  # nothing of this ends by itself
    somebody = Producer({"bootstrap.servers": servers, "transactional.id": f"{foreign}-etl", **long})
    somebody.init_transactions(30)
    somebody.begin_transaction()
    somebody.produce(foreign, b"never committed")
    assert somebody.flush(30) == 0
    sinks = {topic: f"app.{topic}" for topic in (by_the_dead, by_the_living)}

    with shard(servers, sinks[by_the_dead], by_the_dead) as dead, shard(servers, sinks[by_the_living], by_the_living):
        dead.kill()
        dead.wait()
        plain = Producer({"bootstrap.servers": servers, "log_level": 0})
        for topic in sinks:
            plain.produce(topic, b"behind it")
        assert plain.flush(30) == 0
        assert committed(servers, by_the_dead) == []

        assert kafka_commands.transactions(["--json", *settings]) == 0
        told = {each["topic"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
        assert kafka_commands.transactions(settings) == 0
        text = capsys.readouterr().out
        assert kafka_commands.transactions(["--abort", *settings]) == 1
        ended = capsys.readouterr().out

        assert committed(servers, by_the_dead) == [b"behind it"]
        assert committed(servers, by_the_living) == committed(servers, foreign) == []
    somebody.abort_transaction(30)

    states = {topic: (told[topic]["state"], told[topic]["transactional_id"]) for topic in (*sinks, foreign)}
    assert states == {
        by_the_dead: ("dead", f"{sinks[by_the_dead]}.0"),
        by_the_living: ("lives", f"{sinks[by_the_living]}.0"),
        foreign: ("foreign", f"{foreign}-etl"),
    }
    row = told[by_the_dead]
    assert (row["stable"], row["waiting"], row["is_first"], row["timeout_ms"]) == (0, 2, True, 600_000)
    assert row["owner"] == f"sink {sinks[by_the_dead]}, shard 0"
    assert row["since_ms"] > 0 and row["producer_id"] >= 0
    assert f"{by_the_dead} partition 0: readers wait at offset 0, 2 before the end" in text
    assert f"abort --topic {foreign} --partition 0 --start-offset 0" in text
    assert f"ended: {sinks[by_the_dead]}.0\n" in ended
    assert f"left alone: {sinks[by_the_living]}.0: it is not proven dead" in ended
    assert f"left alone: {foreign}-etl: it is not proven dead" in ended
