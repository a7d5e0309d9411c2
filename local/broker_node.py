"""Runs one node of the embedded Kafka cluster: its folder, ports, configuration and process.

What the nodes share, the cluster's id and the ports of all, is kept as its layout in `cluster.json`.
"""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil
from pydantic import TypeAdapter, ValidationError

from conf import ROOT
from conf.errors import TidemarkError
from conf.settings import without_secrets
from local import jars
from local.processes import HOST, ending_with_us, java, listens, wait_for
from local.state_folder import write_whole

LAYOUT = "cluster.json"
META = Path("data", "meta.properties")  # Kafka's own, in a node's folder
LOG_CONFIG = ROOT / "local" / "broker-log4j2.properties"
RELEASE_SECONDS = 2  # a process that was killed a moment ago can hold its port a little longer than its pid
STOP_SECONDS = 15
EXEC_SECONDS = 0.5  # what no exec takes; a kernel thread never has a command line
LOG_LIMIT_BYTES = 10_000_000
STARTING = "==== starting"
EXCEPTION = re.compile(r"(Caused by: )?[\w.$]+(Exception|Error): ")


@dataclass(frozen=True)
class Ports:
    """Where a node listens: for clients and for the other nodes' controllers."""

    port: int
    controller_port: int


@dataclass(frozen=True)
class Layout:
    """The cluster's id, empty before the first start, and the ports of each node, by their ids from 1."""

    id: str
    nodes: tuple[Ports, ...]

    @classmethod
    def read(cls, home: Path) -> Self:
        """Return what an earlier start wrote down; an empty one where there was none.

        Raises:
            TidemarkError: BROKER_STATE_DAMAGED.
        """
        try:
            return TypeAdapter(cls).validate_json((home / LAYOUT).read_bytes(), strict=True)
        except FileNotFoundError:
            return cls("", ())
        except OSError as exc:
            raise damaged(home, f"cannot be read: {exc.strerror}") from exc
        except ValidationError as exc:
            error = exc.errors()[0]
            raise damaged(home, f"cannot be read: {' '.join(map(str, (*error['loc'], error['msg'])))}") from exc

    def write(self, home: Path) -> None:
        """Write it down."""
        write_whole(home / LAYOUT, json.dumps(asdict(self), indent=1))


def damaged(home: Path, how: str) -> TidemarkError:
    """Return the BROKER_STATE_DAMAGED for the file of a layout."""
    path = home / LAYOUT
    remedy = f"run `local/tidemark broker stop`, then `rm -rf {path}`; `broker start` makes it anew, the data stays"
    return TidemarkError("BROKER_STATE_DAMAGED", f"{path} {how}", remedy)


def id_of_data(home: Path) -> str:
    """Return the id of the cluster that the nodes' data was made for; empty where there is none yet."""
    for meta in sorted(home.glob(f"node-*/{META}")):
        if cluster_id := re.search(r"^cluster\.id=(\S+)$", meta.read_text(encoding="utf-8"), re.MULTILINE):
            return cluster_id[1]
    return ""


def nodes_of_data(home: Path) -> list[int]:
    """Return the ids of the nodes that have a folder, whether they ever ran or not."""
    names = (folder.name.removeprefix("node-") for folder in home.glob("node-*"))
    return sorted(int(name) for name in names if name.isdecimal())


def choose_ports(requested: Sequence[int], before: Sequence[Ports]) -> list[Ports]:
    """Choose ports for each node: the requested one for clients (0: any), else those of before, else free ones.

    Raises:
        TidemarkError: PORT_TAKEN, where another program listens on a requested one.
    """
    chosen = []
    with ExitStack() as held:
        for index, port in enumerate(requested):
            previous = before[index] if before else Ports(0, 0)
            if port:
                _require_free(port)
            client_port = port or _free_port(held, previous.port)
            chosen.append(Ports(client_port, _free_port(held, previous.controller_port)))
    return chosen


def _require_free(port: int) -> None:
    remedy = "set broker.port to another one, or to 0 for a free one"
    taken = TidemarkError("PORT_TAKEN", f"another program listens on {HOST}:{port}", remedy)
    wait_for(lambda: not listens(port), RELEASE_SECONDS, lambda: taken)


