"""A program that resolves records may print what it likes; one that cannot be run is named in a line."""

from pathlib import Path

import pytest

from conf.errors import TidemarkError
from producers.quarantine.worker import ask_command
from tests.producers.quarantine.ward import rejected


def program(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_output_that_is_no_utf_8_becomes_the_note_as_far_as_it_is_text(tmp_path: Path) -> None:
    command = program(tmp_path, "#!/bin/sh\ncat >/dev/null\nprintf 'caf\\351 closed\\n'\nexit 75\n")
    found = ask_command(command, redrive=False)(rejected("t", 0, value=b"\xff"), 1)
    assert (found.kind, found.note) == ("release", "exit code 75 caf\ufffd closed")


def test_a_file_that_is_no_program_decides_nothing_and_is_named(tmp_path: Path) -> None:
    resolve = ask_command(program(tmp_path, "exit 0\n"), redrive=False)
    with pytest.raises(TidemarkError, match=r"NO_COMMAND: .*/program` cannot be run: exec format error; .*#!/bin/sh"):
        resolve(rejected("t", 0), 1)


@pytest.mark.parametrize("command", ["sh -c 'exit 0", 'sh "', "sh \\"])
def test_a_quote_that_is_left_open_is_named_before_anything_is_taken(command: str) -> None:
    with pytest.raises(TidemarkError, match=r"NO_COMMAND: .* cannot be run: no .*; close each quote"):
        ask_command(command, redrive=False)


def test_a_command_that_is_not_there_is_named_before_anything_is_taken() -> None:
    with pytest.raises(TidemarkError, match="NO_COMMAND: `no-such-program x` cannot be run: there is no such program"):
        ask_command("no-such-program x", redrive=False)
