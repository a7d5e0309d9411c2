"""SIGKILL of `publish` at every step of its protocol, started again: each row once, in order by key; and without it?"""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from local.broker import Cluster
from local.processes import wait_for
from producers.flights.events import TOPICS
from schemas.codec import Decoder
from schemas.registry import FileRegistry
from tests.faults.command import SECONDS, Command, kill
from tests.faults.oracle import read_all
from tests.kinds import of_a_kind

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

KEYS, ROWS, CHUNK = 50, 900, 300
PARTITIONS = 3
SCHEMA = """{"type": "record", "name": "Row", "fields":
[{"name": "key", "type": "string"}, {"name": "number", "type": "int"}]}"""
# The command, in transactions of so few rows that a small file has several; and the plain publisher, with a point. Read
# row by row, so that it is known how many rows a transaction has; or by columns.
PROGRAM = f"""
import sys
from conf.errors import exit_on_error
from jobs.connectors.exactly_once.fail_points import fail_point
from producers import cli
from producers.files import records, rows
from producers.kafka import pacing, publisher, transactional
records.BATCH_ROWS = pacing.MAX_BATCH = transactional.MAX_RECORDS = {CHUNK}
send = publisher.Publisher._send
def send_and_stop(self, batch):
    send(self, batch)
    fail_point("plain-sent", rows=self._handed_over.total())
publisher.Publisher._send = send_and_stop
"""
BY_ROWS, BY_COLUMNS = "records.FileRows._columns = lambda self, file: None", "rows.BLOCK_BYTES = 2_000"
RUN = "exit_on_error(lambda: cli.main(sys.argv[1:]))"
CLAIM, SECOND = -1, 2
STEPS = ["before-fence", "after-fence", "after-barrier", "mid-produce", "after-flush", "after-commit"]
# Without a fence, with nothing sent, with a part of a transaction, and with all of it.
PROVEN_BY = [(step, SECOND) for step in ("mid-produce", "after-commit")]
CASES = [(step, number) for number in (CLAIM, SECOND) for step in STEPS if (step, number) != ("mid-produce", CLAIM)]


