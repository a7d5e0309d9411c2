"""Reads what views show, in the background: no view waits for a slow table, or for brokers that are down.

The newest answer of each view is kept, and one client asks the brokers for all of them.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from conf.settings import Kafka
from jobs.connectors.kafka.access import Connection, connect

FRESH_SECONDS = 2.0
REST = 4.0  # times as long as a reading took, before the next: all browsers together cost a fifth of a core
PATIENCE_SECONDS = 1.0
MOST_KEPT = 100  # answers; a selection has one of its own
BROKER_SECONDS = 2.0
BROKER_REST_SECONDS = 5.0  # after a cluster did not answer

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
        content, error = None, None
        try:
            content = read()
        except TidemarkError as refused:
            error = refused
        except Exception as exc:
            logger.exception("a view of the page")
            # The libraries that read tables and topics have no error in common, and the page outlives them all.
            what = f"{type(exc).__name__}: {str(exc).partition(chr(10))[0]}"
            error = TidemarkError("NOT_READ", what, "the command below says more")
        with self._lock:
            entry.answer, entry.ended = Answer(content, error, datetime.now(UTC)), time.monotonic()
            entry.seconds = entry.ended - began
            done, entry.reading = entry.reading, None
        if done is not None:
            done.set()

    def _forget(self) -> None:
        """Drop the oldest answers past MOST_KEPT."""
        idle = [key for key, entry in self._entries.items() if entry.reading is None]
        for key in sorted(idle, key=lambda key: self._entries[key].ended)[: max(0, len(self._entries) - MOST_KEPT)]:
            del self._entries[key]


class Brokers:
    """Connects to the cluster of the settings, which may become another: an embedded broker is started again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._admin: tuple[Kafka, AdminClient] | None = None
        self._refused: tuple[Kafka, float, TidemarkError] | None = None

    def admin(self, kafka: Kafka) -> AdminClient:
        """Return a client of the cluster; raises TidemarkError NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES."""
        with self._lock:
            if (
                self._refused
                and self._refused[0] == kafka
                and time.monotonic() - self._refused[1] < BROKER_REST_SECONDS
            ):
                raise TidemarkError(*self._refused[2].args)
            try:
                if self._admin is None or self._admin[0] != kafka:
                    self._admin = kafka, connect(kafka, BROKER_SECONDS)
                else:
                    Connection(kafka, BROKER_SECONDS).metadata(self._admin[1])
            except TidemarkError as error:
                self._refused = kafka, time.monotonic(), error
                raise
            return self._admin[1]

    def ask(self, kafka: Kafka) -> tuple[AdminClient | None, TidemarkError | None]:
        """Return a client of the cluster, or why it cannot be asked."""
        try:
            return self.admin(kafka), None
        except TidemarkError as error:
            return None, error
