"""Counts what one attempt at a batch wrote, and how long each part of it took.

Code that writes notes it here as it goes, so that a batch that fails says how far it came.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock


class Tally:
    """Rows by table or topic that they were written to, and milliseconds by phase; writes may run side by side.

    `between_writes` is called before each phase that follows a write.
    """

    between_writes: Callable[[], object] | None = None

    def __init__(self) -> None:
        self._lock = Lock()
        self._rows: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block, whether or not it fails; blocks of the same name add up."""
        if self._rows and self.between_writes is not None:
            self.between_writes()
        began = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - began

    def wrote(self, place: str, rows: int) -> None:
        """Note that `rows` went to the table or topic `place`."""
        with self._lock:
            self._rows[place] = self._rows.get(place, 0) + rows

    @property
    def rows(self) -> dict[str, int]:
        """Return how many rows were written, by place; 0 where an earlier attempt had written them."""
        with self._lock:
            return dict(self._rows)

    @property
    def milliseconds(self) -> dict[str, int]:
        """Return the milliseconds by phase."""
        with self._lock:
            return {name: round(seconds * 1000) for name, seconds in self._seconds.items()}
