"""Starts child processes that end with us, and waits for what they bring about."""

import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from conf.errors import TidemarkError

HOST = "127.0.0.1"
GRACE_SECONDS = 5
IN_ORDER_SECONDS = 30  # longer than a job takes at most, see jobs/pipeline/session.py


def java() -> str:
    """Return the Java to start: JAVA_HOME's, or the first on PATH.

    Raises:
        TidemarkError: NO_JAVA, where there is none.
    """
    home = os.environ.get("JAVA_HOME")
    path = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not path or not Path(path).is_file():
        remedy = "install Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless)"
        raise TidemarkError("NO_JAVA", f"no Java in JAVA_HOME={home}" if home else "no Java on PATH", remedy)
    return path


def ending_with_us(command: Sequence[str]) -> list[str]:
    """Return `command`, to which the system sends SIGTERM when this process dies,
    however it dies (Linux with util-linux)."""
    setpriv = shutil.which("setpriv")
    return [*([setpriv, "--pdeathsig", "TERM"] if setpriv else []), *command]


def require_account() -> None:
    """Make sure that this process's user id has an account: Hadoop, in Spark, asks for its name.

    Raises:
        TidemarkError: NO_ACCOUNT, where /etc/passwd and its like have none.
    """
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        remedy = "add a line for it to /etc/passwd, or run as a user that has one (in a container: USER, runAsUser)"
        message = f"user id {os.geteuid()} has no account, and Spark does not start without its name"
        raise TidemarkError("NO_ACCOUNT", message, remedy) from None


def end_on_signal() -> None:
    """Make SIGTERM, SIGINT and SIGHUP raise, so that every `with` and `finally` ends what it started.

    A shell starts a background job with SIGINT ignored: set by name, the handler works there, too. SIGHUP, which comes
    when the terminal is closed, is ignored where nohup asks for that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _end)


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Hold Ctrl-C back in the block, and from what is started there: it raises afterwards.

    Amid an import it would show a traceback, and a library can take it for a failure of its own. A module of ours that
    is started there takes it as soon as it is loaded (`conf.errors.exit_on_error`).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


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


def run_module(module: str, *arguments: str) -> int:
    """Run a module of ours on our terminal, in a process of its own, whose memory goes with it; its exit code.

    A signal to us ends it in order before us.
    """
    process: subprocess.Popen[bytes] | None = None
    try:
        with interrupts_held_back():
            process = subprocess.Popen([sys.executable, "-P", "-m", module, *arguments])
        return process.wait()
    except BaseException:
        if process is not None:
            # A terminal has sent it Ctrl-C already: it takes this one for the same.
            process.terminate()
            try:
                process.wait(IN_ORDER_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        raise


def end_group(process: "subprocess.Popen[str]") -> None:
    """Send SIGTERM to the process group that `process` leads, and SIGKILL if it does not end within `GRACE_SECONDS`."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def listens(port: int) -> bool:
    """Return whether a program accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
