"""How fast events go out: as fast as possible, by their event time, or at a rate."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Large enough that vectorised encoding pays, small enough for the queue and for a quick Ctrl-C.
MAX_BATCH = 20_000
# Paced events go out in batches of what has fallen due in this time.
TICK_SECONDS = 0.05


@dataclass(frozen=True)
class Pace:
    """`speed`: seconds of event time per second; `rate`: events per second; None for no limit."""

    speed: float | None = None
    rate: float | None = None

    def due(self, position_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.float64] | None:
        """When each event is due, in seconds after the first; None where nothing holds them back."""
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
