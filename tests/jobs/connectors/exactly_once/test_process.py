"""Whether the process that began a transaction is gone."""

import subprocess
import sys
from dataclasses import replace

from jobs.connectors.exactly_once.process import Author, is_gone, this_process

ASK = "from jobs.connectors.exactly_once.process import this_process; print(this_process().fields); input()"


def test_a_process_lives_until_it_has_ended() -> None:
    assert is_gone(this_process()) is False
    command = [sys.executable, "-c", ASK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        author = Author.from_fields(eval(process.stdout.readline()))
        assert author is not None and author.pid == process.pid
        assert is_gone(author) is False
        process.kill()
        process.wait()
    assert is_gone(author) is True


def test_another_process_with_its_number_is_not_it() -> None:
    assert is_gone(replace(this_process(), started="1")) is True


def test_of_another_machine_boot_or_container_nobody_can_say() -> None:
    for elsewhere in (
        replace(this_process(), boot="another"),
        replace(this_process(), namespace="another"),
        replace(this_process(), started=""),
    ):
        assert is_gone(elsewhere) is None


def test_what_is_no_author_is_none() -> None:
    assert Author.from_fields(None) is None
    assert Author.from_fields({"host": "x", "more": 1}) is None
