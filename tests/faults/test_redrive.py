"""SIGKILL of `quarantine redrive` and of a worker at the queue, at every step; started again: each record once."""

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from local.broker import Cluster
from producers.quarantine.records import OF
from tests.faults.command import SECONDS, Command, kill
from tests.kinds import of_a_kind
from tests.producers.quarantine.ward import Ward, headers

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

CHUNK, RECORDS = 10, 30
PROGRAM = f"""
import sys
from conf.errors import exit_on_error
from producers.quarantine import cli, redrive, worker
redrive.MOST_RECORDS = {CHUNK}
exit_on_error(lambda: cli.main(sys.argv[1:]))
"""
STEPS = ["before-fence", "after-fence", "after-barrier", "mid-produce", "after-flush", "after-commit"]
FIRST, SECOND = 1, 2
KILLS = [(step, number) for step in STEPS for number in (FIRST, SECOND)]
# Without a fence, with nothing sent, with a part of a transaction, and with all of it.
PROVEN_BY = ["mid-produce", "after-commit"]
LOCK_SECONDS = 2


@dataclass
class Quarantined(Command):
    """Records in quarantine, and a command on them."""

    ward: Ward
    command: list[str] = field(default_factory=lambda: ["redrive", "--all"])

    @property
    def program(self) -> str:
        return PROGRAM

    @property
    def argv(self) -> list[str]:
        return [*self.command, *(part for each in self.ward.sets for part in ("--set", each))]

    @property
    def sink(self) -> str:
        if self.command[0] == "redrive":
            return f"{self.ward.application}.redrive.{self.ward.topic}"
        return f"{self.ward.application}.quarantine.{self.command[1]}"

    def redriven(self) -> Counter[str]:
        """Original coordinates by how often committed readers find the record again."""
        return Counter(headers(record)[OF].decode() for record in self.ward.records())

    @property
    def expected(self) -> dict[str, int]:
        return {f"{self.ward.topic}/0/{offset}": 1 for offset in range(RECORDS)}

    def audited(self) -> list[int]:
        """The original offsets in the table `redrives`."""
        return sorted(row["offset"] for row in self.ward.table("redrives"))


@pytest.fixture
def quarantined(tmp_path: Path, broker: Cluster, new_topic: Callable[[int], str]) -> Iterator[Quarantined]:
    ward = Ward(tmp_path, broker.bootstrap_servers, new_topic(1))
    ward.reject(*({"offset": offset, "value": b"%d" % offset} for offset in range(RECORDS)))
    own = Quarantined(tmp_path, broker.bootstrap_servers, ward)
    yield own
    own.close()


@pytest.mark.parametrize(("step", "number"), of_a_kind(KILLS, [(step, SECOND) for step in PROVEN_BY]))
def test_a_redrive_killed_at_any_step_and_started_again_sends_each_record_once(
    step: str, number: int, quarantined: Quarantined
) -> None:
    kill(quarantined.held_at(f"redrive-{step}", json.dumps({"transaction": number})))
    said = quarantined.finish()
    committed = CHUNK * (number - 1 + (step == "after-commit"))
    assert (f"left out {committed} that were redriven before" in said) == bool(committed), said
    assert quarantined.redriven() == quarantined.expected
    assert quarantined.audited() == list(range(RECORDS))
    assert f"left out {RECORDS} that were redriven before" in quarantined.finish()
    assert quarantined.redriven() == quarantined.expected
    assert quarantined.audited() == list(range(RECORDS))


def test_a_redrive_killed_again_and_again_sends_each_record_once(quarantined: Quarantined) -> None:
    for step in STEPS:
        kill(quarantined.held_at(f"redrive-{step}", "{}"))
    quarantined.finish()
    assert quarantined.redriven() == quarantined.expected
    assert quarantined.audited() == list(range(RECORDS))


def test_a_redrive_that_was_thought_dead_sends_nothing_twice(quarantined: Quarantined) -> None:
    older = quarantined.held_at("redrive-after-flush", json.dumps({"transaction": SECOND}))
    quarantined.finish()
    (quarantined.points / "redrive-after-flush.release").touch()
    out, err = older.communicate(timeout=SECONDS)
    assert older.returncode == 0, err
    assert f"left out {2 * CHUNK} that were redriven before" in out
    assert quarantined.redriven() == quarantined.expected


@pytest.mark.parametrize("number", of_a_kind([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], [signal.SIGTERM]))
def test_a_signal_in_a_transaction_commits_it_and_the_counts_are_the_truth(
    number: int, quarantined: Quarantined
) -> None:
    process = quarantined.held_at("redrive-mid-produce", json.dumps({"transaction": SECOND}))
    process.send_signal(number)
    (quarantined.points / "redrive-mid-produce.release").touch()
    out, err = process.communicate(timeout=SECONDS)
    last = "interrupted: what comes after that was not redriven"
    assert (process.returncode, err.splitlines()[-1]) == (128 + number, last)
    assert f"redriven {2 * CHUNK} events" in out
    assert quarantined.redriven().total() == len(quarantined.audited()) == 2 * CHUNK


