"""Damaged payloads through the job's decoder and the strict one: do they agree on each?

The job accepts a payload only where the strict decoder does, with the value that fastavro reads. EXPLAINED are the
codes by which the strict decoder may refuse what the job accepts all the same, with what fastavro alone reads; and of a
map whose key comes again nobody sees but the last entry (docs/schemas.md says why).
"""

import json
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from uuid import UUID

import pyarrow as pa
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import expand_schema
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.connectors.avro import decode
from schemas.codec import HEADER_LENGTH, LIBRARY_ERRORS, frame, reader, unframe
from schemas.contracts import contract
from schemas.registry import RegisteredSchema
from schemas.wire import INT, LONG, RANGES, DecodeError
from tests.jobs.connectors.avro.avro_examples import in_spark, logical
from tests.jobs.connectors.avro.framed import record

EXPLAINED = ("BAD_VARINT", "BAD_BLOCK")
# A count of -2^63, which has no positive: to Java's reader the array or map ends there, to fastavro's a block is empty.
ENDLESS = b"\xff" * 9 + b"\1"
UNSET = object()


def decimal(precision: int, scale: int, **more: Any) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale, **more}


ENUM = {"type": "enum", "name": "E", "symbols": ["late", "very_late", "gone"]}
PART = json.loads(record(("ok", "boolean"), ("n", ["null", "int"]), ("text", "string"), name="Part"))
FLAT = [
    *((kind, kind) for kind in ("boolean", "int", "long", "float", "double", "bytes", "string")),
    ("enum", ENUM),
    ("fixed", {"type": "fixed", "name": "F3", "size": 3}),
    ("short", decimal(5, 2)),
    ("wide", decimal(30, 10)),
    ("padded", decimal(9, 2) | {"type": "fixed", "name": "F12", "size": 12}),
    ("uuid", logical("string", "uuid")),
    *((name.replace("-", "_"), logical(kind, name)) for kind, name in RANGES),
]
NESTED = [
    ("numbers", {"type": "array", "items": "int"}),
    ("flags", {"type": "array", "items": ["null", "boolean"]}),
    ("parts", {"type": "array", "items": PART}),
    ("totals", {"type": "map", "values": "long"}),
    ("by_name", {"type": "map", "values": "Part"}),
    ("either", ["null", "int", "string"]),
    ("inner", ["null", "Part"]),
]
FIRST = [("id", "int"), ("at", logical("long", "timestamp-millis")), ("note", "string"), ("count", "int")]
LAST = [("note", ["null", "string"]), ("id", "long"), ("at", logical("long", "timestamp-millis")), ("count", "double")]
ADDED = [("flag", "boolean", True), ("state", ENUM | {"default": "late"}, "gone")]
GROUPS = [
    [contract("departure")],
    [contract("weather_observation")],
    [record(*FLAT)],
    [record(*NESTED)],
    [record(*FIRST), record(*LAST), record(*LAST, *ADDED)],
]


@dataclass
class Report:
    """What became of the payloads; `disagreements` as lines with schema and bytes."""

    counts: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)


def fuzz(spark: SparkSession, seed: int, count: int, chunk: int = 20_000) -> Iterator[Report]:
    """A report for each chunk of payloads, until `count` have been tried."""
    chance = random.Random(seed)
    for number, start in enumerate(range(0, count, chunk)):
        texts = GROUPS[number % len(GROUPS)]
        versions = [RegisteredSchema(id, "fuzz-value", id, text) for id, text in enumerate(texts, start=1)]
        values = list(payloads(chance, versions, min(chunk, count - start)))
        yield compare(spark, values, versions)


def compare(spark: SparkSession, values: list[bytes], versions: list[RegisteredSchema]) -> Report:
    """Let both decoders read `values`."""
    report, strict = Report(), Strict(versions)
    for value, row in zip(values, by_the_job(spark, values, versions), strict=True):
        event = None if row["error"] else row["event"]
        code, expected = strict(value)
        verdict = judged(value, event, code, expected, strict.leniently(value) if event and code else None)
        report.counts[verdict] += 1
        if verdict.startswith("disagreement"):
            what = f"{verdict}: schema {versions[-1].text}, bytes {value.hex()}"
            report.disagreements.append(f"{what}, job {row['error'] or event}, strict {code or expected}")
    return report


