"""Carries a replay out: run, verify, cut over, undo; each may be begun again, and what is done is not done twice."""

from collections.abc import Callable
from dataclasses import replace

from pyspark.sql import SparkSession

from conf import code_version
from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.hadoop_files import Folders
from jobs.operations.replay.compare import row_selection
from jobs.operations.replay.cutover import Cutover, promote_backfill
from jobs.operations.replay.plan import plan_backfill
from jobs.operations.replay.record import Part, Replacement, Replay, ReplayPaths, Replays
from jobs.operations.replay.request import ReplayRequest
from jobs.operations.replay.side_run import RecomputationRun, SideRun
from jobs.operations.replay.slice_runner import LateRowsError, ReadSpeed, Show, SliceRunner
from jobs.operations.replay.verify import TableComparison, Verifier, comparisons_as_fields
from jobs.pipeline.monitoring.recorder import ReplayRecording
from jobs.pipeline.query_description import QueryDescription
from jobs.pipeline.run import Run

Build = Callable[[Run], None]


class Steps:
    """Carries out the steps of the replays of one job.

    Args:
        build: declares the job's outputs.
        show: takes lines of progress.
        require_lock: raises, where the right to replay the job is lost.
    """

    def __init__(
        self, spark: SparkSession, settings: Settings, build: Build, show: Show, require_lock: Callable[[], None]
    ) -> None:
        self._spark, self._settings, self._build = spark, settings, build
        self._show, self._require_lock = show, require_lock
        self._replays = Replays(settings)

    def plan_backfill(self, request: ReplayRequest) -> Replay:
        """Plan the replay of the whole history, for a job that has never run.

        Raises:
            TidemarkError: ALREADY_RUNS; BACKFILL_OF_TOPIC, where the job publishes.
        """
        run = Run(self._spark, self._settings, request.job)
        self._build(run)
        for output in run.outputs:
            if output.topic:
                remedy = "start it: its first run begins with all that is in its topics, each record once"
                message = f"job {request.job} publishes to topic {output.topic}, where nothing can be tried out first"
                raise TidemarkError("BACKFILL_OF_TOPIC", message, remedy)
        return plan_backfill(self._settings, request, [QueryDescription.of(output) for output in run.outputs])

    def run(self, replay: Replay) -> Replay:
        """Run all slices into tables of the replay's own; a replay that ran before is left as it is.

        Raises:
            TidemarkError: CODE_CHANGED, where other code planned it; REPLAY_FINISHED; what the job ends with.
        """
        self._require_open(replay)
        if replay.state != "planned":
            return replay
        run, speed = SideRun(self._spark, self._settings, replay), ReadSpeed()
        self._build(run)
        with ReplayRecording(self._settings, run):
            return self._run_slices(replay, run, speed)

    def _run_slices(self, replay: Replay, run: SideRun, speed: ReadSpeed) -> Replay:
        for output in run.outputs:
            runner = SliceRunner(run, output, self._show, self._require_lock, bool(replay.findings.get("held")), speed)
            try:
                runner.complete()
            except LateRowsError:
                self._show(f"{output.query:<28} rows would be late: begun again with the watermark held to the end")
                replay = self._replays.keep(replay, findings={**replay.findings, "held": True})
                runner.start_over()
                runner.complete()
        measured = {"records": speed.records, "seconds": round(speed.seconds, 1)}
        return self._replays.keep(replay, state="ran", findings={**replay.findings, "run": measured})

    def verify(self, replay: Replay) -> tuple[Replay, list[TableComparison]]:
        """Compare the replay's tables; it is verified where they are what an independent recomputation gives."""
        self._require_open(replay)
        comparisons = Verifier(self._spark, self._settings, replay, self._build_recomputation).verify()
        is_right = not any(comparison.unlike_check for comparison in comparisons)
        findings = {**replay.findings, "tables": comparisons_as_fields(comparisons)}
        return self._replays.keep(replay, state="verified" if is_right else "ran", findings=findings), comparisons

    def cut_over(self, replay: Replay, accept: bool) -> Replay:
        """Put the replay's rows in the place of the live ones, or make a backfill the live job; once.

        Args:
            accept: whether unexplained differences from the live tables are accepted.

        Raises:
            TidemarkError: NOT_VERIFIED; UNEXPLAINED; LIVE_CHANGED, BUSY_TABLE.
        """
        if replay.state == "done":
            return replay
        self._require_open(replay)
        self._require_verified(replay, accept)
        if replay.kind == "backfill":
            run = SideRun(self._spark, self._settings, replay)
            self._build(run)
            for line in promote_backfill(self._spark, self._settings, replay, run):
                self._show(line)
            return self._replays.keep(replay, state="done")
        cutover = Cutover(self._spark, self._settings, replay, self._require_lock)
        parts = []
        for part in replay.parts:
            tables = tuple(self._swapped(cutover, replay, part, table) for table in part.tables)
            parts.append(replace(part, tables=tables))
            if part.topic:
                self._show(f"{part.topic:<28} {cutover.publish(part):,} records sent, marked with the replay's id")
        return self._replays.keep(replay, state="done", parts=tuple(parts))

    def undo(self, replay: Replay) -> Replay:
        """Put the rows back that the cutover has replaced.

        Raises:
            TidemarkError: NOT_CUT_OVER; LIVE_CHANGED, BUSY_TABLE.
        """
        if replay.state != "done" or replay.kind == "backfill":
            remedy = "only the cutover of a range can be taken back"
            raise TidemarkError("NOT_CUT_OVER", f"replay {replay.id} ({replay.kind}) is {replay.state}", remedy)
        cutover = Cutover(self._spark, self._settings, replay, self._require_lock)
        for part in replay.parts:
            for table in part.tables:
                version = cutover.swap_out(part, table) if table.rows.can_select else None
                if version is not None:
                    self._show(f"{table.rows.table:<28} as it was before, in version {version}")
            if part.topic:
                self._show(f"{part.topic:<28} records that were sent cannot be taken back")
        return self._replays.keep(replay, state="undone")

    def abandon(self, replay: Replay) -> Replay:
        """Remove what the replay has written beside the live tables; its record stays."""
        for path in ReplayPaths.of(self._settings, replay.id).temporary:
            Folders(self._spark).remove(path)
        return replay if replay.is_finished else self._replays.keep(replay, state="abandoned")

    def _swapped(self, cutover: Cutover, replay: Replay, part: Part, table: Replacement) -> Replacement:
        name = table.rows.table
        if not table.rows.can_select:
            self._show(f"{name:<28} left as it is: nothing tells which of its rows a range makes")
            return table
        comparison = replay.findings["tables"].get(name, {})
        if not comparison.get("unlike_live"):
            self._show(f"{name:<28} is as the replay has it: nothing to change")
            return table
        version = cutover.swap_in(part, table)
        where = row_selection(replay, part, table)
        self._show(f"{name:<28} {comparison['rows']:,} rows swapped in, in version {version}: {where[:200]}")
        return replace(table, cut_over=version)

    def _build_recomputation(self, run: RecomputationRun) -> None:
        self._build(run)

    def _require_open(self, replay: Replay) -> None:
        if replay.is_finished:
            remedy = f"`{replay.command}` is a further attempt"
            raise TidemarkError("REPLAY_FINISHED", f"replay {replay.id} is {replay.state}", remedy)
        if replay.code != code_version.version():
            message = f"replay {replay.id} was planned by code {replay.code}, this is {code_version.version()}"
            raise TidemarkError("CODE_CHANGED", message, f"abandon it, and plan it again: {replay.job}")

    def _require_verified(self, replay: Replay, accept: bool) -> None:
        if replay.state != "verified":
            remedy = f"`local/tidemark replay verify {replay.id}` first"
            raise TidemarkError("NOT_VERIFIED", f"replay {replay.id} is {replay.state}", remedy)
        for table, comparison in replay.findings["tables"].items():
            unexplained = comparison["unexplained"]
            if unexplained and not accept and comparison["version"] is not None:
                message = f"table {table}: {unexplained} rows differ from the live ones for no known reason"
                remedy = f"look at them (`replay verify {replay.id}`), then cut over with --accept-differences"
                raise TidemarkError("UNEXPLAINED", message, remedy)
