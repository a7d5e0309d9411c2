"""Reads a peer's answer out of its topic, and holds it against the exact one."""

import json
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, TopicPartition
from fastavro import parse_schema, schemaless_reader

from bench.peers.bids import CLOSING_AUCTION, COLUMNS
from conf.settings import Settings
from schemas.codec import HEADER_LENGTH

TOPIC = "bid_counts"
KEYS = ["auction", "window_start"]
SHOWN = 3  # rows of a wrong answer that are named
RESULT = parse_schema(
    {"type": "record", "name": "BidCount", "fields": [{"name": name, "type": "long"} for name in COLUMNS]}
)


class WrongAnswerError(Exception):
    """An answer that differs from the exact one; the message says how, with a few of its rows."""


def _avro(value: bytes) -> Mapping[str, Any]:
    found = schemaless_reader(BytesIO(value), RESULT, None)
    assert isinstance(found, dict)
    return found


def _framed(value: bytes) -> Mapping[str, Any]:
    return _avro(value[HEADER_LENGTH:])


def _json(value: bytes) -> Mapping[str, Any]:
    found = json.loads(value)
    assert isinstance(found, dict)
    return found


# How a peer writes its records, by the name that `Peer.writes` has.
DECODERS: Mapping[str, Callable[[bytes], Mapping[str, Any]]] = {"framed Avro": _framed, "Avro": _avro, "JSON": _json}


def read(settings: Settings, writes: str) -> pa.Table:
    """Return every committed record of TOPIC as COLUMNS of long, but those on the closing bids."""
    client = settings.kafka.client_config()
    consumer = Consumer({**client, "group.id": "bench", "enable.auto.commit": False, "enable.partition.eof": True})
    partitions = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in partitions])
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
                found = decode(message.value() or b"")
                rows.append((int(found["auction"]), int(found["window_start"]), int(found["bids"])))
    consumer.close()
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    table = pa.table({name: pa.array(values, pa.int64()) for name, values in zip(COLUMNS, columns, strict=True)})
    return table.filter(pc.not_equal(table["auction"], CLOSING_AUCTION))


def require_right(found: pa.Table, exact: pa.Table) -> None:
    """Compare an answer with the exact one, window by window and auction by auction; COLUMNS of both.

    Raises:
        WrongAnswerError: where a row is missing, too many, there twice, or has another count.
    """
    repeated = found.num_rows - found.group_by(KEYS).aggregate([]).num_rows
    joined = exact.join(found, KEYS, join_type="full outer", right_suffix="_found")
    missing, unknown = pc.is_null(joined["bids_found"]), pc.is_null(joined["bids"])
    other = pc.fill_null(pc.not_equal(joined["bids"], joined["bids_found"]), False)
    wrong = {
        "missing": joined.filter(missing),
        "not in the topic": joined.filter(unknown),
        "with another count": joined.filter(other),
    }
    said = [f"{rows.num_rows:,} {what}, as {_some(rows)}" for what, rows in wrong.items() if rows.num_rows]
    if repeated:
        said.append(f"{repeated:,} repeated")
    if said:
        raise WrongAnswerError(f"of {exact.num_rows:,} counts " + "; ".join(said))


def _some(rows: pa.Table) -> str:
    return ", ".join(
        f"auction {row['auction']} from {row['window_start']}: {row['bids']} bids, told {row['bids_found']}"
        for row in rows.slice(0, SHOWN).to_pylist()
    )