def judged(value: bytes, event: Any, code: str, expected: Any, lenient: Any) -> str:
    """What the two decoders made of a payload, in a word or two.

    Args:
        event: the job's; None where it rejects the payload.
        code, expected: the strict decoder's refusal, or its value.
        lenient: fastavro's value, where the job alone accepts the payload.
    """
    if event is None:
        return "rejected" if code else "disagreement (the job alone rejects)"
    if not code:
        return "good" if same(event, expected) else "disagreement (another value)"
    if code in EXPLAINED and (lenient is UNSET or same(event, lenient)):
        return f"explained ({code})"
    if code == "BAD_BLOCK" and ENDLESS in value:
        return "explained (BAD_BLOCK of -2^63 items)"
    if lenient is not UNSET and same(event, lenient) and any(isinstance(part, list) for part in event.values()):
        return f"explained ({code} in an entry of a map that another replaces)"
    return f"disagreement (the strict decoder alone rejects: {code})"


def same(found: Any, expected: Any) -> bool:
    """Equal in every bit, NaN too."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in found)
    if isinstance(found, list) and isinstance(expected, dict):  # Arrow gives a map as pairs
        return len(found) == len(expected) and same(dict(found), expected)
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(found, float):
        return repr(found) == str(expected)
    if hasattr(found, "tzinfo") and hasattr(expected, "tzinfo"):
        return bool(found.replace(tzinfo=None) == expected.replace(tzinfo=None))
    return bool(found == expected)


def by_the_job(spark: SparkSession, values: list[bytes], versions: list[RegisteredSchema]) -> list[dict[str, Any]]:
    table = pa.table({"row": list(range(len(values))), "value": pa.array(values, pa.binary())})
    decoded = decode.decode(spark.createDataFrame(table), versions, versions[-1].text)
    # What a rejected event holds need not fit Python's types.
    event = F.col("event")
    kept = decoded.select("row", "error", F.when(F.col("error").isNull(), event).alias("event"))
    rows: list[dict[str, Any]] = kept.orderBy("row").toArrow().to_pylist()
    return rows


class Strict:
    """The strict decoder, by header, and fastavro's reading into the newest version."""

    def __init__(self, versions: list[RegisteredSchema]) -> None:
        self._checks = {version.id: reader(version.text) for version in versions}
        self._writers = {version.id: parse_schema(json.loads(version.text)) for version in versions}
        self._newest = self._writers[versions[-1].id]
        self._expanded = expand_schema(json.loads(versions[-1].text))

    def __call__(self, value: bytes) -> tuple[str, Any]:
        """The code of what is wrong, or an empty one and the value as Spark should have it."""
        if len(value) < HEADER_LENGTH or value[0] != 0:
            return "NOT_FRAMED", None
        id, payload = unframe(value)
        if id not in self._checks:
            return "UNKNOWN_SCHEMA_ID", None
        try:
            self._checks[id](payload)
            return "", self._read(id, payload)
        except DecodeError as exc:
            return exc.code, None

    def leniently(self, value: bytes) -> Any:
        """What fastavro alone makes of a framed value, whatever its texts are; UNSET where it refuses it."""
        id, payload = unframe(value)
        try:
            return self._read(id, payload, handle_unicode_errors="replace")
        except LIBRARY_ERRORS:
            return UNSET

    def _read(self, id: int, payload: bytes, **options: Any) -> Any:
        value = schemaless_reader(BytesIO(payload), self._writers[id], self._newest, **options)
        return in_spark(value, self._expanded)


def payloads(chance: random.Random, versions: list[RegisteredSchema], count: int) -> Iterator[bytes]:
    """Framed values, most of them damaged."""
    writers = [(version.id, expand_schema(json.loads(version.text))) for version in versions]
    plain = {v.id: parse_schema(without_logical(json.loads(v.text))) for v in versions}
    whole = [frame(1, b"")]
    for _ in range(count):
        id, schema = chance.choice(writers)
        buffer = BytesIO()
        schemaless_writer(buffer, plain[id], random_value(chance, schema))
        whole.append(frame(id, buffer.getvalue()))
        value = bytearray(whole[-1])
        for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
            value = chance.choice(MUTATIONS)(chance, value, chance.choice(whole[-50:]))
        yield bytes(value)


def place(chance: random.Random, value: bytearray) -> int:
    """Mostly behind the header, which has other ways to be damaged."""
    first = HEADER_LENGTH if chance.random() < 0.97 else 0
    return chance.randint(min(first, len(value)), len(value))


def flip(chance: random.Random, value: bytearray, other: bytes) -> bytearray:
    if at := place(chance, value):
        value[at - 1] ^= 1 << chance.randrange(8)
    return value


def replace(chance: random.Random, value: bytearray, other: bytes) -> bytearray:
    if at := place(chance, value):
        value[at - 1] = chance.choice([0, 1, 2, 3, 0x7F, 0x80, 0xFF, chance.randrange(256)])
    return value


def cut(chance: random.Random, value: bytearray, other: bytes) -> bytearray:
    return value[: place(chance, value)]


