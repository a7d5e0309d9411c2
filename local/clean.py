"""`local/tidemark clean`: removes the one folder that holds everything a run leaves behind."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from conf import ROOT, state_dir
from conf.errors import TidemarkError

MARKER = ".tidemark-state"  # written by local/bootstrap.sh when it makes the folder


def main(argv: Sequence[str]) -> int:
    """Stop the embedded broker and remove the state folder: packages, jars, topics' data, tables, checkpoints, logs."""
    argparse.ArgumentParser(prog="local/tidemark clean", description=main.__doc__).parse_args(argv)
    state = state_dir()
    if not state.exists():
        print(f"nothing to remove: there is no {state}")
        return 0
    require_ours(state)
    stop_broker(state)
    shutil.rmtree(state)
    print(f"removed {state}")
    return 0


def require_ours(state: Path) -> None:
    """Refuse a folder that Tidemark did not make.

    Raises:
        TidemarkError: NOT_OURS.
    """
    ours = state == ROOT / ".tidemark" or (state / MARKER).is_file()
    if not ours or state in (ROOT, *ROOT.parents, Path.home()):
        remedy = "look at it, and remove it by hand if nobody needs it"
        raise TidemarkError("NOT_OURS", f"TIDEMARK_STATE is {state}, a folder that Tidemark did not make", remedy)


def stop_broker(state: Path) -> None:
    """Stop the embedded broker, where there is one.

    Raises:
        TidemarkError: NO_PACKAGES, where one was started, and the packages that recognise its process are gone.
    """
    if not list((state / "broker").glob("node-*/pid")):
        return
    try:
        from local.broker import Cluster  # here: clean works without packages too
    except ModuleNotFoundError as exc:
        remedy = "run `local/tidemark setup`, then clean"
        raise TidemarkError(
            "NO_PACKAGES", "a broker may run and cannot be stopped without the packages", remedy
        ) from exc
    Cluster(state / "broker", state / "logs").stop()
