"""How long a registry that does not answer is waited for, and what is said meanwhile."""

import sys
import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from conf.errors import TidemarkError

Answer = TypeVar("Answer")

COMMAND_SECONDS = 30.0  # a registry that is restarted is back by then
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
LINE_SECONDS = 30.0
REMEDY = "start it, or correct registry.url; nothing was lost: run the same again"


class UnavailableError(Exception):
    """A registry that cannot answer now, in a few words."""


class Patience:
    """Asks again until there is an answer.

    Args:
        seconds: how long at most.
        once_answered: without a bound, once this registry has answered: it is the right address, and will be back.
        ending: ends every wait when it is set.
    """

    def __init__(
        self, seconds: float = COMMAND_SECONDS, once_answered: bool = False, ending: Event | None = None
    ) -> None:
        self._seconds, self._once_answered = seconds, once_answered
        self._ending = ending or Event()
        self.answered = False

    def ask(self, place: str, what: str, ask: Callable[[], Answer]) -> Answer:
        """What `ask` returns; it raises `UnavailableError` as long as there is no answer.

        Raises:
            TidemarkError: REGISTRY_UNAVAILABLE, with `place` and `what` was asked.
        """
        began, pause, told = time.monotonic(), FIRST_PAUSE_SECONDS, None
        while True:
            try:
                answer = ask()
            except UnavailableError as exc:
                waited = time.monotonic() - began
                self._require_more_time(place, what, exc, waited)
                if told is None or waited - told >= LINE_SECONDS:
                    _tell(f"registry {place} does not answer ({exc}): waiting for {what}, {waited:.0f} s so far")
                    told = waited
                self._ending.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            if told is not None:
                _tell(f"registry {place} answers again after {time.monotonic() - began:.0f} s")
            self.answered = True
            return answer

    def _require_more_time(self, place: str, what: str, exc: UnavailableError, waited: float) -> None:
        unbounded = self._once_answered and self.answered
        if self._ending.is_set() or (waited >= self._seconds and not unbounded):
            message = f"registry {place} did not answer for {waited:.0f} s ({exc}), asked for {what}"
            raise TidemarkError("REGISTRY_UNAVAILABLE", message, REMEDY) from exc


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
