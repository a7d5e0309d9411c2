"""Finds the doctor's answer for each query of a job: can it go on with its checkpoint?

What the code as it is now would keep, Spark says itself: it plans the query, and nothing runs.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs import catalog
from jobs.connectors.causes import cause_line
from jobs.connectors.delta import table as delta_table
from jobs.connectors.hadoop_files import Folders
from jobs.connectors.spark_internals import cloned_session, plan_micro_batch
from jobs.operations.checkpoint_doctor.comparison import ANSWERS, Answer, Change, NewQuery, OldQuery, changes
from jobs.operations.maintenance.checkpoints import Checkpoint, find_checkpoints
from jobs.pipeline import checkpoint, checkpoint_format, paths, state_store
from jobs.pipeline.checkpoint_format import entry_file, source_offsets
from jobs.pipeline.guards import SourceGuard
from jobs.pipeline.outputs import Output
from jobs.pipeline.query_description import QueryDescription, read_written
from jobs.pipeline.remedies import new_topic_remedy, require_whole
from jobs.pipeline.run import Run
from jobs.pipeline.state_store import PARTITIONS, PROVIDER, STATE, frozen

METADATA = ("_metadata", "_stateSchema")  # Spark's files that describe a state


@dataclass(frozen=True)
class Diagnosis:
    """The answer for a query.

    Args:
        reasons: a line each, why it is the answer.
        notes: what else has changed, and does no harm.
        remedy: what to do; empty for "new" and "safe".
    """

    query: str
    checkpoint: str
    answer: Answer
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    remedy: str

    def lines(self) -> Iterator[str]:
        reasons = self.reasons or ("nothing that matters has changed",)
        yield f"{self.query:<28} {self.answer:<11} {reasons[0]}"
        for reason in reasons[1:]:
            yield f"{'':<40} {reason}"
        for note in self.notes:
            yield f"{'':<40} note: {note}"
        if self.remedy:
            yield f"{'':<40} do: {self.remedy}"


class Doctor:
    """Compares the declared outputs of `run` with the checkpoints that are there."""

    def __init__(self, spark: SparkSession, settings: Settings, run: Run) -> None:
        self._spark, self._settings, self._run = spark, settings, run
        self._folders = Folders(spark)

    def diagnoses(self) -> Iterator[Diagnosis]:
        for output in self._run.outputs:
            folder = self._run.checkpoint(output)
            if checkpoint.has_begun(self._spark, folder):
                yield _diagnosis(output, folder, self._changes(output, folder, output.name))
            else:
                yield self._without_checkpoint(output, folder)

    def _changes(self, output: Output, folder: str, was_named: str) -> list[Change]:
        """List what has changed since the checkpoint in `folder`, whose output had the name `was_named`."""
        if damage := self._damage(output, folder):
            return [damage]
        batch = checkpoint.last_commit(self._spark, folder)
        if batch is None:
            return [Change("safe", "no batch was ever done")]
        found = changes(self._before(output, folder, batch, was_named), self._now(output, folder, batch))
        if checkpoint.entry(self._spark, folder, batch + 1) is not None:
            what = f"batch {batch + 1} was begun and not finished: this code runs it again, with the same offsets"
            found.append(Change("safe", what))
        return found

    def _damage(self, output: Output, folder: str) -> Change | None:
        root = self._settings.paths.tables
        try:
            require_whole(self._spark, output, folder, root)
            SourceGuard(self._spark, self._settings.kafka, folder, new_topic_remedy(output, folder, root)).check()
        except TidemarkError as error:
            if error.code not in ("CHECKPOINT_DAMAGED", "TOPIC_RECREATED"):
                raise
            return Change("rebuild", f"{error.code}: {error.message}", error.remedy)
        return None

    def _now(self, output: Output, folder: str, batch: int) -> NewQuery:
        """Let Spark plan the query as the code has it now, on the checkpoint in `folder` after its committed `batch`.

        With the plan of a run's first batch Spark writes the operators and schemas of the state into the checkpoint,
        and holds them against those that are there. Here it does so in scratch folders: an empty one, to learn what the
        code asks for, and one with a copy of the old metadata, to hear whether Spark would go on.
        """
        spark, job = self._spark, self._run.job_settings(output.job)
        session = cloned_session(spark)
        state_store.configure(session, self._settings.spark, job)
        # The line of the offset log that freezes configuration; `require_whole` has seen that it is there.
        frozen_line = (checkpoint.entry(spark, folder, batch) or "").splitlines()[1]
        refused = ""
        with tempfile.TemporaryDirectory(prefix="tidemark-doctor-") as scratch:
            fresh, copied = f"file:{scratch}/fresh", f"file:{scratch}/copied"
            # The job's checkpoint may be in an object store, with a file manager of its own.
            checkpoint.choose_file_manager(session, fresh)
            _write_offset_log(spark, fresh, frozen_line, 0)
            plan_micro_batch(session, output.frame, output.mode, frozen_line, f"{fresh}/{STATE}", 0)
            operators = state_store.planned_operators(spark, fresh)
            _copy_metadata(self._folders, f"{folder}/{STATE}", f"{copied}/{STATE}")
            _write_offset_log(spark, copied, frozen_line, batch, batch + 1)
            try:
                plan_micro_batch(session, output.frame, output.mode, frozen_line, f"{copied}/{STATE}", batch + 1)
            except (Py4JJavaError, PySparkException) as exc:
                refused = cause_line(exc)
        conf, schema = frozen(self._settings.spark, job), output.frame.schema
        record = QueryDescription.of(output)
        return NewQuery(record, operators, refused, int(conf[PARTITIONS]), conf[PROVIDER], schema)

    def _before(self, output: Output, folder: str, batch: int, was_named: str) -> OldQuery:
        conf = checkpoint.conf(self._spark, folder, batch)
        known = {"partitions": conf.get(PARTITIONS, ""), "provider": conf.get(PROVIDER, "")}
        text = checkpoint.entry(self._spark, folder, batch)
        sources = tuple(map(_topics, source_offsets(text) or ()))
        operators = state_store.operators(self._spark, folder)
        table = self._table_schema(output, was_named)
        return OldQuery(sources, known, operators, read_written(self._spark, folder), table)

    def _table_schema(self, output: Output, was_named: str) -> StructType | None:
        if not output.table:
            return None
        name = was_named if output.table == output.name else output.table
        path = paths.table(self._settings.paths.tables, name)
        return delta_table.read(self._spark, path).schema if delta_table.exists(self._spark, path) else None

    def _without_checkpoint(self, output: Output, folder: str) -> Diagnosis:
        for orphan in self._orphans():
            changes = self._as_renamed(output, orphan)
            if changes is not None:
                why = f"there is no checkpoint {folder}, and {orphan.uri} fits it and belongs to no output"
                notes = tuple(change.reason for change in changes)
                name = f"{orphan.job}/{orphan.output}"
                remedy = f"local/tidemark checkpoint rename {output.job} {output.name} {name}"
                return Diagnosis(output.query, folder, "rename", (why,), notes, remedy)
        return Diagnosis(output.query, folder, "new", ("there is no checkpoint, it begins with its topics",), (), "")

    def _orphans(self) -> Iterator[Checkpoint]:
        declared = {(output.job, output.name) for output in self._run.outputs}
        jobs_declared, jobs = {output.job for output in self._run.outputs}, catalog.questions()
        for query in find_checkpoints(self._folders, self._settings.paths.checkpoints):
            is_free = query.job in jobs_declared or query.job not in jobs
            if is_free and not query.is_replaced and (query.job, query.output) not in declared:
                yield query

    def _as_renamed(self, output: Output, orphan: Checkpoint) -> list[Change] | None:
        """List what else has changed, where the checkpoint of another output would do for this one; None where not."""
        record = read_written(self._spark, orphan.uri)
        if record is None or bool(record.table) != bool(output.table):
            return None
        changes = self._changes(output, orphan.uri, orphan.output)
        return changes if all(change.answer == "safe" for change in changes) else None


def _topics(source: Any) -> tuple[str, ...] | None:
    is_kafka = isinstance(source, dict) and all(isinstance(offsets, dict) for offsets in source.values())
    return tuple(sorted(source)) if is_kafka else None


def _diagnosis(output: Output, folder: str, changes: list[Change]) -> Diagnosis:
    answer: Answer = max((change.answer for change in changes), key=ANSWERS.index, default="safe")
    reasons = tuple(change.reason for change in changes if change.answer == answer != "safe")
    notes = tuple(change.reason for change in changes if change.answer != answer or answer == "safe")
    remedy = next((change.remedy for change in changes if change.remedy), "") or _remedy(output, folder, answer)
    return Diagnosis(output.query, folder, answer, reasons, notes, remedy)


def _remedy(output: Output, folder: str, answer: Answer) -> str:
    if answer == "repartition":
        return f"stop the job, then: local/tidemark checkpoint repartition {output.job} {output.name}"
    if answer == "rebuild":
        return (
            "take the change back; or give the output another name, which reads the topics from the start; or remove "
            f"{folder} and what it has written, both, to the same end"
        )
    return ""


def _write_offset_log(spark: SparkSession, folder: str, metadata: str, *batches: int) -> None:
    """Write an offset log with those batches: Spark needs one before it reads the metadata of transformWithState."""
    for batch in batches:
        checkpoint.write(spark, f"{folder}/{entry_file(batch)}", f"v1\n{metadata}\n{checkpoint_format.NO_OFFSET}")


def _copy_metadata(folders: Folders, state: str, to: str) -> None:
    """Copy the files of a state folder that describe it, without the state itself."""
    for operator in folders.entries(state):
        # The schemas lie beside partition 0; a join has a folder for each store there.
        stores = [f"/0/{entry.name}" for entry in folders.entries(f"{operator.uri}/0") if entry.is_folder]
        for within in ("", "/0", *stores):
            for entry in folders.entries(f"{operator.uri}{within}"):
                if entry.name in METADATA:
                    folders.copy(entry.uri, f"{to}/{operator.name}{within}/{entry.name}")
