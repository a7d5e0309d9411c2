"""Several Spark actions at once, from one driver thread."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pyspark import inheritable_thread_target
from pyspark.sql import SparkSession


def in_parallel(spark: SparkSession, *actions: Callable[[], None]) -> None:
    """Run `actions` in threads that inherit this thread's Spark properties: a stop of the query reaches their jobs too.

    All are awaited; the first failure is raised.
    """
    with ThreadPoolExecutor(max_workers=len(actions)) as pool:
        futures = [pool.submit(inheritable_thread_target(spark)(action)) for action in actions]
    for future in futures:
        future.result()
