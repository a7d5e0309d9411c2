"""Runs `local/tidemark demo regions`: two clusters, two logs, one state.

Each region has a cluster of its own and publishes what happened there; MirrorMaker copies each log to the other region;
the same job builds the same table in both. Cut the link, and the tables differ; join it, and they are the same again.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from conf import command_line, state_dir
from conf.errors import TidemarkError
from conf.settings import Settings, load
from conf.topics import load_topics
from jobs.connectors.kafka.access import connect
from jobs.connectors.kafka.offsets import count_committed
from jobs.operations import compare
from jobs.regions.friends import TOPIC
from local.broker import Cluster
from local.mirror import MirrorMaker
from local.processes import exclusive, wait_for, wait_in_order
from local.topics import bring_in_step
from producers.cli import MOST_EVENTS
from producers.friendships import publish_friendships
from producers.kafka.pacing import Interrupt

NAMES = ("us", "eu")
JOB = "regions.friends"
TABLE = "friends"
COPIED_SECONDS = 120


class Regions:
    """The clusters of NAMES, their settings, and the link between them; a context manager that starts and ends all.

    Args:
        home: holds the clusters, and each region's tables and checkpoints.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._clusters = {name: Cluster(home / name / "broker", home / name / "logs", attached=True) for name in NAMES}
        self._running = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            for cluster in self._clusters.values():
                starting.enter_context(cluster)
            servers = {name: cluster.bootstrap_servers for name, cluster in self._clusters.items()}
            self.link = starting.enter_context(MirrorMaker(self._home, servers, [TOPIC]))
            for name in NAMES:
                declared = load_topics()
                topics = [declared[TOPIC], *(declared[f"{other}.{TOPIC}"] for other in NAMES if other != name)]
                bring_in_step(connect(self.settings(name).kafka), topics, 1)
            self._running = starting.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._running.close()

    def overrides(self, region: str) -> list[str]:
        """Return the settings that set a region apart, as `--set` takes them."""
        others = ",".join(name for name in NAMES if name != region)
        return [
            f"kafka.bootstrap_servers={self._clusters[region].bootstrap_servers}",
            f"regions.here={region}",
            f"regions.others={others}",
            *(f"paths.{folder}={self._home / region / folder}" for folder in ("tables", "checkpoints")),
        ]

    def settings(self, region: str) -> Settings:
        """Return the settings of a region."""
        return load("local", self.overrides(region))

    def table(self, region: str) -> str:
        """Return where the table of friends of a region lies."""
        return str(self._home / region / "tables" / TABLE)

    def wait_copied(self) -> None:
        """Return when each region has the other's whole log.

        Raises:
            TidemarkError: NOT_COPIED, with MirrorMaker's log, where that takes too long.
        """
        late = TidemarkError("NOT_COPIED", "the regions' topics have not come to each other", f"see {self.link.log}")
        wait_for(self._is_copied, COPIED_SECONDS, lambda: late)

    def _is_copied(self) -> bool:
        if self.link.has_ended():
            raise TidemarkError("NOT_COPIED", "MirrorMaker has ended", f"see {self.link.log}")
        return all(
            count_committed(self.settings(target).kafka, f"{source}.{TOPIC}")
            == count_committed(self.settings(source).kafka, TOPIC)
            for source, target in (NAMES, NAMES[::-1])
        )


def main(argv: Sequence[str]) -> int:
    """Show it from nothing; exit code: that of the first step that failed, 1 where the tables differ at the end."""
    parser = argparse.ArgumentParser(prog="local/tidemark demo regions", description=__doc__)
    parser.add_argument(
        "--count",
        type=command_line.count_up_to(MOST_EVENTS),
        default=200,
        metavar="N",
        help="events of each region, before and after",
    )
    options = command_line.parse(parser, argv)
    home = state_dir() / "regions"
    with exclusive(home.with_suffix(".lock")):
        shutil.rmtree(home, ignore_errors=True)
        with Regions(home) as regions:
            return Demo(regions, options.count).run()


class Demo:
    """Publishes, builds and compares in both regions, and says what it does, with the seconds since it began."""

    def __init__(self, regions: Regions, count: int) -> None:
        self._regions, self._count, self._began = regions, count, time.monotonic()

    def run(self) -> int:
        """Return 0 where the tables end the same, the exit code of the first command that failed otherwise."""
        self._step("two clusters, us and eu, and MirrorMaker between them: each publishes what happened there")
        self._publish(seed=1)
        self._regions.wait_copied()
        if code := self._build() or self._compare():
            return code
        self._step("the link is cut, and both regions go on")
        self._regions.link.kill()
        self._publish(seed=2)
        if code := self._build():
            return code
        self._compare()
        self._step("the link is joined, and each region's log comes to the other")
        self._regions.link.start()
        self._regions.wait_copied()
        return self._build() or self._compare()

    def _step(self, title: str) -> None:
        print(f"\n[{time.monotonic() - self._began:3.0f} s] {title}", flush=True)

    def _publish(self, seed: int) -> None:
        for name in NAMES:
            report = publish_friendships(self._regions.settings(name), self._count, seed, Interrupt())
            report.require_complete()
            print(f"{name}: published {report}", flush=True)

    def _build(self) -> int:
        """Let the job of each region catch up."""
        for name in NAMES:
            self._step(f"{name}: ./spark-submit.sh {JOB} --until-caught-up")
            words = [word for each in self._regions.overrides(name) for word in ("--set", each)]
            if code := wait_in_order([sys.executable, "-P", "-m", "local.submit", JOB, "--until-caught-up", *words]):
                return code
        return 0

    def _compare(self) -> int:
        tables = [self._regions.table(name) for name in NAMES]
        self._step(f"local/tidemark compare {' '.join(tables)}")
        return compare.run(tables, NAMES, shown=3)
