"""Keeps the newest answer of each view, and reads a newer one in the background: no view waits for a slow table."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from conf.errors import TidemarkError

FRESH_SECONDS = 2.0
REST = 4.0  # times as long as a reading took, before the next: all browsers together cost a fifth of a core
PATIENCE_SECONDS = 1.0
MOST_KEPT = 100  # answers; a selection has one of its own

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a view has to show: `content`, or the error that kept it from being read; neither, while it is first read.

    Args:
        at: when it was read.
    """

    content: Any = None
    error: TidemarkError | None = None
    at: datetime | None = None

    @property
    def is_loading(self) -> bool:
        return self.at is None


@dataclass
class _Entry:
    answer: Answer = field(default_factory=Answer)
    ended: float = 0.0
    seconds: float = 0.0
    reading: threading.Event | None = None


class Latest:
    """Answers by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def get(
        self,
        key: str,
        read: Callable[[], Any],
        fresh_seconds: float = FRESH_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> Answer:
        """Return the newest answer; one that is older than `fresh_seconds` is read anew, and waited for a moment."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            rest = max(fresh_seconds, REST * entry.seconds)
            if entry.reading is None and (entry.answer.is_loading or time.monotonic() - entry.ended >= rest):
                entry.reading = threading.Event()
                threading.Thread(target=self._read, args=(entry, read), name=f"page {key}", daemon=True).start()
            reading = entry.reading
            self._forget()
        if reading is not None:
            reading.wait(patience_seconds)
        return entry.answer

    def _read(self, entry: _Entry, read: Callable[[], Any]) -> None:
        began = time.monotonic()
        try:
            answer = Answer(read(), None, datetime.now(UTC))
        except TidemarkError as error:
            answer = Answer(None, error, datetime.now(UTC))
        except Exception as exc:
            logger.exception("a view of the page")
            # The libraries that read tables and topics have no error in common, and the page outlives them all.
            what = f"{type(exc).__name__}: {str(exc).partition(chr(10))[0]}"
            unforeseen = TidemarkError("NOT_READ", what, "the command below says more")
            answer = Answer(None, unforeseen, datetime.now(UTC))
        with self._lock:
            entry.answer, entry.ended = answer, time.monotonic()
            entry.seconds = entry.ended - began
            done, entry.reading = entry.reading, None
        if done is not None:
            done.set()

    def _forget(self) -> None:
        """Drop the oldest answers past MOST_KEPT."""
        idle = [key for key, entry in self._entries.items() if entry.reading is None]
        for key in sorted(idle, key=lambda key: self._entries[key].ended)[: max(0, len(self._entries) - MOST_KEPT)]:
            del self._entries[key]
