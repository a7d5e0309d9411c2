"""The publisher's transactions against a real broker: each row once, whoever is stopped, fenced or refused."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from conf.errors import TidemarkError
from conf.settings import Settings, load
from local.broker import Cluster
from local.processes import wait_for
from producers.files import records as files_records
from producers.files import rows as file_rows
from producers.files.publish import publish_files
from producers.files.rejects import RejectLimit
from producers.kafka import transactional
from producers.kafka.pacing import Interrupt
from producers.kafka.publisher import Batch
from producers.kafka.transactional import TransactionalPublisher, TransactionSender
from tests.faults.oracle import read_all
from tests.producers.desk import HEADER, Desk

FACTS = {"contents": "abc"}
ROWS = [f"{number},1.50,2013-01-01T00:00:00Z,x\n" for number in range(60)]


@pytest.fixture
def settings(broker: Cluster) -> Settings:
    return load("local", [f"kafka.bootstrap_servers={broker.bootstrap_servers}"])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some ten rows make a transaction; an interrupt is asked about after each batch, not while one is sent."""
    monkeypatch.setattr(transactional.Deadline, "check", lambda self, left: None)
    monkeypatch.setattr(files_records, "BATCH_ROWS", 10)
    monkeypatch.setattr(file_rows, "BLOCK_BYTES", 300)
    monkeypatch.setattr(transactional, "MAX_RECORDS", 10)


