"""The work queue: each record is handed to one worker at a time until somebody resolves it, and is gone then."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conf.errors import TidemarkError
from producers.kafka.preflight import connect
from producers.quarantine import worker
from producers.quarantine.records import OF, Rejected
from producers.quarantine.work_queue import queue_topic, status
from producers.quarantine.worker import Resolution, Resolve, Worker, ask_command, ask_person, decide_always
from schemas.registry import FileRegistry
from tests.producers.quarantine.ward import Ward, headers, rejected

pytestmark = pytest.mark.slow

ACCEPT = Resolution("accept")
RELEASE = Resolution("release")
MEET_SECONDS = 60.0
WORK_SECONDS = 90.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PAUSE_SECONDS", 0.0)


def work(ward: Ward, count: int, *resolves: Resolve) -> None:
    """A worker for each of `resolves`, at the same time, until `count` deliveries are resolved."""
    until = time.monotonic() + WORK_SECONDS
    workers: list[Worker] = []

    def is_enough() -> bool:
        return sum(each.resolved.total() for each in workers) >= count or time.monotonic() > until

    for number, resolve in enumerate(resolves):
        quiet = lambda line: None  # noqa: E731
        workers.append(Worker(ward.settings, f"worker-{number}", resolve, stopped=is_enough, show=quiet))
    with ThreadPoolExecutor(len(workers)) as pool:
        for done in [pool.submit(each.work) for each in workers]:
            done.result()


def require_only_new(ward: Ward) -> None:
    """A record that is queued now is handed out, and none of those before it."""
    ward.reject({"offset": 99})
    ward.run("queue", "fill", f"{ward.topic}/0/99")
    seen: list[tuple[Rejected, int]] = []
    work(ward, 1, accepting(seen))
    assert [row.at.offset for row, _ in seen] == [99]


def accepting(seen: list[tuple[Rejected, int]]) -> Resolve:
    """Accepts, and remembers in `seen`."""

    def resolve(row: Rejected, delivery: int) -> Resolution:
        seen.append((row, delivery))
        return ACCEPT

    return resolve


def filled(ward: Ward, count: int, **more: Any) -> None:
    ward.reject(*({"offset": offset, **more} for offset in range(count)))
    assert ward.run("queue", "fill", "--all") == 0


def resolutions(ward: Ward) -> list[tuple[int, str, int]]:
    ward.run("audit")
    return sorted((row["offset"], row["resolution"], row["delivery"]) for row in ward.table("resolutions"))


def statuses(ward: Ward) -> dict[str, int]:
    return status(ward.settings, connect(ward.settings.kafka))


def test_records_are_queued_once_with_all_that_is_known_of_them(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    filled(ward, 2, headers=[{"key": "trace", "value": None}], rule="range")
    ward.reject({"offset": 2})
    capsys.readouterr()
    ward.run("queue", "fill", "--all")
    assert capsys.readouterr().out == "queued 1, left out 2 that were queued before\n"
    records = ward.records(queue_topic(ward.settings))
    assert [record.key() for record in records] == [f"{ward.topic}/0/{offset}".encode() for offset in range(3)]
    seen: list[tuple[Rejected, int]] = []
    work(ward, 1, accepting(seen))
    first = seen[0][0]
    assert (first.headers, first.rule, first.value) == ((("trace", None),), "range", b"v")


def test_two_workers_share_one_partition_and_each_accepted_record_is_resolved_once(ward: Ward) -> None:
    filled(ward, 12)
    both, seen = threading.Barrier(2), []
    met = [threading.Event(), threading.Event()]

    def of(number: int) -> Resolve:
        def resolve(row: Rejected, delivery: int) -> Resolution:
            if not met[number].is_set():
                met[number].set()
                both.wait(MEET_SECONDS)  # each holds a record while the other does
            seen.append((row.at.offset, delivery))
            return ACCEPT

        return resolve

    work(ward, 12, of(0), of(1))
    assert sorted(seen) == [(offset, 1) for offset in range(12)]
    assert resolutions(ward) == [(offset, "accept", 1) for offset in range(12)]
    assert {row["run"] for row in ward.table("resolutions")} == {"worker-0", "worker-1"}
    assert statuses(ward) == {"queued": 12, "accepted": 12, "rejected": 0, "given up": 0, "open": 0}
    require_only_new(ward)


def test_a_released_record_comes_again_and_a_rejected_one_does_not(ward: Ward) -> None:
    filled(ward, 2)
    seen = []

    def resolve(row: Rejected, delivery: int) -> Resolution:
        seen.append((row.at.offset, delivery))
        if row.at.offset == 0:
            return Resolution("reject", "no use")
        return RELEASE if delivery < 3 else ACCEPT

    work(ward, 4, resolve)
    assert sorted(seen) == [(0, 1), (1, 1), (1, 2), (1, 3)]
    assert resolutions(ward) == [(0, "reject", 1), (1, "accept", 3), (1, "release", 1), (1, "release", 2)]
    require_only_new(ward)


def test_what_is_released_too_often_is_given_up_and_can_be_queued_anew(ward: Ward) -> None:
    filled(ward, 1)
    work(ward, 5, lambda row, delivery: RELEASE)
    assert resolutions(ward)[0] == (0, "given up", 5)
    assert statuses(ward) == {"queued": 1, "accepted": 0, "rejected": 0, "given up": 1, "open": 0}
    for _ in range(2):
        ward.run("queue", "fill", "--all")
    assert statuses(ward) == {"queued": 1, "accepted": 0, "rejected": 0, "given up": 0, "open": 1}
    seen: list[tuple[Rejected, int]] = []
    work(ward, 1, accepting(seen))
    assert [delivery for _, delivery in seen] == [1]


def test_an_accepted_record_can_be_redriven_on_the_way_once(ward: Ward) -> None:
    filled(ward, 3)
    ward.run("redrive", f"{ward.topic}/0/1")
    redrive = decide_always("accept", redrive=True)
    work(ward, 3, redrive, redrive)
    ward.run("redrive", "--all")
    assert sorted(headers(record)[OF] for record in ward.records()) == [
        f"{ward.topic}/0/{offset}".encode() for offset in range(3)
    ]
    assert statuses(ward)["accepted"] == 3


def test_a_worker_whose_resolving_fails_gives_its_record_back(ward: Ward) -> None:
    filled(ward, 1)

    def fail(row: Rejected, delivery: int) -> Resolution:
        raise TidemarkError("BROKEN", "it is broken", "mend it")

    with pytest.raises(TidemarkError, match="BROKEN"):
        work(ward, 1, fail)
    seen: list[tuple[Rejected, int]] = []
    work(ward, 1, accepting(seen))
    assert [delivery for _, delivery in seen] == [2]


def test_a_command_decides_by_its_exit_code(ward: Ward, capsys: pytest.CaptureFixture[str]) -> None:
    program = "grep -q '\"offset\": 0' && exit 0; echo not mine; exit 3"
    filled(ward, 2)
    assert (
        ward.run("queue", "work", "--exec", f'sh -c "{program.replace(chr(34), chr(92) + chr(34))}"', "--limit", "2")
        == 0
    )
    assert capsys.readouterr().out.splitlines()[-3:] == [
        f"accept    {ward.topic}/0/0  BAD_FRAMING  delivery 1  exit code 0",
        f"reject    {ward.topic}/0/1  BAD_FRAMING  delivery 1  exit code 3 not mine",
        "resolved 2: accept 1, reject 1",
    ]
    assert [row["note"] for row in ward.table("resolutions") if row["offset"] == 1] == ["exit code 3 not mine"]


@pytest.mark.parametrize(
    ("program", "kind"),
    [("exit 0", "accept"), ("exit 75", "release"), ("exit 1", "reject"), ("kill -9 $$", "release")],
)
def test_exit_codes_stand_for_resolutions(program: str, kind: str) -> None:
    assert ask_command(f"sh -c '{program}'", redrive=False)(rejected("t", 0), 1).kind == kind


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["x", "a"], Resolution("accept", "by hand")),
        (["d"], Resolution("accept", "by hand", redrive=True)),
        (["r"], Resolution("release", "by hand")),
        (["j"], Resolution("reject", "by hand")),
        ([], Resolution("release", "not decided", stop=True)),
    ],
)
def test_a_person_is_shown_the_record_and_asked(answers: Sequence[str], expected: Resolution, ward: Ward) -> None:
    told: list[str] = []
    left = iter(answers)

    def ask(question: str) -> str:
        for answer in left:
            return answer
        raise EOFError

    found = ask_person(FileRegistry(ward.folder / "registry"), ask, told.append)(rejected("t", 7, value=b"{}"), 2)
    assert found == expected
    assert "shorter than the 5-byte header" in "\n".join(told)
