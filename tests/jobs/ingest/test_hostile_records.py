"""Legal records that nobody expects: the query goes on, each is accounted for, and silver says what the event said."""

import hashlib
import io
import json
import math
import struct
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from fastavro import parse_schema, schemaless_writer
from pyspark.sql import functions as F

from conf.topics import Topic
from jobs.connectors.avro import decode as avro_decode
from local.broker import Cluster
from schemas.codec import frame
from tests.jobs.scratch import Scratch
from tests.sent import T0

NAME = ("Odd.na_me-" * 25)[:249]
LARGE = 5 * 2**20
DAYS = (-719_162, 2_932_896)  # of the years 1 to 9999
MICROS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
LONG = (-(2**63), 2**63 - 1)
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def deep(levels: int) -> Any:
    inner = deep(levels - 1) if levels else "string"
    return {"type": "record", "name": f"Level{levels}", "fields": [{"name": "inner", "type": ["null", inner]}]}


FIELDS: dict[str, Any] = {
    **{"text": "string", "whole": "int", "number": "long", "x": "double", "f": "float", "raw": "bytes"},
    "amount": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10},
    "day": {"type": "int", "logicalType": "date"},
    "at": {"type": "long", "logicalType": "timestamp-micros"},
    "local": {"type": "long", "logicalType": "local-timestamp-micros"},
    "tags": {"type": "map", "values": ["null", "string"]},
    "items": {"type": "array", "items": ["null", "long"]},
    "uuid": {"type": "string", "logicalType": "uuid"},
    "nested": deep(12),
}
SCHEMA = {"type": "record", "name": "Odd", "fields": [{"name": n, "type": k} for n, k in FIELDS.items()]}
PLAIN: dict[str, Any] = {
    **{"text": "", "whole": 0, "number": 0, "x": 0.0, "f": 0.0, "raw": b"", "amount": Decimal(0), "day": 0},
    **{"at": T0 * 1000, "local": T0 * 1000, "tags": {}, "items": [], "nested": {"inner": None}},
    "uuid": "9e107d9d-372b-4c81-8f2a-0123456789ab",
}
# What events say that silver is to say too.
SOUND: list[dict[str, Any]] = [
    {},
    *({"whole": edge} for edge in (-(2**31), 2**31 - 1)),
    *({"number": edge} for edge in LONG),
    *({"x": edge, "f": edge} for edge in (math.nan, math.inf, -math.inf, -0.0, 5e-324)),
    *({"amount": Decimal(f"{sign}{'9' * 28}.{'9' * 10}")} for sign in ("", "-")),
    *({"day": edge} for edge in (*DAYS, -141_428, -141_427)),  # and about the day on which Spark's old calendar ends
    *({"at": edge, "local": edge} for edge in (*MICROS, -12_219_292_800_000_001, -1)),
    *({"text": text} for text in ("\0", "a\0b", "\U0010ffff" * 40, "\ufeff", "e\u0301", "'\"`\\\n\r\t;", "x" * LARGE)),
    {"raw": bytes(range(256))},
    {"tags": {"": "", "a": None, "A": "b", " a": "c", "a.b": "d", "\u0130": "e"}},
    {"items": [None, *LONG, None]},
    {"items": list(range(10_000))},
    {"nested": {"inner": {"inner": {"inner": {"inner": None}}}}},
]
# What is no value of its type, though its bytes have the right form.
UNSOUND: list[dict[str, Any]] = [
    *({"day": edge} for edge in (DAYS[0] - 1, DAYS[1] + 1, 2**31 - 1)),
    *({"at": edge} for edge in (MICROS[0] - 1, MICROS[1] + 1, *LONG)),
    *({"local": edge} for edge in (MICROS[1] + 1, *LONG)),
    {"amount": b"\x4b\x3b\x4c\xa8\x5a\x86\xc4\x7a\x09\x8a\x22\x40\x00\x00\x00\x00"},  # 10 ** 38
    *({"uuid": PLAIN["uuid"] + more} for more in ("\n", "0")),
]


def body(event: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    schemaless_writer(buffer, parse_schema(SCHEMA), {**PLAIN, **event})
    return buffer.getvalue()


class Sender:
    """Puts records into partition 0 of a topic and keeps their offsets."""

    def __init__(self, broker: Cluster, topic: str) -> None:
        self._servers, self._topic = broker.bootstrap_servers, topic

    def send(self, *values: bytes | None, codec: str = "none", abort: bool | None = None, **more: Any) -> list[int]:
        """The offsets of the records; with `abort` they are sent in a transaction, which is aborted or committed."""
        config = {"bootstrap.servers": self._servers, "compression.type": codec, "message.max.bytes": 2 * LARGE}
        if abort is not None:
            config["transactional.id"] = "hostile"
        producer, offsets = Producer(config), list[int]()

        def placed(error: Any, message: Any) -> None:
            assert error is None, error
            offsets.append(message.offset())

        if abort is not None:
            producer.init_transactions(30)
            producer.begin_transaction()
        for value in values:
            producer.produce(self._topic, value, partition=0, on_delivery=placed, **{"timestamp": T0, **more})
        assert producer.flush(60) == 0
        if abort is not None:
            (producer.abort_transaction if abort else producer.commit_transaction)(30)
        return offsets


def topic_of(broker: Cluster, name: str, **config: str) -> str:
    limits = {"max.message.bytes": str(2 * LARGE), "message.timestamp.after.max.ms": str(2**63 - 1)}
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(name, 1, 1, config=limits | config)])[name].result()
    return name


