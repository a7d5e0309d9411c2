"""What is known of a replay whose record is damaged."""

from pathlib import Path

import pytest

from conf.errors import TidemarkError
from conf.settings import load
from jobs.operations.replay.record import ReplayPaths, Replays


def test_a_record_that_is_empty_is_damaged_and_not_missing(tmp_path: Path) -> None:
    settings = load(overrides=[f"paths.tables={tmp_path}"])
    replays = Replays(settings)
    assert replays.all() == [] and replays.find("r1") is None
    record = Path(ReplayPaths.of(settings, "r1").record)
    record.parent.mkdir(parents=True)
    record.touch()
    with pytest.raises(TidemarkError, match="BAD_REPLAY"):
        replays.all()