class StopAfter(Interrupt):
    """A Ctrl-C once it was asked about for so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def __call__(self) -> bool:
        self._left -= 1
        return self._left < 0


def publisher(settings: Settings, topic: str, name: str = "name") -> TransactionalPublisher:
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers, "log_level": 0})
    # The broker answers that a topic is created a little before it lists it.
    wait_for(lambda: topic in admin.list_topics(timeout=10).topics, 30, TimeoutError)
    return TransactionalPublisher(settings, topic, name, [topic])


def batch(topic: str, numbers: range) -> Batch:
    count = len(numbers)
    return Batch([topic] * count, [b"%d" % number for number in numbers], ["key"] * count, [0] * count)


def values(settings: Settings, topic: str, committed: bool = True) -> list[int]:
    records, stuck = read_all(settings.kafka.bootstrap_servers, topic, committed)
    assert not stuck
    return [int(value) for _, value, _ in records]


def keys(desk: Desk) -> list[int]:
    """The rows that committed readers see."""
    records, stuck = read_all(desk.servers, desk.topic, committed=True)
    assert not stuck
    return [int(key) for key, _, _ in records]


@pytest.mark.usefixtures("small")
def test_a_run_that_was_stopped_goes_on_where_it_ended(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    path = desk.write("in.csv", HEADER + "".join(ROWS))
    stopped = desk.publish(path, exactly_once="in", interrupt=StopAfter(2))
    assert stopped.interrupted
    first = stopped.delivered_count
    assert 0 < first < 60
    assert keys(desk) == list(range(first))
    capsys.readouterr()
    assert desk.publish(path, exactly_once="in").delivered == {desk.topic: 60 - first}
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"exactly once: in goes on after row {first}: {first} delivered by earlier runs",
        f"reading {path} by columns",
        "read 60 rows = 60 accepted + 0 rejected",
    ]
    assert keys(desk) == list(range(60))


def test_a_run_of_what_is_complete_publishes_nothing(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    path = desk.write("in.csv", HEADER + "".join(ROWS))
    desk.publish(path, exactly_once="in")
    capsys.readouterr()
    again = desk.publish(path, exactly_once="in")
    assert (again.delivered, again.complete) == ({}, True)
    line = "exactly once: in is complete since an earlier run, 60 rows (60 delivered): nothing to do\n"
    assert capsys.readouterr().out == line
    assert keys(desk) == list(range(60))


def test_another_input_needs_another_name(desk: Desk) -> None:
    desk.publish(desk.write("in.csv", HEADER + ROWS[0]), exactly_once="in")
    path = desk.write("in.csv", HEADER + ROWS[1])
    with pytest.raises(TidemarkError, match="INPUT_CHANGED: in was begun with other contents"):
        desk.publish(path, exactly_once="in")
    desk.publish(path, exactly_once="other")
    assert keys(desk) == [0, 1]


@pytest.mark.usefixtures("small")
def test_rejects_stand_once_in_their_file_whatever_a_killed_run_has_left_there(desk: Desk) -> None:
    rows = [*ROWS[:15], "bad\n", *ROWS[15:35], "worse\n", *ROWS[35:]]
    path = desk.write("in.csv", HEADER + "".join(rows))
    desk.publish(path, exactly_once="in", interrupt=StopAfter(1))
    committed = desk.rejected()
    with desk.rejects_path.open("a") as file:
        file.write(json.dumps({"file": "in.csv", "line": 38, "reason": "not committed", "raw": ""}) + '\n{"file": "i')
    report = desk.publish(path, exactly_once="in")
    assert report.complete
    assert [line for line, _, _ in committed] == [17]
    assert [(line, raw) for line, _, raw in desk.rejected()] == [(17, "bad"), (38, "worse")]
    assert keys(desk) == list(range(60))


def test_rejects_never_overwrite_a_file_of_somebody_else(desk: Desk) -> None:
    desk.rejects_path.write_text("precious\n")
    path = desk.write("in.csv", HEADER + "bad\n" + ROWS[0])
    for _ in range(2):
        with pytest.raises(TidemarkError, match="NO_REJECT_FILE"):
            desk.publish(path, exactly_once="in")
    assert desk.rejects_path.read_text() == "precious\n"


@pytest.mark.usefixtures("small")
def test_too_many_rejects_stop_the_run_and_the_next_one_goes_on_with_a_higher_limit(desk: Desk) -> None:
    path = desk.write("in.csv", HEADER + "".join(ROWS[:15]) + "bad\n" * 3 + "".join(ROWS[15:]))
    for _ in range(2):
        report = desk.publish(path, exactly_once="in", limit=RejectLimit(share=None, count=1))
        with pytest.raises(TidemarkError, match="TOO_MANY_REJECTS"):
            report.require_complete()
    assert keys(desk) == list(range(15))
    assert desk.publish(path, exactly_once="in", limit=RejectLimit(share=None)).complete
    assert keys(desk) == list(range(60))
    assert [line for line, _, _ in desk.rejected()] == [17, 18, 19]


def test_what_the_broker_refuses_aborts_its_transaction_and_is_named(
    settings: Settings, new_topic: Callable[[int], str], broker: Cluster
) -> None:
    topic = f"{new_topic(1)}-compacted"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(topic, 1, 1, config={"cleanup.policy": "compact"})])[topic].result()
    own = publisher(settings, topic)
    own.begin(FACTS)
    report = own.publish([batch(topic, range(10)), Batch([topic], [b"10"], [None], [0])])
    with pytest.raises(TidemarkError, match=r"DELIVERY_FAILED: .*name a key field"):
        report.require_complete()
    assert report.delivered == {}
    assert values(settings, topic) == []


def test_a_record_that_the_client_refuses_aborts_its_transaction_too(
    settings: Settings, new_topic: Callable[[int], str]
) -> None:
    topic = new_topic(1)
    own = publisher(settings, topic)
    own.begin(FACTS)
    report = own.publish([batch(topic, range(10)), Batch([topic], [b"x" * 2_000_000], ["key"], [0])])
    with pytest.raises(TidemarkError, match=r"RECORD_TOO_LARGE: name: .*key 'key' is 2,000,0.*takes 1,048,588"):
        report.require_complete()
    assert values(settings, topic) == []


@pytest.mark.usefixtures("small")
def test_of_two_publishers_the_older_one_is_fenced(settings: Settings, new_topic: Callable[[int], str]) -> None:
    topic = new_topic(1)
    older, newer = publisher(settings, topic), publisher(settings, topic)
    older.begin(FACTS)

    def overtaken() -> Iterator[Batch]:
        yield batch(topic, range(10))
        assert newer.begin(FACTS).read == 10
        yield batch(topic, range(10, 20))

    report = older.publish(overtaken())
    assert report.delivered == {topic: 10}
    with pytest.raises(TidemarkError, match="FENCED: another publisher has taken over as name"):
        report.require_complete()
    assert newer.publish([batch(topic, range(10, 20))]).complete
    assert values(settings, topic) == list(range(20))


def test_who_only_looked_in_under_the_name_costs_nothing(
    settings: Settings, new_topic: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = new_topic(1)
    own, other = publisher(settings, topic), publisher(settings, topic)
    own.begin(FACTS)
    send, fenced = TransactionSender.send, threading.Event()

    def disturbed(self: TransactionSender, producer: Producer, batches: Sequence[Batch]) -> None:
        if not fenced.is_set():
            fenced.set()
            with pytest.raises(TidemarkError, match="INPUT_CHANGED"):
                other.begin({"contents": "other"})
        send(self, producer, batches)

    monkeypatch.setattr(TransactionSender, "send", disturbed)
    assert own.publish([batch(topic, range(10))]).complete
    assert values(settings, topic) == list(range(10))


def test_a_commit_whose_answer_was_lost_is_found_by_the_next_barrier(
    settings: Settings, new_topic: Callable[[int], str], lose_an_answer: Callable[[], threading.Event]
) -> None:
    topic = new_topic(1)
    own = publisher(settings, topic)
    own.begin(FACTS)
    lost = lose_an_answer()
    report = own.publish([batch(topic, range(10))])
    assert lost.is_set()
    assert (report.complete, report.delivered) == (True, {topic: 10})
    assert values(settings, topic) == list(range(10))


def test_what_waits_for_its_pace_is_committed_in_time(
    settings: Settings, new_topic: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = new_topic(1)
    own = publisher(settings, topic)
    own.begin(FACTS)
    monkeypatch.setattr(transactional, "MAX_SECONDS", 0.3)
    seen: list[list[int]] = []

    def slow() -> Iterator[Batch]:
        yield batch(topic, range(5))
        for _ in range(4):
            own.wait(0.1)
        seen.append(values(settings, topic))
        yield batch(topic, range(5, 8))

    assert own.publish(slow()).complete
    assert seen == [list(range(5))]
    assert values(settings, topic) == list(range(8))


def test_the_topic_that_was_deleted_and_created_again_is_noticed(
    settings: Settings, new_topic: Callable[[int], str], broker: Cluster
) -> None:
    topic = new_topic(1)
    own = publisher(settings, topic)
    own.begin(FACTS)
    assert own.publish([batch(topic, range(3))]).complete
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    admin.delete_topics([topic])[topic].result()
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    with pytest.raises(TidemarkError, match="TOPIC_RECREATED"):
        publisher(settings, topic).begin(FACTS)


def test_each_name_has_a_reject_file_of_its_own(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_STATE", str(desk.folder))
    path = desk.write("in.csv", HEADER + "bad\n" + ROWS[0])
    for name in ("one", "two"):
        request = replace(desk.request(path, exactly_once=name), rejects=None)
        publish_files(desk.settings, request, Interrupt(), desk.folder)
    found = sorted(each.name for each in (desk.folder / "rejects").iterdir())
    assert [name.rpartition("-")[0] for name in found] == [f"{desk.topic}-one", f"{desk.topic}-two"]
