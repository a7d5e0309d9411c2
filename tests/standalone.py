"""A real standalone Spark cluster on loopback."""

import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from conf.sections import SPARK_SECRET
from local.processes import end_group, wait_for
from tests.jvm import SERVER_OPTIONS

SPILLS = "spills"  # in the folder of a cluster: what its executors write for a while


def free_port() -> int:
    """A port of loopback that nobody has; the one who takes it may still come second."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def standalone_cluster(folder: Path, workers: int, secret: str = "") -> Iterator[str]:
    """A real standalone master and `workers` workers of one core on loopback; gives the master's URL.

    Args:
        secret: who has it is let in, and what is sent is encrypted; empty: everybody is, and nothing is.
    """
    port, pages = free_port(), [free_port() for _ in range(workers + 1)]
    url = f"spark://127.0.0.1:{port}"
    launcher = str(Path(os.environ["SPARK_HOME"]) / "bin" / "spark-class")
    deploy = "org.apache.spark.deploy"
    place = ["--host", "127.0.0.1", "--properties-file", str(_properties(folder, secret))]
    commands = [[launcher, f"{deploy}.master.Master", *place, "--port", str(port), "--webui-port", str(pages[0])]]
    for number in range(workers):
        work = ["--cores", "1", "--memory", "1g", "--work-dir", str(folder / f"work-{number}")]
        page = ["--webui-port", str(pages[number + 1])]
        commands.append([launcher, f"{deploy}.worker.Worker", *place, *work, *page, url])
    environment = os.environ | {"SPARK_DAEMON_JAVA_OPTS": " ".join(SERVER_OPTIONS)}
    environment["SPARK_LOCAL_DIRS"] = str(folder / SPILLS)
    with ExitStack() as stack:
        for number, command in enumerate(commands):
            output = stack.enter_context((folder / f"daemon-{number}.log").open("w"))
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, text=True, process_group=0
            )
            stack.callback(end_group, process)
        wait_for(lambda: alive(pages[0], workers), 60, lambda: AssertionError(f"no cluster, see {folder}"))
        yield url


def _properties(folder: Path, secret: str) -> Path:
    """The file of properties that docs/security.md asks for, for its owner alone."""
    path = folder / "daemons.conf"
    path.touch(0o600)
    names = ("spark.authenticate", "spark.network.crypto.enabled")
    path.write_text("".join(f"{name} true\n" for name in names) + f"{SPARK_SECRET} {secret}\n" if secret else "")
    return path


def alive(page: int, workers: int) -> bool:
    """Whether the master says on its page that all workers have registered."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{page}/json/", timeout=2) as answer:
            return str(answer.read()).count('"ALIVE"') >= workers + 1
    except (urllib.error.URLError, OSError):
        return False
