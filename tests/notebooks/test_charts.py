"""What the charts are made of."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from notebooks.charts import ENOUGH, enough, late_percent, sheet, short


def test_late_is_a_share_of_the_departures() -> None:
    counts = pd.DataFrame({"departures": [4, 10], "delayed": [1, 0]})
    assert late_percent(counts).tolist() == [25.0, 0.0]
    assert late_percent(counts.loc[0]) == 25.0


@pytest.mark.parametrize(
    ("departures", "kept"),
    [([ENOUGH - 1, ENOUGH, ENOUGH + 1], [ENOUGH, ENOUGH + 1]), ([1, ENOUGH - 1], [1, ENOUGH - 1])],
)
def test_shares_of_a_few_departures_are_left_out_while_there_are_others(departures: list[int], kept: list[int]) -> None:
    assert enough(pd.DataFrame({"departures": departures}))["departures"].tolist() == kept


@pytest.mark.parametrize(("count", "text"), [(842, "842"), (4_249, "4.2k"), (116_700, "117k")])
def test_counts_are_short(count: int, text: str) -> None:
    assert short(count) == text


def test_a_sheet_says_what_was_found_and_how_to_read_it_and_is_closed() -> None:
    with sheet("Rain matters", "share of departures", rows=2, columns=3) as (figure, panels):
        assert [text.get_text() for text in figure.texts] == ["Rain matters", "share of departures"]
        assert len(panels) == 6
        assert plt.fignum_exists(figure.number)
    assert not plt.fignum_exists(figure.number)
