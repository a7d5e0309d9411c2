"""Runs the embedded Kafka cluster, and `local/tidemark broker start|stop|status|logs`.

Its nodes are real brokers in KRaft mode, on loopback, as processes of their own: one for work on a laptop; three
(replication 3, min in-sync 2, no unclean election) for tests that take one away.
"""

import argparse
import base64
import signal
import subprocess
import sys
import uuid
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from conf import command_line, state_dir
from conf.errors import TidemarkError
from conf.settings import Settings, embedded_bootstrap_servers
from local.broker_node import Layout, Node, Ports, choose_ports, damaged, id_of_data, nodes_of_data
from local.processes import HOST, exclusive, listens, wait_for
from local.state_folder import write_whole

READY_SECONDS = 120
SESSION_MS = 9_000  # Kafka's default
PORT_ATTEMPTS, PORT_IN_USE = 3, "Address already in use"
INTERNAL_PARTITIONS = 4  # of each internal topic: Kafka's 50 are for clusters, and cost files and start-up time here
LOG_LINES = 40


def main(argv: Sequence[str]) -> int:
    """Start, stop or look at the embedded broker; `status` exits with 1 when none runs."""
    parser = argparse.ArgumentParser(
        prog="local/tidemark broker", description=main.__doc__, parents=[command_line.settings_options()]
    )
    actions = {"start": _start, "stop": _stop, "status": _show_status, "logs": _show_logs}
    parser.add_argument("action", choices=actions)
    options = command_line.parse(parser, argv)
    return actions[options.action](command_line.settings_of(options))


def _start(settings: Settings) -> int:
    if is_configured(settings):
        print(
            f"kafka.bootstrap_servers is {settings.kafka.bootstrap_servers}: that cluster is used, nothing is started"
        )
        return 0
    cluster = embedded(settings)
    if not cluster.running():
        print("starting the broker", file=sys.stderr)
    print("broker started:" if cluster.start() else "broker runs already:", cluster.bootstrap_servers)
    return 0


def _stop(settings: Settings) -> int:
    print("broker stopped" if embedded(settings).stop() else "no broker was running")
    return 0


def _show_status(settings: Settings) -> int:
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


def _show_logs(settings: Settings) -> int:
    for node in embedded(settings).nodes:
        print(f"==> {node.log} <==")
        lines = node.log.read_text(errors="replace").splitlines() if node.log.exists() else []
        print("\n".join(lines[-LOG_LINES:]))
    return 0


def is_configured(settings: Settings) -> bool:
    """Return whether the user named a cluster: then no broker of ours is started."""
    servers = settings.kafka.bootstrap_servers
    return bool(servers) and servers != embedded_bootstrap_servers()


def embedded(settings: Settings) -> "Cluster":
    """Return the cluster that `settings.broker` describes, whether it runs or not."""
    broker = settings.broker
    logs = Path(settings.paths.logs)
    return Cluster(state_dir() / "broker", logs, nodes=broker.nodes, port=broker.port, heap_mb=broker.heap_mb)


