"""Puts the question that each peer answers: how many bids did each auction have in each ten seconds?

It makes the topic of bids, tells a peer where that is, and holds what the peer wrote against the exact answer.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, TopicPartition
from fastavro import parse_schema, schemaless_reader

from bench.publish_file import bids_of
from conf.settings import Settings
from conf.topics import load_topics
from jobs.connectors.kafka.access import connect
from local.topics import bring_in_step
from producers.kafka.pacing import MAX_BATCH
from producers.kafka.publisher import Batch, Publisher
from schemas.codec import HEADER_LENGTH
from schemas.columnar import ColumnarEncoder
from schemas.open_registry import open_registry
from schemas.registry import FileRegistry

BIDS, COUNTS = "bids", "bid_counts"  # the topics of the question, and of the answer
WINDOW_MS = 10_000
LATENESS_MS = 10_000  # that each peer waits for
DISORDER_MS = 500  # a bid goes out up to so long after it was made
PER_SECOND = 30_000  # of event time: some three bids an auction and window, 95,000 auctions a window
# A bid in each partition, an hour after all others, moves every peer's watermark past the last window. No auction of
# the generator's has this number; what a peer says of it, or whether it says anything, counts for nothing.
CLOSING_AUCTION = 0
CLOSING_MS = 3_600_000
COLUMNS = ("auction", "window_start", "bids")
KEYS = ["auction", "window_start"]
SHOWN = 3  # rows of a wrong answer that are named
RESULT = parse_schema(
    {"type": "record", "name": "BidCount", "fields": [{"name": name, "type": "long"} for name in COLUMNS]}
)
# How a peer writes its records, by the name that `Peer.writes` has.
DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "framed Avro": lambda value: schemaless_reader(BytesIO(value[HEADER_LENGTH:]), RESULT, None),
    "Avro": lambda value: schemaless_reader(BytesIO(value), RESULT, None),
    "JSON": json.loads,
}


class WrongAnswerError(Exception):
    """An answer that differs from the exact one; the message says how, with a few of its rows."""


@dataclass(frozen=True)
class Question:
    """What a peer is told.

    Args:
        name: of this turn, unlike that of any other: for consumer groups and transactional ids.
        folder: empty, for whatever the peer keeps; gone after the turn.
        records: in the topic, the closing bids included.
        registry_url: of the same registry as the folder `registry`.
    """

    name: str
    folder: Path
    servers: str
    registry: Path
    registry_url: str
    records: int

    def as_file(self) -> Path:
        """Write the question as JSON for a program of the peer's own, and return where."""
        registry = FileRegistry(self.registry)
        bid, bid_count = (registry.latest(f"{topic}-value") for topic in (BIDS, COUNTS))
        texts = {"schema": bid.text, "result_schema": bid_count.text, "result_id": bid_count.id}
        topics = {"servers": self.servers, "topic": BIDS, "results": COUNTS}
        times = {"window_ms": WINDOW_MS, "lateness_ms": LATENESS_MS}
        file = self.folder / "question.json"
        turn = {"name": self.name, "folder": str(self.folder), "records": self.records}
        file.write_text(json.dumps({**turn, **topics, **times, **texts}))
        return file


def make_bids(count: int) -> pa.Table:
    """Return `count` bids in the order in which they go out, with the columns of the contract `bid`."""
    bids = bids_of(count, PER_SECOND)
    late_ms = np.random.default_rng(2).integers(0, DISORDER_MS, count)
    at = pc.subtract(bids["at"].cast(pa.int64()), pa.array(late_ms)).cast(pa.timestamp("ms", "UTC"))
    return bids.set_column(bids.schema.get_field_index("at"), "bid_at", at)


def publish_bids(settings: Settings, bids: pa.Table) -> None:
    """Create the topic and fill it with `bids`, and a closing bid in each partition.

    Raises:
        TidemarkError: DELIVERY_FAILED and what the publisher raises.
    """
    topic = load_topics()[BIDS]
    bring_in_step(connect(settings.kafka), [topic], 1)
    schema = open_registry(settings.registry).latest(topic.subject)
    encode = ColumnarEncoder(schema.id, schema.text)

    def batches() -> Iterator[Batch]:
        for start in range(0, bids.num_rows, MAX_BATCH):
            yield _batch(bids.slice(start, MAX_BATCH), encode)
        for partition in range(topic.partitions):
            yield _batch(_closing(bids), encode, [partition])

    Publisher(settings.kafka, settings.producer, [BIDS]).publish(batches()).require_complete()


