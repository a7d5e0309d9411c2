"""A Spark session inside this process, for notebooks and tests, with the properties and jars that jobs run with."""

import os
from pathlib import Path

from pyspark.sql import SparkSession

from conf import ROOT, state_dir
from conf.settings import Settings
from local.jars import class_path


def spark_session(settings: Settings, name: str = "notebook", log: Path | None = None) -> SparkSession:
    """The session of this process, made on the first call.

    Raises:
        TidemarkError: BAD_JAR_LOCK, where no jars are locked.
    """
    log = log or Path(settings.paths.logs) / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # The driver's memory and options hold only when its JVM is started with them.
    submit = ["--driver-memory", settings.spark.driver_memory, "--driver-class-path", class_path("spark")]
    os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join(
        [*submit, f'--driver-java-options "{java_options(log)}"', "pyspark-shell"]
    )
    builder = SparkSession.builder.appName(name).master(settings.spark.master)
    for key, value in properties().items():
        builder = builder.config(key, value)
    return builder.config("spark.sql.warehouse.dir", str(state_dir() / "warehouse")).getOrCreate()


def java_options(log: Path) -> str:
    """Options of the driver's JVM: where it logs, and stacks deep enough for the regular expressions that Spark puts
    long failure messages through (with the default of 1 MB its stream threads died of them)."""
    return f"-Xss16m -Dlog4j2.configurationFile={ROOT / 'conf' / 'log4j2.properties'} -Dtidemark.log={log}"


def properties() -> dict[str, str]:
    """What conf/spark-defaults.conf sets."""
    lines = (ROOT / "conf" / "spark-defaults.conf").read_text().splitlines()
    pairs = (line.split(None, 1) for line in lines if line.strip() and not line.startswith("#"))
    return {key: value.strip() for key, value in pairs}
