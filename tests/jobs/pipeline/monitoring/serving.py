"""A free port, for what serves metrics in tests."""

import socket

from local.processes import HOST


def free_port() -> int:
    with socket.create_server((HOST, 0)) as held:
        return int(held.getsockname()[1])
