"""Carries out the steps of a replay that need Spark, as `replay` on the command line asks for them.

Each step may be begun again, and what is done is not done twice.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace

from pyspark.sql import SparkSession

from conf import code_version
from conf.errors import TidemarkError
from conf.settings import Settings
from jobs import arguments, catalog
from jobs.connectors.delta.maintenance import say_single_driver
from jobs.connectors.hadoop_files import Folders
from jobs.operations.replay.cutover import Cutover, promote_backfill
from jobs.operations.replay.live_job import Period, due_periods, require_live
from jobs.operations.replay.plan import (
    ReplayRequest,
    duration,
    plan_backfill,
    plan_lines,
    plan_range,
    request_of,
    time_of,
)
from jobs.operations.replay.record import Part, Replacement, Replay, ReplayPaths, Replays
from jobs.operations.replay.replay_lock import ReplayLock
from jobs.operations.replay.side_run import LateRowsError, ReadSpeed, SideRun, SliceRunner
from jobs.operations.replay.verify import TableComparison, Verifier, row_selection
from jobs.pipeline.monitoring.recorder import recording_replay
from jobs.pipeline.query_description import QueryDescription
from jobs.pipeline.run import Run
from jobs.pipeline.session import session

FAILED, UNEXPLAINED, LOCKED = 1, 3, 4


def main(words: Sequence[str]) -> int:
    """Carry out one step, under the lock of its job."""
    options = arguments.parse_replay(words)
    settings = arguments.settings_of(options).without_waiting()
    replays = Replays(settings)
    planned = replays.require(options.id) if "id" in options else replays.find(options.job)
    job = planned.job if planned else catalog.require(options.job)
    build = catalog.load(job).build
    try:
        with ReplayLock(settings, job) as lock, session(settings, f"replay {job}", "replay") as spark:
            if options.step in ("cutover", "undo") or getattr(options, "through", "") == "cutover":
                say_single_driver(spark, settings.paths.tables)
            steps = Steps(spark, settings, build, _show, lock.require)
            return Command(settings, options, steps).carry_out(planned)
    except TidemarkError as error:
        if error.code != "LOCKED":
            raise
        print(f"error: {error}", file=sys.stderr)
        return LOCKED


class Command:
    """Carries out one step as the options ask for it; the result is an exit code."""

    def __init__(self, settings: Settings, options: Namespace, steps: "Steps") -> None:
        self._settings, self._options, self._steps = settings, options, steps
        self._replays = Replays(settings)

    def carry_out(self, planned: Replay | None) -> int:
        """Carry out the step, for a replay that is planned already, where the options name one."""
        step = self._options.step
        if step == "catch-up":
            return self._catch_up()
        if step == "plan":
            replay = planned or self._plan()
            if self._options.json:
                print(replay.to_json())
            else:
                self._show_plan(replay)
            return 0
        if step == "run":
            return self._through(planned or self._plan(), self._options.through)
        if planned is None:
            raise ValueError("every other step names a replay")
        if step == "verify":
            return self._verify(planned)[1]
        if step == "cutover":
            self._steps.cut_over(planned, self._options.accept_differences)
        elif step == "undo":
            self._steps.undo(planned)
        else:
            self._steps.abandon(planned)
        return 0

    def _plan(self) -> Replay:
        request = request_of(self._options)
        is_backfill = self._options.backfill
        planned = self._steps.plan_backfill(request) if is_backfill else plan_range(self._settings, request)
        return self._replays.begin(planned, self._options.again)

    def _through(self, replay: Replay, through: str) -> int:
        if replay.is_finished:
            _show(f"replay {replay.id} is {replay.state}: nothing to do; once more: {replay.command}")
            return 0
        self._show_plan(replay)
        replay = self._steps.run(replay)
        if through == "run":
            _show(f"next: local/tidemark replay verify {replay.id}")
            return 0
        replay, code = self._verify(replay)
        if through == "verify" and replay.state == "verified":
            _show(f"next: local/tidemark replay cutover {replay.id}")
        if through == "verify" or (code and not self._options.accept_differences) or replay.state != "verified":
            return code
        self._steps.cut_over(replay, self._options.accept_differences)
        return 0

    def _verify(self, replay: Replay) -> tuple[Replay, int]:
        replay, comparisons = self._steps.verify(replay)
        for table in comparisons:
            _show("\n".join(table.lines()))
        if replay.state == "verified" and "through" not in self._options:
            _show(f"next: local/tidemark replay cutover {replay.id}")
        return replay, UNEXPLAINED if any(table.is_wrong for table in comparisons) else 0

    def _show_plan(self, replay: Replay) -> None:
        _show("\n".join(plan_lines(self._settings, replay, self._replays.speed(replay.job))))

    def _catch_up(self) -> int:
        options = self._options
        since = time_of(options.since) if options.since else None
        queries = require_live(self._settings, options.job)
        replays = [replay for replay in self._replays.all() if replay.job == options.job]
        due = due_periods(queries, replays, duration(options.every), since)
        for period, replay in due.withdrawn:
            _show(f"left out: {_shown(period)}, replay {replay.id} is {replay.state}; once more: {replay.command}")
        for period in due.periods:
            _show(f"due: {_shown(period)}")
        if options.dry_run:
            return 0
        codes = [self._catch_up_on(period) for period in due.periods]
        if not due.periods:
            _show("nothing is due")
        return max(codes, default=0)

    def _catch_up_on(self, period: Period) -> int:
        """Replay a period; one whose records are none, or gone, holds up no later one."""
        start, end = (edge.isoformat() for edge in period)
        try:
            replay = self._replays.begin(plan_range(self._settings, ReplayRequest(self._options.job, start, end)))
        except TidemarkError as error:
            if error.code == "NOTHING_TO_REPLAY":
                _show(f"{_shown(period)}: no record, nothing to replay")
                return 0
            if error.code != "RANGE_GONE":
                raise
            print(f"error: {_shown(period)}: {error}", file=sys.stderr, flush=True)
            return FAILED
        return self._through(replay, self._options.through)


class Steps:
    """Carries out the steps of the replays of one job.

    Args:
        build: declares the job's outputs.
        show: takes lines of progress.
        require_lock: raises, where the right to replay the job is lost.
    """

    def __init__(
        self,
        spark: SparkSession,
        settings: Settings,
        build: Callable[[Run], None],
        show: Callable[[str], None],
        require_lock: Callable[[], None],
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
        with recording_replay(self._settings, run):
            for output in run.outputs:
                is_held = bool(replay.findings.get("held"))
                runner = SliceRunner(run, output, self._show, self._require_lock, speed, is_held)
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
        comparisons = Verifier(self._spark, self._settings, replay).compare(self._build)
        is_right = not any(comparison.unlike_check for comparison in comparisons)
        findings = {**replay.findings, "tables": {table.table: table.to_fields() for table in comparisons}}
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
        if replay.state != "verified":
            remedy = f"`local/tidemark replay verify {replay.id}` first"
            raise TidemarkError("NOT_VERIFIED", f"replay {replay.id} is {replay.state}", remedy)
        if not accept:
            self._require_explained(replay)
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
        for path in ReplayPaths(self._settings, replay.id).temporary:
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

    def _require_open(self, replay: Replay) -> None:
        if replay.is_finished:
            remedy = f"`{replay.command}` is a further attempt"
            raise TidemarkError("REPLAY_FINISHED", f"replay {replay.id} is {replay.state}", remedy)
        if replay.code != code_version.version():
            message = f"replay {replay.id} was planned by code {replay.code}, this is {code_version.version()}"
            raise TidemarkError("CODE_CHANGED", message, f"abandon it, and plan it again: {replay.job}")

    def _require_explained(self, replay: Replay) -> None:
        for table, comparison in replay.findings["tables"].items():
            unexplained = comparison["unexplained"]
            if unexplained and comparison["version"] is not None:
                message = f"table {table}: {unexplained} rows differ from the live ones for no known reason"
                remedy = f"look at them (`replay verify {replay.id}`), then cut over with --accept-differences"
                raise TidemarkError("UNEXPLAINED", message, remedy)


def _shown(period: Period) -> str:
    return f"{period[0].isoformat()} to {period[1].isoformat()}"


def _show(line: str) -> None:
    print(line, flush=True)
