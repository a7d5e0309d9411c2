"""Answers that are read in the background: what is shown while that takes long, fails, or is done."""

import threading

from conf.errors import TidemarkError
from local.page.background import MOST_KEPT, Latest
from local.processes import wait_for


def test_what_takes_long_is_loading_and_then_there() -> None:
    latest, go = Latest(), threading.Event()
    assert latest.get("slow", go.wait, patience_seconds=0).is_loading
    go.set()
    wait_for(lambda: latest.get("slow", go.wait).content is True, 10, lambda: AssertionError("not read"))


def test_an_answer_is_kept_while_it_is_fresh() -> None:
    latest, read = Latest(), iter(range(9))
    assert [latest.get("a", lambda: next(read), fresh_seconds=60, patience_seconds=10).content for _ in "ab"] == [0, 0]
    assert latest.get("b", lambda: next(read), fresh_seconds=60, patience_seconds=10).content == 1


def test_an_old_answer_is_shown_while_a_newer_one_is_read() -> None:
    latest, begun, go = Latest(), threading.Event(), threading.Event()
    assert latest.get("a", lambda: "old", 0, 10).content == "old"

    def newer() -> str:
        begun.set()
        go.wait()
        return "new"

    def is_begun() -> bool:
        assert latest.get("a", newer, 0, 0).content == "old"
        return begun.is_set()

    wait_for(is_begun, 10, lambda: AssertionError("no newer one is read"))
    go.set()
    wait_for(lambda: latest.get("a", newer, 0, 1).content == "new", 10, lambda: AssertionError("not read"))


def test_errors_are_answers() -> None:
    def refuse() -> None:
        raise TidemarkError("NO_BROKER", "none runs", "start it")

    def fail() -> None:
        raise ValueError("a bug\nwith more lines")

    latest = Latest()
    told, unforeseen = (
        latest.get(name, read, patience_seconds=10).error for name, read in (("a", refuse), ("b", fail))
    )
    assert told is not None and told.code == "NO_BROKER"
    assert unforeseen is not None and unforeseen.message == "ValueError: a bug"


def test_old_answers_are_forgotten() -> None:
    latest, read = Latest(), iter(range(9999))
    for number in range(MOST_KEPT + 2):
        latest.get(str(number), lambda: next(read), 60, 10)
    assert latest.get("0", lambda: next(read), 60, 10).content > MOST_KEPT
