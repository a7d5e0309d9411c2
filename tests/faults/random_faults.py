"""Random faults on three brokers, one after the other, until the time is over: is every record there once after each?

    local/tidemark setup
    .tidemark/venv/bin/python -m tests.faults.random_faults --minutes 10 [--seed 7] [--folder FOLDER]

Each round fills the source of one of five queries that go on from round to round, starts a driver, waits for a random
fail point or a random time, does a random fault, lets a driver finish, and judges the output as a whole. The seed is
the first line: it draws the same rounds again, though not the same instants. The first unclean verdict ends the
schedule with exit code 1.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from conf import command_line
from conf.errors import exit_on_error
from local.broker import Cluster
from local.processes import wait_for
from tests.faults import nodes
from tests.faults.host import SECONDS, Driver, Hosts
from tests.faults.oracle import Verdict
from tests.faults.scene import Scene
from tests.faults.steps import DRIVER, SHARD, WHOLE

BATCH = 300
SMALL = "ledger.small_batch_records=5000"
# The name, the mode and a further setting.
QUERIES = (
    ("stateless", "direct", ""),
    ("stateless", "direct", SMALL),
    ("shuffled", "direct", ""),
    ("windowed", "direct", SMALL),
    ("random_key", "outbox", ""),
)
# What can be done, and the points at which it may be.
FAULTS = {
    "kill driver": DRIVER,
    "kill driver, other shards": DRIVER,
    "kill driver, wake its worker later": SHARD,
    "kill worker": SHARD,
    "pause worker": SHARD,
    "kill broker": DRIVER,
    "pause broker": DRIVER,
}
LONGEST_WAIT_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 12.0


@dataclass(frozen=True)
class Round:
    """What is drawn: `point` of micro-batch `batch` of those to come, or `after` seconds where there is no point."""

    number: int
    query: int
    records: int
    fault: str
    point: str | None
    batch: int
    after: float
    pause: float
    node: int
    shards: int

    @classmethod
    def draw(cls, seed: int, number: int) -> "Round":
        rng = random.Random(f"{seed}/{number}")
        fault, records = rng.choice(list(FAULTS)), rng.randint(BATCH, 3 * BATCH)
        query = rng.randrange(len(QUERIES))
        points = WHOLE if QUERIES[query][-1] and FAULTS[fault] == DRIVER else FAULTS[fault]
        return cls(
            number=number,
            query=query,
            records=records,
            fault=fault,
            point=rng.choice(points) if rng.random() < 0.7 else None,
            batch=rng.randrange(-(-records // BATCH)),
            after=rng.uniform(0, LONGEST_WAIT_SECONDS),
            pause=rng.uniform(0.1, LONGEST_PAUSE_SECONDS),
            node=rng.randint(1, 3),
            shards=rng.randint(1, 4),
        )

    @property
    def where(self) -> str:
        return f"{self.point}, batch +{self.batch}" if self.point else f"after {self.after:.1f} s"


@dataclass
class Result:
    round: Round
    driver: str
    verdict: Verdict
    seconds: float

    def __str__(self) -> str:
        query, mode, setting = QUERIES[self.round.query]
        what = f"{query} {mode}{' small' if setting else ''}"
        fault = f"{self.round.number:>3}  {what:<24}{self.round.fault:<36}{self.round.where:<36}"
        return f"{fault}{self.driver:<14}{self.seconds:>4.0f} s  {self.verdict}, rows {self.verdict.rows}"


@dataclass
class Schedule:
    """The scenes of all rounds, on one cluster."""

    cluster: Cluster
    folder: Path
    hosts: Hosts
    scenes: dict[int, Scene] = field(default_factory=dict)

    def play(self, round: Round) -> Result:
        """Raises AssertionError, where no driver can finish any more."""
        began = time.monotonic()
        scene = self._scene(round.query)
        scene.fill(round.records)
        if round.point:
            scene.arm(round.point, batch=_next_batch(scene) + round.batch)
        driver = scene.start()
        held = self._condition(round, scene, driver)
        ended = self._fault(round, scene, driver, held)
        nodes.heal(self.cluster)
        if round.point:
            scene.disarm(round.point)
        if ended != "0":
            other = [f"ledger.shards={round.shards}"] if round.fault.endswith("other shards") else []
            scene.finish(*other)
        return Result(round, ended, scene.verdict(), time.monotonic() - began)

    def _scene(self, query: int) -> Scene:
        if query not in self.scenes:
            name, mode, setting = QUERIES[query]
            limit = [f"source.max_offsets_per_trigger={BATCH}", *filter(None, [setting])]
            self.scenes[query] = Scene(
                self.cluster,
                self.folder / f"{query}-{name}",
                query=name,
                settings=limit,
                replication=3,
                mode=mode,
                hosts=self.hosts,
                points=self.folder / "points",
            )
        return self.scenes[query]

    def _condition(self, round: Round, scene: Scene, driver: Driver) -> int | None:
        """Wait for the moment of the fault; the process that is held there, if one is."""
        if round.point:
            with suppress(AssertionError):  # a driver that has caught up without passing there
                return scene.held(round.point, driver)
        until = time.monotonic() + round.after
        wait_for(lambda: driver.code() is not None or time.monotonic() > until, SECONDS, AssertionError)
        return None

    def _fault(self, round: Round, scene: Scene, driver: Driver, held: int | None) -> str:
        """Do it, and wait for the driver; how that ended: `killed`, or its exit code."""
        # A shard without rows may be held in the driver itself.
        worker = held if held != driver.process.pid else None
        worker = worker or next(iter(_workers(driver)), None)
        paused: int | None = None
        match round.fault:
            case "kill driver" | "kill driver, other shards":
                driver.kill()
            case "kill driver, wake its worker later":
                paused = worker if worker is not None and _signal(worker, signal.SIGSTOP) else None
                driver.kill(*filter(None, [paused]))
            case "kill worker":
                _signal(worker, signal.SIGKILL)
            case "pause worker":
                paused = worker if _signal(worker, signal.SIGSTOP) else None
            case "kill broker":
                nodes.kill(self.cluster, round.node)
            case "pause broker":
                nodes.pause(self.cluster, round.node)
        if round.point:
            scene.release(round.point)
        return self._after(round, scene, driver, paused)

    def _after(self, round: Round, scene: Scene, driver: Driver, paused: int | None) -> str:
        if round.fault.startswith("kill driver"):
            if paused is not None:
                # Spark's next driver writes the batch while the worker of the last one sleeps, and then wakes.
                scene.finish()
                _signal(paused, signal.SIGCONT)
                _ended(paused)
            return "killed"
        if round.fault.startswith("pause"):
            until = time.monotonic() + round.pause
            wait_for(lambda: driver.code() is not None or time.monotonic() > until, SECONDS, AssertionError)
            _signal(paused, signal.SIGCONT)
            nodes.resume(self.cluster, round.node)
        return str(driver.wait())

    def close(self) -> None:
        for scene in self.scenes.values():
            scene.close()


def _next_batch(scene: Scene) -> int:
    commits = scene.checkpoint / "commits"
    names = [int(each.name) for each in commits.iterdir() if each.name.isdecimal()] if commits.exists() else []
    return max(names, default=-1) + 1


def _workers(driver: Driver) -> list[int]:
    """Python workers of the driver that run; their daemon is not one of them."""
    found = []
    for each in driver.tree():
        with suppress(psutil.NoSuchProcess):
            if "daemon" in " ".join(each.cmdline()) and "daemon" in " ".join(psutil.Process(each.ppid()).cmdline()):
                found.append(each.pid)
    return found


def _signal(pid: int | None, number: signal.Signals) -> bool:
    """Send a signal; whether there was somebody to get it."""
    if pid is None:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _ended(pid: int) -> None:
    """Wait for the end of a worker whose driver is gone."""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(SECONDS)


def play(minutes: float, seed: int, folder: Path) -> list[Result]:
    """Rounds until the time is over, or the first that is not clean; prints each.

    Args:
        folder: gets all that is written, logs of brokers and drivers too.
    """
    until = time.monotonic() + 60 * minutes
    results: list[Result] = []
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(folder / "brokers", folder / "logs", nodes=3, heap_mb=300, attached=True))
        nodes.settle(cluster)
        hosts = Hosts(folder / "hosts", folder / "points")
        stack.callback(hosts.close)
        schedule = Schedule(cluster, folder, hosts)
        stack.callback(schedule.close)
        while time.monotonic() < until and all(result.verdict.clean for result in results):
            results.append(schedule.play(Round.draw(seed, len(results))))
            print(results[-1], flush=True)
    return results


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--folder", type=Path, help="an empty one, which is kept, for logs and data")
    options = command_line.parse(parser, sys.argv[1:] if argv is None else argv)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tidemark-faults-") as temporary:
        results = play(options.minutes, options.seed, options.folder or Path(temporary))
    unclean = [result for result in results if not result.verdict.clean]
    totals = {name: sum(result.verdict.counters[name] for result in results) for name in Verdict().counters}
    print(f"{len(results)} rounds: " + ", ".join(f"{name} {count}" for name, count in totals.items()))
    for result in unclean:
        print(f"not clean: round {result.round.number}; again with --seed {options.seed}")
    return 1 if unclean or not results else 0


if __name__ == "__main__":
    exit_on_error(main)
