"""Runs Kafka's MirrorMaker 2 as a process of its own: copies topics between the clusters of two regions, both ways."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import Self

from conf.settings import without_secrets
from local import jars
from local.node import LOG_CONFIG
from local.processes import ending_with_us, java

STOP_SECONDS = 20
# These are for clusters with one node; Kafka's own numbers are for three.
SINGLE = "replication.factor offset-syncs.topic.replication.factor checkpoints.topic.replication.factor "
SINGLE += "heartbeats.topic.replication.factor "
SINGLE += "offset.storage.replication.factor config.storage.replication.factor status.storage.replication.factor"
FLOWS = {
    "sync.topic.acls.enabled": "false",
    "refresh.topics.interval.seconds": "2",
}


class MirrorMaker:
    """Copies `topics` of each cluster to the others, as CLUSTER.TOPIC; a context manager that starts and ends it.

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
        self.stop()

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
        with self.log.open("ab") as log:
            own = without_secrets(os.environ)
            self._process = subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self) -> None:
        """End it in order, by force where that takes too long."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End it at once, as a cut cable ends a link."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def has_ended(self) -> bool:
        """Return whether it was started and has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def _configuration(self) -> dict[str, str]:
        servers: dict[str, str] = {}
        for name, address in self._clusters.items():
            # Once: a record is copied once, however often the process is killed.
            servers |= {f"{name}.bootstrap.servers": address, f"{name}.exactly.once.source.support": "enabled"}
        flows: dict[str, str] = {}
        for source, target in permutations(self._clusters, 2):
            flows |= {f"{source}->{target}.enabled": "true", f"{source}->{target}.topics": ",".join(self._topics)}
        return {
            "clusters": ", ".join(self._clusters),
            **servers,
            **flows,
            **dict.fromkeys(SINGLE.split(), "1"),
            **FLOWS,
        }
