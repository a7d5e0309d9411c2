"""Holds a process where a test has set a point, to be killed, paused or let pass.

Without $TIDEMARK_FAILPOINTS the points do nothing. A test arms a point of one sink by a file `<sink>/<point>.armed` in
that folder, which may say which attempt it means, as JSON: every key in it must equal what the point is reached with.
The process that comes by takes the file's place, once: it writes its pid to `<point>.reached` and waits for
`<point>.release`, or for its end.
"""

import json
import os
import time
from pathlib import Path

VARIABLE = "TIDEMARK_FAILPOINTS"
POLL_SECONDS = 0.005


def fail_point(point: str, sink: str = "", **where: object) -> None:
    """Wait here, if a test has armed `point` of `sink` for `where`."""
    if not (folder := os.environ.get(VARIABLE)):
        return
    place = Path(folder) / sink / point
    armed, taken = place.with_suffix(".armed"), place.with_suffix(f".{os.getpid()}")
    try:
        condition = json.loads(armed.read_text() or "{}")
        if any(where.get(key) != value for key, value in condition.items()):
            return
        armed.rename(taken)  # of two processes that come by, one succeeds
    except FileNotFoundError:
        return
    taken.write_text(str(os.getpid()))
    taken.rename(place.with_suffix(".reached"))
    while not place.with_suffix(".release").exists():
        time.sleep(POLL_SECONDS)