class Cluster:
    """One or three nodes under `home`; a context manager that starts it, and stops it at the end.

    Args:
        home: holds data, ports and pids; data stays over restarts, and so do the ports while they are free.
        logs: gets one `broker-<node>.log` per node.
        port: of the first node, the others' follow; 0 takes free ones.
        heap_mb: of each node.
        attached: the nodes die with this process, even when it is killed.
        session_ms: how long a node may be silent before another one takes over what it leads.
        java_options: of each node's JVM.
    """

    def __init__(
        self,
        home: Path,
        logs: Path,
        *,
        nodes: int = 1,
        port: int = 0,
        heap_mb: int = 512,
        attached: bool = False,
        session_ms: int = SESSION_MS,
        java_options: Sequence[str] = (),
    ) -> None:
        self._home, self._logs = home.resolve(), logs.resolve()
        self._count, self._port, self._heap_mb, self._attached = nodes, port, heap_mb, attached
        self._session_ms, self._java_options = session_ms, java_options
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def nodes(self) -> list[Node]:
        """Return the nodes, in order of their ids from 1; empty before the first start.

        Raises:
            TidemarkError: BROKER_STATE_DAMAGED, also where else the nodes are asked for.
        """
        layout = Layout.read(self._home).nodes
        if not layout and self._running_by_pid():
            raise damaged(self._home, "is gone while the broker runs")
        return [self._node(id, ports) for id, ports in enumerate(layout, start=1)]

    @property
    def bootstrap_servers(self) -> str:
        """Return the nodes' addresses, as clients take them."""
        return ",".join(node.address for node in self.nodes)

    def running(self) -> list[Node]:
        """Return the nodes whose process runs."""
        return [node for node in self.nodes if node.pid() is not None]

    def _running_by_pid(self) -> list[Node]:
        """Return the nodes whose process runs, whatever is known of the cluster; they have no ports."""
        nodes = (self._node(id, Ports(0, 0)) for id in nodes_of_data(self._home))
        return [node for node in nodes if node.pid() is not None]

    def _node(self, id: int, ports: Ports) -> Node:
        return Node(id, self._home / f"node-{id}", self._logs / f"broker-{id}.log", ports)

    def start(self) -> bool:
        """Start every node that does not run, and return when all answer; return False when all ran already.

        Raises:
            TidemarkError: BROKER_FAILED, BROKER_STATE_DAMAGED, PORT_TAKEN, BROKER_NODES (the data was made for another
                number of nodes).
        """
        with exclusive(self._home / "lock"):
            running = {node.id for node in self.running()}
            if len(running) < self._count:
                self._start_others(running)
            # Where `conf.settings` looks for them.
            write_whole(self._home / "bootstrap.servers", f"{self.bootstrap_servers}\n")
        return len(running) < self._count

    def _start_others(self, running: Collection[int], attempts: int = PORT_ATTEMPTS) -> None:
        cluster_id = self._settle_layout(bool(running))
        with ExitStack() as undo:
            for node in self.nodes:
                if node.id not in running:
                    undo.callback(node.wait_stopped, 0)
                    node.configure(self._settings(node))
                    node.format(cluster_id)
                    self._processes[node.id] = node.start(self._heap_mb, self._attached, self._java_options)
            try:
                self._wait_ready()
            except TidemarkError as exc:
                # A free port is free only until somebody else takes it, such as a cluster that starts beside this one.
                if running or self._port or attempts <= 1 or PORT_IN_USE not in exc.message:
                    raise
            else:
                undo.pop_all()
                return
        self._start_others(running, attempts - 1)

    def _settle_layout(self, some_run: bool) -> str:
        """Decide on the ports, write them down, and return the cluster's id."""
        layout = Layout.read(self._home)
        # Who removes a damaged layout keeps the data.
        cluster_id = layout.id or id_of_data(self._home)
        cluster_id = cluster_id or base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        made_for = len(layout.nodes) or len(nodes_of_data(self._home))
        if made_for not in (0, self._count):
            message = f"the data in {self._home} is of {made_for} nodes, broker.nodes is {self._count}"
            raise TidemarkError("BROKER_NODES", message, "set it back, or begin anew with `local/tidemark clean`")
        if not some_run:
            requested = [self._port + index if self._port else 0 for index in range(self._count)]
            Layout(cluster_id, tuple(choose_ports(requested, layout.nodes))).write(self._home)
        return cluster_id

    def _wait_ready(self) -> None:
        """Return when every running node is part of the cluster and answers.

        Raises:
            TidemarkError: BROKER_FAILED, with the last log line that tells of trouble and the log's path.
        """
        started = self.running()
        wait_for(lambda: self._all_answer(started), READY_SECONDS, lambda: _failed(started[0], "does not answer"))

    def _all_answer(self, nodes: Sequence[Node]) -> bool:
        for node in nodes:
            if node.pid() is None:
                raise _failed(node, "ended")
        # Asking only once the ports are open spares the log of a client that complains.
        if not all(listens(node.ports.port) for node in nodes):
            return False
        servers = ",".join(node.address for node in nodes)
        try:
            answer = AdminClient({"bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=2)
        except KafkaException:
            return False
        # Another cluster may answer on the port that ours is about to find taken.
        return answer.cluster_id == Layout.read(self._home).id and {node.id for node in nodes} <= answer.brokers.keys()

    def stop(self) -> bool:
        """End all nodes, by force when they take too long; return False when none ran.

        Only their pids are needed: nothing that is damaged keeps a broker running.
        """
        if not self._home.is_dir():
            return False
        with exclusive(self._home / "lock"):
            (self._home / "bootstrap.servers").unlink(missing_ok=True)
            running = self._running_by_pid()
            for node in running:
                node.signal(signal.SIGTERM)
                node.signal(signal.SIGCONT)
            for node in running:
                node.wait_stopped()
        return bool(running)

    def _settings(self, node: Node) -> dict[str, str]:
        nodes = self.nodes
        copies, in_sync = (3, 2) if len(nodes) > 1 else (1, 1)
        internal = {
            f"{topic}.{setting}": str(value)
            for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
            for setting, value in (("num.partitions", INTERNAL_PARTITIONS), ("replication.factor", copies))
        }
        return {
            "process.roles": "broker,controller",
            "node.id": str(node.id),
            "controller.quorum.voters": ",".join(f"{voter.id}@{HOST}:{voter.ports.controller_port}" for voter in nodes),
            "listeners": f"PLAINTEXT://{node.address},CONTROLLER://{HOST}:{node.ports.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{node.address}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(node.home / "data"),
            **internal,
            "default.replication.factor": str(copies),
            "min.insync.replicas": str(in_sync),
            "transaction.state.log.min.isr": str(in_sync),
            "share.coordinator.state.topic.min.isr": str(in_sync),
            "unclean.leader.election.enable": "false",
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            # A worker of a share group is let in with its second heartbeat: by default after 5 s.
            "group.share.min.heartbeat.interval.ms": "500",
            "group.share.heartbeat.interval.ms": "500",
            "group.share.min.record.lock.duration.ms": "1000",
            # Records carry event times of years ago: retention by time is a topic's own decision, never the default.
            "log.retention.ms": "-1",
            # The cleaner takes its buffer, 128 MB by default, from the heap at once.
            "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
            "broker.session.timeout.ms": str(self._session_ms),
            "broker.heartbeat.interval.ms": str(self._session_ms * 2 // 9),
            "num.network.threads": "2",
            "num.io.threads": "4",
        }


def _failed(node: Node, what: str) -> TidemarkError:
    return TidemarkError("BROKER_FAILED", f"broker node {node.id} {what}: {node.last_words()}", f"log: {node.log}")
