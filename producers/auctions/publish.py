"""Publishes the events of the auction house and of the bank, block by block, as they are made."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from conf.settings import Settings
from conf.topics import load_topics
from producers.auctions import model, transfers
from producers.auctions.model import Block, Model
from producers.auctions.transfers import Bank
from producers.kafka.merging import Encode, merged
from producers.kafka.pacing import Interrupt, Pace, Pacer, Progress
from producers.kafka.publisher import Batch, Publisher, Report
from schemas.columnar import ColumnarEncoder
from schemas.contracts import contract
from schemas.open_registry import open_registry

Due = npt.NDArray[np.float64] | None  # when each event may go out, in seconds after the first


def publish_auctions(settings: Settings, house: Model, count: int, pace: Pace, interrupt: Interrupt) -> Report:
    """Publish the first `count` events of `house` into persons, auctions and bids.

    Raises:
        TidemarkError: NO_BROKER, BROKER_UNREACHABLE, NO_TOPIC, and the registry's.
    """
    is_paced = pace.speed is not None or pace.rate is not None
    due = pace.due(house.due_ms(np.arange(count))) if is_paced else None
    return _publish(settings, model.TOPICS, model.blocks(house, count), count, due, interrupt)


def publish_transfers(settings: Settings, bank: Bank, count: int, interrupt: Interrupt) -> Report:
    """Publish the first `count` transfers of `bank`; raises what `publish_auctions` does."""
    return _publish(settings, (transfers.TOPIC,), transfers.blocks(bank, count), count, None, interrupt)


def _publish(
    settings: Settings, topics: Sequence[str], blocks: Iterable[Block], count: int, due: Due, interrupt: Interrupt
) -> Report:
    registry, declared = open_registry(settings.registry), load_topics()
    publisher = Publisher(settings.kafka, settings.producer, topics)
    texts = {name: contract(declared[name].schema) for name in topics}
    ids = {name: registry.register(declared[name].subject, text) for name, text in texts.items()}
    encoders = {name: ColumnarEncoder(ids[name], text) for name, text in texts.items()}
    keys = {name: declared[name].key for name in topics}
    pacer = Pacer(count, due, publisher.wait)
    with interrupt:
        return publisher.publish(batches(blocks, encoders, keys, pacer, interrupt), interrupt, Progress())


def batches(
    blocks: Iterable[Block],
    encoders: Mapping[str, Encode],
    keys: Mapping[str, str],
    pacer: Pacer,
    stopped: Callable[[], bool],
) -> Iterator[Batch]:
    """Yield the events of `blocks`, encoded, in batches as the pacer lets them go; none reaches over two blocks."""
    first = 0
    for block in blocks:
        start, count = 0, len(block.topic)
        while start < count:
            end = min(pacer.end_of_batch(first + start, stopped) - first, count)
            if end <= start:
                return
            part = block.part(start, end)
            yield merged(part.tables, part.topic, part.event_time, encoders, keys)
            start = end
        first += count
