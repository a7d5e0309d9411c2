"""A selection takes what a partition, an offset and a time can be, and names anything else in a line."""

import argparse
from datetime import UTC, datetime

import pytest

from producers.quarantine.cli import build_parser
from producers.quarantine.records import Coordinates
from producers.quarantine.selection import add_selection, selection


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_selection(made)
    return made


@pytest.mark.parametrize(
    "words",
    [
        ["--partition", str(2**31)],
        ["--partition", "-1"],
        ["--from-offset", str(2**63)],
        ["--to-offset", "9" * 5000],
        [f"people/0/{2**63}"],
        [f"people/{2**31}/0"],
        ["people/0/-1"],
        [f"people/0/{'9' * 5000}"],
        ["--since", "0001-01-01T00:00+14:00"],
        ["--until", "9999-12-31T23:59-14:00"],
    ],
)
def test_what_no_record_can_have_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(words)
    assert stopped.value.code == 2
    assert "error: argument" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--limit", "--skip"])
def test_a_count_that_is_too_great_is_wrong_usage(option: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(["inspect", option, "9" * 30])
    assert stopped.value.code == 2


def test_the_greatest_are_taken() -> None:
    words = ["--partition", str(2**31 - 1), "--from-offset", str(2**63 - 1), "--since", "2026-01-31T12:00+02:00"]
    found = selection(parser().parse_args([f"people/{2**31 - 1}/{2**63 - 1}", *words]))
    assert (found.partition, found.first_offset) == (2**31 - 1, 2**63 - 1)
    assert found.record == Coordinates("people", 2**31 - 1, 2**63 - 1)
    assert found.since == datetime(2026, 1, 31, 10, tzinfo=UTC)
