"""The script that spark-submit starts for the steps of a replay that need Spark."""

import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

# spark-submit puts this file's own folder first on the path, where its files would shadow other modules.
sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from pyspark.sql import SparkSession  # noqa: E402

from conf.errors import TidemarkError, exit_on_error  # noqa: E402
from conf.settings import Settings  # noqa: E402
from jobs import catalog  # noqa: E402
from jobs.arguments import settings_of  # noqa: E402
from jobs.connectors.positions import parse_position  # noqa: E402
from jobs.replay import arguments, schedule, showing  # noqa: E402
from jobs.replay.asking import Asked  # noqa: E402
from jobs.replay.lease import Lease  # noqa: E402
from jobs.replay.live import require_live  # noqa: E402
from jobs.replay.planning import plan_range  # noqa: E402
from jobs.replay.record import FINISHED, Replay, Replays  # noqa: E402
from jobs.replay.steps import Steps  # noqa: E402

UNEXPLAINED, LOCKED = 3, 4


def main() -> int:
    """Carry out one step, under the lease of its job."""
    options = arguments.parse(sys.argv[1:])
    settings = settings_of(options)
    signal.signal(signal.SIGTERM, _interrupt)
    replays = Replays(settings)
    named = replays.find(options.id if "id" in options else options.job)
    if "id" in options:
        named = replays.require(options.id)
    job = named.job if named else catalog.require(options.job)
    try:
        with Lease(settings, job) as lease:
            return _with_spark(settings, options, job, named, lease.require)
    except TidemarkError as error:
        if error.code != "LOCKED":
            raise
        print(f"error: {error}", file=sys.stderr)
        return LOCKED


def _with_spark(
    settings: Settings, options: Namespace, job: str, named: Replay | None, alive: Callable[[], None]
) -> int:
    build = catalog.load(job).build
    spark = SparkSession.builder.appName(f"replay {job}").getOrCreate()
    try:
        steps = Steps(spark, settings, build, _show, alive)
        return _Command(settings, options, steps).carry_out(named)
    finally:
        spark.stop()


class _Command:
    """One step as the options ask for it; the result is an exit code."""

    def __init__(self, settings: Settings, options: Namespace, steps: Steps) -> None:
        self._settings, self._options, self._steps = settings, options, steps
        self._replays = Replays(settings)

    def carry_out(self, named: Replay | None) -> int:
        step = self._options.step
        if step == "catch-up":
            return self._catch_up()
        if step == "plan":
            replay = self._planned(named)
            print(replay.to_json() if self._options.json else "\n".join(self._plan_lines(replay)))
            return 0
        if step == "run":
            return self._through(self._planned(named), self._options.through)
        if named is None:
            raise ValueError("every other step names a replay")
        if step == "verify":
            return self._verify(named)[1]
        if step == "cutover":
            self._steps.cut_over(named, self._options.accept_differences)
        elif step == "undo":
            self._steps.undo(named)
        else:
            self._steps.abandon(named)
        return 0

    def _planned(self, named: Replay | None) -> Replay:
        if named:
            return named
        asked = arguments.asked(self._options)
        if self._options.backfill:
            return self._known(self._steps.plan_backfill(asked))
        return self._known(plan_range(self._settings, asked))

    def _known(self, replay: Replay) -> Replay:
        """The same replay as far as it was carried out before, or its first record."""
        return self._replays.find(replay.id) or self._replays.keep(replay)

    def _through(self, replay: Replay, through: str) -> int:
        if replay.state in FINISHED:
            _show(f"replay {replay.id} is {replay.state}: nothing to do")
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
        replay, found = self._steps.verify(replay)
        for line in showing.finding_lines(found):
            print(line, flush=True)
        wrong = any(each.unlike_check or (each.unexplained and each.version is not None) for each in found)
        if replay.state == "verified" and "through" not in self._options:
            _show(f"next: local/tidemark replay cutover {replay.id}")
        return replay, UNEXPLAINED if wrong else 0

    def _plan_lines(self, replay: Replay) -> list[str]:
        return list(showing.plan_lines(self._settings, replay, self._replays.speed(replay.job)))

    def _catch_up(self) -> int:
        options = self._options
        since = parse_position(options.since) if options.since else None
        lives = require_live(self._settings, options.job)
        own = [each for each in self._replays.all() if each.job == options.job]
        periods = schedule.due(lives, own, arguments.duration(options.every), since)  # type: ignore[arg-type]
        for start, end in periods:
            _show(f"due: {start.isoformat()} to {end.isoformat()}")
        if options.dry_run:
            return 0
        codes = []
        for start, end in periods:
            planned = plan_range(self._settings, Asked(options.job, start.isoformat(), end.isoformat()))
            codes.append(self._through(self._known(planned), options.through))
        if not periods:
            _show("nothing is due")
        return max(codes, default=0)


def _show(line: str) -> None:
    print(line, flush=True)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    exit_on_error(main)
