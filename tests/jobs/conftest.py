"""What the tests of jobs share: a feed of inline rows, and surroundings for whole runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.pipeline.state_store import ROCKSDB_CONF, STATE_STORES
from local.broker import Cluster
from tests.jobs.feed import Feed
from tests.jobs.scratch import Scratch

# A stream takes seconds where a batch takes a tenth of one. The tests of `stream` run a stream of each job with state,
# and so does the whole year; all cases as streams are for the exhaustive suite.
BATCH_AND_STREAM = ["batch", pytest.param("stream", marks=pytest.mark.exhaustive)]


@pytest.fixture(params=BATCH_AND_STREAM)
def feed(request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path) -> Feed:
    """Runs its test twice: with batches, and with streams."""
    return Feed(_with_state(spark, "heap"), tmp_path, request.param)


@pytest.fixture
def stream(spark: SparkSession, tmp_path: Path) -> Feed:
    """For what only streams do: watermarks, late rows, windows that close."""
    return Feed(_with_state(spark, "heap"), tmp_path, "stream")


@pytest.fixture(params=BATCH_AND_STREAM)
def rocksdb_feed(request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path) -> Feed:
    """`feed`, with the state where transformWithState needs it."""
    return Feed(_with_state(spark, "rocksdb"), tmp_path, request.param)


@pytest.fixture
def scratch(spark: SparkSession, broker: Cluster, new_topic: Callable[[int], str], tmp_path: Path) -> Scratch:
    """Topics, a registry, tables and checkpoints of the test's own."""
    return Scratch(spark, broker, new_topic, tmp_path)


@pytest.fixture
def rocksdb_stream(spark: SparkSession, tmp_path: Path) -> Feed:
    """`stream`, with the state where transformWithState needs it."""
    return Feed(_with_state(spark, "rocksdb"), tmp_path, "stream")


def _with_state(spark: SparkSession, store: str) -> SparkSession:
    fixed = {"spark.sql.shuffle.partitions": "1", "spark.sql.streaming.stateStore.providerClass": STATE_STORES[store]}
    for name, value in (fixed | ROCKSDB_CONF).items():
        spark.conf.set(name, value)
    return spark
