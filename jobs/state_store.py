"""Where stateful queries keep their state, by the names that settings use."""

from pyspark.sql import SparkSession

from conf.settings import Job, Spark

STATE_STORES = {
    "heap": "org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider",
    "rocksdb": "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider",
}
ROCKSDB_CONF = {
    "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
    # Counting the rows on every put costs half of its speed.
    "spark.sql.streaming.stateStore.rocksdb.trackTotalNumberOfRows": "false",
}


def configure(spark: SparkSession, general: Spark, own: Job) -> None:
    """Set what a checkpoint freezes with its first run: the store, and the partitions of shuffles."""
    partitions = own.shuffle_partitions or general.shuffle_partitions
    store = STATE_STORES[own.state_store or general.state_store]
    fixed = {"spark.sql.shuffle.partitions": str(partitions), "spark.sql.streaming.stateStore.providerClass": store}
    for name, value in (fixed | ROCKSDB_CONF).items():
        spark.conf.set(name, value)
