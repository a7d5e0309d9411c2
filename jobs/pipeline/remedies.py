"""Says what an error means for a query: which checkpoint file is damaged, which right is lacking, and what to do."""

from typing import Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.delta.log import History
from jobs.connectors.hadoop_files import readable_bytes, unreadable
from jobs.pipeline import checkpoint, paths, plan_analysis
from jobs.pipeline.checkpoint import Damage
from jobs.pipeline.checkpoint_format import batch_offsets, entry_file, start_file, topic_offsets
from jobs.pipeline.errors import STATE_DAMAGED, DamagedError, DeniedError, UnreadableError, with_rights
from jobs.pipeline.outputs import Output
from jobs.pipeline.paths import GO_ON_WITH_NEW, MOVE_AWAY, OTHER_NAME, QUARANTINE, SHARED, SKIP
from jobs.pipeline.state_store import damaged_file

# Stops after which a query may have to read its topics again.
BEGIN_ANEW = ("TABLE_BEHIND", "TABLE_LOG_DAMAGED", "DATA_FILE_DAMAGED", STATE_DAMAGED)


def require_whole(spark: SparkSession, output: Output, folder: str, tables_root: str) -> None:
    """Look at the files that the next run of the query of `output` begins with; raises TidemarkError
    CHECKPOINT_DAMAGED, with the file and what to do."""
    damage = checkpoint.damage(spark, folder)
    if damage is not None:
        what = f"{folder}/{damage.file} {damage.what}"
        remedy = _repair_remedy(spark, output, folder, tables_root, damage) or lost_checkpoint_remedy(
            output, folder, tables_root
        )
        raise TidemarkError("CHECKPOINT_DAMAGED", what, remedy)


def _repair_remedy(spark: SparkSession, output: Output, folder: str, tables_root: str, damage: Damage) -> str | None:
    """Return how to mend that one file; None where that is not known."""
    kind, _, name = damage.file.rpartition("/")
    sums = f"{kind}/.{name}.crc" if kind else f".{name}.crc"
    removed = f"restore it, or remove it and {sums} beside it"
    if kind == "commits":
        return f"{removed}: batch {name} is run again and writes nothing twice"
    if kind.startswith("sources"):
        return f"{removed}: it says where the query began, and nothing that it needs to go on"
    if damage.file == "metadata":
        id = _recorded_id(spark, output, tables_root)
        return id and f'restore it, or write {{"id":"{id}"}} into it and remove {sums}: tables say that this was its id'
    number = int(name)
    if _is_begun_only(spark, output, folder, tables_root, number):
        return f"{removed}: batch {number} is planned anew, no table has it"
    return None


def _recorded_id(spark: SparkSession, output: Output, tables_root: str) -> str | None:
    """Return the id of the query that wrote the tables of `output`, by the tables' history."""
    for rows in output.tables:
        if id := History(spark, paths.table(tables_root, rows.table)).newest({"sink": output.query}).get("query_id"):
            return str(id)
    return None


def _is_begun_only(spark: SparkSession, output: Output, folder: str, tables_root: str, batch: int) -> bool:
    """Return whether that batch is the last of the offset log, and nothing of it can be in any output."""
    done, id = checkpoint.last_commit(spark, folder), checkpoint.query_id(spark, folder)
    if not output.tables or output.topic or id is None or batch != (-1 if done is None else done) + 1:
        return False
    return not is_in_tables(spark, tables_root, output, id, batch)


def is_in_tables(spark: SparkSession, tables_root: str, output: Output, query_id: str, batch: int) -> bool:
    """Return whether a table of `output` has anything of that batch."""
    commit = {"sink": output.query, "query_id": query_id, "batch": batch}
    return any(History(spark, paths.table(tables_root, rows.table)).newest(commit) for rows in output.tables)


def damage_error(
    spark: SparkSession, output: Output, folder: str, tables_root: str, stop: TidemarkError
) -> TidemarkError:
    """Add to `stop` the damaged file of the state, and what must be removed with it to read the topics again."""
    if stop.code not in BEGIN_ANEW:
        return stop
    try:
        if isinstance(stop, DamagedError):
            _require_lost(spark, stop)
        file = damaged_file(spark, folder) if stop.code == STATE_DAMAGED else None
    except TidemarkError as unreadable:
        return unreadable
    message, anew = stop.message, reread_remedy(output, folder, tables_root)
    if stop.code == STATE_DAMAGED:
        message = f"{message}: {file}" if file and file not in message else message
    elif any(f"{paths.table(tables_root, name)}/" in message for name in SHARED):
        anew = f"without one, {MOVE_AWAY}"
    elif not any(paths.table(tables_root, rows.table) in message for rows in output.tables):
        anew = "without one, delete that table and the checkpoint of the query that writes it, together"
    return TidemarkError(stop.code, message, "; ".join(filter(None, (stop.remedy, anew))))


