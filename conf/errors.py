"""Defines the one error class that a user sees, and makes one line of it, and of any error that ends a command."""

import atexit
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from conf import state_dir

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.ELOOP)
TRACEBACKS = "tracebacks.log"  # beside the logs of the state folder
TRACEBACKS_BYTES = 1_000_000
SHOWN_CHARACTERS = 300


class TidemarkError(Exception):
    """An error with a stable `code`: what went wrong and where (`message`), and what to do about it (`remedy`)."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(code, message, remedy)
        self.code = code
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.code}: {self.message}; {self.remedy}"

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows; the name is IPython's."""
        return traceback.format_exception(self) if _debug() else [f"error: {self}"]


class Interrupted(KeyboardInterrupt):
    """A signal that asks for the end; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def nearest(name: str, known: list[str]) -> str:
    """Return a clause that names the closest of `known`, or lists them when none is close."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`?" if close else f"known: {', '.join(sorted(known)) or 'none'}"


def exit_on_error(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit with its code; a `TidemarkError` becomes one line on stderr and code 1, Ctrl-C code 130,
    another signal (`Interrupted`) 128 and its number. Any other error becomes a line, too: see `of_system`, `of_ours`.

    With `TIDEMARK_DEBUG=1` the traceback is printed too.
    """
    code = 1  # also for an error while another is told

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        # At interpreter shutdown, an Arrow thread that frees a Python buffer may abort the process.
        os._exit(code)

    atexit.register(leave)  # the last to run of those that `main` registers
    try:
        _open_missing_streams()
        _take_interrupts()
        code = main()
        sys.stdout.flush()
    except SystemExit as ended:  # of argparse
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        name = signal.Signals(number).name
        code = 128 + number
        _tell("interrupted" if number == signal.SIGINT else f"interrupted by {name}")
    except BrokenPipeError:
        # The reader of our output is gone; without this Python complains once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:
        code = 1
        if _debug():
            raise
        if isinstance(error, OSError):
            error = of_system(error)
        _tell(f"error: {error if isinstance(error, TidemarkError) else of_ours(error)}")
    sys.exit(code)


def of_system(error: OSError) -> TidemarkError:
    """Return the error for what the system refuses: STATE_NOT_WRITABLE in the state folder, IO_FAILED elsewhere."""
    state, name = state_dir(), error.filename
    path = os.fsdecode(name).replace("\n", "\\n") if isinstance(name, str | bytes) else ""
    what = _first_lines(error.strerror or str(error)) or type(error).__name__
    if path and error.errno in (*FULL, *REFUSED, *NO_FOLDER) and (state == Path(path) or state in Path(path).parents):
        mend = "free space on its disk" if error.errno in FULL else "let it be a folder that this user can write"
        remedy = f"{mend}, or set TIDEMARK_STATE to another folder"
        where = "" if Path(path) == state else f"{path}: "
        return TidemarkError("STATE_NOT_WRITABLE", f"the state folder {state} cannot be written: {where}{what}", remedy)
    if error.errno in FULL:  # a write that fails names no path
        path, mend = path or "standard output or a file", f"free space there (the state folder is {state})"
    else:
        mend = "let this user read and write it" if error.errno in REFUSED else "mend that"
    remedy = f"{mend} and run the same command again; TIDEMARK_DEBUG=1 shows where it comes from"
    return TidemarkError("IO_FAILED", f"{path}: {what}" if path else what, remedy)


def of_ours(error: Exception) -> TidemarkError:
    """Return the INTERNAL for an error that nobody has foreseen; its traceback goes into a file of the state folder, to
    stderr where that cannot be written."""
    what = f"{type(error).__name__}: {_first_lines(str(error))}".removesuffix(": ")
    # Without the values of variables: they may be secrets.
    text = "".join(traceback.format_exception(error))
    path = state_dir() / "logs" / TRACEBACKS
    try:
        path.parent.mkdir(exist_ok=True)  # a state folder that is not there is not made for it
        truncate = os.O_TRUNC if path.exists() and path.stat().st_size > TRACEBACKS_BYTES else 0
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | truncate, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"==== {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} pid {os.getpid()}\n{text}")
    except OSError:
        _tell(text.rstrip())
        return TidemarkError("INTERNAL", what, "the traceback is above")
    return TidemarkError("INTERNAL", what, f"the traceback is in {path}")


def _tell(line: str) -> None:
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def _first_lines(text: str) -> str:
    """Return the beginning of a text as one line; Java's first line alone says nothing."""
    return " ".join(text.split("\n", 2)[:2]).strip()[:SHOWN_CHARACTERS]


def _open_missing_streams() -> None:
    """Open the standard streams that whoever started this process has closed: Python has None for them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115


def _take_interrupts() -> None:
    """Let Ctrl-C raise from now on, also one that came while this module was loaded, and was held back or would have
    ended the process (see `tidemark_become` in local/bootstrap.sh, and jobs/main.py)."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _debug() -> bool:
    return os.environ.get("TIDEMARK_DEBUG") == "1"
