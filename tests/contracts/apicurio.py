"""A real schema registry: Apicurio on a free port of loopback."""

import shutil
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Self

import httpx2
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from conf import state_dir
from local import jars, processes
from local.processes import HOST
from tests.jvm import SERVER_OPTIONS

START_SECONDS = 120


def unpacked() -> Path:
    """The folder of the locked archive's files; fetched and unpacked where it is not there yet."""
    jars.fetch("registry")
    [archive] = jars.read_lock("registry")
    target = state_dir() / "apicurio" / archive.sha256
    with processes.exclusive(state_dir() / "apicurio" / "lock"):
        if not target.is_dir():
            partial = target.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            with tarfile.open(jars.folder("registry") / archive.file) as files:
                files.extractall(partial, filter="data")
            partial.rename(target)
    return target


class Apicurio:
    """One server; `start` and `kill` as often as wanted: on the same port, with the schemas it had."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, folder / "apicurio.log"
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self._port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}/apis/ccompat/v7"

    @property
    def runs(self) -> bool:
        return self._process is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        folder = unpacked()
        [runner] = folder.glob("*-runner.jar")
        command = [
            processes.java(),
            "-Xmx512m",
            *SERVER_OPTIONS,
            f"-Dquarkus.http.host={HOST}",
            f"-Dquarkus.http.port={self._port}",
        ]
        command.append(f"-Dapicurio.datasource.url=jdbc:h2:file:{self._folder / 'data'}")
        command = processes.ending_with_us([*command, "-jar", str(runner)])
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        processes.wait_for(self._answers, START_SECONDS, lambda: AssertionError(f"no Apicurio: see {self._log}"))

    def kill(self) -> None:
        """End it without a warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> SchemaRegistryClient:
        return SchemaRegistryClient({"url": self.url, "timeout": 10, "max.retries": 0})

    def set_level(self, level: str, subject: str | None = None) -> None:
        """Its own compatibility check, which is NONE as it comes."""
        self.client().set_compatibility(subject, level.upper())

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"Apicurio ended: see {self._log}")
        try:
            return isinstance(self.client().get_subjects(), list)
        except (httpx2.TransportError, SchemaRegistryError, ValueError):
            return False
