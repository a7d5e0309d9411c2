"""Drivers as processes: hosts that have made their session already, and wait for something to run.

Starting a JVM and a session takes longer than most crimes do. A host runs scene after scene until one kills it; while
a test runs, the next host is being made ready.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from conf import ROOT
from jobs.connectors.exactly_once.fail_points import VARIABLE
from local.processes import wait_for
from tests.jvm import INTERPRETING_OPTIONS

SECONDS = 120.0
# Slots for many queries at once, some of them held; each failed task is tried again, up to four times.
MASTER = "local[16,4]"
DAEMON = "-Dspark.python.daemon.module=tests.faults.daemon"


@dataclass
class Host:
    """A victim that serves: its driver, JVM and Python workers."""

    folder: Path
    points: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        options = f"spark.driver_java_options={INTERPRETING_OPTIONS} {DAEMON}"
        settings = [f"spark.master={MASTER}", options, "spark.driver_memory=1g"]
        (self.folder / "settings.json").write_text(json.dumps(settings))
        command = [sys.executable, "-P", "-m", "tests.faults.victim", "--serve", str(self.folder)]
        environment = os.environ | {VARIABLE: str(self.points), "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment | self.environment,
                cwd=ROOT,
            )

    @property
    def log(self) -> Path:
        return self.folder / "output"

    def run(self, plan: Path) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{plan}\n".encode())
        self.process.stdin.flush()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


@dataclass
class Driver:
    """A run of one or more queries: a process of its own, or a host's."""

    process: "subprocess.Popen[bytes]"
    log: Path
    ended: Path | None = None  # which a host writes
    said_before: int = 0

    def tree(self) -> list[psutil.Process]:
        """All its processes. Python workers lead process groups of their own, so the tree is walked."""
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, *spared: int) -> None:
        """SIGKILL to all of them at once, but not to those processes that are `spared`."""
        victims = [each for each in self.tree() if each.pid not in spared]
        for each in victims:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGSTOP)  # none may react to the others' end
        for each in victims:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(victims, SECONDS)
        self.process.wait(SECONDS)

    def code(self) -> int | None:
        """Its exit code, of a host the one that a process of its own would have had; None while it runs."""
        if self.ended is not None and self.ended.exists():
            return int(any(self.errors()))
        return self.process.poll()

    def errors(self) -> list[str]:
        """What stopped each of the host's queries; an empty text for one that ended well."""
        assert self.ended is not None
        return list(json.loads(self.ended.read_text()))

    def wait(self, seconds: float = SECONDS) -> int:
        """Its exit code."""
        wait_for(
            lambda: self.code() is not None,
            seconds,
            lambda: subprocess.TimeoutExpired(self.process.args, seconds, self.said[-3000:].encode()),
        )
        code = self.code()
        assert code is not None
        return code

    @property
    def said(self) -> str:
        said = self.log.read_bytes()[self.said_before :].decode(errors="replace")
        return said + ("\n".join(self.errors()) if self.ended is not None and self.ended.exists() else "")


class Hosts:
    """The hosts of a test run; one more than are busy is kept ready, where there is to be a `spare` one."""

    def __init__(
        self, folder: Path, points: Path, environment: dict[str, str] | None = None, spare: bool = True
    ) -> None:
        self._folder, self._points, self._environment, self._spare = folder, points, environment or {}, spare
        self._made: list[Host] = []
        self._busy: dict[int, Driver] = {}

    def run(self, plan: dict[str, Any], file: Path) -> Driver:
        """Run `plan`, kept in `file`, on a host that is free."""
        file.write_text(json.dumps(plan))
        host = next(iter(self._free()), None) or self._make()
        driver = Driver(host.process, host.log, file.with_suffix(".ended"), host.log.stat().st_size)
        self._busy[host.process.pid] = driver
        host.run(file)
        if self._spare and not self._free():
            self._make()
        return driver

    def _free(self) -> list[Host]:
        self._made = [host for host in self._made if host.alive]
        busy = {pid for pid, driver in self._busy.items() if driver.code() is None}
        return [host for host in self._made if host.process.pid not in busy]

    def _make(self) -> Host:
        host = Host(self._folder / f"host-{len(list(self._folder.glob('host-*')))}", self._points, self._environment)
        self._made.append(host)
        return host

    def close(self) -> None:
        for host in self._made:
            Driver(host.process, host.log).kill()
