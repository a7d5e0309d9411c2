"""Says where stateful queries keep their state, and what a checkpoint's state holds as Spark's own readers show it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from conf.settings import Job, Spark
from jobs.connectors.hadoop_files import Folders, opened
from jobs.connectors.spark_internals import decompressed, jvm, state_metadata, state_schemas
from jobs.pipeline.checkpoint import last_commit

STATE_STORES = {
    "heap": "org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider",
    "rocksdb": "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
}
PARTITIONS = "spark.sql.shuffle.partitions"
PROVIDER = "spark.sql.streaming.stateStore.providerClass"
ROCKSDB_CONF = {
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    # Counting the rows on every put costs half of its speed.
    "spark.sql.streaming.stateStore.rocksdb.trackTotalNumberOfRows": "false",
}


def frozen(general: Spark, job: Job) -> dict[str, str]:
    """Read what a checkpoint freezes with its first run: the store, and the partitions of shuffles."""
    partitions = job.shuffle_partitions or general.shuffle_partitions
    return {PARTITIONS: str(partitions), PROVIDER: STATE_STORES[job.state_store or general.state_store]}


def configure(spark: SparkSession, general: Spark, job: Job) -> None:
    """Set what is `frozen`, and how RocksDB works where it is the store."""
    for name, value in (frozen(general, job) | ROCKSDB_CONF).items():
        spark.conf.set(name, value)


def start_coordinator(spark: SparkSession) -> None:
    """Let state be read, or repartitioned, in an application that has run no query.

    What tells executors where state lies is started with the session's manager of streams, on its first use.
    """
    _ = spark.streams.active


STATE = "state"
CODEC = "lz4"  # Spark's default for state, which no setting here changes
SCHEMA, SCHEMAS = "/_metadata/schema", "/_stateSchema/"  # of most operators, of others a folder with one of each store
COMPRESSED = ("delta", "snapshot", "changelog")
# Spark keeps a join's rows in stores of these names; the data source takes others only by name.
DEFAULT_STORE = "default"


@dataclass(frozen=True)
class Family:
    """A column family of a store: what its rows are keyed by, and what they are."""

    store: str
    name: str
    key: StructType
    value: StructType


@dataclass(frozen=True)
class Operator:
    """A stateful operator, as the checkpoint's state metadata has it.

    Args:
        name: Spark's short name, as `stateStoreSave`.
        properties: of its stores, as the state metadata has them; empty for most.
    """

    number: int
    name: str
    stores: tuple[str, ...]
    partitions: int
    families: tuple[Family, ...]
    properties: str = ""


def operators(spark: SparkSession, checkpoint: str) -> list[Operator]:
    """Return the stateful operators of the last committed batch, by number; none for a query without state."""
    batch = last_commit(spark, checkpoint)
    if batch is None or not Folders(spark).exists(f"{checkpoint}/{STATE}"):
        return []
    return planned_operators(spark, checkpoint, batch)


def planned_operators(spark: SparkSession, checkpoint: str, batch: int = 0) -> list[Operator]:
    """Return the operators that the state metadata of `checkpoint` had with `batch`, whether it was ever run or not."""
    folders = Folders(spark)
    if not folders.exists(f"{checkpoint}/{STATE}"):
        return []
    operators = [
        _operator(spark, folders, checkpoint, metadata) for metadata in state_metadata(spark, checkpoint, batch)
    ]
    return sorted(operators, key=lambda operator: operator.number)


def _operator(spark: SparkSession, folders: Folders, checkpoint: str, metadata: Any) -> Operator:
    info, listed = metadata.operatorInfo(), list(metadata.stateStoreInfo())
    stores = tuple(sorted(str(store.storeName()) for store in listed))
    number, name = int(info.operatorId()), str(info.operatorName())
    families = tuple(_families(spark, folders, f"{checkpoint}/{STATE}/{number}", stores))
    properties = str(metadata.operatorPropertiesJson()) if int(metadata.version()) > 1 else ""
    return Operator(number, name, stores, int(listed[0].numPartitions()), families, properties)


def rows(spark: SparkSession, checkpoint: str, operator: Operator) -> int | None:
    """Return how many rows the operator's state has in the last batch; None where Spark cannot read it.

    A join counts the rows of both sides, transformWithState those of all of its variables.
    """
    if operator.name.startswith("transformWithState"):
        return sum(_count(spark, checkpoint, operator, _variable(at)) for at in variables(operator))
    stores: list[dict[str, str]] = [{}]
    if operator.stores != (DEFAULT_STORE,):
        stores = [{"joinSide": side} for side in ("left", "right")]
    return sum(_count(spark, checkpoint, operator, store) for store in stores)


def variables(operator: Operator) -> list[dict[str, Any]]:
    """Return the state variables of a transformWithState operator, as its metadata lists them."""
    if not operator.properties:
        return []
    properties = json.loads(operator.properties)
    listed = properties.get("stateVariables", [])
    return list(json.loads(listed) if isinstance(listed, str) else listed)


def _variable(variable: dict[str, Any]) -> dict[str, str]:
    """Return the options that select one state variable, or the timers."""
    name = str(variable["stateName"])
    return {"readRegisteredTimers": "true"} if name.startswith("$") else {"stateVarName": name}


def _count(spark: SparkSession, checkpoint: str, operator: Operator, options: dict[str, str]) -> int:
    reader = spark.read.format("statestore").option("operatorId", operator.number).options(**options)
    return reader.load(checkpoint).count()


def damaged_file(spark: SparkSession, checkpoint: str) -> str | None:
    """Return the first file of changes to the state, or of all of it on the heap, that is empty or cannot be
    decompressed, or of the state's schema, that cannot be read; raises TidemarkError FILE_UNREADABLE."""
    for file in Folders(spark).files(f"{checkpoint}/{STATE}"):
        if file.name.startswith("."):
            continue
        if file.uri.endswith(SCHEMA) or SCHEMAS in file.uri:
            try:
                _read_schema(spark, file.uri)
            except (Py4JJavaError, PySparkException):
                return file.uri
        elif file.name.rpartition(".")[2] in COMPRESSED:
            with opened(spark, file.uri) as stream:
                try:
                    jvm(spark).org.apache.commons.io.IOUtils.consume(decompressed(spark, stream, CODEC))
                except Py4JJavaError:
                    return file.uri
            if not file.bytes:
                return file.uri
    return None


def _families(spark: SparkSession, folders: Folders, operator: str, stores: tuple[str, ...]) -> Iterator[Family]:
    for store, file in _schema_files(folders, operator, stores):
        for family in _read_schema(spark, file):
            key, value = (json.loads(family.keySchema().json()), json.loads(family.valueSchema().json()))
            name = str(family.colFamilyName())
            yield Family(store, name, StructType.fromJson(key), StructType.fromJson(value))


def _schema_files(folders: Folders, operator: str, stores: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the newest schema file of each store: beside partition 0, or in a folder of its own."""
    for store in stores:
        within = "" if store == DEFAULT_STORE else f"/{store}"
        versioned = [file for file in folders.entries(f"{operator}{SCHEMAS}{store}") if not file.name.startswith(".")]
        plain = f"{operator}/0{within}{SCHEMA}"
        if versioned:
            yield store, max(versioned, key=lambda file: int(file.name.partition("_")[0])).uri
        elif folders.exists(plain):
            yield store, plain


def _read_schema(spark: SparkSession, file: str) -> list[Any]:
    with opened(spark, file) as stream:
        return state_schemas(spark, stream)
