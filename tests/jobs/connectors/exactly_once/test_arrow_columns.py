"""Columns read by their buffers: what Arrow says, of whole columns and of slices, and without pandas."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from conf import ROOT
from conf.settings import Settings
from jobs.connectors.exactly_once import arrow_columns
from jobs.connectors.exactly_once.shard_producer import HASH
from tests.jobs.scratch import Scratch

BYTES = st.lists(st.none() | st.binary(max_size=5), max_size=20)
LONGS = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20)


def part(values: list[Any], kind: pa.DataType, data: st.DataObject) -> tuple[list[Any], pa.Array]:
    """A slice of the values, and the same slice of a column of them."""
    first = data.draw(st.integers(0, len(values)))
    end = data.draw(st.integers(first, len(values)))
    return values[first:end], pa.array(values, kind).slice(first, end - first)


@given(values=BYTES, data=st.data())
def test_bytes_are_where_their_edges_say(values: list[bytes | None], data: st.DataObject) -> None:
    expected, column = part(values, pa.binary(), data)
    edges, content = arrow_columns.edges(column), arrow_columns.data_of(column).to_pybytes()
    there = arrow_columns.is_there(column)
    found = [content[a:b] if sound else None for a, b, sound in zip(edges[:-1], edges[1:], there, strict=True)]
    assert found == expected
    assert arrow_columns.lengths(column).tolist() == [len(value or b"") for value in expected]


@given(values=LONGS, data=st.data())
def test_numbers_are_exact_at_any_size_and_nulls_are_told(values: list[int | None], data: st.DataObject) -> None:
    expected, column = part(values, pa.int64(), data)
    assert arrow_columns.is_there(column).tolist() == [value is not None for value in expected]
    found = arrow_columns.numbers(column, np.int64, -1).tolist()
    assert found == [-1 if value is None else value for value in expected]


@given(values=st.lists(BYTES, max_size=6), data=st.data())
def test_lists_have_the_lengths_that_they_have(values: list[list[bytes | None]], data: st.DataObject) -> None:
    expected, column = part(values, pa.list_(pa.binary()), data)
    assert arrow_columns.lengths(column).tolist() == [len(items) for items in expected]


SEND = """
import sys
from pathlib import Path
import pyarrow as pa
from confluent_kafka import Producer
from jobs.connectors.exactly_once.markers import BatchId, Done
from jobs.connectors.exactly_once.shard_producer import HASH, ShardProducer
from jobs.connectors.exactly_once.transaction import PRODUCER
from jobs.connectors.kafka.topic_limits import SizeLimits

file, topic, servers = sys.argv[1:]
sent = ShardProducer(Done(BatchId("query", 0, "hash"), 0), "sink", SizeLimits({}, otherwise=1))
producer = Producer({**PRODUCER, "bootstrap.servers": servers})
batch = pa.ipc.open_file(file).get_batch(0)
for names in (["key", "value", HASH], ["key", "value", "partition", HASH], batch.schema.names):
    sent.produce(producer, [batch.select(names)], topic, 30)
print(producer.flush(30), sent.done.n, sent.oldest, "pandas" in sys.modules)
"""
HEADERS = pa.list_(pa.struct([("key", pa.string()), ("value", pa.binary())]))


def test_to_send_columns_of_every_kind_loads_no_pandas(settings: Settings, scratch: Scratch, tmp_path: Path) -> None:
    columns = {
        "key": pa.array([b"a", None, b"c"], pa.binary()),
        "value": pa.array([b"1", b"2", None], pa.binary()),
        "partition": pa.array([0, None, 0], pa.int32()),
        "timestamp": pa.array([1000, None, -1], pa.int64()),
        "headers": pa.array([[{"key": "k", "value": b"v"}], None, []], HEADERS),
        HASH: pa.array([1, 2, 3], pa.int64()),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    with pa.OSFile(str(tmp_path / "rows"), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    words = [sys.executable, "-c", SEND, str(tmp_path / "rows"), scratch.topic(), settings.kafka.bootstrap_servers]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "0 9 -1 False\n"
