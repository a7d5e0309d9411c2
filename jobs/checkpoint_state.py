"""The state that a checkpoint holds, as Spark's own readers tell it: operators, schemas, rows.

A running query may go on meanwhile: what is read is the state of one committed batch.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from jobs.checkpoint import last_commit
from jobs.folders import Folders

STATE = "state"
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
    """A stateful operator.

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
    """The stateful operators of the last committed batch in `checkpoint`, by number; none for a query without state."""
    batch = last_commit(spark, checkpoint)
    if batch is None or not Folders(spark).exists(f"{checkpoint}/{STATE}"):
        return []
    return planned_operators(spark, checkpoint, batch)


def planned_operators(spark: SparkSession, checkpoint: str, batch: int = 0) -> list[Operator]:
    """The operators that the state metadata of `checkpoint` had with `batch`, whether it was ever run or not."""
    folders = Folders(spark)
    if not folders.exists(f"{checkpoint}/{STATE}"):
        return []
    jvm: Any = spark._jvm
    conf = jvm.org.apache.spark.util.SerializableConfiguration(spark._jsparkSession.sessionState().newHadoopConf())
    sources = jvm.org.apache.spark.sql.execution.datasources.v2.state.metadata
    found = sources.StateMetadataPartitionReader(checkpoint, conf, batch).allOperatorStateMetadata()
    read = [_operator(spark, folders, checkpoint, metadata) for metadata in list(found)]
    return sorted(read, key=lambda operator: operator.number)


def _operator(spark: SparkSession, folders: Folders, checkpoint: str, metadata: Any) -> Operator:
    info, listed = metadata.operatorInfo(), list(metadata.stateStoreInfo())
    stores = tuple(sorted(str(store.storeName()) for store in listed))
    number, name = int(info.operatorId()), str(info.operatorName())
    families = tuple(_families(spark, folders, f"{checkpoint}/{STATE}/{number}", stores))
    properties = str(metadata.operatorPropertiesJson()) if int(metadata.version()) > 1 else ""
    return Operator(number, name, stores, int(listed[0].numPartitions()), families, properties)


def rows(spark: SparkSession, checkpoint: str, operator: Operator) -> int | None:
    """How many rows the operator's state has in the last batch; None where Spark cannot read it.

    A join counts the rows of both sides, transformWithState those of all of its variables.
    """
    if operator.name.startswith("transformWithState"):
        return sum(_of_variable(spark, checkpoint, operator, each).count() for each in variables(operator))
    stores: list[dict[str, str]] = [{}]
    if operator.stores != (DEFAULT_STORE,):
        stores = [{"joinSide": side} for side in ("left", "right")]
    return sum(_state(spark, checkpoint, operator.number, store).count() for store in stores)


def variables(operator: Operator) -> list[dict[str, Any]]:
    """The state variables of a transformWithState operator, as its metadata lists them."""
    if not operator.properties:
        return []
    said = json.loads(operator.properties)
    listed = said.get("stateVariables", [])
    return list(json.loads(listed) if isinstance(listed, str) else listed)


def _of_variable(spark: SparkSession, checkpoint: str, operator: Operator, variable: dict[str, Any]) -> DataFrame:
    name = str(variable["stateName"])
    timers = name.startswith("$")
    options = {"readRegisteredTimers": "true"} if timers else {"stateVarName": name}
    return _state(spark, checkpoint, operator.number, options)


def _state(spark: SparkSession, checkpoint: str, number: int, options: dict[str, str]) -> DataFrame:
    reader = spark.read.format("statestore").option("operatorId", number).options(**options)
    return reader.load(checkpoint)


def _families(spark: SparkSession, folders: Folders, operator: str, stores: tuple[str, ...]) -> Iterator[Family]:
    for store, file in _schema_files(folders, operator, stores):
        for family in _read_schema(spark, file):
            key, value = (json.loads(family.keySchema().json()), json.loads(family.valueSchema().json()))
            name = str(family.colFamilyName())
            yield Family(store, name, StructType.fromJson(key), StructType.fromJson(value))


def _schema_files(folders: Folders, operator: str, stores: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The newest schema file of each store: of most operators beside partition 0, of others in a folder of its own."""
    for store in stores:
        within = "" if store == DEFAULT_STORE else f"/{store}"
        versioned = [each for each in folders.entries(f"{operator}/_stateSchema/{store}") if not _is_hidden(each.name)]
        plain = f"{operator}/0{within}/_metadata/schema"
        if versioned:
            yield store, max(versioned, key=lambda each: int(each.name.partition("_")[0])).uri
        elif folders.exists(plain):
            yield store, plain


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _read_schema(spark: SparkSession, file: str) -> list[Any]:
    jvm: Any = spark._jvm
    state = jvm.org.apache.spark.sql.execution.streaming.state
    path = jvm.org.apache.hadoop.fs.Path(file)
    stream = path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()).open(path)
    try:
        reader = getattr(state, "SchemaHelper$SchemaReader$").__getattr__("MODULE$")
        schemas = reader.createSchemaReader(stream.readUTF()).read(stream)
        return [schemas.apply(number) for number in range(schemas.size())]
    finally:
        stream.close()
