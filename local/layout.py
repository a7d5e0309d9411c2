"""Keeps what an embedded cluster is known by: its id, and the ports of its nodes."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from conf.errors import TidemarkError
from local.whole_files import write_whole

FILE = "cluster.json"
META = Path("data", "meta.properties")  # Kafka's own, in a node's folder


@dataclass(frozen=True)
class Layout:
    """The cluster's id, empty before the first start, and `port` and `controller_port` of each node, by their ids."""

    id: str = ""
    nodes: Sequence[dict[str, int]] = ()

    @classmethod
    def read(cls, home: Path) -> Self:
        """Return what an earlier start wrote down; an empty one where there was none.

        Raises:
            TidemarkError: BROKER_STATE_DAMAGED.
        """
        path = home / FILE
        try:
            kept: Any = json.loads(path.read_text(encoding="utf-8"))
            nodes = [{name: _number(node[name]) for name in ("port", "controller_port")} for node in kept["nodes"]]
            return cls(_text(kept["id"]), nodes)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError) as exc:
            what = exc.strerror if isinstance(exc, OSError) else f"{type(exc).__name__} {exc}"
            raise damaged(home, f"cannot be read: {what}") from exc

    def write(self, home: Path) -> None:
        """Write it down."""
        write_whole(home / FILE, json.dumps(asdict(self), indent=1))


def damaged(home: Path, how: str) -> TidemarkError:
    """Return the BROKER_STATE_DAMAGED for the file of a layout."""
    path = home / FILE
    remedy = f"run `local/tidemark broker stop`, then `rm -rf {path}`; `broker start` makes it anew, the data stays"
    return TidemarkError("BROKER_STATE_DAMAGED", f"{path} {how}", remedy)


def id_of_data(home: Path) -> str:
    """Return the id of the cluster that the nodes' data was made for; empty where there is none yet."""
    for meta in sorted(home.glob(f"node-*/{META}")):
        if found := re.search(r"^cluster\.id=(\S+)$", meta.read_text(encoding="utf-8"), re.MULTILINE):
            return found[1]
    return ""


def nodes_of_data(home: Path) -> list[int]:
    """Return the ids of the nodes that have a folder, whether they ever ran or not."""
    names = (folder.name.removeprefix("node-") for folder in home.glob("node-*"))
    return sorted(int(name) for name in names if name.isdecimal())


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no port")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no id")
    return value
