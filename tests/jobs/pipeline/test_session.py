"""What signals do to a script that runs a session; whole jobs are stopped in `tests/test_spark_submit.py`."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from conf.errors import Interrupted
from jobs.pipeline.session import SAME_SIGNAL_SECONDS, SIGNALS, _Stopping


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Is set where all was to end at once; the process's own handlers are put back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    at_once = threading.Event()
    monkeypatch.setattr(_Stopping, "_end_at_once", lambda self: at_once.set())
    yield at_once
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_raises_its_echo_does_nothing_and_the_next_ends_all(
    number: int, ended: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("jobs.pipeline.session.time.monotonic", lambda: now)
    stopping = _Stopping(25)
    with pytest.raises(Interrupted) as raised:
        os.kill(os.getpid(), number)
    assert (raised.value.number, stopping.number) == (number, number)
    os.kill(os.getpid(), number)
    assert not ended.is_set()
    now += SAME_SIGNAL_SECONDS + 0.1
    os.kill(os.getpid(), number)
    assert ended.wait(5)


def test_a_stop_that_does_not_end_is_ended(ended: threading.Event) -> None:
    _Stopping(within=0.01)
    with pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.wait(5)
