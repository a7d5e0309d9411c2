"""Runs `local/tidemark demo regions`: two clusters, two logs, one state.

Each region has a cluster of its own and publishes what happened there; MirrorMaker copies each log to the other region;
the same job builds the same table in both. Cut the link, and the tables differ; join it, and they are the same again.
"""

import argparse
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import Self

from conf import command_line, state_dir
from conf.errors import TidemarkError
from conf.settings import Settings, load, without_secrets
from conf.topics import load_topics
from jobs.connectors.kafka.access import connect
from jobs.connectors.kafka.offsets import count_committed
from jobs.operations import compare
from jobs.regions.friends import TOPIC
from local import jars
from local.broker import Cluster
from local.broker_node import LOG_CONFIG
from local.processes import ending_with_us, exclusive, java, run_module, wait_for
from local.topics import bring_in_step
from producers.cli import MOST_EVENTS
from producers.friendships import publish_friendships
from producers.kafka.pacing import Interrupt

NAMES = ("us", "eu")
JOB = "regions.friends"
TABLE = "friends"
COPIED_SECONDS = 120
STOP_SECONDS = 20
MIRROR_SETTINGS = {
    # These are for clusters with one node; Kafka's own numbers are for three.
    "replication.factor": "1",
    "offset-syncs.topic.replication.factor": "1",
    "checkpoints.topic.replication.factor": "1",
    "heartbeats.topic.replication.factor": "1",
    "offset.storage.replication.factor": "1",
    "config.storage.replication.factor": "1",
    "status.storage.replication.factor": "1",
    "sync.topic.acls.enabled": "false",
    "refresh.topics.interval.seconds": "2",
}


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

    def __init__(self, regions: "Regions", count: int) -> None:
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
            if code := run_module("local.submit", JOB, "--until-caught-up", *words):
                return code
        return 0

    def _compare(self) -> int:
        tables = [self._regions.table(name) for name in NAMES]
        self._step(f"local/tidemark compare {' '.join(tables)}")
        return compare.run(tables, NAMES, shown=3)


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


class MirrorMaker:
    """Kafka's MirrorMaker 2 as a process of its own: a context manager that starts and ends it.

    It copies `topics` of each cluster to the others, as CLUSTER.TOPIC.

    Args:
        home: gets the configuration and the log.
        clusters: the bootstrap servers by the name of the cluster.
    """

    def __init__(self, home: Path, clusters: Mapping[str, str], topics: Sequence[str]) -> None:
        self._clusters, self._topics = clusters, topics
        self._properties, self.log = home / "mirror.properties", home / "mirror.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """End it in order, by force where that takes too long."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def start(self) -> None:
        """Start it; it copies from where it was ended.

        Raises:
            TidemarkError: JAR_DOWNLOAD or JAR_CHECKSUM, where its jars are not there yet.
        """
        jars.fetch("mirror")
        self._properties.parent.mkdir(parents=True, exist_ok=True)
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in self._configuration().items()))
        command = [java(), "-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={LOG_CONFIG}"]
        command += ["-cp", jars.class_path("mirror"), "org.apache.kafka.connect.mirror.MirrorMaker"]
        command = ending_with_us([*command, str(self._properties)])
        environment = without_secrets(os.environ)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _configuration(self) -> dict[str, str]:
        settings = {"clusters": ", ".join(self._clusters)}
        for name, address in self._clusters.items():
            # Once: a record is copied once, however often the process is killed.
            settings |= {f"{name}.bootstrap.servers": address, f"{name}.exactly.once.source.support": "enabled"}
        for source, target in permutations(self._clusters, 2):
            settings |= {f"{source}->{target}.enabled": "true", f"{source}->{target}.topics": ",".join(self._topics)}
        return settings | MIRROR_SETTINGS

    def kill(self) -> None:
        """End it at once, as a cut cable ends a link."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def has_ended(self) -> bool:
        """Return whether it was started and has ended by itself."""
        return self._process is not None and self._process.poll() is not None
