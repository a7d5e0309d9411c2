"""Runs one node of the embedded Kafka cluster: its folder, its configuration, its process."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from conf import ROOT
from conf.errors import TidemarkError
from conf.settings import without_secrets
from local import jars
from local.processes import ending_with_us, java
from local.whole_files import write_whole

LOG_CONFIG = ROOT / "local" / "broker-log4j2.properties"
STOP_SECONDS = 15
EXEC_SECONDS = 0.5  # what no exec takes; a kernel thread never has a command line
LOG_LIMIT_BYTES = 10_000_000
STARTING = "==== starting"
EXCEPTION = re.compile(r"(Caused by: )?[\w.$]+(Exception|Error): ")


@dataclass(frozen=True)
class Node:
    """A broker and controller in one; `home` holds its data, its server.properties and its pid."""

    id: int
    home: Path
    log: Path
    port: int
    controller_port: int

    @property
    def address(self) -> str:
        """Return where clients reach it."""
        return f"127.0.0.1:{self.port}"

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
        if (self.home / "data" / "meta.properties").exists():
            return
        tool = [java(), "-XX:TieredStopAtLevel=1", "-cp", jars.class_path("broker"), "kafka.tools.StorageTool"]
        command = [*tool, "format", "--ignore-formatted", f"--cluster-id={cluster_id}", "-c", str(self.properties)]
        own = without_secrets(os.environ)
        done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
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
        if attached:
            command = ending_with_us(command)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("a") as log:
            log.write(f"{STARTING}\n")
            log.flush()
            # A session of its own: Ctrl-C in the terminal that started it must not end a broker that runs on.
            process = subprocess.Popen(
                command,
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
        """Return the process id while it runs; a pid file that is left over, or names another program,
        counts for nothing."""
        try:
            process = psutil.Process(int(self._pid_file.read_text()))
            return process.pid if str(self.properties) in _command(process) else None
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it does not run."""
        if (pid := self.pid()) is not None:
            os.kill(pid, number)

    def wait_stopped(self, seconds: float = STOP_SECONDS) -> None:
        """Wait until the process is gone, and end it by SIGKILL when it takes longer than `seconds`."""
        pid = self.pid()
        if pid is not None and not _gone(pid, seconds):
            self.signal(signal.SIGKILL)
            _gone(pid, STOP_SECONDS)
        self._pid_file.unlink(missing_ok=True)

    def last_words(self) -> str:
        """Return the last log line that tells of trouble, or the last one at all."""
        since_start = self.log.read_text(errors="replace").rpartition(STARTING)[2]
        lines = [line.strip() for line in since_start.splitlines() if line.strip()]
        causes = [line for line in lines if EXCEPTION.match(line)]
        errors = [line for line in lines if " ERROR " in line]
        return (causes or errors or lines or ["it logged nothing"])[-1]


def _command(process: psutil.Process) -> list[str]:
    """Return the command line of a process that runs; any is empty for a moment, while exec replaces it."""
    until = time.monotonic() + EXEC_SECONDS
    while True:
        command = process.cmdline()
        if command or time.monotonic() > until:
            return command
        time.sleep(0.001)


def _gone(pid: int, seconds: float) -> bool:
    """Wait for a process, our child or not, to end; return whether it did."""
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True
