"""Draws the notebooks' charts: one style, one colour for each airport, and above every chart what it shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import set_matplotlib_formats

AIRPORTS = {"EWR": "Newark (EWR)", "JFK": "Kennedy (JFK)", "LGA": "LaGuardia (LGA)"}
# Okabe and Ito's palette: people who do not see red or green tell these apart.
COLORS = {"EWR": "#0072B2", "JFK": "#D55E00", "LGA": "#009E73"}
ACCENT = "#2F5D8A"
PALE = "#C3CED9"
INK = "#22303C"
MUTED = "#66727E"
WIDTH = 9.6
HEADER = 0.95
FOOTER = 0.6
# A share of fewer departures says more about chance than about what they have in common.
ENOUGH = 100

STYLE: dict[str, Any] = {
    "figure.dpi": 96,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E3E8ED",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "date.converter": "concise",
}


def use_style() -> None:
    """Draw in this style from now on, sharp on dense screens; a picture that is drawn anew keeps its size."""
    plt.style.use(STYLE)
    set_matplotlib_formats("retina", bbox_inches=None)  # type: ignore[no-untyped-call]


@contextmanager
def sheet(
    finding: str,
    reading: str,
    *,
    rows: int = 1,
    columns: int = 1,
    height: float = 3.6,
    left: float = 0.075,
    right: float = 0.975,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Give a figure with its axes, row by row, under a headline; shown by `display`, closed at the end of the block.

    Args:
        finding: the headline: what the chart shows, with its figures.
        reading: how to read it, in smaller letters.
        rows, columns: panels, which share their y axis along a row and their x axis along a column.
        height: in inches.
        left, right: where the panels begin and end, as shares of the width.
    """
    grid = {"left": left, "right": right, "top": 1 - HEADER / height, "bottom": FOOTER / height}
    grid |= {"wspace": 0.08, "hspace": 0.32}
    figure, panels = plt.subplots(
        rows, columns, figsize=(WIDTH, height), sharex="col", sharey="row", squeeze=False, gridspec_kw=grid
    )
    figure.text(0.012, 1 - 0.12 / height, finding, va="top", size=13, weight="bold")
    figure.text(0.012, 1 - 0.42 / height, reading, va="top", color=MUTED)
    try:
        yield figure, list(panels.flat)
    finally:
        plt.close(figure)


def enough(counts: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with at least ENOUGH `departures`; all, where none has as many."""
    many = counts["departures"] >= ENOUGH
    return counts[many] if many.any() else counts


def late_percent(counts: Any) -> Any:
    """Return the share of `departures` that are `delayed`, in percent, of each row of a frame or of one row."""
    return 100 * counts["delayed"] / counts["departures"]


def short(count: int) -> str:
    """Return a count in the space that a bar leaves: 842, 4.2k, 117k."""
    return str(count) if count < 1000 else f"{count / 1000:.{int(count < 10_000)}f}k"