def _free_port(held: ExitStack, preferred: int) -> int:
    """Return a port that is free now, kept bound until `held` closes so that no two calls give the same one."""
    for port in (preferred, 0):
        probe = held.enter_context(socket.socket())
        # Without this a port whose last connections linger in TIME_WAIT counts as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            continue
        return int(probe.getsockname()[1])
    raise TidemarkError("PORT_TAKEN", f"no free port on {HOST}", "end programs that hold ports")


@dataclass(frozen=True)
class Node:
    """A broker and controller in one; `home` holds its data, its server.properties and its pid."""

    id: int
    home: Path
    log: Path
    ports: Ports

    @property
    def address(self) -> str:
        """Return where clients reach it."""
        return f"{HOST}:{self.ports.port}"

    @property
    def properties(self) -> Path:
        """Return the configuration file; its path in a command line is what tells our process from a stranger's."""
        return self.home / "server.properties"

    def configure(self, settings: Mapping[str, str]) -> None:
        """Write server.properties."""
        self.home.mkdir(parents=True, exist_ok=True)
        write_whole(self.properties, "".join(f"{key}={value}\n" for key, value in settings.items()))

    def format(self, cluster_id: str) -> None:
        """Format the data folder with Kafka's StorageTool, once.

        Raises:
            TidemarkError: BROKER_FORMAT, with what the tool said last.
        """
        if (self.home / META).exists():
            return
        command = [java(), "-XX:TieredStopAtLevel=1", "-cp", jars.class_path("broker"), "kafka.tools.StorageTool"]
        command += ["format", "--ignore-formatted", f"--cluster-id={cluster_id}", "-c", str(self.properties)]
        environment = without_secrets(os.environ)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            output = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
            raise TidemarkError("BROKER_FORMAT", f"node {self.id}: {output[0]}", f"look at {self.properties}")

    def start(self, heap_mb: int, attached: bool, options: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """Start the process, with those `options` of Java's, and return at once.

        Args:
            attached: the system ends the broker when this process dies, however it dies (Linux with util-linux).
        """
        command = [java(), f"-Xmx{heap_mb}m", "-XX:+ExitOnOutOfMemoryError", "-XX:-CreateCoredumpOnCrash"]
        command += ["-Djava.awt.headless=true", *options]
        command += [f"-Dlog4j2.configurationFile={LOG_CONFIG}", "-cp", jars.class_path("broker")]
        command += ["kafka.Kafka", str(self.properties)]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("a") as log:
            log.write(f"{STARTING}\n")
            log.flush()
            # A session of its own: Ctrl-C in the terminal that started it must not end a broker that runs on.
            process = subprocess.Popen(
                ending_with_us(command) if attached else command,
                env=without_secrets(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                start_new_session=True,
            )
        write_whole(self._pid_file, f"{process.pid}\n")
        return process

    @property
    def _pid_file(self) -> Path:
        return self.home / "pid"

    def pid(self) -> int | None:
        """Return the process id while it runs; a pid file that is left over, or names another program, is ignored."""
        try:
            process = psutil.Process(int(self._pid_file.read_text()))
            return process.pid if str(self.properties) in _command_line(process) else None
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it does not run."""
        if (pid := self.pid()) is not None:
            os.kill(pid, number)

    def wait_stopped(self, seconds: float = STOP_SECONDS) -> None:
        """Wait until the process is gone, and end it by SIGKILL when it takes longer than `seconds`."""
        pid = self.pid()
        if pid is not None and not _has_ended(pid, seconds):
            self.signal(signal.SIGKILL)
            _has_ended(pid, STOP_SECONDS)
        self._pid_file.unlink(missing_ok=True)

    def last_words(self) -> str:
        """Return the last log line that tells of trouble, or the last one at all."""
        since_start = self.log.read_text(errors="replace").rpartition(STARTING)[2]
        lines = [line.strip() for line in since_start.splitlines() if line.strip()]
        causes = [line for line in lines if EXCEPTION.match(line)]
        errors = [line for line in lines if " ERROR " in line]
        return (causes or errors or lines or ["it logged nothing"])[-1]


def _command_line(process: psutil.Process) -> list[str]:
    """Return the command line of a process that runs; any is empty for a moment, while exec replaces it."""
    until = time.monotonic() + EXEC_SECONDS
    while True:
        command = process.cmdline()
        if command or time.monotonic() > until:
            return command
        time.sleep(0.001)


def _has_ended(pid: int, seconds: float) -> bool:
    """Wait for a process, our child or not, to end; return whether it did."""
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True
