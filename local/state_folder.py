"""Keeps the state folder: writes its files whole, and gives temporary folders that go with their process."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conf import state_dir
from local.processes import exclusive

PREFIX = "job-"
LOCK, LINK = "lock", "link"
# A socket's address holds 107 bytes; Spark's are named `/.<uuid>.sock`.
LONGEST = 107 - len("/.00000000-0000-0000-0000-000000000000.sock")


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
