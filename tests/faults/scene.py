"""A scene of a crime: topics, a checkpoint, a driver as a process of its own, and points at which it can be held."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka.admin import AdminClient, NewTopic

from conf import ROOT
from jobs.connectors.ledger.failpoints import VARIABLE
from local.broker import Cluster
from local.processes import wait_for
from tests.faults.oracle import Verdict, fill, judge

SECONDS = 120.0


@dataclass
class Driver:
    """A victim that runs, with its JVM and its Python workers."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def tree(self) -> list[psutil.Process]:
        """All its processes. Python workers lead process groups of their own, so the tree is walked."""
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """SIGKILL to all of them at once."""
        victims = self.tree()
        for each in victims:
            with _gone():
                each.send_signal(signal.SIGSTOP)  # none may react to the others' end
        for each in victims:
            with _gone():
                each.kill()
        psutil.wait_procs(victims, SECONDS)
        self.process.wait(SECONDS)

    def wait(self, seconds: float = SECONDS) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


class _gone:  # noqa: N801
    """Ignores that a process is gone already."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, exc: BaseException | None, trace: Any) -> bool:
        return isinstance(exc, psutil.NoSuchProcess)


@dataclass
class Scene:
    """Numbered records in a source topic, to be brought to a target topic by one query, whatever happens."""

    cluster: Cluster
    folder: Path
    query: str = "stateless"
    settings: Sequence[str] = ()
    partitions: int = 3
    replication: int = 1
    mode: str = "direct"
    source: str = field(default_factory=lambda: f"source-{uuid.uuid4().hex[:8]}")
    target: str = field(default_factory=lambda: f"target-{uuid.uuid4().hex[:8]}")
    filled: int = 0
    drivers: list[Driver] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "points").mkdir(exist_ok=True)
        for name in (self.source, self.target):
            self.create(name)

    @property
    def servers(self) -> str:
        return self.cluster.bootstrap_servers

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    @property
    def ledger(self) -> str:
        return f"__tidemark.victim.{self.target}.ledger"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "victim" / self.target

    def create(self, topic: str) -> None:
        self.admin.create_topics([NewTopic(topic, self.partitions, self.replication)])[topic].result(SECONDS)

    def fill(self, count: int) -> None:
        """Put the next `count` numbers into the source."""
        fill(self.servers, self.source, range(self.filled, self.filled + count), range(self.partitions))
        self.filled += count

    def start(self, *settings: str, **plan: Any) -> Driver:
        """Start a driver; `settings` come on top of the scene's own, `plan` changes what `victim` reads."""
        number = len(self.drivers)
        file, log = self.folder / f"plan-{number}.json", self.folder / f"driver-{number}.log"
        own = {
            "kafka.bootstrap_servers": self.servers,
            "kafka.replication_factor": self.replication,
            "paths.tables": self.folder / "tables",
            "paths.checkpoints": self.folder / "checkpoints",
            "spark.driver_memory": "700m",
        }
        sets = [*(f"{key}={value}" for key, value in own.items()), *self.settings, *settings]
        written = {"folder": str(self.folder), "source": self.source, "target": self.target, "query": self.query}
        file.write_text(json.dumps({**written, "mode": self.mode, "settings": sets, **plan}))
        command = [sys.executable, "-P", "-m", "tests.faults.victim", str(file)]
        environment = os.environ | {VARIABLE: str(self.folder / "points"), "PYTHONPATH": str(ROOT)}
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=ROOT)
        driver = Driver(process, log)
        self.drivers.append(driver)
        return driver

    def finish(self, *settings: str, **plan: Any) -> Driver:
        """Start a driver and let it catch up; it must end well."""
        driver = self.start(*settings, **plan)
        code = driver.wait()
        assert code == 0, driver.said[-3000:]
        return driver

    def arm(self, point: str, **where: object) -> None:
        """Hold the next process that reaches `point`; `where` narrows it (batch, shard)."""
        self._file(point, "armed").write_text(json.dumps(where))

    def held(self, point: str, driver: Driver | None = None) -> int:
        """Wait until a process is held at `point`, and return its pid."""
        reached = self._file(point, "reached")

        def not_reached() -> Exception:
            said = driver.said[-3000:] if driver else ""
            return AssertionError(f"no process reached {point}: {said}")

        def there() -> bool:
            if driver is not None and driver.process.poll() is not None and not reached.exists():
                raise not_reached()
            return reached.exists()

        wait_for(there, SECONDS, not_reached)
        return int(reached.read_text())

    def release(self, point: str) -> None:
        self._file(point, "release").touch()

    def disarm(self, point: str) -> None:
        """Forget the point, so that it can be armed again."""
        for suffix in ("armed", "reached", "release"):
            self._file(point, suffix).unlink(missing_ok=True)

    def _file(self, point: str, suffix: str) -> Path:
        return self.folder / "points" / f"{point}.{suffix}"

    def verdict(self, committed: bool = True) -> Verdict:
        """What the oracle says of the target now."""
        return judge(self.servers, self.target, range(self.filled), self.ledger if committed else None, committed)

    def close(self) -> None:
        for driver in self.drivers:
            driver.kill()
