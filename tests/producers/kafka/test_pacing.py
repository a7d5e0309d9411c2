"""What ends a publication in order: a signal, and a terminal that is gone."""

import io
import os
import signal

import pytest

from producers.kafka.pacing import SIGNALS, Interrupt, Progress


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_does_what_it_always_did(number: int) -> None:
    before = signal.getsignal(number)
    interrupt = Interrupt()
    with interrupt:
        assert signal.getsignal(number) != before
        os.kill(os.getpid(), number)
        assert (interrupt(), interrupt.exit_code("")) == (True, 128 + number)
        assert signal.getsignal(number) == before


def test_under_nohup_the_end_of_the_terminal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interrupt = Interrupt()
        with interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupt()
    finally:
        signal.signal(signal.SIGHUP, before)


class GoneTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_progress_on_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress(GoneTerminal())
    monkeypatch.setattr("producers.kafka.pacing.SECONDS_BETWEEN", 0)
    progress.show(1, 0)
    progress.clear()
