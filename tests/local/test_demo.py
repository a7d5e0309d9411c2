"""What the demo refuses before it starts anything."""

import pytest

from conf.errors import TidemarkError
from local import demo


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(options: object) -> None:
        raise AssertionError("a step was begun")

    monkeypatch.setattr(demo, "_steps", start)


@pytest.mark.parametrize("words", [["--from", "x"], ["--from", "2013-02-01", "--to", "2013-01-01"], ["--to", "-1"]])
def test_days_that_publish_would_refuse_are_refused_first(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        demo.main(words)
    assert stop.value.code == 2


def test_days_without_flights_are_refused_first() -> None:
    with pytest.raises(TidemarkError, match="NO_EVENTS"):
        demo.main(["--from", "2014-01-01", "--to", "2014-02-01"])
