"""Columns of every kind are sent as what they are, by a worker that loads no pandas."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from conf import ROOT
from conf.settings import Settings
from jobs.connectors.exactly_once.shard_producer import HASH
from tests.jobs.scratch import Scratch

SEND = """
import sys
from pathlib import Path
import pyarrow as pa
from confluent_kafka import Producer
from jobs.connectors.exactly_once.ledger import BatchId, Done
from jobs.connectors.exactly_once.shard_producer import HASH, ShardProducer
from jobs.connectors.exactly_once.transaction import PRODUCER
from jobs.connectors.kafka.refusals import SizeLimits

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
