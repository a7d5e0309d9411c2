"""Publishes events that lie in Arrow tables: encoded by their contracts, in their order, at a pace."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from conf.settings import Settings
from conf.topics import load_topics
from producers.kafka.pacing import Interrupt, Pacer
from producers.kafka.publisher import Batch, Publisher, Report
from schemas.columnar import ColumnarEncoder
from schemas.contracts import contract
from schemas.open_registry import open_registry

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Events in the order in which they go out: a table a topic; each event has its topic (index) and time (ms)."""

    tables: dict[str, pa.Table]
    topic: Integers
    event_time: Integers

    def part(self, start: int, end: int) -> "Block":
        """Return the events from `start` up to, without, `end`."""
        first, last = (np.bincount(self.topic[:edge], minlength=len(self.tables)) for edge in (start, end))
        tables = {
            name: table.slice(first[index], last[index] - first[index])
            for index, (name, table) in enumerate(self.tables.items())
        }
        return Block(tables, self.topic[start:end], self.event_time[start:end])


@dataclass(frozen=True)
class TopicEncoder:
    """Makes the values of a topic's records, and their keys: the texts of the field `key`."""

    encode: Callable[[pa.Table], list[bytes]]
    key: str


def register_contracts(settings: Settings, topics: Collection[str]) -> dict[str, int]:
    """Register the contract of each topic unless it is registered; topic -> its schema id. Raises as the registry."""
    registry, declared = open_registry(settings.registry), load_topics()
    return {name: registry.register(declared[name].subject, contract(declared[name].schema)) for name in topics}


def topic_encoders(schema_ids: Mapping[str, int]) -> dict[str, TopicEncoder]:
    """Return what encodes each topic's events, by the topic's contract, which has such an id."""
    declared = load_topics()
    return {
        name: TopicEncoder(ColumnarEncoder(schema_id, contract(declared[name].schema)), declared[name].key)
        for name, schema_id in schema_ids.items()
    }


def publish_blocks(
    settings: Settings,
    topics: Collection[str],
    blocks: Iterable[Block],
    count: int,
    due: npt.NDArray[np.float64] | None,
    interrupt: Interrupt,
) -> Report:
    """Publish the `count` events of `blocks` into `topics`.

    Args:
        due: when each event may go out, in seconds after the first; None holds nothing back.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, NO_TOPIC, and the registry's.
    """
    publisher = Publisher(settings.kafka, settings.producer, topics)
    encoders = topic_encoders(register_contracts(settings, topics))
    pacer = Pacer(count, due, publisher.wait)
    with interrupt:
        return publisher.publish(encoded_batches(blocks, encoders, pacer, interrupt), interrupt)


def encoded_batches(
    blocks: Iterable[Block], encoders: Mapping[str, TopicEncoder], pacer: Pacer, stopped: Callable[[], bool]
) -> Iterator[Batch]:
    """Yield the events of `blocks`, encoded, in batches as the pacer lets them go; none reaches over two blocks."""
    first = 0
    for block in blocks:
        start, count = 0, len(block.topic)
        while start < count:
            end = min(pacer.end_of_batch(first + start, stopped) - first, count)
            if end <= start:
                return
            yield _encoded(block.part(start, end), encoders)
            start = end
        first += count


def _encoded(block: Block, encoders: Mapping[str, TopicEncoder]) -> Batch:
    names = np.array(list(block.tables), dtype=object)
    values, keys = np.empty(len(block.topic), dtype=object), np.empty(len(block.topic), dtype=object)
    for index, (name, table) in enumerate(block.tables.items()):
        lines = np.flatnonzero(block.topic == index)
        values[lines] = encoders[name].encode(table)
        keys[lines] = table[encoders[name].key].cast(pa.string()).to_pylist()
    return Batch(names[block.topic].tolist(), values.tolist(), keys.tolist(), block.event_time.tolist())
