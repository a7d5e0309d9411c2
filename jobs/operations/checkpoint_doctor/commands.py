"""Carries out the actions of `checkpoint`: diagnose, rename a checkpoint, repartition its state.

Table and checkpoint belong together: the table has recorded the last batch under the query's name. So what is done to
the checkpoint is recorded in the table, by a commit without rows. Each step is idempotent: a crash may repeat it.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace

from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs import arguments, catalog
from jobs.connectors.causes import cause_line
from jobs.connectors.delta import table as delta_table
from jobs.connectors.hadoop_files import Folders
from jobs.operations.checkpoint_doctor.diagnosis import Doctor
from jobs.pipeline import checkpoint, checkpoint_format, paths
from jobs.pipeline.outputs import Output, query_name
from jobs.pipeline.run import Run
from jobs.pipeline.session import session
from jobs.pipeline.state_store import PARTITIONS, PROVIDER, STATE, STATE_STORES, frozen, start_coordinator

NOTHING_TO_DO = ("new", "safe")


def main(words: Sequence[str]) -> int:
    """Carry out one action; return the exit code."""
    args = arguments.parse_checkpoint(words)
    settings = arguments.settings_of(args)
    module = catalog.load(args.job)
    with session(settings, f"checkpoint {args.action} {args.job}", "checkpoint_doctor") as spark:
        run = Run(spark, settings, args.job)
        module.build(run)
        return act(spark, settings, run, args)


def act(spark: SparkSession, settings: Settings, run: Run, args: Namespace) -> int:
    """Carry out an action on the declared outputs of `run`, and print what there is to say; return the exit code."""
    if args.action == "doctor":
        code = 0
        for diagnosis in Doctor(spark, settings, run).diagnoses():
            code = max(code, int(diagnosis.answer not in NOTHING_TO_DO))
            for line in [json.dumps(asdict(diagnosis))] if args.json else diagnosis.lines():
                print(line, flush=True)
        return code
    if args.action == "repartition":
        lines = repartition(spark, settings, run, args.output)
    else:
        lines = rename(spark, settings, run, args.output, args.source)
    print("\n".join(lines))
    return 0


ADOPT = "it publishes to a topic: start the job once with --adopt"


def repartition(spark: SparkSession, settings: Settings, run: Run, name: str) -> list[str]:
    """Bring the state of output `name` into the number of partitions that settings say; return lines on what was done.

    Raises:
        TidemarkError: UNKNOWN_OUTPUT; CANNOT_REPARTITION, where there is no state, it lies on the heap, or a batch is
            unfinished.
    """
    output = _declared(run, name)
    folder, last = run.checkpoint(output), checkpoint.last_commit(spark, run.checkpoint(output))
    if last is None or not Folders(spark).exists(f"{folder}/{STATE}"):
        raise _cannot(output, "its checkpoint holds no state", "there is nothing to do")
    conf = checkpoint.conf(spark, folder, last)
    partitions = frozen(settings.spark, run.job_settings(output.job))[PARTITIONS]
    lines = [f"{output.query}: the state has {partitions} partitions already"]
    if conf[PARTITIONS] != partitions:
        # Spark begins a batch for it before it finds that it cannot, and the query could not be started any more.
        if conf[PROVIDER] != STATE_STORES["rocksdb"]:
            raise _cannot(output, "its state lies on the heap", "Spark repartitions none but RocksDB: rebuild")
        start_coordinator(spark)
        try:
            spark._streamingCheckpointManager.repartition(folder, int(partitions))
        except Exception as exc:
            remedy = "let the job finish its batch first, or run the same command again, where it was cut short"
            raise _cannot(output, cause_line(exc), remedy) from exc
        lines = [f"{output.query}: the state had {conf[PARTITIONS]} partitions and has {partitions}"]
    return [*lines, *_record_repartition(spark, run, output, folder)]


def _record_repartition(spark: SparkSession, run: Run, output: Output, folder: str) -> list[str]:
    last = checkpoint.last_commit(spark, folder) or 0
    table = _table(run, output)
    changed = checkpoint.conf(spark, folder, last).get(PARTITIONS)
    if last and table and changed != checkpoint.conf(spark, folder, last - 1).get(PARTITIONS, changed):
        _record(spark, table, _commit(spark, output.query, folder, last))
    return [f"{output.query}: {ADOPT}"] if output.keeps_ledger else []


def rename(spark: SparkSession, settings: Settings, run: Run, name: str, source: str) -> list[str]:
    """Let output `name` go on with the checkpoint, and the table, that had the name `source` (JOB/OUTPUT).

    Returns:
        lines on what was done.

    Raises:
        TidemarkError: UNKNOWN_OUTPUT; CANNOT_RENAME, where the new name is taken, there is nothing under the old one,
            or a batch is unfinished whose records may be in a topic.
    """
    output, folders = _declared(run, name), Folders(spark)
    job, _, was_named = source.partition("/")
    old, new = paths.checkpoint(settings.paths, job, was_named), run.checkpoint(output)
    if folders.is_moving(old, new):
        folders.move(old, new)  # the last step of a renaming that was cut short
        return [f"{old} is {new} now"]
    last = checkpoint.last_commit(spark, old)
    if folders.exists(new):
        raise _cannot_rename(f"{new} is there already", "move it away first")
    if last is None:
        raise _cannot_rename(f"{old} is no checkpoint in which a batch was done", "see the folder's name")
    if output.topic and checkpoint.entry(spark, old, last + 1) is not None:
        raise _cannot_rename(f"batch {last + 1} of {old} is unfinished", "let the old code finish it first")
    lines, table = [], _table(run, output)
    if table:
        lines += _move_table(folders, paths.table(settings.paths.tables, was_named), table.path)
        _carry_over(spark, table, was_named, query_name(job, was_named), output, old)
    folders.move(old, new)
    lines += [f"{old} is {new} now"]
    return [*lines, f"{output.query}: {ADOPT}"] if output.keeps_ledger else lines


def _move_table(folders: Folders, old: str, new: str) -> list[str]:
    if folders.exists(new) and not folders.is_moving(old, new):
        if folders.exists(old):
            raise _cannot_rename(f"{new} and {old} are both there", "move away the one that is not the output's")
        return []
    folders.move(old, new)
    return [f"{old} is {new} now"]


def _carry_over(
    spark: SparkSession, table: delta_table.Table, was_table: str, was_query: str, output: Output, folder: str
) -> None:
    """Record under the new name what the table has recorded under the old one."""
    query_id = checkpoint.query_id(spark, folder) or ""
    before = delta_table.Commit(was_query, query_id, "write", 0).app_id(replace(table, name=was_table))
    recorded = delta_table.recorded_version(spark, table.path, before)
    if recorded is not None:
        _record(spark, table, replace(_commit(spark, output.query, folder, recorded), contiguous=False))


def _commit(spark: SparkSession, query: str, folder: str, batch: int) -> delta_table.Commit:
    offsets = checkpoint_format.batch_offsets(checkpoint.opening(spark, folder, batch), batch)
    return delta_table.Commit(query, checkpoint.query_id(spark, folder) or "", "write", batch, offsets)


def _record(spark: SparkSession, table: delta_table.Table, commit: delta_table.Commit) -> None:
    nothing = spark.createDataFrame([], delta_table.read(spark, table.path).schema)
    delta_table.write(nothing, replace(table, keys=()), commit)


def _table(run: Run, output: Output) -> delta_table.Table | None:
    return run.table(output.table, output.keys) if output.table else None


def _declared(run: Run, name: str) -> Output:
    for output in run.outputs:
        if output.name == name:
            return output
    known = ", ".join(output.name for output in run.outputs)
    raise TidemarkError("UNKNOWN_OUTPUT", f"the job has no output `{name}`", f"known: {known}")


def _cannot(output: Output, what: str, remedy: str) -> TidemarkError:
    return TidemarkError("CANNOT_REPARTITION", f"{output.query}: {what}", remedy)


def _cannot_rename(what: str, remedy: str) -> TidemarkError:
    return TidemarkError("CANNOT_RENAME", what, remedy)
