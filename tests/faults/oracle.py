"""What an output topic should hold, given a source of numbered records, and what it holds."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

READ_SECONDS = 60.0
KEYS = 50


def fill(servers: str, topic: str, numbers: range, partitions: Sequence[int]) -> None:
    """Numbered records: the value is the number, the key one of KEYS, all of a key in one of `partitions`, in order."""
    producer = Producer({"bootstrap.servers": servers, "acks": "all", "enable.idempotence": True, "linger.ms": 5})
    for number in numbers:
        key = number % KEYS
        producer.produce(topic, b"%d" % number, b"k%d" % key, partitions[key % len(partitions)])
    assert producer.flush(READ_SECONDS) == 0, "the source was not filled"


@dataclass(frozen=True)
class Verdict:
    """How many records are not as they should be; `torn`: shards whose marker counts other records than are there."""

    lost: int = 0
    duplicated: int = 0
    phantom: int = 0
    torn: int = 0
    out_of_order: int = 0
    stuck: int = 0
    rows: int = field(default=0, compare=False)

    @property
    def counters(self) -> dict[str, int]:
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "rows"}

    @property
    def clean(self) -> bool:
        return not any(self.counters.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in self.counters.items())


def judge(servers: str, topic: str, expected: range, ledger: str | None = None, committed: bool = True) -> Verdict:
    """Compare `topic` with the numbers that it should hold, each once.

    Args:
        ledger: the ledger topic, whose done markers must count what is there.
        committed: read as `read_committed` readers do; False shows what they are spared.
    """
    records, stuck = read_all(servers, topic, committed)
    values = [int(value) for _, value, _ in records]
    counts = Counter(values)
    return Verdict(
        lost=len(set(expected) - counts.keys()),
        duplicated=sum(count - 1 for count in counts.values()),
        phantom=len(counts.keys() - set(expected)),
        torn=abs(_marked(servers, ledger) - len(values)) if ledger else 0,
        out_of_order=_out_of_order(records),
        stuck=stuck,
        rows=len(values),
    )


def _out_of_order(records: Sequence[tuple[bytes, bytes, int]]) -> int:
    """Records that come after a greater number of their key; a repetition is counted as that alone."""
    greatest: dict[bytes, int] = {}
    seen: set[int] = set()
    wrong = 0
    for key, value, _ in records:
        number = int(value)
        wrong += number not in seen and number < greatest.get(key, -1)
        greatest[key] = max(greatest.get(key, -1), number)
        seen.add(number)
    return wrong


def _marked(servers: str, ledger: str) -> int:
    """Records that the ledger's done markers count, each shard of a batch once."""
    done: Mapping[tuple[str, int, int], int] = {}
    counted: dict[tuple[str, int, int], int] = defaultdict(int, done)
    for _, value, _ in read_all(servers, ledger, committed=True)[0]:
        marker = json.loads(value)
        if marker.get("kind") == "done":
            counted[marker["id"]["query_id"], marker["id"]["batch"], marker["shard"]] = marker["n"]
    return sum(counted.values())


def read_all(servers: str, topic: str, committed: bool) -> tuple[list[tuple[bytes, bytes, int]], int]:
    """Every (key, value, partition) in the order of each partition, and the partitions whose end cannot be reached.

    A transaction that is left open holds up its partition for `read_committed` readers: until it times out it is stuck.
    """
    isolation = "read_committed" if committed else "read_uncommitted"
    config = {"group.id": f"oracle-{topic}", "enable.auto.commit": False, "isolation.level": isolation}
    consumer = Consumer({**config, "bootstrap.servers": servers, "enable.partition.eof": True, "log_level": 0})
    raw = Consumer({**config, "bootstrap.servers": servers, "isolation.level": "read_uncommitted", "log_level": 0})
    try:
        numbers = consumer.list_topics(topic, timeout=READ_SECONDS).topics[topic].partitions
        ends = {n: raw.get_watermark_offsets(TopicPartition(topic, n), timeout=READ_SECONDS)[1] for n in numbers}
        consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        return _drain(consumer, ends)
    finally:
        consumer.close()
        raw.close()


def _drain(consumer: Consumer, ends: dict[int, int]) -> tuple[list[tuple[bytes, bytes, int]], int]:
    records: list[tuple[bytes, bytes, int]] = []
    left = {number for number, end in ends.items() if end > 0}
    until = time.monotonic() + READ_SECONDS
    while left and time.monotonic() < until:
        message = consumer.poll(0.5)
        if message is None:
            continue
        error, partition, offset = message.error(), int(message.partition() or 0), int(message.offset() or 0)
        if error is None:
            records.append((message.key() or b"", message.value() or b"", partition))
        elif error.code() == KafkaError._PARTITION_EOF and offset >= ends[partition]:
            left.discard(partition)
    return records, len(left)
