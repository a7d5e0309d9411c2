"""Holds settings, topics and pins, declared as data; they are loaded once, at the edge."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def home() -> Path | None:
    """Return the home folder of the account; None where it has none, as in containers and units that set no HOME."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def state_dir() -> Path:
    """Return the folder of all that a run leaves behind: `$TIDEMARK_STATE`, or `.tidemark` in the checkout."""
    configured = os.environ.get("TIDEMARK_STATE")
    # Unlike Path.resolve it leaves links that go round in a circle: whoever opens one learns it from the system.
    return Path(os.path.realpath(Path(configured).expanduser())) if configured else ROOT / ".tidemark"