def test_a_signal_to_a_worker_lets_it_settle_what_it_has_in_hand(quarantined: Quarantined) -> None:
    quarantined.ward.run("queue", "fill", "--all")
    quarantined.command = ["queue", "work", "--always", "reject"]
    process = quarantined.held_at("work-taken", "{}")
    process.send_signal(signal.SIGINT)
    (quarantined.points / "work-taken.release").touch()
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out.splitlines()[-1]) == (130, "resolved 1: reject 1"), err


@pytest.mark.parametrize("step", of_a_kind(STEPS, ["mid-produce"]))
def test_a_filling_killed_at_any_step_and_started_again_queues_each_record_once(
    step: str, quarantined: Quarantined
) -> None:
    quarantined.command = ["queue", "fill", "--all"]
    kill(quarantined.held_at(f"fill-{step}", "{}"))
    quarantined.finish()
    keys = [record.key() or b"" for record in quarantined.ward.records(f"{quarantined.ward.application}.quarantine")]
    assert sorted(keys) == sorted(key.encode() for key in quarantined.expected)


@pytest.mark.parametrize(("point", "resolved_by"), [("taken", "by option"), ("noted", "as resolved at delivery 1")])
def test_the_record_of_a_worker_that_was_killed_comes_back_when_its_lock_has_run_out(
    point: str, resolved_by: str, quarantined: Quarantined
) -> None:
    ward = quarantined.ward
    ward.run("queue", "fill", f"{ward.topic}/0/0")
    always = ["--always", "accept", "--redrive", "--limit", "1", "--lock", str(LOCK_SECONDS)]
    quarantined.command = ["queue", "work", *always]
    kill(quarantined.held_at(f"work-{point}", "{}"))
    quarantined.command[-1] = "60"  # a lock that outlasts the rest of the test
    said = quarantined.finish()
    assert f"accept    {ward.topic}/0/0  BAD_FRAMING  delivery 2  {resolved_by}" in said
    assert quarantined.redriven() == {f"{ward.topic}/0/0": 1}
    assert max((row["delivery"], row["resolution"]) for row in ward.table("resolutions")) == (2, "accept")


@pytest.mark.parametrize("step", of_a_kind(["after-barrier", "mid-produce", "after-commit"], ["mid-produce"]))
def test_what_a_worker_was_redriving_when_it_was_killed_is_sent_once_by_another_one(
    step: str, quarantined: Quarantined
) -> None:
    ward = quarantined.ward
    ward.run("queue", "fill", f"{ward.topic}/0/0")
    quarantined.command = ["redrive", "--all"]  # whose fail points those of the worker are too
    points = quarantined.points
    # The other one waits for the end of what is left open, longer than so short a lock: it has the record a third time.
    always = ["--always", "accept", "--redrive", "--lock", str(LOCK_SECONDS), "--idle", str(2 * LOCK_SECONDS)]
    quarantined.command = ["queue", "work", *always]
    kill(quarantined.held_at(f"redrive-{step}", "{}", points))
    assert f"accept    {ward.topic}/0/0  BAD_FRAMING  delivery " in quarantined.finish()
    assert quarantined.redriven() == {f"{ward.topic}/0/0": 1}


@pytest.mark.parametrize(("point", "expected"), [("taken", "accept"), ("noted", "expired")])
def test_a_worker_that_was_too_slow_learns_that_another_one_has_the_record(
    point: str, expected: str, quarantined: Quarantined
) -> None:
    ward = quarantined.ward
    ward.run("queue", "fill", f"{ward.topic}/0/0")
    quarantined.command = ["queue", "work", "--always", "reject", "--limit", "1", "--lock", str(LOCK_SECONDS)]
    slow = quarantined.held_at(f"work-{point}", "{}")
    quarantined.command[3], quarantined.command[-1] = "accept", "60"  # a lock that outlasts the rest of the test
    if point == "taken":
        assert "delivery 2  by option" in quarantined.finish()
    else:
        other = quarantined.held_at("work-taken", "{}")
    (quarantined.points / f"work-{point}.release").touch()
    out, err = slow.communicate(timeout=SECONDS)
    assert (slow.returncode, out.splitlines()[-1]) == (0, f"resolved 1: {expected} 1"), err
    if point == "noted":
        (quarantined.points / "work-taken.release").touch()
        assert "delivery 2  by option" in other.communicate(timeout=SECONDS)[0]
    ward.run("audit")
    found = sorted(ward.table("resolutions"), key=lambda row: (row["delivery"], row["at"]))
    assert (found[-1]["delivery"], found[-1]["resolution"]) == (2, "accept")
    assert {row["resolution"] for row in found if row["delivery"] == 1} - {"reject"} == {expected}
