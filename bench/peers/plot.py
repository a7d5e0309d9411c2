"""Draws the figures of a run as a picture.

    .tidemark/venv/bin/python -m bench.peers --results peers.json
    .tidemark/venv/bin/python -m bench.peers.plot peers.json docs/pictures/peers.png

It needs matplotlib, which `local/tidemark notebook` and `local/tidemark test` install.
"""

import json
import statistics
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from PIL import Image

mpl.use("Agg")
from matplotlib import pyplot as plt

from bench.peers.turns import Turn
from bench.workbench import option_parser
from conf import command_line
from conf.errors import exit_on_error

# What each panel shows of a turn.
PANELS: dict[str, Callable[[Turn], float]] = {
    "thousand bids/s, from the first batch or record": lambda turn: turn.per_second_reading / 1e3,
    "thousand bids/s, from the start of the process": lambda turn: turn.per_second / 1e3,
    "thousand bids a CPU-second": lambda turn: turn.per_cpu_second / 1e3,
    "GB of memory, at most": lambda turn: turn.peak_bytes / 1e9,
}
# By guarantee: what does not survive a crash, or may say things twice, is lighter.
COLORS = {"exactly once": "#1f5f8b", "at least once": "#7fb2d6", "none": "#c9c9c9"}
WIDTH, HEIGHT = 10, 7  # inches
DOTS = 110  # an inch
PALETTE = 64  # a committed picture should be small


def main() -> int:
    parser = option_parser(__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("picture", type=Path)
    options = command_line.parse(parser, sys.argv[1:])
    picture = draw(json.loads(options.results.read_text()))
    picture.save(options.picture, optimize=True)
    print(f"{options.picture}: {options.picture.stat().st_size:,} bytes")
    return 0


def draw(found: dict[str, Any]) -> Image.Image:
    """Return a picture of a run's medians, a panel each of PANELS, a bar a peer."""
    turns = [Turn(**turn) for turn in found["turns"]]
    peers = {name: peer for name, peer in found["peers"].items() if any(turn.peer == name for turn in turns)}
    colors = [COLORS[peer["guarantee"]] for peer in peers.values()]
    titles = [peer["title"] for peer in peers.values()]
    figure, panels = plt.subplots(2, 2, figsize=(WIDTH, HEIGHT), sharey=True, layout="constrained")
    for axes, (title, figure_of) in zip(panels.flat, PANELS.items(), strict=True):
        values = [statistics.median(figure_of(turn) for turn in turns if turn.peer == name) for name in peers]
        bars = axes.barh(titles, values, color=colors)
        axes.bar_label(bars, [f"{value:,.1f}" if value < 10 else f"{value:,.0f}" for value in values], padding=3)
        axes.set_title(title, fontsize=10, loc="left")
        axes.margins(x=0.15)
        axes.xaxis.set_visible(False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    panels[0, 0].invert_yaxis()
    handles = [mpl.patches.Patch(color=color, label=name) for name, color in COLORS.items()]
    figure.legend(handles=handles, title="after a crash", loc="outside lower center", ncols=3, frameon=False)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=DOTS)
    plt.close(figure)
    return Image.open(drawn).convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE)


if __name__ == "__main__":
    exit_on_error(main)
