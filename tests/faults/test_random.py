"""Faults that nobody has thought of: a short schedule of random ones, another one each time."""

from pathlib import Path

import pytest

from tests.faults import random_faults

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

MINUTES = "1"


def test_whatever_is_killed_or_paused_at_whatever_moment_each_record_is_there_once(seed: int, tmp_path: Path) -> None:
    assert random_faults.main(["--minutes", MINUTES, "--seed", str(seed), "--folder", str(tmp_path)]) == 0
