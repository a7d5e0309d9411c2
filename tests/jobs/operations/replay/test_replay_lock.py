"""The right to replay a job, between processes."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection

import pytest

from conf.errors import TidemarkError
from conf.settings import Settings, load
from jobs.operations.replay.replay_lock import ReplayLock
from local.broker import Cluster


@pytest.fixture
def settings(broker: Cluster, request: pytest.FixtureRequest) -> Settings:
    """With an application of the test's own."""
    application = f"ledger.application=lease-{abs(hash(request.node.name)) % 10_000}"
    return load("local", [f"kafka.bootstrap_servers={broker.bootstrap_servers}", application])


def hold(settings: Settings, told: Connection) -> None:
    """A process that holds the lease until it loses it or is killed, and says so."""
    with ReplayLock(settings, "job") as lease:
        told.send("held")
        while True:
            try:
                lease.require()
            except TidemarkError as error:
                told.send(error.code)
            told.poll(0.2)


def holder(settings: Settings) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """That process, once it has the lease."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(settings, theirs), daemon=True)
    process.start()
    assert ours.poll(60)
    assert ours.recv() == "held"
    return process, ours


def test_one_process_after_the_other_has_the_lease(settings: Settings) -> None:
    for _ in range(2):
        with ReplayLock(settings, "job") as lease, ReplayLock(settings, "another job"):
            lease.require()


@pytest.mark.slow
def test_two_cannot_have_it_and_the_second_is_told_who_has(settings: Settings) -> None:
    process, _ = holder(settings)
    try:
        with (
            pytest.raises(TidemarkError, match=rf"LOCKED: .* job job is running already \(.*-{process.pid}\)"),
            ReplayLock(settings, "job"),
        ):
            pass
    finally:
        process.kill()


@pytest.mark.faults
def test_one_that_was_killed_lets_go_once_its_session_has_ended(settings: Settings) -> None:
    process, _ = holder(settings)
    process.kill()
    process.join()
    with ReplayLock(settings, "job") as lease:
        lease.require()


@pytest.mark.faults
def test_one_that_was_silent_for_too_long_knows_that_it_lost_the_lease(settings: Settings) -> None:
    process, told = holder(settings)
    assert process.pid
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with ReplayLock(settings, "job") as lease:
            os.kill(process.pid, signal.SIGCONT)
            assert told.poll(60)
            assert told.recv() == "LEASE_LOST"
            lease.require()
    finally:
        process.kill()