def exact_answer(bids: pa.Table) -> pa.Table:
    """Return the exact answer, COLUMNS as long (`window_start` in ms since 1970), a row a window and auction."""
    at = bids["bid_at"].cast(pa.int64())
    start = pc.multiply(pc.divide(at, WINDOW_MS), WINDOW_MS)
    counted = pa.table({"auction": bids["auction"], "window_start": start}).group_by(["auction", "window_start"])
    return counted.aggregate([([], "count_all")]).rename_columns([*COLUMNS])


def read_answer(settings: Settings, writes: str) -> pa.Table:
    """Return every committed record of COUNTS as COLUMNS of long, but those on the closing bids."""
    client = settings.kafka.client_config()
    consumer = Consumer({**client, "group.id": "bench", "enable.auto.commit": False, "enable.partition.eof": True})
    partitions = consumer.list_topics(COUNTS, timeout=10).topics[COUNTS].partitions
    consumer.assign([TopicPartition(COUNTS, partition, 0) for partition in partitions])
    decode, open_partitions = DECODERS[writes], set(partitions)
    rows: list[tuple[int, int, int]] = []
    while open_partitions:
        for message in consumer.consume(20_000, timeout=1):
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                open_partitions.discard(message.partition())
            elif error is not None:
                raise WrongAnswerError(f"the answer cannot be read: {error}")
            else:
                row = decode(message.value() or b"")
                rows.append((int(row["auction"]), int(row["window_start"]), int(row["bids"])))
    consumer.close()
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    table = pa.table({name: pa.array(values, pa.int64()) for name, values in zip(COLUMNS, columns, strict=True)})
    return table.filter(pc.not_equal(table["auction"], CLOSING_AUCTION))


def require_right(answer: pa.Table, exact: pa.Table) -> None:
    """Compare an answer with the exact one, window by window and auction by auction; COLUMNS of both.

    Raises:
        WrongAnswerError: where a row is missing, too many, there twice, or has another count.
    """
    repeated = answer.num_rows - answer.group_by(KEYS).aggregate([]).num_rows
    joined = exact.join(answer, KEYS, join_type="full outer", right_suffix="_told")
    missing, unknown = pc.is_null(joined["bids_told"]), pc.is_null(joined["bids"])
    other = pc.fill_null(pc.not_equal(joined["bids"], joined["bids_told"]), False)
    wrong = {
        "missing": joined.filter(missing),
        "not in the topic": joined.filter(unknown),
        "with another count": joined.filter(other),
    }
    differences = [f"{rows.num_rows:,} {what}, as {_some(rows)}" for what, rows in wrong.items() if rows.num_rows]
    if repeated:
        differences.append(f"{repeated:,} repeated")
    if differences:
        raise WrongAnswerError(f"of {exact.num_rows:,} counts " + "; ".join(differences))


def _some(rows: pa.Table) -> str:
    return ", ".join(
        f"auction {row['auction']} from {row['window_start']}: {row['bids']} bids, told {row['bids_told']}"
        for row in rows.slice(0, SHOWN).to_pylist()
    )


def _closing(bids: pa.Table) -> pa.Table:
    last = bids.slice(bids.num_rows - 1)
    at = pc.add(last["bid_at"].cast(pa.int64()), CLOSING_MS).cast(pa.timestamp("ms", "UTC"))
    closing = last.set_column(0, "auction", pa.array([CLOSING_AUCTION], pa.int64()))
    return closing.set_column(closing.schema.get_field_index("bid_at"), "bid_at", at)


def _batch(bids: pa.Table, encode: ColumnarEncoder, partitions: list[int] | None = None) -> Batch:
    keys = bids["auction"].cast(pa.string()).to_pylist()
    times = bids["bid_at"].cast(pa.int64()).to_pylist()
    return Batch([BIDS] * bids.num_rows, encode(bids), keys, times, partitions=partitions)
