"""Puts the rows of a verified replay in the place of live ones, or takes them back; makes a backfill the live job."""

import json
from collections.abc import Callable, Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf import code_version
from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.delta import table as delta_table
from jobs.connectors.delta.log import History, snapshot
from jobs.connectors.delta.schema_evolution import admit_types
from jobs.connectors.delta.table import CONFLICT
from jobs.connectors.exactly_once.fail_points import fail_point
from jobs.connectors.exactly_once.ledger import BatchId, offsets_hash
from jobs.connectors.exactly_once.sink import BatchFacts, LedgerSink
from jobs.connectors.hadoop_files import Folders
from jobs.connectors.kafka import source_sink
from jobs.operations.replay.record import Part, Replacement, Replay, ReplayPaths
from jobs.operations.replay.row_comparison import fingerprint
from jobs.operations.replay.side_run import SideRun, kafka_offset, topic_entries
from jobs.operations.replay.verify import read_records, read_rows, row_selection
from jobs.pipeline import checkpoint, paths
from jobs.pipeline.checkpoint_format import entry_file
from jobs.pipeline.plan_analysis import Source, sources

ATTEMPTS = 20  # a live query commits in between; each of its commits lets one attempt fail
HEADER = "tidemark-replay"
CUTOVER, UNDO = "cutover", "undo"


class Cutover:
    """Swaps the tables of a replay in, or out again.

    Args:
        require_lock: raises, where the right to run the replay is lost.
    """

    def __init__(
        self, spark: SparkSession, settings: Settings, replay: Replay, require_lock: Callable[[], None]
    ) -> None:
        self._spark, self._settings, self._replay, self._require_lock = spark, settings, replay, require_lock
        self._side_run = ReplayPaths(settings, replay.id).side_run

    def swap_in(self, part: Part, table: Replacement) -> int | None:
        """Put the replay's rows in; the table's version that holds them, None where they are there already.

        Raises:
            TidemarkError: LIVE_CHANGED, where the live rows are no longer those that were compared; BUSY_TABLE; what
                `admit_types` raises.
        """
        rows = table.rows
        replayed = read_rows(self._spark, paths.table(self._side_run, rows.table), "true")
        path = paths.table(self._settings.paths.tables, rows.table)
        if replayed is None:
            return None
        live = delta_table.Table(rows.table, path, rows.keys)
        delta_table.create_if_missing(replayed, live)
        version = self._cutover_version(path)
        if version is not None:
            return version
        admit_types(replayed, live)
        where = row_selection(self._replay, part, table)
        compared = tuple(self._replay.findings["tables"][rows.table]["live"])
        return self._swap(CUTOVER, table, path, where, replayed.where(where), compared)

    def swap_out(self, part: Part, table: Replacement) -> int | None:
        """Put the rows back that `swap_in` has replaced; the table's version that holds them.

        Raises:
            TidemarkError: LIVE_CHANGED, where the rows were changed since; BUSY_TABLE.
        """
        path = paths.table(self._settings.paths.tables, table.rows.table)
        version = self._cutover_version(path)
        if version is None:
            return None
        where = row_selection(self._replay, part, table)
        before, swapped = (read_rows(self._spark, path, where, number) for number in (version - 1, version))
        if before is None or swapped is None:
            return None
        return self._swap(UNDO, table, path, where, before, fingerprint(swapped))

    def publish(self, part: Part) -> int:
        """Send the records of an output topic, each once however often this is run, with the header HEADER.

        Raises:
            TidemarkError: what `jobs.connectors.exactly_once.sink.LedgerSink.write` raises.
        """
        topic = str(part.topic)
        records = read_records(self._spark, self._side_run, part)
        if records is None:
            return 0
        id = f"{self._settings.ledger.application}.replay.{self._replay.id}.{part.query}"
        sink = LedgerSink(id, topic, self._settings.kafka, self._settings.sink, self._settings.ledger, "exactly-once")
        sink.open()
        entry = json.dumps({"replay": self._replay.id})
        batch = BatchId(id, 0, offsets_hash(entry))
        facts = BatchFacts(batch, {entry_file(0): entry}, code=code_version.version())
        return sink.write(_with_replay_header(records, self._replay.id), facts)

    def _swap(
        self, statement: str, table: Replacement, path: str, where: str, rows: DataFrame, expected: tuple[int, ...]
    ) -> int:
        """Replace the rows `where` by `rows`, if their fingerprint is `expected`; return the version with them."""
        commit_info = self._commit_info(statement, table, where)
        for _ in range(ATTEMPTS):
            self._require_lock()
            version = snapshot(self._spark, path).version
            live = read_rows(self._spark, path, where, version)
            if live is None or fingerprint(live) != expected:
                raise self._changed(path, statement)
            fail_point("replay-before-swap", self._replay.job)
            try:
                swapped = snapshot(rows.sparkSession, path).replace_rows(rows, where, version, commit_info)
            except CONFLICT:
                continue
            fail_point("replay-after-swap", self._replay.job)
            return swapped
        message = f"table {path}: live writes came between in all of {ATTEMPTS} attempts"
        raise TidemarkError("BUSY_TABLE", message, "try again, or with a longer trigger of the live query")

    def _cutover_version(self, path: str) -> int | None:
        """Return the version of the table that swapped this replay's rows in and still counts."""
        history = History(self._spark, path)
        made = history.find({"statement": CUTOVER, "query_id": self._query_id})
        undone = history.find({"statement": UNDO, "query_id": self._query_id})
        if made is None or history.undone_at(made) is not None or (undone is not None and undone > made):
            return None
        return made

    @property
    def _query_id(self) -> str:
        return f"replay-{self._replay.id}"

    def _commit_info(self, statement: str, table: Replacement, where: str) -> str:
        """Return the description that the commit carries, as JSON: `coverage` shows it."""
        start, until = (edge.isoformat() if edge else None for edge in (table.start, table.until))
        span = {"replay": self._replay.id, "column": table.rows.event_time, "from": start, "until": until}
        fields = {
            "sink": self._replay.job,
            "query_id": self._query_id,
            "statement": statement,
            "batch": 0,
            "offsets": {"from": topic_entries(self._replay.starts), "until": topic_entries(self._replay.untils)},
            "replaces" if statement == CUTOVER else "restores": span | {"where": where},
            "code": code_version.version(),
        }
        return json.dumps(fields)

    def _changed(self, path: str, statement: str) -> TidemarkError:
        id, changed = self._replay.id, f"table {path}: rows of the range were changed since replay"
        if statement == UNDO:
            again = f"to make the range anew from its records: {self._replay.command}"
            remedy = f"taken back, those changes would be lost; {again}"
            return TidemarkError("LIVE_CHANGED", f"{changed} {id} put its own there", remedy)
        remedy = f"`local/tidemark replay verify {id}` compares anew"
        return TidemarkError("LIVE_CHANGED", f"{changed} {id} was compared with them", remedy)


