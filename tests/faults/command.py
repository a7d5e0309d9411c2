"""A command in a process of its own, which can be held at a fail point, killed, and started again."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conf import ROOT
from jobs.connectors.ledger.failpoints import VARIABLE
from local.processes import wait_for

SECONDS = 60.0


@dataclass
class Command:
    """`program`, which is Python, with the arguments `argv`; its fail points are files under `folder`/points."""

    folder: Path
    servers: str
    running: list["subprocess.Popen[str]"] = field(init=False, default_factory=list)

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

    def start(self) -> "subprocess.Popen[str]":
        sets = [f"kafka.bootstrap_servers={self.servers}", f"registry.path={self.folder / 'registry'}"]
        argv = [*self.argv, *(part for each in sets for part in ("--set", each))]
        command = [sys.executable, "-P", "-c", self.program, *argv]
        environment = os.environ | {VARIABLE: str(self.folder / "points"), "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=ROOT)
        self.running.append(process)
        return process

    def finish(self) -> str:
        """Start it, and wait for its good end; what it said."""
        process = self.start()
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
        return out

    def held_at(self, point: str, where: str, points: Path | None = None) -> "subprocess.Popen[str]":
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
            process.communicate()


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait(SECONDS)
