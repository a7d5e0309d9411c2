"""Draws the curves of a file of results, as docs/scale.md shows them.

.tidemark/venv/bin/python -m bench.growth.plot docs/pictures/growth.svg [--results FILE]
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench.workbench import option_parser
from conf import command_line, state_dir
from conf.errors import exit_on_error

# Curve, column of its lines' names, of x and of y, title.
PANELS = (
    ("keys", "store", "keys", "ms", "keys of state"),
    ("versions", "arm", "versions", "ms", "versions of a table, a file each"),
    ("batches", "arm", "batches", "ms", "batches of a query"),
    ("partitions", "arm", "partitions", "ms_1000", "partitions of the source"),
)
LABELS = {
    "heap": "heap",
    "rocksdb": "RocksDB",
    "append": "append",
    "upsert": "upsert",
    "ingest": "ingest",
    "state": "counts by key",
    "table": "to a table",
    "topic": "to a topic, exactly once",
}


def main() -> int:
    parser = option_parser(__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--results", type=Path, default=state_dir() / "growth.jsonl")
    options = command_line.parse(parser, sys.argv[1:])
    rows = [json.loads(line) for line in options.results.read_text().splitlines()]
    # The same file for the same results: no time, and no random ids.
    plt.rcParams |= {"svg.hashsalt": "growth", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for axis, panel in zip(axes.flat, PANELS, strict=True):
        _draw(axis, rows, *panel)
    figure.savefig(options.picture, metadata={"Date": None})
    return 0


def _draw(axis: Axes, rows: Sequence[dict[str, Any]], curve: str, line: str, x: str, y: str, title: str) -> None:
    lines: dict[str, dict[float, float]] = defaultdict(dict)
    for row in rows:
        if row["curve"] == curve and row.get("compacted") != "yes":
            lines[row[line]][row[x]] = row[y]  # the newest of each point
    for name, points in lines.items():
        axis.plot(sorted(points), [points[at] for at in sorted(points)], marker="o", label=LABELS[name])
    axis.set(title=title, xscale="log", ylim=(0, None), ylabel="ms per batch")
    axis.legend()


if __name__ == "__main__":
    exit_on_error(main)
