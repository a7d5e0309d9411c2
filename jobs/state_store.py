"""Where stateful queries keep their state, by the names that settings use."""

from pyspark.sql import SparkSession

from conf.settings import Job, Spark

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


def frozen(general: Spark, own: Job) -> dict[str, str]:
    """What a checkpoint freezes with its first run: the store, and the partitions of shuffles."""
    partitions = own.shuffle_partitions or general.shuffle_partitions
    return {PARTITIONS: str(partitions), PROVIDER: STATE_STORES[own.state_store or general.state_store]}


def configure(spark: SparkSession, general: Spark, own: Job) -> None:
    """Set what is `frozen`, and how RocksDB works where it is the store."""
    for name, value in (frozen(general, own) | ROCKSDB_CONF).items():
        spark.conf.set(name, value)


def start_coordinator(spark: SparkSession) -> None:
    """Let state be read, or repartitioned, in an application that has run no query.

    What tells executors where state lies is started with the session's manager of streams, on its first use.
    """
    _ = spark.streams.active
