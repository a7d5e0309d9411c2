"""The question in Quix Streams, as one process, which runs in an environment of its own.

By its documentation: final windows closed by partition ("Windowing", closing strategies), as the topic is keyed; Kafka
clients by `consumer_extra_config` and `producer_extra_config` ("Configuration").
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from plain_loop import Reader, Writer
from quixstreams import Application
from quixstreams.models import Deserializer, Serializer

IDLE_S = 5.0  # it ends when nothing more has come for so long
FETCHING = {"fetch.min.bytes": 1_000_000, "fetch.wait.max.ms": 50}
BATCHING = {"linger.ms": 50, "batch.size": 1_000_000, "compression.type": "lz4"}


class Bids(Deserializer):
    """Reads bids, and says when the first one comes."""

    def __init__(self, schema: str) -> None:
        super().__init__()
        self._read, self._has_begun = Reader(schema), False

    def __call__(self, value: bytes, ctx: object) -> Any:
        if not self._has_begun:
            self._has_begun = True
            print(f"first-record {time.time()}", flush=True)
        return self._read(value)


class Counts(Serializer):
    """Writes counts."""

    def __init__(self, schema: str, schema_id: int) -> None:
        self._write = Writer(schema, schema_id)

    def __call__(self, value: dict[str, int], ctx: object) -> bytes:
        return self._write(value)


def main(question: dict[str, Any]) -> None:
    app = Application(
        broker_address=question["servers"],
        consumer_group=question["name"],
        auto_offset_reset="earliest",
        state_dir=question["folder"],
        consumer_extra_config=FETCHING,
        producer_extra_config=BATCHING,
    )
    topic = app.topic(
        question["topic"],
        key_deserializer="str",
        value_deserializer=Bids(question["schema"]),
        timestamp_extractor=lambda bid, headers, timestamp, kind: bid["bid_at"],
    )
    serializer = Counts(question["result_schema"], question["result_id"])
    results = app.topic(question["results"], key_serializer="str", value_serializer=serializer)
    windows = app.dataframe(topic).tumbling_window(question["window_ms"], grace_ms=question["lateness_ms"])
    counts = windows.count().final(closing_strategy="partition")
    counts.apply(as_result, metadata=True).to_topic(results)
    app.run(timeout=IDLE_S, collect=False)


def as_result(window: dict[str, int], key: str, timestamp: int, headers: object) -> dict[str, int]:
    return {"auction": int(key), "window_start": window["start"], "bids": window["value"]}


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
