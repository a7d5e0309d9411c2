"""Runs the steps of a replay that need Spark, as `replay` on the command line asks for them."""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs import arguments, catalog
from jobs.connectors.delta.maintenance import say_single_driver
from jobs.operations.replay import report
from jobs.operations.replay.live_job import require_live
from jobs.operations.replay.plan import Period, due_periods, plan_range
from jobs.operations.replay.record import Replay, Replays
from jobs.operations.replay.replay_lock import ReplayLock
from jobs.operations.replay.request import ReplayRequest, duration, request_of, time_of
from jobs.operations.replay.steps import Steps
from jobs.pipeline.session import session

FAILED, UNEXPLAINED, LOCKED = 1, 3, 4


def main(words: Sequence[str]) -> int:
    """Carry out one step, under the lock of its job."""
    options = arguments.parse_replay(words)
    settings = arguments.settings_of(options).without_waiting()
    replays = Replays(settings)
    planned = replays.require(options.id) if "id" in options else replays.find(options.job)
    job = planned.job if planned else catalog.require(options.job)
    try:
        with ReplayLock(settings, job) as lock:
            return _with_spark(settings, options, job, planned, lock.require)
    except TidemarkError as error:
        if error.code != "LOCKED":
            raise
        print(f"error: {error}", file=sys.stderr)
        return LOCKED


def _with_spark(
    settings: Settings, options: Namespace, job: str, planned: Replay | None, require_lock: Callable[[], None]
) -> int:
    build = catalog.load(job).build
    with session(settings, f"replay {job}", "replay") as spark:
        if options.step in ("cutover", "undo") or getattr(options, "through", "") == "cutover":
            say_single_driver(spark, settings.paths.tables)
        steps = Steps(spark, settings, build, _show, require_lock)
        return Command(settings, options, steps).carry_out(planned)


class Command:
    """Carries out one step as the options ask for it; the result is an exit code."""

    def __init__(self, settings: Settings, options: Namespace, steps: Steps) -> None:
        self._settings, self._options, self._steps = settings, options, steps
        self._replays = Replays(settings)

    def carry_out(self, planned: Replay | None) -> int:
        """Carry out the step, for a replay that is planned already, where the options name one."""
        step = self._options.step
        if step == "catch-up":
            return self._catch_up()
        if step == "plan":
            replay = planned or self._plan()
            print(replay.to_json() if self._options.json else "\n".join(self._plan_lines(replay)))
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
        if self._options.backfill:
            return self._replays.begin(self._steps.plan_backfill(request), self._options.again)
        return self._replays.begin(plan_range(self._settings, request), self._options.again)

    def _through(self, replay: Replay, through: str) -> int:
        if replay.is_finished:
            _show(f"replay {replay.id} is {replay.state}: nothing to do; once more: {replay.command}")
            return 0
        _show("\n".join(self._plan_lines(replay)))
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
        for line in report.comparison_lines(comparisons):
            print(line, flush=True)
        is_wrong = any(table.unlike_check or (table.unexplained and table.version is not None) for table in comparisons)
        if replay.state == "verified" and "through" not in self._options:
            _show(f"next: local/tidemark replay cutover {replay.id}")
        return replay, UNEXPLAINED if is_wrong else 0

    def _plan_lines(self, replay: Replay) -> list[str]:
        return list(report.plan_lines(self._settings, replay, self._replays.speed(replay.job)))

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


def _shown(period: Period) -> str:
    return f"{period[0].isoformat()} to {period[1].isoformat()}"


def _show(line: str) -> None:
    print(line, flush=True)
