"""Child processes that end with us, and waiting for what they bring about."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conf.errors import TidemarkError

GRACE_SECONDS = 5


def java() -> str:
    """The Java to start: JAVA_HOME's, or the first on PATH.

    Raises:
        TidemarkError: NO_JAVA, where there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not found or not Path(found).is_file():
        remedy = "install Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless)"
        raise TidemarkError("NO_JAVA", f"no Java in JAVA_HOME={home}" if home else "no Java on PATH", remedy)
    return found


def end_on_signal() -> None:
    """Make SIGTERM and SIGINT raise, so that every `with` and `finally` ends what it started.

    A shell starts a background job with SIGINT ignored: asked for by name, Ctrl-C works there too.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, waiting for another process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wait_for(condition: Callable[[], bool], seconds: float, failure: Callable[[], Exception]) -> None:
    """Return when `condition` holds; raise `failure` when it does not within `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise failure()
        time.sleep(0.05)


@contextmanager
def output_of(command: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """Start `command` with stdout and stderr as one stream of lines; leaving the block early ends its process group."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    )
    try:
        yield process
        process.wait()
    finally:
        end_group(process)


def end_group(process: "subprocess.Popen[str]") -> None:
    """SIGTERM to the process group that `process` leads, SIGKILL when it does not end within `GRACE_SECONDS`."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
