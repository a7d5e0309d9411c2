"""A command that is watched while it runs: the most memory and threads of all its processes, and what they use."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

POLL_SECONDS = 0.5


class Watched:
    """A context manager that starts a command, and ends it where it still runs; what it says goes to a file.

    `wait_for_end` and `wait` watch it; both raise SystemExit where it fails or takes too long.

    Attributes:
        most_bytes, most_threads: of all its processes, resident, at the same moment.
    """

    def __init__(self, command: Sequence[str], said: Path) -> None:
        self._command, self._said = command, said
        self.most_bytes = self.most_threads = 0
        self._used_before = 0.0
        self._used = 0.0
        self._ended = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        with self._said.open("w") as said:
            self._process = psutil.Popen(self._command, stdout=said, stderr=said)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if not self._ended:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except psutil.TimeoutExpired:
                self._process.kill()

    @property
    def seconds(self) -> float:
        """Since it was started; until its end, once that was waited for."""
        return (self._ended or time.monotonic()) - self._began

    def begin(self) -> None:
        """Let `cpu_seconds` count from now on."""
        self._used_before = self._cpu()

    def cpu_seconds(self) -> float:
        """What its processes used of processors; of one that has ended, all that it used."""
        return (self._used or self._cpu()) - self._used_before

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Watch until the condition holds."""
        due = time.monotonic() + seconds
        while not condition():
            if self._process.poll() is not None or time.monotonic() > due:
                raise self._failure()
            self._look()
            time.sleep(POLL_SECONDS)

    def wait_for_end(self) -> None:
        """Watch until it has ended well."""
        if self._wait_for_end():
            raise self._failure()

    def end(self) -> None:
        """End it in order, whatever its exit code says of that."""
        self._process.send_signal(signal.SIGTERM)
        self._wait_for_end()

    def _wait_for_end(self) -> int:
        while True:
            # By wait4, which tells what it and those that it waited for have used.
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                break
            self._look()
            time.sleep(POLL_SECONDS)
        self._ended, self._used = time.monotonic(), usage.ru_utime + usage.ru_stime
        return status

    def _failure(self) -> SystemExit:
        return SystemExit(f"{' '.join(self._command)}: {self._said.read_text()[-2000:]}")

    def _look(self) -> None:
        with suppress(psutil.Error):
            family = self._family()
            self.most_bytes = max(self.most_bytes, sum(each.memory_info().rss for each in family))
            self.most_threads = max(self.most_threads, sum(each.num_threads() for each in family))

    def _cpu(self) -> float:
        return sum(sum(each.cpu_times()[:2]) for each in self._family())

    def _family(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]
