"""A real OpenSearch on a free port of loopback: the server of its distribution, of the same jars."""

import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from conf.errors import TidemarkError
from local import jars, processes
from local.processes import HOST

START_SECONDS = 120
UNPRIVILEGED = "nobody"  # as root it does not start
VERSION = "2.19.6"
MODULE = "transport-netty4"
OF_MODULE = ("netty-", "transport-netty4-")
DESCRIPTOR = f"""description=HTTP and transport over Netty
version={VERSION}
name={MODULE}
classname=org.opensearch.transport.Netty4Plugin
java.version=11
opensearch.version={VERSION}
"""
POLICY = """grant codeBase "${codebase.netty-common}" {
  permission java.lang.RuntimePermission "accessClassInPackage.sun.nio.ch";
  permission java.lang.RuntimePermission "getClassLoader";
  permission java.net.SocketPermission "*", "accept,connect";
};
grant codeBase "${codebase.netty-transport}" {
  permission java.lang.reflect.ReflectPermission "suppressAccessChecks";
};
"""
LOG4J = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


class OpenSearchServer:
    """One node; `start` and `kill` as often as wanted: on the same port, with the indices it had."""

    def __init__(self, log: Path) -> None:
        # Pytest's own folders are root's alone, where the tests are run by root.
        self._home = Path(tempfile.mkdtemp(prefix="tidemark-opensearch-"))
        self._log = log
        self._ports = [_free_port(), _free_port()]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._ports[0]}"

    def __enter__(self) -> Self:
        try:
            self._install()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "opensearch.path.home": self._home,
            "opensearch.path.conf": self._home / "config",
            "opensearch.distribution.type": "tar",
            "opensearch.bundled_jdk": "false",
            "java.io.tmpdir": self._home / "tmp",
        }
        command = [processes.java(), "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        command += [f"-D{name}={value}" for name, value in options.items()]
        command += ["-cp", f"{self._home / 'lib'}/*", "org.opensearch.bootstrap.OpenSearch"]
        with self._log.open("ab") as log:
            # In this order: the system forgets whom a process ends with when that takes another user id.
            command = [*_as_somebody_else(), *processes.ending_with_us(command)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._home)
        processes.wait_for(self._answers, START_SECONDS, lambda: AssertionError(f"no OpenSearch: see {self._log}"))

    def kill(self) -> None:
        """End it without a warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What it answers to a request."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data, {"Content-Type": "application/json"}, method=method)
        with urlopen(request, timeout=30) as response:
            return json.load(response)

    def search(self, pattern: str, body: Any) -> Any:
        """What a search finds among all that is written."""
        self.ask("POST", f"/{pattern}/_refresh")
        return self.ask("POST", f"/{pattern}/_search", body)

    def _install(self) -> None:
        try:
            jars.fetch("search")
        except TidemarkError as exc:
            if exc.code != "JAR_DOWNLOAD":
                raise
            pytest.skip(f"OpenSearch is not to be had: {exc}")
        module = self._home / "modules" / MODULE
        for folder in (module, self._home / "lib", self._home / "config", self._home / "tmp", self._home / "logs"):
            folder.mkdir(parents=True)
        for jar in jars.read_lock("search"):
            target = module if jar.file.startswith(OF_MODULE) else self._home / "lib"
            shutil.copy(jars.folder("search") / jar.file, target)
        (module / "plugin-descriptor.properties").write_text(DESCRIPTOR)
        (module / "plugin-security.policy").write_text(POLICY)
        (self._home / "config" / "log4j2.properties").write_text(LOG4J)
        settings = {
            "cluster.name": "tidemark-tests",
            "discovery.type": "single-node",
            "http.host": HOST,
            "transport.host": HOST,
            "http.port": self._ports[0],
            "transport.port": self._ports[1],
            # A disk that is nearly full must not turn indices read-only under a test.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        lines = "".join(f"{name}: {value}\n" for name, value in settings.items())
        (self._home / "config" / "opensearch.yml").write_text(lines)
        if os.geteuid() == 0:
            account = pwd.getpwnam(UNPRIVILEGED)
            for path in [self._home, *self._home.rglob("*")]:
                os.chown(path, account.pw_uid, account.pw_gid)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"OpenSearch ended: see {self._log}")
        try:
            # Until the shards of indices that were there are found again, it answers, and has none of their documents.
            health = self.ask("GET", "/_cluster/health")["status"]
            return bool(health in ("green", "yellow") and self.ask("GET", "/")["version"]["number"] == VERSION)
        except (URLError, ConnectionError, KeyError):
            return False


def _as_somebody_else() -> list[str]:
    if os.geteuid() != 0:
        return []
    account = pwd.getpwnam(UNPRIVILEGED)
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
