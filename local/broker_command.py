"""Runs `local/tidemark broker start|stop|status|logs`, and Kafka's own tools from the embedded broker's jars."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import psutil

from conf import command_line, state_dir
from conf.errors import exit_on_error
from conf.settings import Settings, embedded_bootstrap_servers, without_secrets
from local import jars
from local.broker import Cluster
from local.processes import java

LOG_LINES = 40
TOOLS = {
    "acls": "org.apache.kafka.tools.AclCommand",
    "configs": "kafka.admin.ConfigCommand",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "topics": "org.apache.kafka.tools.TopicCommand",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
}


def embedded(settings: Settings) -> Cluster:
    """Return the cluster that `settings.broker` describes, whether it runs or not."""
    broker = settings.broker
    logs = Path(settings.paths.logs)
    return Cluster(state_dir() / "broker", logs, nodes=broker.nodes, port=broker.port, heap_mb=broker.heap_mb)


def is_configured(settings: Settings) -> bool:
    """Return whether the user named a cluster: then no broker of ours is started."""
    servers = settings.kafka.bootstrap_servers
    return bool(servers) and servers != embedded_bootstrap_servers()


def ensure(settings: Settings) -> bool:
    """Start the embedded cluster where no other is configured; return whether something was started.

    Load the settings anew afterwards: the addresses are known only then.

    Raises:
        TidemarkError: as `Cluster.start`.
    """
    return not is_configured(settings) and embedded(settings).start()


def main(argv: Sequence[str]) -> int:
    """Start, stop or look at the embedded broker; `status` exits with 1 when none runs."""
    parser = argparse.ArgumentParser(
        prog="local/tidemark broker", description=main.__doc__, parents=[command_line.settings_options()]
    )
    parser.add_argument("action", choices=ACTIONS)
    options = command_line.parse(parser, argv)
    return ACTIONS[options.action](command_line.settings_of(options))


def kafka_tools(argv: Sequence[str]) -> int:
    """Run `kafka-<tool>.sh` with the options that follow; its exit code.

    Raises:
        TidemarkError: NO_JARS, NO_JAVA.
    """
    parser = argparse.ArgumentParser(prog="local/tidemark kafka", description=kafka_tools.__doc__, add_help=False)
    parser.add_argument("tool", choices=sorted(TOOLS), help="acls for kafka-acls.sh, and so on")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="what the tool takes")
    # What the tool takes is for it to judge.
    command_line.check(list(takewhile(lambda word: word not in TOOLS, argv)))
    arguments = parser.parse_args(argv)
    command = [java(), "-XX:TieredStopAtLevel=1", "-cp", jars.class_path("broker"), TOOLS[arguments.tool]]
    return subprocess.run([*command, *arguments.options], env=without_secrets(os.environ), check=False).returncode


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


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
