"""A command in a process of its own, which can be held at a fail point, killed, and started again.

Processes are forked from a server that has imported what commands need: importing it takes longer than they run.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.connectors.exactly_once.fail_points import VARIABLE
from local.processes import wait_for

SECONDS = 60.0
IMPORTED = ["producers.cli", "producers.quarantine.cli", "producers.quarantine.worker", "schemas.registry"]


class Process:
    """A process that runs the Python text `program` with `argv`, and prints into `folder`/<number>.out and .err.

    `poll`, `communicate`, `returncode` and the rest are as those of `subprocess.Popen`.
    """

    def __init__(self, program: str, argv: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        number = len(list(folder.glob("*.out")))
        self._out, self._err = (folder / f"{number}.{stream}" for stream in ("out", "err"))
        self._out.touch()
        places = (str(self._out), str(self._err))
        self._process = context.Process(target=_run, args=(program, [*argv], dict(environment), *places))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, seconds: float = SECONDS) -> None:
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), seconds)

    def communicate(self, timeout: float = SECONDS) -> tuple[str, str]:
        """Wait for its end; what it has printed."""
        self.wait(timeout)
        return self._out.read_text(), self._err.read_text()


def _run(program: str, argv: Sequence[str], environment: Mapping[str, str], out: str, err: str) -> None:
    for place, standard in ((out, 1), (err, 2)):
        target = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, standard)
    os.environ.update(environment)
    sys.argv = ["-c", *argv]
    exec(program, {"__name__": "__main__"})


@dataclass
class Command:
    """`program`, which is Python, with the arguments `argv`; its fail points are files under `folder`/points."""

    folder: Path
    servers: str
    running: list[Process] = field(init=False, default_factory=list)

    @property
    def program(self) -> str:
        raise NotImplementedError

    @property
    def argv(self) -> Sequence[str]:
        raise NotImplementedError

    @property
    def sink(self) -> str:
        """Whose fail points are armed."""
        raise NotImplementedError

    @property
    def points(self) -> Path:
        folder = self.folder / "points" / self.sink
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def start(self) -> Process:
        sets = [f"kafka.bootstrap_servers={self.servers}", f"registry.path={self.folder / 'registry'}"]
        argv = [*self.argv, *(part for each in sets for part in ("--set", each))]
        points = {VARIABLE: str(self.folder / "points")}
        self.running.append(Process(self.program, argv, points, self.folder))
        return self.running[-1]

    def finish(self) -> str:
        """Start it, and wait for its good end; what it said."""
        process = self.start()
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
        return out

    def held_at(self, point: str, where: str, points: Path | None = None) -> Process:
        """A process that is held at the point, of `points` where they are not its own."""
        points = points or self.points
        (points / f"{point}.armed").write_text(where)
        process = self.start()
        reached = points / f"{point}.reached"

        def there() -> bool:
            assert process.poll() is None, process.communicate()
            return reached.exists()

        wait_for(there, SECONDS, lambda: AssertionError(f"nobody reached {point}"))
        return process

    def close(self) -> None:
        """End what still runs."""
        for process in self.running:
            process.kill()
            process.wait()


def kill(process: Process) -> None:
    process.kill()
    process.wait()
