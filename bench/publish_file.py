"""How fast does a file get into a topic, beside the loop that one would write with fastavro? Prints events/s.

    local/tidemark setup
    .tidemark/venv/bin/python -m bench.publish_file [--thousands 400] [--rounds 3]

Bids as in Nexmark (127 bytes of Avro) lie in a Parquet, a CSV and a JSON-lines file, and go into a topic of a broker of
its own: by `publish file`, with key, event time, all checks and rejects, and by a plain loop that reads the file with
pyarrow, csv or json, encodes with fastavro, produces with the same settings, checks nothing, and counts what was
acknowledged. Every way's records are checked first: they must be the same bytes under the same keys and timestamps. The
ways take turns (`workbench.take_turns`).
"""

import csv
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from confluent_kafka import Consumer, Producer, TopicPartition
from fastavro import parse_schema, schemaless_writer

from bench.workbench import own_broker, ratios, read_options, recreate_topic, seconds, take_turns
from conf.errors import exit_on_error
from conf.settings import Settings, load
from producers.files.publish import publish_files
from producers.files.request import FileRequest, Parts
from producers.kafka.pacing import Interrupt
from producers.kafka.publisher import connection_config, producer_config
from schemas.codec import HEADER, MAGIC

AT = {"type": "long", "logicalType": "timestamp-millis"}
FIELDS = {"auction": "long", "bidder": "long", "price": "long", "channel": "string", "url": "string", "at": AT}
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Bid",
    "fields": [{"name": name, "type": kind} for name, kind in {**FIELDS, "extra": "string"}.items()],
}
KINDS = {"parquet": 400_000, "csv": 200_000, "jsonl": 150_000}  # events/s that are wanted of an idle machine
RATIO = 1.5
CHECKED = 2_000
BEGAN_MS = 1_577_836_800_000
TOPIC = "bids"


def main() -> int:
    options = read_options(__doc__, thousands=400, rounds=3)
    with own_broker() as (folder, cluster):
        overrides = [f"kafka.bootstrap_servers={cluster.bootstrap_servers}", f"registry.path={folder / 'registry'}"]
        settings = load(overrides=overrides)
        for name, count in (("checked", CHECKED), ("all", options.thousands * 1000)):
            write_bids(folder / name, count)
        for kind in KINDS:
            _require_same(settings, folder / "checked" / f"bids.{kind}")
        print("both ways give the same records of every file")
        for kind, wanted in KINDS.items():
            _measure(settings, folder / "all" / f"bids.{kind}", options.thousands * 1000, options.rounds, wanted)
    return 0


