"""Sets points where tests hold a process to kill, pause or pass it; without $TIDEMARK_FAILPOINTS they do nothing.

A test arms a point of one sink by a file `<sink>/<point>.armed` in that folder, which may say which attempt it means,
as JSON: every key in it must equal what the point is reached with. The process that comes by takes the file's place,
once: it writes its pid to `<point>.reached` and waits for `<point>.release`, or for its end.
"""

import json
import os
import time
from pathlib import Path

VARIABLE = "TIDEMARK_FAILPOINTS"
POLL_SECONDS = 0.005


def fail_point(point: str, sink: str = "", **where: object) -> None:
    """Wait here, if a test has armed `point` of `sink` for `where`."""
    folder = os.environ.get(VARIABLE)
    if folder:
        _meet(Path(folder) / sink / point, where)


def _meet(point: Path, where: dict[str, object]) -> None:
    armed, taken = point.with_suffix(".armed"), point.with_suffix(f".{os.getpid()}")
    try:
        condition = json.loads(armed.read_text() or "{}")
        if any(where.get(key) != value for key, value in condition.items()):
            return
        armed.rename(taken)  # of two processes that come by, one succeeds
    except FileNotFoundError:
        return
    taken.write_text(str(os.getpid()))
    taken.rename(point.with_suffix(".reached"))
    while not point.with_suffix(".release").exists():
        time.sleep(POLL_SECONDS)
