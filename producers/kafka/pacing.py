"""Paces events, shows how fast they go out, and lets Ctrl-C end them in order."""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType, TracebackType
from typing import Any, Self, TextIO

import numpy as np
import numpy.typing as npt

from schemas.wire import LAST

# Large enough that vectorised encoding pays, small enough for the queue and for a quick Ctrl-C.
MAX_BATCH = 20_000
# Paced events go out in batches of what has fallen due in this time.
TICK_SECONDS = 0.05
# Often enough to look alive, seldom enough to cost nothing.
SECONDS_BETWEEN = 0.2
CLEAR = "\r\x1b[K"
SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Pace:
    """`speed`: seconds of event time per second; `rate`: events per second; None for no limit."""

    speed: float | None = None
    rate: float | None = None

    def due(self, position_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.float64] | None:
        """Return when each event is due, in seconds after the first; None where nothing holds them back."""
        limits = []
        if self.speed:
            limits.append((position_ms - position_ms[:1]) / 1000 / self.speed)
        if self.rate:
            limits.append(np.arange(len(position_ms)) / self.rate)
        return np.maximum.reduce(limits) if limits else None


class Pacer:
    """Cuts a sequence of events into batches, each when it is due."""

    def __init__(
        self,
        count: int,
        due: npt.NDArray[np.float64] | None = None,
        wait: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count, self._due = count, due
        self._wait, self._clock = wait, clock
        self._started: float | None = None

    def end_of_batch(self, start: int, stopped: Callable[[], bool]) -> int:
        """Wait until event `start` is due; the first event after those that are. `start` itself when stopped."""
        end = min(start + MAX_BATCH, self._count)
        if self._due is None:
            return end
        if self._started is None:
            self._started = self._clock()
        while not stopped():
            elapsed = self._clock() - self._started
            ready = int(np.searchsorted(self._due, elapsed, side="right"))
            if ready > start:
                return min(ready, end)
            self._wait(min(max(self._due[start] - elapsed, TICK_SECONDS), 4 * TICK_SECONDS))
        return start


class Progress:
    """Shows events sent, events per second and the event time reached."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._started = self._shown = time.monotonic()

    def show(self, events: int, event_time_ms: int) -> None:
        """Redraw the line, at most five times a second; `event_time_ms` 0 means unknown."""
        rate = events / max(time.monotonic() - self._started, 0.001)
        line = f"{events:,} events  {rate:,.0f}/s"
        if 0 < event_time_ms <= LAST:
            line += f"  event time {datetime.fromtimestamp(event_time_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
        self._draw(line)

    def show_waiting(self, queued: int) -> None:
        """Say that nothing goes on because `queued` events are not acknowledged yet."""
        self._draw(f"waiting for the broker to acknowledge {queued:,} events")

    def _draw(self, line: str) -> None:
        now = time.monotonic()
        if self._terminal and now - self._shown >= SECONDS_BETWEEN:
            self._shown = now
            self._write(CLEAR + line)

    def clear(self) -> None:
        """Take the line away, so that the summary stands alone."""
        if self._terminal:
            self._write(CLEAR)

    def _write(self, text: str) -> None:
        # A terminal that is closed takes no more of it, and what is under way ends in order.
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


class Interrupt:
    """Within its `with` block a signal to end (see SIGNALS) is noted instead of fatal; calling it answers if one came.

    A second signal does what it always did. `signum` is 0 until the first. For the main thread only.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.signum != 0

    def exit_code(self, line: str) -> int:
        """Print `line` on stderr where a signal came, and return 128 and its number; 0 where none did."""
        if not self.signum:
            return 0
        with suppress(OSError):  # the terminal may be gone, whose end it was
            print(line, file=sys.stderr)
        return 128 + self.signum

    def __enter__(self) -> Self:
        # What a shell or nohup has us ignore stays ignored.
        heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, signum: int, _: FrameType | None) -> None:
        self.signum = signum
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
