# ruff: noqa: F401
"""Forks Spark's Python workers, in place of `pyspark.daemon`, from a process that has loaded what they need.

Spark starts it as the property `spark.python.daemon.module` says. Its own daemon loads next to nothing, so that each
worker spends a second on imports before its first row, and again after a minute without work.
"""

import os
import sys

# Spark puts pyspark first on the path as zips, which Python would compile anew in each process: what is installed comes
# before them.
sys.path.sort(key=lambda entry: entry.endswith(("pyspark.zip", "-src.zip")))

# Nothing here may start a thread, which a fork would leave without: Arrow's allocator has one of its own by default.
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")

from pyspark import daemon, worker

from jobs.connectors.exactly_once import shards

if __name__ == "__main__":
    daemon.manager()
