"""A Spark session inside this process, for notebooks and tests, with the properties and jars that jobs run with."""

import os
import shlex
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from conf import ROOT, state_dir
from conf.settings import Settings
from local.jars import class_path

PROPERTIES = ROOT / "conf" / "spark-defaults.conf"


def spark_session(settings: Settings, name: str = "notebook", log: Path | None = None) -> SparkSession:
    """The session of this process, made on the first call.

    Raises:
        TidemarkError: BAD_JAR_LOCK, where no jars are locked.
    """
    log = log or Path(settings.paths.logs) / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # Workers must find the packages that this process has.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # The driver's memory and options hold only when its JVM is started with them.
    submit = {
        "--driver-memory": settings.spark.driver_memory,
        "--driver-class-path": class_path("spark"),
        "--driver-java-options": java_options(settings, log),
        "--properties-file": str(PROPERTIES),
    }
    words = [word for option in submit.items() for word in option]
    os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join([*words, "pyspark-shell"])
    builder = SparkSession.builder.appName(name).master(settings.spark.master)
    builder = builder.config("spark.sql.shuffle.partitions", settings.spark.shuffle_partitions)
    return builder.config("spark.sql.warehouse.dir", str(state_dir() / "warehouse")).getOrCreate()


def java_options(settings: Settings, log: Path) -> str:
    """Options of the driver's JVM: where it logs, and stacks deep enough for the regular expressions that Spark puts
    long failure messages through (with the default of 1 MB its stream threads died of them)."""
    # In quotes: Spark takes these words apart at blanks, which a path may have.
    own = f'-Xss16m -Dlog4j2.configurationFile="{ROOT / "conf" / "log4j2.properties"}" -Dtidemark.log="{log}"'
    return f"{own} {settings.spark.driver_java_options}"