def _with_replay_header(records: DataFrame, id: str) -> DataFrame:
    mark = F.struct(F.lit(HEADER).alias("key"), F.encode(F.lit(id), "UTF-8").alias("value"))
    header = F.array(mark).cast(source_sink.HEADERS)
    if "headers" not in records.columns:
        return records.withColumn("headers", header)
    given = F.coalesce(F.col("headers"), F.array().cast(source_sink.HEADERS))
    return records.withColumn("headers", F.concat(given, header))


def promote_backfill(spark: SparkSession, settings: Settings, replay: Replay, run: SideRun) -> list[str]:
    """Make the tables and checkpoints of a backfill those of the live job; a line for each output.

    What was moved before a crash stays moved: called again it goes on.
    """
    lines, folders = [], Folders(spark)
    for output in run.outputs:
        for rows in output.tables:
            _move(folders, paths.table(run.tables_root, rows.table), paths.table(settings.paths.tables, rows.table))
        folder = run.checkpoint(output)
        if checkpoint.query_id(spark, folder):
            _remove_restored(spark, folder, replay, sources(output.frame))
        _move(folders, folder, paths.checkpoint(settings.paths, output.job, output.name))
        topics = [source.topic for source in sources(output.frame) if source.topic]
        goes_on = json.dumps({topic: dict(replay.untils[topic]) for topic in topics})
        lines.append(f"{output.query:<28} goes on at {goes_on}")
    return lines


def _move(folders: Folders, source: str, target: str) -> None:
    if not folders.exists(source):
        return
    try:
        folders.move(source, target)
    except OSError as exc:
        remedy = f"look at what lies at {target}, then cut over again: it goes on"
        raise TidemarkError("HANDOVER_REFUSED", str(exc), remedy) from exc


def _remove_restored(spark: SparkSession, folder: str, replay: Replay, in_plan: Sequence[Source]) -> None:
    """Take the sources that bronze supplied out of the checkpoint, whose last batch has read them to their end."""
    last = checkpoint.last_commit(spark, folder) or 0
    kept = [number for number, source in enumerate(in_plan) if source.topic]
    for batch in (last - 1, last):
        lines = (checkpoint.entry(spark, folder, batch) or "").splitlines()
        if len(lines) == len(in_plan) + 2:
            text = "\n".join([*lines[:2], *(lines[number + 2] for number in kept)])
            checkpoint.write(spark, f"{folder}/{entry_file(batch)}", text)
    for new_number, number in enumerate(kept):
        topic = in_plan[number].topic
        checkpoint.set_initial_offsets(spark, folder, new_number, kafka_offset(topic, replay.starts[topic]))
