"""A slice whose records retention takes while it is read."""

from typing import Any, cast

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from jobs.operations.replay.side_run import ATTEMPTS, retry_after_data_loss
from jobs.pipeline import supervision
from jobs.pipeline.supervision import await_all


class Slices:
    """Slices that are run as replays run them; their queries stop by these codes, one after the other, then no more."""

    isActive, name = False, "probe"  # noqa: N815

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *codes: str) -> None:
        self.begun = 0
        self._stops = [TidemarkError(code, "records are gone", "begin anew") for code in codes]
        monkeypatch.setattr(supervision, "stopped_by", lambda query: self._stops.pop(0) if self._stops else None)
        monkeypatch.setattr(supervision, "in_parallel", lambda spark, *actions: None)

    def run(self) -> None:
        self.begun += 1
        await_all(cast(SparkSession, _Session()), [cast(StreamingQuery, self)])


class _Session:
    streams: Any

    def __init__(self) -> None:
        self.streams = self

    def resetTerminated(self) -> None:  # noqa: N802
        pass


@pytest.mark.parametrize("lost", [0, 1, ATTEMPTS - 1])
def test_it_is_run_again_some_times(lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = Slices(monkeypatch, *["DATA_LOST"] * lost)
    retry_after_data_loss(slices.run)
    assert slices.begun == lost + 1


@pytest.mark.parametrize(("codes", "begun"), [(["DATA_LOST"] * ATTEMPTS, ATTEMPTS), (["DISK_FULL"], 1)])
def test_it_is_not_run_again_for_ever_nor_for_another_reason(
    codes: list[str], begun: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = Slices(monkeypatch, *codes)
    with pytest.raises(TidemarkError, match=f"QUERY_FAILED: query probe stopped: {codes[-1]}: records are gone"):
        retry_after_data_loss(slices.run)
    assert slices.begun == begun