def comparable(said: dict[str, Any]) -> str:
    """What an event or a row of silver says, as text: NaN is NaN there, and -0.0 is not 0.0."""
    texts = {name: said[name] for name in FIELDS}
    texts["text"] = hashlib.sha256(said["text"].encode()).hexdigest()
    texts["raw"], texts["tags"] = bytes(said["raw"]), sorted(said["tags"].items())
    return repr(texts)


def expected(event: dict[str, Any]) -> str:
    """What silver is to say of a sound event."""
    said = {**PLAIN, **event}
    said["f"] = struct.unpack("f", struct.pack("f", said["f"]))[0]
    said["amount"] = said["amount"] or Decimal("0E-10")
    return comparable(said)


@pytest.mark.slow
def test_of_hostile_records_none_is_lost_none_stops_the_query_and_silver_says_what_they_said(
    scratch: Scratch, broker: Cluster
) -> None:
    topic = topic_of(broker, NAME)
    scratch.declared[topic] = Topic(topic, 1, "text", "odd")
    id = scratch.registry.register(f"{topic}-value", json.dumps(SCHEMA))
    sender = Sender(broker, topic)
    plain = frame(id, body({}))
    sound = dict(zip(sender.send(*(frame(id, body(event)) for event in SOUND)), SOUND, strict=True))
    unsound = sender.send(*(frame(id, body(event)) for event in UNSOUND))
    odd: list[int] = []
    for codec in CODECS:
        odd += sender.send(plain, plain, codec=codec)
    for key in (None, b"", b"\xff\xfe\0", b"k" * LARGE):
        odd += sender.send(plain, key=key)
    headers: list[list[tuple[str, bytes | None]]] = [
        [("", None), ("", b""), ("a", None), ("a", b"\xff"), ("A", b"1")],
        [(f"header {number % 7}", str(number).encode()) for number in range(1000)],
        [("large", b"h" * 2**20)],
    ]
    for each in headers:
        odd += sender.send(plain, headers=each)
    for timestamp in (-1, 1, 253_402_300_800_000, 9_223_372_036_854_775):
        odd += sender.send(plain, timestamp=timestamp)
    odd += sender.send(plain, abort=False)
    sound |= {at: {} for at in odd}
    sender.send(plain, plain, abort=True)
    surrogate = frame(id, body({"text": "abc"}).replace(b"abc", b"\xed\xa0\x80", 1))
    truncated = [
        surrogate,
        *(plain[:length] for length in range(6, len(plain))),
        plain + b"\0",
        frame(id, b"\xff" * 40),
    ]
    unsound += sender.send(*truncated)
    unknown = sender.send(*(struct.pack(">bi", 0, number) + b"x" for number in (-1, -(2**31), 2**31 - 1, 0)))
    unframed = sender.send(b"", b"\0", b"\0\0\0\0", b"{}", b"\1" + plain, b"z" * LARGE)
    empty = sender.send(None)

    scratch.ingest(topic, overrides=["quarantine.max_ratio=1", "source.max_offsets_per_trigger=100"])

    rejected = {
        **dict.fromkeys(unsound, avro_decode.UNDECODABLE),
        **dict.fromkeys(unknown, avro_decode.UNKNOWN_SCHEMA_ID),
        **dict.fromkeys(unframed, avro_decode.BAD_FRAMING),
        **dict.fromkeys(empty, avro_decode.NO_VALUE),
    }
    assert {row[0]: row[1] for row in scratch.rows("quarantine", "offset", "error")} == rejected
    assert {row[0] for row in scratch.rows(f"bronze/{topic}", "offset")} == sound.keys() | rejected.keys()
    silver = scratch.spark.read.format("delta").load(str(scratch.folder / "tables" / "silver" / topic))
    numbers = {
        **{"day": F.unix_date("day"), "at": F.unix_micros("at")},
        "local": F.unix_micros(F.col("local").cast("timestamp")),
    }
    rows = [row.asDict(True) for row in silver.withColumns(numbers).select(*FIELDS, "_offset").collect()]
    assert {row["_offset"]: comparable(row) for row in rows} == {at: expected(event) for at, event in sound.items()}

    run = scratch.run("source.max_offsets_per_trigger=100")
    hours = run.read(topic).withWatermark("at", "1 hour").groupBy(F.window("at", "1 hour")).count()
    run.upsert(hours.select("window.start", "window.end", "count"), "hours", keys=("start",))
    scratch.catch_up(run)
    counted = sum(row[0] for row in scratch.rows("hours", "count"))
    assert counted + sum(row[0] for row in scratch.rows("late", "dropped")) == len(sound)
