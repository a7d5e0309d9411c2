"""Learns which state the code as it is now would keep: Spark plans the query, and nothing runs.

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

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from conf.settings import Job, Settings
from jobs.connectors.causes import cause_line
from jobs.connectors.hadoop_files import Folders
from jobs.connectors.spark_internals import cloned_session, plan_micro_batch
from jobs.pipeline import checkpoint, state_store
from jobs.pipeline.checkpoint_format import entry_file
from jobs.pipeline.outputs import Output
from jobs.pipeline.state_store import STATE, Operator

METADATA = ("_metadata", "_stateSchema")


@dataclass(frozen=True)
class PlannedState:
    """The state of a query as Spark plans it.

    Args:
        operators: those of the code as it is now.
        refused: why Spark would not go on with the old state, in one line; empty where it would.
    """

    operators: list[Operator]
    refused: str


def plan_state(spark: SparkSession, settings: Settings, output: Output, folder: str, batch: int | None) -> PlannedState:
    """Plan `output` anew, and for the state in the checkpoint `folder` after its committed `batch`, if there is one."""
    session = _session(spark, settings, output)
    text = _metadata(spark, session, folder, batch)
    with _scratch() as scratch:
        fresh = f"file:{scratch}/fresh"
        checkpoint.choose_file_manager(session, fresh)  # the job's may be in an object store, with a manager of its own
        _write_log(spark, fresh, text, 0)
        plan_micro_batch(session, output.frame, output.mode, text, f"{fresh}/{STATE}", 0)
        operators = state_store.planned_operators(spark, fresh)
        if batch is None:
            return PlannedState(operators, "")
        copied = f"file:{scratch}/copied"
        _copy_metadata(spark, f"{folder}/{STATE}", f"{copied}/{STATE}")
        _write_log(spark, copied, text, batch, batch + 1)
        try:
            plan_micro_batch(session, output.frame, output.mode, text, f"{copied}/{STATE}", batch + 1)
        except (Py4JJavaError, PySparkException) as exc:
            return PlannedState(operators, cause_line(exc))
        return PlannedState(operators, "")


def _session(spark: SparkSession, settings: Settings, output: Output) -> SparkSession:
    """Return a session of its own with the job's settings for state."""
    session = cloned_session(spark)
    state_store.configure(session, settings.spark, settings.jobs.get(output.job, Job()))
    return session


def _metadata(spark: SparkSession, session: SparkSession, folder: str, batch: int | None) -> str:
    """Return the line of the offset log that freezes configuration:
    the old checkpoint's, or what a new one would get."""
    text = checkpoint.entry(spark, folder, batch) if batch is not None else None
    if text:
        return text.splitlines()[1]
    frozen = {name: str(session.conf.get(name)) for name in (state_store.PARTITIONS, state_store.PROVIDER)}
    return json.dumps({"batchWatermarkMs": 0, "batchTimestampMs": 0, "conf": frozen})


def _write_log(spark: SparkSession, folder: str, metadata: str, *batches: int) -> None:
    """Write an offset log with those batches: Spark needs one before it reads the metadata of transformWithState."""
    for batch in batches:
        checkpoint.write(spark, f"{folder}/{entry_file(batch)}", f"v1\n{metadata}\n{checkpoint.NO_OFFSET}")


def _copy_metadata(spark: SparkSession, state: str, to: str) -> None:
    """Copy the files of a state folder that describe it, without the state itself."""
    folders = Folders(spark)
    for operator in folders.entries(state):
        for entry in folders.entries(operator.uri):
            if entry.name in METADATA:
                folders.copy(entry.uri, f"{to}/{operator.name}/{entry.name}")
            # The schemas lie beside partition 0; a join has a folder for each store there.
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
