"""The topic that every peer reads, and the answer that each must give."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.publish_file import bids_of
from conf.settings import Settings
from conf.topics import load_topics
from jobs.connectors.kafka.access import connect
from local.topics import bring_in_step
from producers.kafka.pacing import MAX_BATCH
from producers.kafka.publisher import Batch, Publisher
from schemas.columnar import ColumnarEncoder
from schemas.registry import open_registry

TOPIC = "bids"
WINDOW_MS = 10_000
LATENESS_MS = 10_000  # that each peer waits for
DISORDER_MS = 500  # a bid goes out up to so long after it was made
PER_SECOND = 30_000  # of event time: some three bids an auction and window, 95,000 auctions a window
# A bid in each partition, an hour after all others, moves every peer's watermark past the last window. No auction of
# the generator's has this number; what a peer says of it, or whether it says anything, counts for nothing.
CLOSING_AUCTION = 0
CLOSING_MS = 3_600_000
COLUMNS = ("auction", "window_start", "bids")


def make(count: int) -> pa.Table:
    """Return `count` bids in the order in which they go out, with the columns of the contract `bid`."""
    bids = bids_of(count, PER_SECOND)
    late_ms = np.random.default_rng(2).integers(0, DISORDER_MS, count)
    at = pc.subtract(bids["at"].cast(pa.int64()), pa.array(late_ms)).cast(pa.timestamp("ms", "UTC"))
    return bids.set_column(bids.schema.get_field_index("at"), "bid_at", at)


def publish(settings: Settings, bids: pa.Table) -> None:
    """Create the topic and fill it with `bids`, and a closing bid in each partition.

    Raises:
        TidemarkError: DELIVERY_FAILED and what the publisher raises.
    """
    topic = load_topics()[TOPIC]
    bring_in_step(connect(settings.kafka), [topic], 1)
    schema = open_registry(settings.registry).latest(topic.subject)
    encode = ColumnarEncoder(schema.id, schema.text)

    def batches() -> Iterator[Batch]:
        for start in range(0, bids.num_rows, MAX_BATCH):
            yield _batch(bids.slice(start, MAX_BATCH), encode)
        for partition in range(topic.partitions):
            yield _batch(_closing(bids), encode, [partition])

    Publisher(settings.kafka, settings.producer, [TOPIC]).publish(batches()).require_complete()


def answer(bids: pa.Table) -> pa.Table:
    """Return the exact answer, COLUMNS as long (`window_start` in ms since 1970), a row a window and auction."""
    at = bids["bid_at"].cast(pa.int64())
    start = pc.multiply(pc.divide(at, WINDOW_MS), WINDOW_MS)
    counted = pa.table({"auction": bids["auction"], "window_start": start}).group_by(["auction", "window_start"])
    return counted.aggregate([([], "count_all")]).rename_columns([*COLUMNS])


def _closing(bids: pa.Table) -> pa.Table:
    last = bids.slice(bids.num_rows - 1)
    at = pc.add(last["bid_at"].cast(pa.int64()), CLOSING_MS).cast(pa.timestamp("ms", "UTC"))
    closing = last.set_column(0, "auction", pa.array([CLOSING_AUCTION], pa.int64()))
    return closing.set_column(closing.schema.get_field_index("bid_at"), "bid_at", at)


def _batch(bids: pa.Table, encode: ColumnarEncoder, partitions: list[int] | None = None) -> Batch:
    keys = bids["auction"].cast(pa.string()).to_pylist()
    times = bids["bid_at"].cast(pa.int64()).to_pylist()
    return Batch([TOPIC] * bids.num_rows, encode(bids), keys, times, partitions=partitions)
