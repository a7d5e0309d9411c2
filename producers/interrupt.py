"""Ctrl-C as a question, so that what is queued can still be flushed and counted."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Within its `with` block a SIGINT or SIGTERM is noted instead of fatal, and calling it answers whether one came.

    A second signal does what it always did. `signum` is 0 until the first. For the main thread only.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        return self.signum != 0

    def __enter__(self) -> Self:
        # What a shell or nohup told us to ignore stays ignored.
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
