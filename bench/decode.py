"""What do the id check, the reject split and many schema ids cost beside Spark's bare `from_avro`? Prints records/s.

    .tidemark/venv/bin/python -m bench.decode [--millions 2] [--rounds 5]

Departures lie as framed values in a Parquet file and go to a sink that does nothing, so that decoding takes the time.
The five ids are versions of one contract, the newest of which is the one id's; "counted" is the one id with its rejects
counted as `Run.read` does; "wide" is an event of 60 fields, whose code is too long for what the JVM compiles by
default. The ways take turns (`workbench.take_turns`).
"""

import json
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro

from bench.workbench import ratios, read_options, seconds, take_turns
from conf import state_dir
from conf.errors import exit_on_error
from conf.settings import load
from jobs.connectors.avro import decode
from jobs.connectors.avro.encode import encode
from local.session import spark_session
from schemas.codec import HEADER_LENGTH
from schemas.contracts import contract
from schemas.registry import RegisteredSchema

CONTRACT = contract("departure")
WIDE = 60
KINDS: tuple[tuple[Any, str], ...] = (  # the wide event's fields in turn, and an expression for their values
    ("string", "concat('UA', id)"),
    ("int", "cast(id % 9000 AS int)"),
    (["null", "string"], "if(id % 50 = 0, NULL, 'EWR')"),
    ({"type": "long", "logicalType": "timestamp-millis"}, "timestamp_millis(1357020000000 + id)"),
    ("double", "id / 7"),
    ("boolean", "id % 3 = 0"),
)
# Of what each way is a part, and the part that is wanted, if any.
RATIOS = {"one id": ("bare", 0.8), "five ids": ("bare", 0.6), "counted": ("bare", None), "wide": ("wide bare", None)}


def main() -> int:
    options = read_options(__doc__, millions=2.0, rounds=5)
    spark = spark_session(load(), "bench")
    with tempfile.TemporaryDirectory(dir=state_dir()) as scratch:
        _measure(spark, Path(scratch), int(options.millions * 1_000_000), options.rounds)
    spark.stop()
    return 0


def _measure(spark: SparkSession, folder: Path, count: int, rounds: int) -> None:
    versions = _versions()
    newest = versions[-1:]
    one = _written(spark, folder / "one", newest, count)
    five = _written(spark, folder / "five", versions, count)
    wide_version, wide = _wide(spark, folder / "wide", count // 4)
    frames: dict[str, Callable[[], DataFrame]] = {
        "bare": lambda: _bare(one, CONTRACT),
        "one id": lambda: _ours(one, newest),
        "five ids": lambda: _ours(five, versions),
        "counted": lambda: _counted(one, newest),
        "wide bare": lambda: _bare(wide, wide_version.text),
        "wide": lambda: _ours(wide, [wide_version]),
    }

    def speed(name: str) -> float:
        writer = frames[name]().write.format("noop").mode("overwrite")
        return (count // 4 if name.startswith("wide") else count) / seconds(writer.save)

    print(f"{count:,} records, and {count // 4:,} wide ones; records/s")
    speeds = take_turns({name: partial(speed, name) for name in frames}, rounds)
    for name, (whole, target) in RATIOS.items():
        ratio = statistics.median(ratios(speeds, name, whole))
        print(f"{name} / {whole}: {ratio:.2f}" + (f" (wanted: {target})" if target else ""))


def _versions() -> list[RegisteredSchema]:
    """Five versions, as a contract grows: the newest is the contract, those before lack an optional field or two, or
    have their fields in another order.
    """
    schema = json.loads(CONTRACT)
    fields = schema["fields"]
    lists = [
        [field for field in fields if field["name"] not in ("tail_number", "scheduled_arrival_at")],
        [field for field in fields if field["name"] != "tail_number"],
        [field for field in fields if field["name"] != "scheduled_arrival_at"],
        sorted(fields, key=lambda field: str(field["name"])),
        fields,
    ]
    texts = [json.dumps({**schema, "fields": listed}) for listed in lists]
    return [RegisteredSchema(id, "bench-value", id, text) for id, text in enumerate(texts, start=1)]


def _written(spark: SparkSession, path: Path, versions: list[RegisteredSchema], count: int) -> DataFrame:
    number = F.col("id")
    at = F.timestamp_millis(F.lit(1_357_020_000_000) + number * 60_000)
    fields = {
        "flight_id": F.concat(F.lit("UA"), number.cast("string"), F.lit("-EWR-20130101T1015Z")),
        "carrier": F.lit("UA"),
        "flight": (number % 9000).cast("int"),
        "tail_number": F.when(number % 50 != 0, F.concat(F.lit("N"), number % 100_000)),
        "origin": F.lit("EWR"),
        "destination": F.lit("IAH"),
        "scheduled_departure_at": at,
        "departed_at": at,
        "delay_minutes": (number % 300 - 20).cast("int"),
        "scheduled_arrival_at": at,
        "distance_miles": (number % 3000).cast("int"),
    }
    value = F.lit(None).cast("binary")
    for position, version in enumerate(versions):
        names = [field["name"] for field in json.loads(version.text)["fields"]]
        event = F.struct(*(fields[name].alias(name) for name in names))
        value = F.when(number % len(versions) == position, encode(event, version)).otherwise(value)
    spark.range(count).select(value.alias("value")).write.parquet(str(path))
    return spark.read.parquet(str(path))


def _wide(spark: SparkSession, path: Path, count: int) -> tuple[RegisteredSchema, DataFrame]:
    fields = {f"field_{number}": KINDS[number % len(KINDS)] for number in range(WIDE)}
    listed = [{"name": name, "type": kind} for name, (kind, _) in fields.items()]
    version = RegisteredSchema(1, "wide-value", 1, json.dumps({"type": "record", "name": "Wide", "fields": listed}))
    event = F.struct(*(F.expr(value).alias(name) for name, (_, value) in fields.items()))
    spark.range(count).select(encode(event, version).alias("value")).write.parquet(str(path))
    return version, spark.read.parquet(str(path))


def _bare(records: DataFrame, schema: str) -> DataFrame:
    body = F.substring("value", HEADER_LENGTH + 1, 2**31 - 1)
    return records.select(from_avro(body, schema, {"avroSchema": schema}).alias("event")).select("event.*")


def _ours(records: DataFrame, versions: list[RegisteredSchema]) -> DataFrame:
    return _events(decode.decode(records, versions, versions[-1].text))


def _counted(records: DataFrame, versions: list[RegisteredSchema]) -> DataFrame:
    decoded = decode.decode(records, versions, versions[-1].text)
    return _events(decoded.observe(Observation(), F.count_if(F.col("error").isNotNull()).alias("rejected")))


def _events(decoded: DataFrame) -> DataFrame:
    return decoded.where("error IS NULL").select("event.*")


if __name__ == "__main__":
    exit_on_error(main)
