"""Defines the one error class that a user sees, and makes one line of it."""

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from typing import NoReturn


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
    return f"did you mean `{close[0]}`?" if close else f"known: {', '.join(sorted(known))}"


def exit_on_error(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit with its code; a `TidemarkError` becomes one line on stderr and code 1, Ctrl-C code 130,
    another signal (`Interrupted`) 128 and its number.

    With `TIDEMARK_DEBUG=1` the traceback is printed too.
    """
    code = 1  # also for an unforeseen error

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        # At interpreter shutdown, an Arrow thread that frees a Python buffer may abort the process.
        os._exit(code)

    atexit.register(leave)  # the last to run of those that `main` registers
    try:
        code = main()
        sys.stdout.flush()
    except SystemExit as ended:  # of argparse
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
    except TidemarkError as error:
        if _debug():
            raise
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        name = signal.Signals(number).name
        print("interrupted" if number == signal.SIGINT else f"interrupted by {name}", file=sys.stderr)
        code = 128 + number
    except BrokenPipeError:
        # The reader of our output is gone; without this Python complains once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


def _debug() -> bool:
    return os.environ.get("TIDEMARK_DEBUG") == "1"
