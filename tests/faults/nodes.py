"""Who does what in a cluster of three nodes, and whether it is whole: so that a fault hits the node it is meant for."""

import json
import signal

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from local.broker import Cluster
from local.processes import wait_for

WHOLE_SECONDS = 90.0
TRANSACTIONS = "__transaction_state"
QUORUM = "data/__cluster_metadata-0/quorum-state"


def kill(cluster: Cluster, node: int) -> None:
    """End a node at once, as a power cut would."""
    cluster.nodes[node - 1].wait_stopped(0)


def pause(cluster: Cluster, node: int) -> None:
    """Stop a node's process from running, as a long garbage collection would; `resume` lets it go on."""
    cluster.nodes[node - 1].signal(signal.SIGSTOP)


def resume(cluster: Cluster, node: int) -> None:
    """Let a paused node go on."""
    cluster.nodes[node - 1].signal(signal.SIGCONT)


def restart(cluster: Cluster, node: int) -> None:
    """End a node in order if it runs, start it anew, and return when it answers."""
    stopped = cluster.nodes[node - 1]
    stopped.signal(signal.SIGTERM)
    stopped.wait_stopped()
    cluster.start()


def leader_of(cluster: Cluster, topic: str, partition: int) -> int:
    """Return the id of the node that leads a partition; -1 while none does."""
    servers = ",".join(node.address for node in cluster.running())
    client = AdminClient({"bootstrap.servers": servers, "log_level": 0, "allow.auto.create.topics": False})
    partitions = client.list_topics(topic, timeout=10).topics[topic].partitions
    return int(partitions[partition].leader) if partition in partitions else -1


def leader(cluster: Cluster, topic: str, partition: int) -> int:
    """The node that leads a partition, once one does."""
    found = -1

    def led() -> bool:
        nonlocal found
        found = leader_of(cluster, topic, partition)
        return found > 0

    wait_for(led, WHOLE_SECONDS, lambda: AssertionError(f"nobody leads {topic} {partition}"))
    return found


def coordinator(cluster: Cluster, transactional_id: str) -> int:
    """The node that coordinates a transactional id's transactions: it leads the partition that keeps their state."""
    found = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0}).list_topics(
        TRANSACTIONS, timeout=10
    )
    return leader(cluster, TRANSACTIONS, abs(java_hash(transactional_id)) % len(found.topics[TRANSACTIONS].partitions))


def java_hash(text: str) -> int:
    """`String.hashCode` of an ASCII text."""
    number = 0
    for byte in text.encode("ascii"):
        number = (31 * number + byte) & 0xFFFFFFFF
    return number - (1 << 32) if number >= 1 << 31 else number


def controller(cluster: Cluster) -> int:
    """The node that leads the metadata quorum.

    What brokers tell clients (`describe_cluster`) is any broker that takes their requests; the quorum's own files know.
    """
    newest = {"leaderEpoch": -1, "leaderId": -1}

    def led() -> bool:
        nonlocal newest
        states = [json.loads((node.home / QUORUM).read_text()) for node in cluster.running()]
        newest = max(states, key=lambda state: int(state["leaderEpoch"]))
        return newest["leaderId"] > 0

    wait_for(led, WHOLE_SECONDS, lambda: AssertionError("the quorum has no leader"))
    return int(newest["leaderId"])


def settle(cluster: Cluster) -> None:
    """Wait until a new cluster takes topics with a replica on each node: a moment later than its nodes answer."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0})

    def taken() -> bool:
        try:
            admin.create_topics([NewTopic("settled", 1, len(cluster.nodes))])["settled"].result(10)
        except KafkaException:
            return False
        return True

    wait_for(taken, WHOLE_SECONDS, lambda: AssertionError("no topic can be made"))
    heal(cluster)


def heal(cluster: Cluster) -> None:
    """Let all nodes run, and wait until every replica is in sync again, as every node knows it.

    A node that has just woken takes itself for the leader it was, and would answer readers with what it had then.
    """
    for node in cluster.running():
        node.signal(signal.SIGCONT)
    cluster.start()
    wait_for(lambda: not _behind(cluster), WHOLE_SECONDS, lambda: AssertionError(f"not in sync: {_behind(cluster)}"))


def _behind(cluster: Cluster) -> list[str]:
    """Partitions without a leader, with replicas that are not in sync, or of which two nodes know different leaders.

    A node that does not answer stands there with the reason.
    """
    leaders: dict[tuple[str, int], int] = {}
    found: set[str] = set()
    for asked in cluster.nodes:
        # A client's first request goes to the one node that it has been told of.
        admin = AdminClient({"bootstrap.servers": asked.address, "log_level": 0})
        try:
            known = admin.list_topics(timeout=5)
        except KafkaException as exc:
            return [f"node {asked.id}: {exc}"]
        found |= {f"node {node.id}" for node in cluster.nodes if node.id not in known.brokers}
        for topic in known.topics.values():
            for partition in topic.partitions.values():
                leader = leaders.setdefault((str(topic.topic), partition.id), partition.leader)
                in_sync = set(partition.isrs) == set(partition.replicas)
                if partition.leader < 0 or partition.leader != leader or not in_sync:
                    found.add(f"{topic.topic} {partition.id}")
    return sorted(found)
