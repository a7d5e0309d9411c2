"""Makes the Spark session of a notebook, a test or a benchmark, with the options of a job's driver."""

import os
import shlex
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from conf import state_dir
from conf.settings import Settings
from jobs.pipeline.session import hide_secrets
from local import driver
from local.processes import require_account
from local.state_folder import with_temporary_folder


def spark_session(settings: Settings, name: str = "notebook", log: Path | None = None) -> SparkSession:
    """Return the session of this process, made on the first call: for notebooks and tests, as jobs have it.

    Raises:
        TidemarkError: BAD_JAR_LOCK, where no jars are locked.
    """
    log = log or driver.log_file(settings, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # Workers must find the packages that this process has.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    require_account()
    with with_temporary_folder():
        daemon = f"-D{driver.WORKER_DAEMON} " if driver.is_local(settings.spark.master) else ""
        # The driver's memory and options hold only when its JVM is started with them.
        words = ["--driver-memory", settings.spark.driver_memory, "--properties-file", str(driver.PROPERTIES)]
        words += ["--driver-class-path", driver.class_path(driver.jar_sets(settings))]
        # The daemon first, so that the settings' own options may say otherwise.
        words += ["--driver-java-options", daemon + driver.java_options(settings, log, name)]
        for key, value in driver.object_store_options(settings, os.environ).items():
            words += ["--conf", f"{key}={value}"]
        os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join([*words, "pyspark-shell"])
        builder = SparkSession.builder.appName(name).master(settings.spark.master)
        builder = builder.config("spark.sql.shuffle.partitions", settings.spark.shuffle_partitions)
        for key, value in settings.spark.properties().items():
            builder = builder.config(key, value)
        spark = builder.config("spark.sql.warehouse.dir", str(state_dir() / "warehouse")).getOrCreate()
        hide_secrets(spark)
        return spark
