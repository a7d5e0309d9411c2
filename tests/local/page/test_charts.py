"""What charts show: of micro-batches, and of counts over time."""

from datetime import UTC, datetime

import pytest

from local.page.charts import bucket_seconds, charts, counts_over_time, rate
from tests.local.page.test_runs import DONE

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_rate_needs_the_seconds() -> None:
    assert rate(DONE) == 200.0
    assert rate({"rows_in": 5, "phases": None}) is None
    assert rate({"rows_in": 5, "phases": {"triggerExecution": 0}}) is None


def test_there_are_nine_charts_of_a_query_with_state() -> None:
    row = DONE | {"began_at": NOW, "state_rows": 1, "state_bytes": 1, "watermark": NOW, "max_event_time": NOW}
    row |= {"write_phases": {}}
    assert len([chart for chart in charts([row]) if chart.has_values]) == 9


@pytest.mark.parametrize(("span", "width"), [(0, 60), (7200, 60), (7201, 3600), (3 * 86_400, 3600), (10**7, 86_400)])
def test_a_bar_is_a_minute_an_hour_or_a_day(span: float, width: int) -> None:
    assert bucket_seconds(span) == width


def test_only_the_most_frequent_names_have_a_series() -> None:
    chart = counts_over_time("t", {(f"n{number}", NOW): number for number in range(1, 12)})
    assert chart.series == tuple(f"n{number}" for number in range(11, 3, -1))
    assert counts_over_time("t", {}).data == ((),)