def bids_of(count: int, per_second: int = 1_000) -> pa.Table:
    """Return bids in order of event time, by columns as FIELDS has them and `extra`, always the same."""
    chance = np.random.default_rng(1)
    names = [f"channel-{number}" for number in range(10_000)]
    urls = [f"https://www.nexmark.com/{number:08}/item.htm?query=1" for number in range(1_000)]
    return pa.table(
        {
            "auction": chance.integers(1_000, 100_000, count),
            "bidder": chance.integers(1_000, 100_000, count),
            "price": chance.integers(1, 10**8, count),
            "channel": pa.array(names).take(pa.array(chance.integers(0, len(names), count))),
            "url": pa.array(urls).take(pa.array(chance.integers(0, len(urls), count))),
            "at": pa.array(BEGAN_MS + np.arange(count) * 1_000 // per_second).cast(pa.timestamp("ms", "UTC")),
            "extra": pc.binary_repeat("x", pa.array(chance.integers(30, 55, count))),
        }
    )


def write_bids(folder: Path, count: int) -> None:
    """Write the same bids as bids.parquet, bids.csv and bids.jsonl, and their schema."""
    folder.mkdir(parents=True)
    bids = bids_of(count)
    at = bids["at"]
    pq.write_table(bids, folder / "bids.parquet")
    texts = bids.set_column(5, "at", pc.strftime(at, "%Y-%m-%dT%H:%M:%SZ"))
    pa_csv.write_csv(texts, folder / "bids.csv", pa_csv.WriteOptions(quoting_style="needed"))
    with (folder / "bids.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in bids.set_column(5, "at", at.cast(pa.int64())).to_pylist())
    (folder / "bid.avsc").write_text(json.dumps(SCHEMA))


def publish(settings: Settings, path: Path) -> None:
    """Publish a file as `publish file` does."""
    request = FileRequest(TOPIC, [path], Parts("auction", "at"), schema=path.parent / "bid.avsc")
    with redirect_stdout(io.StringIO()):
        publish_files(settings, request, Interrupt(), path.parent).require_complete()


def plain_loop(settings: Settings, path: Path) -> None:
    """Publish a file as a script would, and wait for every acknowledgement."""
    failed: list[object] = []
    producer = Producer(
        {
            **connection_config(settings.kafka, failed.append),
            **producer_config(settings.producer, []),
            "delivery.report.only.error": True,
            "on_delivery": lambda error, _: failed.append(error) if error else None,
        }
    )
    schema, header = parse_schema(SCHEMA), HEADER.pack(MAGIC, 1)
    for bid in _bids(path):
        buffer = io.BytesIO()
        buffer.write(header)
        schemaless_writer(buffer, schema, bid)
        while True:
            try:
                producer.produce(TOPIC, buffer.getvalue(), str(bid["auction"]), timestamp=bid["at"])
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    if failed:
        raise SystemExit(f"{len(failed):,} records failed: {failed[0]}")


def _bids(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        for batch in pq.ParquetFile(path).iter_batches():
            place = batch.schema.get_field_index("at")
            yield from batch.set_column(place, "at", batch.column(place).cast(pa.int64())).to_pylist()
    elif path.suffix == ".csv":
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                numbers = {name: int(row[name]) for name in ("auction", "bidder", "price")}
                at = datetime.fromisoformat(row["at"]).astimezone(UTC)
                yield {**row, **numbers, "at": round(at.timestamp() * 1000)}
    else:
        with path.open() as file:
            yield from map(json.loads, file)


def _require_same(settings: Settings, path: Path) -> None:
    answers = []
    for way in (publish, plain_loop):
        recreate_topic(settings.kafka, TOPIC, 1)
        way(settings, path)
        answers.append(_records(settings))
    if answers[0] != answers[1] or len(answers[0]) != CHECKED:
        raise SystemExit(f"{path.name}: `publish file` and the loop give other records")


def _records(settings: Settings) -> list[tuple[object, ...]]:
    consumer = Consumer({**settings.kafka.client_config(), "group.id": "bench", "enable.auto.commit": False})
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    records: list[tuple[object, ...]] = []
    deadline = time.monotonic() + 60
    while len(records) < CHECKED and time.monotonic() < deadline:
        taken = consumer.consume(CHECKED, 1.0)
        records += [
            (record.key(), (record.value() or b"")[5:], record.timestamp()[1]) for record in taken if not record.error()
        ]
    consumer.close()
    return records


def _measure(settings: Settings, path: Path, count: int, rounds: int, wanted: int) -> None:
    def speed(way: Callable[[Settings, Path], None]) -> float:
        recreate_topic(settings.kafka, TOPIC, 1)
        return count / seconds(lambda: way(settings, path))

    print(f"\n{path.name}: {count:,} bids; events/s")
    speeds = take_turns({"publish file": partial(speed, publish), "fastavro loop": partial(speed, plain_loop)}, rounds)
    by_round = ratios(speeds, "publish file", "fastavro loop")
    shown = " ".join(f"{ratio:.2f}" for ratio in by_round)
    print(f"ratio   {statistics.median(by_round):.2f} ({shown}); wanted: {wanted:,} and {RATIO}")


if __name__ == "__main__":
    exit_on_error(main)
