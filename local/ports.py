"""Ports on loopback: which are free, and which to take."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack

from conf.errors import TidemarkError
from local.processes import wait_for

HOST = "127.0.0.1"
RELEASE_SECONDS = 2  # a process that was killed a moment ago can hold its port a little longer than its pid


def listens(port: int) -> bool:
    """Whether a program accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def choose(wanted: Sequence[int], before: Sequence[dict[str, int]]) -> list[dict[str, int]]:
    """Ports for each node, `port` and `controller_port`: the wanted one (0: any), else the one before, else a free one.

    Raises:
        TidemarkError: PORT_TAKEN, where another program listens on a wanted one.
    """
    chosen = []
    with ExitStack() as held:
        for index, port in enumerate(wanted):
            had = before[index] if before else {"port": 0, "controller_port": 0}
            if port:
                _require_free(port)
            chosen.append(
                {"port": port or _free(held, had["port"]), "controller_port": _free(held, had["controller_port"])}
            )
    return chosen


def _require_free(port: int) -> None:
    remedy = "set broker.port to another one, or to 0 for a free one"
    taken = TidemarkError("PORT_TAKEN", f"another program listens on {HOST}:{port}", remedy)
    wait_for(lambda: not listens(port), RELEASE_SECONDS, lambda: taken)


def _free(held: ExitStack, preferred: int) -> int:
    """A port that is free now, kept bound until `held` closes so that no two calls give the same one."""
    for port in (preferred, 0):
        probe = held.enter_context(socket.socket())
        # Without this a port whose last connections linger in TIME_WAIT counts as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            continue
        return int(probe.getsockname()[1])
    raise TidemarkError("PORT_TAKEN", f"no free port on {HOST}", "end programs that hold ports")
