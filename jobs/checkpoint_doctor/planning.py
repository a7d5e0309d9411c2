"""The state that the code as it is now would keep: Spark plans the query, and nothing runs.

With the plan of a run's first batch Spark writes the operators and schemas of the state into the checkpoint, and holds
them against those that are there. Here it does so in scratch folders: an empty one, to learn what the code asks for,
and one with a copy of the old metadata, to hear whether Spark would go on.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from conf.settings import Job, Settings
from jobs import checkpoint, checkpoint_state, state_store
from jobs.checkpoint_state import STATE, Operator
from jobs.failures import cause_line
from jobs.folders import Folders
from jobs.outputs import Output

METADATA = ("_metadata", "_stateSchema")


@dataclass(frozen=True)
class Planned:
    """What Spark says of a query.

    Args:
        wanted: the operators of the code as it is now.
        refused: why Spark would not go on with the old state, in one line; empty where it would.
    """

    wanted: list[Operator]
    refused: str


def planned(spark: SparkSession, settings: Settings, output: Output, folder: str, batch: int | None) -> Planned:
    """Plan `output` anew, and for the state in the checkpoint `folder` after its committed `batch`, if there is one."""
    session = _session(spark, settings, output)
    text = _metadata(spark, session, folder, batch)
    with _scratch() as scratch:
        fresh = f"file:{scratch}/fresh"
        _write_log(spark, fresh, text, 0)
        _plan(session, output, text, f"{fresh}/{STATE}", 0)
        wanted = checkpoint_state.planned_operators(spark, fresh)
        if batch is None:
            return Planned(wanted, "")
        copied = f"file:{scratch}/copied"
        _copy_metadata(spark, f"{folder}/{STATE}", f"{copied}/{STATE}")
        _write_log(spark, copied, text, batch, batch + 1)
        try:
            _plan(session, output, text, f"{copied}/{STATE}", batch + 1)
        except (Py4JJavaError, PySparkException) as exc:
            return Planned(wanted, cause_line(str(exc)))
        return Planned(wanted, "")


def _session(spark: SparkSession, settings: Settings, output: Output) -> SparkSession:
    """A session of its own with the job's settings for state."""
    session = SparkSession(spark.sparkContext, spark._jsparkSession.cloneSession())
    state_store.configure(session, settings.spark, settings.jobs.get(output.job, Job()))
    return session


def _metadata(spark: SparkSession, session: SparkSession, folder: str, batch: int | None) -> str:
    """The line of the offset log that freezes configuration: the old checkpoint's, or what a new one would get."""
    text = checkpoint.entry(spark, folder, batch) if batch is not None else None
    if text:
        return text.splitlines()[1]
    frozen = {name: str(session.conf.get(name)) for name in (state_store.PARTITIONS, state_store.PROVIDER)}
    return json.dumps({"batchWatermarkMs": 0, "batchTimestampMs": 0, "conf": frozen})


def _write_log(spark: SparkSession, folder: str, metadata: str, *batches: int) -> None:
    """An offset log with those batches, which Spark wants to see before it reads the metadata of transformWithState."""
    for batch in batches:
        checkpoint.write(spark, f"{folder}/offsets/{batch}", f"v1\n{metadata}\n{checkpoint.NO_OFFSET}")


def _plan(session: SparkSession, output: Output, metadata: str, state: str, batch: int) -> None:
    """What Spark's micro-batch execution does for the first batch of a run, up to the plan."""
    jvm: Any = session._jvm
    streaming = jvm.org.apache.spark.sql.execution.streaming
    frozen = streaming.checkpointing.OffsetSeqMetadata.apply(metadata)
    java = session._jsparkSession
    streaming.checkpointing.OffsetSeqMetadata.setSessionConf(frozen, java.sessionState().conf())
    execution = streaming.runtime.IncrementalExecution
    execution(
        java,
        output.frame._jdf.queryExecution().logical(),
        getattr(jvm.org.apache.spark.sql.streaming.OutputMode, output.mode.capitalize())(),
        state,
        jvm.java.util.UUID.randomUUID(),
        jvm.java.util.UUID.randomUUID(),
        batch,
        jvm.scala.Option.empty(),
        frozen,
        streaming.runtime.WatermarkPropagator.noop(),
        True,
        *(getattr(execution, f"$lessinit$greater$default${number}")() for number in (12, 13, 14)),
        False,
    ).executedPlan()


def _copy_metadata(spark: SparkSession, state: str, to: str) -> None:
    """The files of a state folder that say what it is, without the state itself."""
    folders = Folders(spark)
    for operator in folders.entries(state):
        for entry in folders.entries(operator.uri):
            if entry.name in METADATA:
                folders.copy(entry.uri, f"{to}/{operator.name}/{entry.name}")
            # Beside partition 0 lie the schemas, of a join in a folder for each store.
            elif entry.name == "0":
                _copy_schemas(folders, entry.uri, f"{to}/{operator.name}/0")


def _copy_schemas(folders: Folders, partition: str, to: str) -> None:
    for entry in folders.entries(partition):
        if entry.name == METADATA[0]:
            folders.copy(entry.uri, f"{to}/{entry.name}")
        elif entry.is_folder:
            for within in folders.entries(entry.uri):
                if within.name == METADATA[0]:
                    folders.copy(within.uri, f"{to}/{entry.name}/{within.name}")


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tidemark-doctor-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
