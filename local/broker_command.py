"""`local/tidemark broker start|stop|status|logs`: the embedded cluster of this checkout, as settings describe it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from conf import state_dir
from conf.errors import exit_on_error
from conf.settings import ENVIRONMENTS, Settings, embedded_bootstrap_servers, load
from local.broker import Cluster

LOG_LINES = 40


def embedded(settings: Settings) -> Cluster:
    """The cluster that `settings.broker` describes, whether it runs or not."""
    wanted = settings.broker
    logs = Path(settings.paths.logs)
    return Cluster(state_dir() / "broker", logs, nodes=wanted.nodes, port=wanted.port, heap_mb=wanted.heap_mb)


def is_configured(settings: Settings) -> bool:
    """Whether the user named a cluster: then no broker of ours is started."""
    servers = settings.kafka.bootstrap_servers
    return bool(servers) and servers != embedded_bootstrap_servers()


def ensure(settings: Settings) -> bool:
    """Start the embedded cluster where no other is configured; whether something was started.

    Load the settings anew afterwards: the addresses are known only then.

    Raises:
        TidemarkError: as `Cluster.start`.
    """
    return not is_configured(settings) and embedded(settings).start()


def _start(settings: Settings) -> int:
    if is_configured(settings):
        print(
            f"kafka.bootstrap_servers is {settings.kafka.bootstrap_servers}: that cluster is used, nothing is started"
        )
        return 0
    if not embedded(settings).running():
        print("starting the broker", file=sys.stderr)
    started = ensure(settings)
    servers = embedded(settings).bootstrap_servers
    print(f"broker started: {servers}" if started else f"broker runs already: {servers}")
    return 0


def _stop(settings: Settings) -> int:
    print("broker stopped" if embedded(settings).stop() else "no broker was running")
    return 0


def _status(settings: Settings) -> int:
    if is_configured(settings):
        print(f"configured cluster: {settings.kafka.bootstrap_servers}")
    cluster = embedded(settings)
    for node in cluster.nodes:
        pid = node.pid()
        memory = f"pid {pid}, {psutil.Process(pid).memory_info().rss >> 20} MB" if pid else "not running"
        print(f"node {node.id} at {node.address}: {memory}, log {node.log}")
    if not cluster.running():
        print("no embedded broker is running: `local/tidemark broker start` starts one")
    return 0 if cluster.running() or is_configured(settings) else 1


def _logs(settings: Settings) -> int:
    for node in embedded(settings).nodes:
        print(f"==> {node.log} <==")
        lines = node.log.read_text(errors="replace").splitlines() if node.log.exists() else []
        print("\n".join(lines[-LOG_LINES:]))
    return 0


ACTIONS = {"start": _start, "stop": _stop, "status": _status, "logs": _logs}


def main(argv: Sequence[str]) -> int:
    """Start, stop or look at the embedded broker; `status` exits with 1 when none runs."""
    parser = argparse.ArgumentParser(prog="local/tidemark broker", description=main.__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--env", choices=ENVIRONMENTS)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="such as broker.port=9092")
    options = parser.parse_args(argv)
    return ACTIONS[options.action](load(options.env, options.set))


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
