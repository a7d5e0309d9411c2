"""A scene of a crime: topics, a checkpoint, a driver as a process of its own, and points at which it can be held."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from conf import ROOT
from jobs.connectors.exactly_once.fail_points import VARIABLE
from local.broker import Cluster
from local.processes import wait_for
from tests.faults.host import SECONDS, Driver, Hosts
from tests.faults.oracle import Verdict, fill, judge
from tests.jvm import INTERPRETING_OPTIONS


@dataclass
class Scene:
    """Numbered records in a source topic, to be brought to a target topic by one query, whatever happens.

    Args:
        ordered: whether records of one key are to stay in their order.
        hosts: run its drivers; None for processes of their own.
        report: is told what became of it, for the table of results.
    """

    cluster: Cluster
    folder: Path
    query: str = "stateless"
    settings: Sequence[str] = ()
    partitions: int = 3
    replication: int = 1
    mode: str = "direct"
    delivery: str = ""
    label: str = ""
    ordered: bool = True
    hosts: Hosts | None = None
    points: Path | None = None
    report: Callable[["Scene", Verdict | str], None] = lambda scene, result: None
    source: str = field(default_factory=lambda: f"source-{uuid.uuid4().hex[:8]}")
    target: str = field(default_factory=lambda: f"target-{uuid.uuid4().hex[:8]}")
    filled: int = 0
    drivers: list[Driver] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.points = self.points or self.folder / "points"
        (self.points / self.sink).mkdir(parents=True, exist_ok=True)
        self.ordered = self.ordered and self.query != "windowed"  # which gives the records in an order of its own
        there = self.admin.list_topics(timeout=SECONDS).topics
        for name in (self.source, self.target):
            if name not in there:
                self.create(name)

    @property
    def servers(self) -> str:
        return self.cluster.bootstrap_servers

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    @property
    def sink(self) -> str:
        return f"tidemark.victim.{self.target}"

    @property
    def ledger(self) -> str:
        return f"__{self.sink}.ledger"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "victim" / self.target

    def create(self, topic: str) -> None:
        self.admin.create_topics([NewTopic(topic, self.partitions, self.replication)])[topic].result(SECONDS)

    def remove(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(SECONDS)
        gone = lambda: topic not in self.admin.list_topics(timeout=SECONDS).topics  # noqa: E731
        wait_for(gone, SECONDS, lambda: AssertionError(f"{topic} is still there"))

    def fill(self, count: int) -> None:
        """Put the next `count` numbers into the source."""
        fill(self.servers, self.source, range(self.filled, self.filled + count), range(self.partitions))
        self.filled += count

    def plan(self, *settings: str, **plan: Any) -> dict[str, Any]:
        """What `victim` reads; `settings` come on top of the scene's own, `plan` changes the rest."""
        own = {
            "kafka.bootstrap_servers": self.servers,
            "kafka.replication_factor": self.replication,
            "ledger.small_batch_records": 0,  # few records are cut into shards, too, where a scene does not say else
            "paths.tables": self.folder / "tables",
            "paths.checkpoints": self.folder / "checkpoints",
            "spark.driver_memory": "700m",
            "spark.driver_java_options": INTERPRETING_OPTIONS,
        }
        sets = [*(f"{key}={value}" for key, value in own.items()), *self.settings, *settings]
        written = {"folder": str(self.folder), "source": self.source, "target": self.target, "query": self.query}
        return {**written, "mode": self.mode, "delivery": self.delivery, "settings": sets, **plan}

    def start(self, *settings: str, alone: bool = False, **plan: Any) -> Driver:
        """Start a driver, `alone` in a process of its own."""
        number = len(self.drivers)
        file, log = self.folder / f"plan-{number}.json", self.folder / f"driver-{number}.log"
        written = self.plan(*settings, **plan)
        if self.hosts is not None and not alone:
            self.drivers.append(self.hosts.run(written, file))
            return self.drivers[-1]
        file.write_text(json.dumps(written))
        command = [sys.executable, "-P", "-m", "tests.faults.victim", str(file)]
        environment = os.environ | {VARIABLE: str(self.points), "PYTHONPATH": str(ROOT)}
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=ROOT)
        self.drivers.append(Driver(process, log))
        return self.drivers[-1]

    def finish(self, *settings: str, **plan: Any) -> Driver:
        """Start a driver and let it catch up; it must end well."""
        driver = self.start(*settings, **plan)
        code = driver.wait()
        assert code == 0, driver.said[-3000:]
        return driver

    def arm(self, point: str, **where: object) -> None:
        """Hold the next process that reaches `point`; `where` narrows it (batch, shard). One that is held stays so."""
        self._file(point, "reached").unlink(missing_ok=True)
        self._file(point, "armed").write_text(json.dumps(where))

    def held(self, point: str, driver: Driver | None = None) -> int:
        """Wait until a process is held at `point`, and return its pid."""
        reached = self._file(point, "reached")

        def not_reached() -> Exception:
            said = driver.said[-3000:] if driver else ""
            return AssertionError(f"no process reached {point}: {said}")

        def there() -> bool:
            if driver is not None and driver.code() is not None and not reached.exists():
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
        assert self.points is not None
        return self.points / self.sink / f"{point}.{suffix}"

    def verdict(self, committed: bool = True, marked: bool = True) -> Verdict:
        """What the oracle says of the target now; `marked`: compared with the markers of its ledger."""
        ledger = self.ledger if marked and committed and self.delivery in ("", "exactly-once") else None
        verdict = judge(self.servers, self.target, range(self.filled), ledger, committed)
        if not self.ordered:
            verdict = replace(verdict, out_of_order=0)
        self.report(self, verdict)
        return verdict

    def stopped(self, *settings: str, **plan: Any) -> str:
        """Start a driver that must stop with an error, and return that one line."""
        driver = self.start(*settings, **plan)
        code = driver.wait()
        assert code == 1, f"it went on: {driver.said[-3000:]}"
        line = driver.said.strip().splitlines()[-1]
        self.report(self, line)
        return line

    def close(self) -> None:
        for driver in self.drivers:
            if driver.code() is None:
                driver.kill()


def assert_clean(crime: Scene, marked: bool = True) -> None:
    """Each record is in the target once; `marked`: and the ledger's markers count them."""
    verdict = crime.verdict(marked=marked)
    assert verdict.clean, f"{crime.label}: {verdict}"
    assert verdict.rows == crime.filled


def start_together(scenes: Sequence[Scene], *settings: str) -> Driver:
    """One driver for the queries of all scenes, which have the same hosts."""
    hosts = scenes[0].hosts
    assert hosts is not None
    file = scenes[0].folder / f"plan-{len(scenes[0].drivers)}.json"
    driver = hosts.run({"parts": [scene.plan(*settings) for scene in scenes]}, file)
    for scene in scenes:
        scene.drivers.append(driver)
    return driver


def kill_together(scenes: Sequence[Scene]) -> None:
    """Kill the one driver of all scenes, once each is held at the point that is its label."""
    driver = start_together(scenes)
    for scene in scenes:
        scene.held(scene.label, driver)
    driver.kill()


def finish_together(scenes: Sequence[Scene], *settings: str) -> Driver:
    """One driver for the queries of all scenes, each of which must end well."""
    driver = start_together(scenes, *settings)
    code = driver.wait()
    assert code == 0, driver.said[-5000:]
    return driver
