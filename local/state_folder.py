"""Keeps the state folder: writes its files whole, and gives temporary folders that go with their process.

`local/tidemark clean` removes all of it.
"""

import argparse
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from conf import ROOT, credentials, home, state_dir
from conf.errors import TidemarkError
from local.processes import exclusive

PREFIX = "job-"
LOCK, LINK = "lock", "link"
# A socket's address holds 107 bytes; Spark's are named `/.<uuid>.sock`.
LONGEST = 107 - len("/.00000000-0000-0000-0000-000000000000.sock")
MARKER = ".tidemark-state"  # written by local/bootstrap.sh when it makes the folder


def clean(argv: Sequence[str]) -> int:
    """Stop the embedded broker and remove the state folder: packages, jars, topics' data, tables, checkpoints, logs."""
    credentials.refuse_secrets(argv)
    argparse.ArgumentParser(prog="local/tidemark clean", description=clean.__doc__).parse_args(argv)
    state = state_dir()
    if not state.exists():
        print(f"nothing to remove: there is no {state}")
        return 0
    _require_ours(state)
    _stop_broker(state)
    remove_dead()
    try:
        shutil.rmtree(state)
    except OSError as exc:  # it names a file without its folder
        raise OSError(exc.errno, exc.strerror, str(state)) from exc
    print(f"removed {state}")
    return 0


def _require_ours(state: Path) -> None:
    """Refuse a folder that Tidemark did not make; raises TidemarkError NOT_OURS."""
    ours = state == ROOT / ".tidemark" or (state / MARKER).is_file()
    if not ours or state in (ROOT, *ROOT.parents, home()):
        remedy = "look at it, and remove it by hand if nobody needs it"
        raise TidemarkError("NOT_OURS", f"TIDEMARK_STATE is {state}, a folder that Tidemark did not make", remedy)


def _stop_broker(state: Path) -> None:
    """Stop the embedded broker, where there is one.

    Raises:
        TidemarkError: NO_PACKAGES, where one was started, and the packages that recognise its process are gone.
    """
    if not list((state / "broker").glob("node-*/pid")):
        return
    try:
        from local.broker import Cluster  # here: clean works without packages too
    except ModuleNotFoundError as exc:
        what = "a broker may run and cannot be stopped without the packages"
        raise TidemarkError("NO_PACKAGES", what, "run `local/tidemark setup`, then clean") from exc
    Cluster(state / "broker", state / "logs").stop()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write, which takes its place at the end of the block: a full disk, or a kill at any
    moment, leaves the old file or the new.

    Raises:
        OSError: with `path`, also where the system names none.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file)
        partial.replace(path)
    except OSError as exc:
        with suppress(OSError):
            partial.unlink()
        if exc.filename not in (None, str(partial)):
            raise
        raise OSError(exc.errno, exc.strerror, str(path)) from exc


def write_whole(path: Path, text: str) -> None:
    """Write a text as `written_whole` does."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def temporary_folder() -> Path:
    """Make a folder that lasts as long as this process, or the program that it becomes, and remove those of dead ones.

    Its path is short enough for sockets.
    """
    root = state_dir() / "tmp"
    with exclusive(root / LOCK):
        _remove_dead(root)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        # The lock ends with its last holder, however that ends: an exec keeps it, a child of the JVM does not get it.
        held = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        os.set_inheritable(held, True)
        if len(os.fsencode(folder)) <= LONGEST:
            return folder
        # Nothing but the link lies outside of the state folder.
        link = Path(tempfile.mkdtemp(prefix="tidemark-")) / "t"
        link.symlink_to(folder)
        write_whole(folder / LINK, str(link))
        return link


@contextmanager
def with_temporary_folder() -> Iterator[None]:
    """Give programs that are started in the block, or that this process becomes, a `temporary_folder` as TMPDIR."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(temporary_folder())
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def remove_dead() -> None:
    """Remove the temporary folders of processes that have ended."""
    root = state_dir() / "tmp"
    if root.is_dir():
        with exclusive(root / LOCK):
            _remove_dead(root)


def _remove_dead(root: Path) -> None:
    for folder in root.glob(f"{PREFIX}*"):
        if _is_held(folder):
            continue
        with suppress(OSError, ValueError):
            link = Path((folder / LINK).read_text(encoding="utf-8"))
            # Nothing but a link that leads there, and its folder.
            if link.is_symlink() and link.readlink() == folder:
                link.unlink()
                link.parent.rmdir()
        shutil.rmtree(folder, ignore_errors=True)


def _is_held(folder: Path) -> bool:
    try:
        with (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