@dataclass
class Publication(Command):
    """A file of numbered rows, on its way into a topic."""

    topic: str
    exactly_once: bool = True
    by_columns: bool = False

    def __post_init__(self) -> None:
        rows = [f"k{number % KEYS},{number}\n" for number in range(ROWS)]
        rows[100:100] = rows[ROWS // 2 : ROWS // 2] = ["bad\n"]
        (self.folder / "rows.csv").write_text("key,number\n" + "".join(rows))
        (self.folder / "rows.avsc").write_text(SCHEMA)

    @property
    def program(self) -> str:
        return "\n".join([PROGRAM, BY_COLUMNS if self.by_columns else BY_ROWS, RUN])

    @property
    def sink(self) -> str:
        return f"tidemark.publish.{self.topic}.rows" if self.exactly_once else ""

    @property
    def rejects(self) -> Path:
        return self.folder / "rejects.jsonl"

    @property
    def argv(self) -> list[str]:
        file = ["file", str(self.folder / "rows.csv"), "--topic", self.topic, "--key", "key"]
        options = ["--schema", str(self.folder / "rows.avsc"), "--rejects", str(self.rejects)]
        return [*file, *options, *(["--exactly-once"] if self.exactly_once else [])]

    def numbers(self) -> dict[str, list[int]]:
        """Key -> its numbers, in the order in which committed readers see them."""
        decode = Decoder(FileRegistry(self.folder / "registry"))
        records, stuck = read_all(self.servers, self.topic, committed=True)
        assert not stuck
        found: dict[str, list[int]] = {}
        for key, value, _ in records:
            found.setdefault(key.decode(), []).append(decode(value)["number"])
        return found


class Flights(Publication):
    """The flights of a day, in transactions of few events."""

    def __post_init__(self) -> None:
        pass  # it needs no file

    @property
    def sink(self) -> str:
        return "tidemark.publish.flights.2013-03-10_2013-03-11"

    @property
    def argv(self) -> list[str]:
        return ["flights", "--from", "2013-03-10", "--to", "2013-03-11", "--exactly-once"]


DAY = {"planes": 3322, "departures": 903, "arrivals": 902, "cancellations": 5, "weather": 69}
PublicationOf = Callable[..., Publication]
EXPECTED = {f"k{key}": list(range(key, ROWS, KEYS)) for key in range(KEYS)}


@pytest.fixture
def publication(tmp_path: Path, broker: Cluster, new_topic: Callable[[int], str]) -> Iterator[PublicationOf]:
    """Makes publications on the one-node broker; ends what still runs in them."""
    made: list[Publication] = []

    def make(exactly_once: bool = True, by_columns: bool = False) -> Publication:
        made.append(Publication(tmp_path, broker.bootstrap_servers, new_topic(PARTITIONS), exactly_once, by_columns))
        return made[-1]

    yield make
    for own in made:
        own.close()


def counted(numbers: dict[str, list[int]]) -> Counter[int]:
    return Counter(number for each in numbers.values() for number in each)


@pytest.mark.parametrize(("step", "number"), of_a_kind(CASES, PROVEN_BY))
def test_a_publisher_killed_at_any_step_and_started_again_publishes_each_row_once(
    step: str, number: int, publication: PublicationOf
) -> None:
    own = publication()
    kill(own.held_at(f"publish-{step}", f'{{"transaction": {number}}}'))
    said = own.finish()
    committed = {CLAIM: 0, SECOND: CHUNK}[number] + (CHUNK if (step, number) == ("after-commit", SECOND) else 0)
    assert (f"{committed} delivered" in said) == bool(committed), said
    assert own.numbers() == EXPECTED
    assert len(own.rejects.read_text().splitlines()) == 2
    assert "nothing to do" in own.finish()
    assert own.numbers() == EXPECTED


@pytest.mark.parametrize("by_columns", [False, True])
def test_a_publisher_killed_again_and_again_publishes_each_row_once(
    by_columns: bool, publication: PublicationOf
) -> None:
    own = publication(by_columns=by_columns)
    for step in STEPS:
        kill(own.held_at(f"publish-{step}", '{"transaction": -1}' if step != "mid-produce" else "{}"))
    own.finish()
    assert own.numbers() == EXPECTED


@pytest.mark.exhaustive
def test_flights_killed_between_transactions_and_within_one_are_there_once(tmp_path: Path) -> None:
    with Cluster(tmp_path / "broker", tmp_path / "logs", attached=True) as cluster:
        servers = cluster.bootstrap_servers
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        for future in admin.create_topics([NewTopic(name, PARTITIONS) for name in TOPICS]).values():
            future.result()
        (tmp_path / "flights").mkdir()
        own = Flights(tmp_path / "flights", servers, "flights")
        for point, number in (("publish-mid-produce", 2), ("publish-after-commit", 6), ("publish-after-flush", 9)):
            kill(own.held_at(point, f'{{"transaction": {number}}}'))
        assert "exactly once: 2013-03-10_2013-03-11 goes on after event " in own.finish()
        found = {topic: read_all(servers, topic, committed=True)[0] for topic in TOPICS}
    assert {topic: len(records) for topic, records in found.items()} == DAY
    assert {topic: len(set(records)) for topic, records in found.items()} == DAY


@pytest.mark.parametrize("number", of_a_kind([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], [signal.SIGTERM]))
def test_a_signal_in_a_transaction_commits_it_and_the_counts_are_the_truth(
    number: int, publication: PublicationOf
) -> None:
    own = publication()
    process = own.held_at("publish-mid-produce", f'{{"transaction": {SECOND}}}')
    process.send_signal(number)
    (own.points / "publish-mid-produce.release").touch()
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err.splitlines()[-1]) == (
        128 + number,
        "interrupted: what comes after that was not published",
    )
    assert counted(own.numbers()).total() == 2 * CHUNK
    assert f"published {2 * CHUNK} events in " in out
    own.finish()
    assert own.numbers() == EXPECTED


def test_a_publisher_that_was_thought_dead_is_fenced(publication: PublicationOf) -> None:
    own = publication()
    older = own.held_at("publish-after-flush", f'{{"transaction": {SECOND}}}')
    own.finish()
    (own.points / "publish-after-flush.release").touch()
    out, err = older.communicate(timeout=SECONDS)
    assert older.returncode == 1
    assert err.splitlines()[-1].startswith("error: FENCED: another publisher has taken over as rows")
    assert f"published {CHUNK} events in " in out
    assert own.numbers() == EXPECTED


@pytest.mark.exhaustive
def test_without_the_option_the_same_kill_doubles_rows(publication: PublicationOf) -> None:
    own = publication(exactly_once=False)
    process = own.held_at("plain-sent", f'{{"rows": {2 * CHUNK}}}')
    wait_for(lambda: counted(own.numbers()).total() > 0, SECONDS, TimeoutError)
    kill(process)
    own.rejects.unlink(missing_ok=True)
    own.finish()
    counts = counted(own.numbers())
    assert max(counts.values()) == 2, "the control shows nothing"