def insert(chance: random.Random, value: bytearray, other: bytes) -> bytearray:
    at = place(chance, value)
    return value[:at] + chance.randbytes(chance.choice([1, 1, 2, 5])) + value[at:]


def remove(chance: random.Random, value: bytearray, other: bytes) -> bytearray:
    at = place(chance, value)
    return value[:at] + value[at + chance.choice([1, 1, 2, 4]) :]


def splice(chance: random.Random, value: bytearray, other: bytes) -> bytearray:
    return value[: place(chance, value)] + other[place(chance, bytearray(other)) :]


def lengthen(chance: random.Random, value: bytearray, other: bytes) -> bytearray:
    """Write a number in more bytes than it needs, sometimes with bits in the last that no number has."""
    at = place(chance, value)
    if at == len(value) or at < HEADER_LENGTH:
        return value
    last = chance.choice([0, 0, 0, chance.randrange(128)])
    padding = bytes([0x80] * chance.choice([0, 1, 3, 4, 7, 8, 9]))
    return value[:at] + bytes([value[at] | 0x80]) + padding + bytes([last]) + value[at + 1 :]


def claim(chance: random.Random, value: bytearray, other: bytes) -> bytearray:
    """Put a number where another was, as large as lengths and counts get."""
    at = place(chance, value)
    claimed = chance.choice([*INT, *LONG, 2**31, 2**40, chance.getrandbits(20), -chance.getrandbits(20)])
    buffer = BytesIO()
    schemaless_writer(buffer, parse_schema("long"), claimed)
    return value[:at] + buffer.getvalue() + value[at + 1 :]


def rename(chance: random.Random, value: bytearray, other: bytes) -> bytearray:
    id = chance.choice([1, 2, 3, 4, 2**31 - 1, 2**32 - 1, chance.getrandbits(32)])
    return bytearray(struct.pack(">BI", chance.choice([0, 0, 0, 0, 1]), id)) + value[HEADER_LENGTH:]


MUTATIONS = [flip, flip, flip, replace, replace, cut, insert, remove, splice, lengthen, claim, rename]


def without_logical(schema: Any) -> Any:
    """`schema` so that fastavro writes numbers and bytes as they are given."""
    if isinstance(schema, list):
        return [without_logical(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = ("type", "items", "values", "fields")
    kept = {key: part for key, part in schema.items() if key not in ("logicalType", "default")}
    return {key: without_logical(part) if key in inner else part for key, part in kept.items()}


def random_value(chance: random.Random, schema: Any) -> Any:
    """A value of an expanded schema that fastavro writes by `without_logical` of it."""
    if isinstance(schema, list):
        return random_value(chance, chance.choice(schema))
    declared = schema if isinstance(schema, dict) else {"type": schema}
    kind = declared["type"]
    if isinstance(kind, dict | list):
        return random_value(chance, kind)
    if kind == "record":
        return {part["name"]: random_value(chance, part["type"]) for part in declared["fields"]}
    if kind == "array":
        return [random_value(chance, declared["items"]) for _ in range(chance.choice([0, 1, 1, 2, 5]))]
    if kind == "map":
        keys = chance.sample(["a", "bb", "ö", ""], chance.randint(0, 3))
        return {key: random_value(chance, declared["values"]) for key in keys}
    return random_leaf(chance, declared)


def random_leaf(chance: random.Random, declared: dict[str, Any]) -> Any:
    kind, name = declared["type"], declared.get("logicalType", "")
    if kind in ("int", "long"):
        first, last = RANGES.get((kind, name), INT if kind == "int" else LONG)
        near = chance.getrandbits(chance.choice([3, 7, 14, 21, 28, 63])) * chance.choice([1, -1])
        return chance.choice([first, last, *[min(max(near, first), last)] * 8])
    if name == "decimal":
        limit = 10 ** declared["precision"] - 1
        size = declared.get("size") or (limit.bit_length() // 8 + 1)
        return chance.randint(-limit, limit).to_bytes(size, "big", signed=True)
    if name == "uuid":
        return str(UUID(int=chance.getrandbits(128)))
    simple: dict[str, Callable[[], Any]] = {
        "null": lambda: None,
        "boolean": lambda: chance.random() < 0.5,
        "float": lambda: struct.unpack("<f", chance.randbytes(4))[0],
        "double": lambda: struct.unpack("<d", chance.randbytes(8))[0],
        "bytes": lambda: chance.randbytes(chance.randint(0, 6)),
        "string": lambda: chance.choice(["", "EWR", "ü🛫", "a longer text than most are"]),
        "fixed": lambda: chance.randbytes(declared["size"]),
        "enum": lambda: chance.choice(declared["symbols"]),
    }
    return simple[kind]()
