"""The process that Spark's Python workers are forked from."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

from conf import ROOT


def test_it_loads_nothing_that_starts_a_thread() -> None:
    code = (
        "import os, sys; import jobs.worker_daemon; "
        "print(len(os.listdir('/proc/self/task')), 'pyarrow' in sys.modules, 'pandas' in sys.modules)"
    )
    # As Spark starts Python: with one thread for linear algebra.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "1 True False\n"


def _loaded(_: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    import pyspark

    loaded = "jobs.connectors.exactly_once.shards" in sys.modules
    main = sys.modules["__main__"].__spec__
    said = [f"daemon {main and main.name}", f"zip {'.zip' in str(pyspark.__file__)}", f"loaded {loaded}"]
    yield pa.RecordBatch.from_pydict({"said": said})


def test_workers_of_a_session_are_forked_from_it(spark: SparkSession) -> None:
    said = {row.said for row in spark.range(1).mapInArrow(_loaded, "said string").collect()}
    assert said == {"daemon jobs.worker_daemon", "zip False", "loaded True"}
