"""Who decides what becomes of a record from the queue: an option, a command, or a person."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from conf.errors import TidemarkError
from producers.quarantine import inspection
from producers.quarantine.records import Rejected
from schemas.registry import Registry

Kind = Literal["accept", "release", "reject"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RELEASE_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later
NOTE_LENGTH = 200
QUESTION = "[a]ccept, [d] redrive and accept, [r]elease, re[j]ect, [q]uit? "


@dataclass(frozen=True)
class Resolution:
    """What becomes of a record, with a note for the audit; `stop`: the worker ends with it."""

    kind: Kind
    note: str = ""
    redrive: bool = False
    stop: bool = False


Resolve = Callable[[Rejected, int], Resolution]
"""Decides on a record, which is delivered for so many times now."""
ANSWERS = {
    "a": Resolution("accept", "by hand"),
    "d": Resolution("accept", "by hand", redrive=True),
    "r": Resolution("release", "by hand"),
    "j": Resolution("reject", "by hand"),
    "q": Resolution("release", "not decided", stop=True),
}


def always(kind: Kind, redrive: bool) -> Resolve:
    """The same for every record."""
    return lambda row, delivery: Resolution(kind, "by option", redrive and kind == "accept")


def by_command(command: str, redrive: bool) -> Resolve:
    """Give `command` the envelope as JSON on stdin: exit code 0 accepts, 75 releases, any other rejects.

    One that is ended by a signal has decided nothing, and releases. Its last line of output is the note.

    Raises:
        TidemarkError: NO_COMMAND, where there is none.
    """
    argv = shlex.split(command)
    if not argv or shutil.which(argv[0]) is None:
        raise TidemarkError("NO_COMMAND", f"`{command}` cannot be run", "name a program that is on PATH, or its path")

    def resolve(row: Rejected, delivery: int) -> Resolution:
        envelope = json.dumps({**row.to_json(), "delivery": delivery})
        done = _run(argv, envelope)
        kind = _by_code(done.returncode)
        last = next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "")
        note = f"exit code {done.returncode} {last}".strip()[:NOTE_LENGTH]
        return Resolution(kind, note, redrive and kind == "accept")

    return resolve


def asking(registry: Registry, ask: Callable[[str], str] = input, tell: Callable[[str], None] = print) -> Resolve:
    """Show the record to a person, and ask."""

    def resolve(row: Rejected, delivery: int) -> Resolution:
        for line in inspection.lines(row, inspection.read(row, registry), None):
            tell(line)
        tell(f"  delivery    {delivery}")
        while True:
            try:
                answer = ask(QUESTION).strip().lower()[:1]
            except EOFError:
                answer = "q"
            if answer in ANSWERS:
                return ANSWERS[answer]

    return resolve


def _by_code(code: int) -> Kind:
    if code == 0:
        return "accept"
    return "release" if code == RELEASE_CODE or code < 0 else "reject"


def _run(argv: Sequence[str], text: str) -> "subprocess.CompletedProcess[str]":
    output = subprocess.PIPE
    return subprocess.run(argv, input=text, stdout=output, stderr=subprocess.STDOUT, text=True, check=False)