def _require_lost(spark: SparkSession, stop: DamagedError) -> None:
    """Ask the file system for the file that was not found, where that is what the stop is about; raises TidemarkError
    FILE_UNREADABLE, where it is there."""
    try:
        length = readable_bytes(spark, stop.not_found) if stop.not_found else None
    except Py4JJavaError:  # it has no more than a part of the file's name
        return
    if length:
        raise unreadable(stop.not_found, "it was not found when it was needed, and is there")


def lost_checkpoint_remedy(output: Output, folder: str, tables_root: str) -> str:
    """Say what to do where the checkpoint in `folder` is lost to the query of `output`."""
    if output.keeps_ledger:
        if not plan_analysis.keeps_state(output.frame):
            return "restore the checkpoint, or start the job once with --adopt: it is built anew from the ledger"
        return f"restore the checkpoint from a copy, or {OTHER_NAME}"
    return f"restore the checkpoint from a copy; {reread_remedy(output, folder, tables_root)}"


def reread_remedy(output: Output, folder: str, tables_root: str) -> str:
    """Say what a query needs to read its topics again, all that it writes considered; empty where that is not known."""
    tables = [paths.table(tables_root, rows.table) for rows in output.tables if rows.table != QUARANTINE]
    if output.topic:
        return f"or {OTHER_NAME}"
    if not tables:
        return ""
    remedy = f"to read the topics again, delete all of the query together: {', '.join([folder, *tables])}"
    if len(tables) < len(output.tables):
        remedy += f" (its old rows in {QUARANTINE} stop the first reject, which says how to take them out)"
    return remedy


def new_topic_remedy(output: Output, folder: str, tables_root: str) -> str:
    """Say how a query goes on with a topic that was created again: nothing of it is written yet."""
    if output.keeps_ledger:
        return GO_ON_WITH_NEW
    if output.topic and not output.tables:
        return f"delete {folder}: what was published stays"
    anew = reread_remedy(output, folder, tables_root).removeprefix("or ")
    return anew or f"begin with another checkpoint than {folder}, and other tables"


def query_error(
    spark: SparkSession, settings: Settings, output: Output, folder: str, stop: TidemarkError
) -> TidemarkError:
    """Add to `stop` what is known of the query of `output`, whose checkpoint is in `folder`."""
    if isinstance(stop, UnreadableError):
        # With a ledger, a batch that was begun must be written as it was begun, or not at all.
        return stop if output.keeps_ledger else _with_way_past(spark, folder, stop)
    if isinstance(stop, DeniedError):
        return with_rights(stop, settings.kafka.client_config(), plan_analysis.topics_read(output.frame), output.topic)
    if stop.code == "DATA_LOST":
        skip = f"{SKIP}: it goes on behind them, says which they are, and writes nothing twice"
        remedies = (stop.remedy, skip, "" if output.topic else reread_remedy(output, folder, settings.paths.tables))
        return TidemarkError(stop.code, stop.message, "; ".join(filter(None, remedies)))
    return damage_error(spark, output, folder, settings.paths.tables, stop)


def _with_way_past(spark: SparkSession, folder: str, stop: UnreadableError) -> TidemarkError:
    """Add to `stop` which checkpoint file to edit next so that the bad record alone is skipped (two steps).

    The first edit ends the batch in front of the record; once that batch is done, the second begins behind it.
    """
    batch = checkpoint.last_entry(spark, folder)
    if batch is None:
        return stop
    offsets = batch_offsets(checkpoint.opening(spark, folder, batch), batch)
    starts, ends = (_positions(offsets[edge], stop) for edge in ("from", "until"))
    source = min(starts.keys() & ends.keys(), default=None)
    if source is None:
        return stop
    where = f"for partition {stop.partition} of {stop.topic}"
    if starts[source] < stop.offset:
        file = entry_file(batch)
        edit = f"write {stop.offset} in place of {ends[source]} {where} into {folder}/{file}"
        removed = f"{_sums(file)}, if it is there"
        then = "what is in front of the record is written, and the next stop says how to go on behind it"
    else:
        file = entry_file(batch - 1) if batch else start_file(source)
        removed = f"{entry_file(batch)}, and {_sums(entry_file(batch))} and {_sums(file)}, if they are there"
        edit = f"write {stop.offset + 1} in place of {stop.offset} {where} into {folder}/{file}"
        then = "it goes on behind the record, which no table has then"
    remedy = f"mend its producer; {edit}, and remove {removed}, then start the job again: {then}"
    return TidemarkError(stop.code, stop.message, remedy)


def _positions(sources: Any, stop: UnreadableError) -> dict[int, int]:
    """Return where each source was, by its number, in the partition of the record."""
    positions = {n: topic_offsets(at).get(stop.topic, {}) for n, at in enumerate(sources or ())}
    return {n: at[stop.partition] for n, at in positions.items() if stop.partition in at}


def _sums(file: str) -> str:
    """Return where Hadoop keeps the checksum of a file on a local disk."""
    folder, _, name = file.rpartition("/")
    return f"{folder}/.{name}.crc"
