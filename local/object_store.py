"""Says what a driver needs for tables and checkpoints on `s3a://`: the jars of Hadoop's S3A, and where the store is.

The place comes from the variables that AWS's own tools and deltalake read, so that programs with and without a JVM go
to one store: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. Spark hands the keys from the
environment to S3A by itself: they stand on no command line.
"""

import os
from collections.abc import Mapping

from conf.credentials import holds_login
from conf.errors import TidemarkError
from conf.settings import Settings
from local import jars

SCHEME = "s3a://"
JARS = "s3"
HADOOP = "spark.hadoop.fs.s3a."
CHECKPOINT_MANAGER = "spark.sql.streaming.checkpointFileManagerClass"
# Writes a checkpoint's file in one upload, which it aborts where the write fails; Spark's own would write a temporary
# one and rename it, which costs a copy and a delete for each.
ABORTABLE = "org.apache.spark.internal.io.cloud.AbortableStreamBasedCheckpointFileManager"


def is_used(settings: Settings) -> bool:
    """Return whether tables or checkpoints lie in an object store."""
    return settings.paths.tables.startswith(SCHEME) or settings.paths.checkpoints.startswith(SCHEME)


def require_reachable(settings: Settings) -> None:
    """Ask the store for what lies there, before a JVM is started that would ask it for minutes.

    Raises:
        TidemarkError: OBJECT_STORE_REFUSES; BAD_SETTING, as `spark_options`.
    """
    if is_used(settings):
        spark_options(settings, os.environ)
        from jobs.connectors.files import require_reachable  # here: it loads what no other start needs

        for path in sorted({settings.paths.tables, settings.paths.checkpoints}):
            require_reachable(path)


def jar_sets(settings: Settings) -> tuple[str, ...]:
    """Return the sets of jars on a driver's class path; the one for an object store is fetched where it is missing.

    Raises:
        TidemarkError: JAR_DOWNLOAD or JAR_CHECKSUM.
    """
    if not is_used(settings):
        return ("spark",)
    if jars.problems(JARS):  # asked first: where they are there, nothing need be writable
        jars.fetch(JARS)
    return ("spark", JARS)


def spark_options(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return Spark's options for the object store of the settings, none where they name none; no secret is among them.

    Raises:
        TidemarkError: BAD_SETTING, where S3A would go where deltalake refuses to go.
    """
    if not is_used(settings):
        return {}
    options = {}
    if region := environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        options[f"{HADOOP}endpoint.region"] = region
    if endpoint := environ.get("AWS_ENDPOINT_URL"):
        if holds_login(endpoint):
            remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            raise TidemarkError("BAD_SETTING", "AWS_ENDPOINT_URL must hold no user and password", remedy)
        if endpoint.startswith("http://") and not _is_set(environ, "AWS_ALLOW_HTTP"):
            message = f"AWS_ENDPOINT_URL is {endpoint}, without TLS"
            raise TidemarkError("BAD_SETTING", message, "set AWS_ALLOW_HTTP=true too, or give an https:// address")
        options[f"{HADOOP}endpoint"] = endpoint
        virtual = _is_set(environ, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST")
        options[f"{HADOOP}path.style.access"] = str(not virtual).lower()
    if settings.paths.checkpoints.startswith(SCHEME):
        options[CHECKPOINT_MANAGER] = ABORTABLE
    return options


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() in ("true", "1")
