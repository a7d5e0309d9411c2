"""One line that moves on a terminal, and nothing at all anywhere else."""

import sys
import time
from datetime import UTC, datetime
from typing import TextIO

# Often enough to look alive, seldom enough to cost nothing.
SECONDS_BETWEEN = 0.2
CLEAR = "\r\x1b[K"


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
        if event_time_ms:
            line += f"  event time {datetime.fromtimestamp(event_time_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
        self._draw(line)

    def show_waiting(self, queued: int) -> None:
        """Say that nothing goes on because `queued` events are not acknowledged yet."""
        self._draw(f"waiting for the broker to acknowledge {queued:,} events")

    def _draw(self, line: str) -> None:
        now = time.monotonic()
        if self._terminal and now - self._shown >= SECONDS_BETWEEN:
            self._shown = now
            self._stream.write(CLEAR + line)
            self._stream.flush()

    def clear(self) -> None:
        """Take the line away, so that the summary stands alone."""
        if self._terminal:
            self._stream.write(CLEAR)
            self._stream.flush()
