"""Runs `replay`, `maintain` and `checkpoint`: what needs no JVM is done here, the rest by spark-submit."""

import json
from argparse import Namespace
from collections.abc import Sequence

from conf.settings import Settings
from jobs import arguments
from jobs.operations.replay import report
from jobs.operations.replay.live_job import require_live
from jobs.operations.replay.plan import plan_range
from jobs.operations.replay.record import Replays
from jobs.operations.replay.request import request_of
from local import submit


def run_in_spark(operation: str, argv: Sequence[str]) -> int:
    """Become spark-submit, which runs `operation`; wrong arguments and settings are refused before any JVM starts."""
    words, spark_options = submit.split(argv)
    settings = arguments.settings_of(arguments.PARSERS[operation](words))
    submit.become(operation, settings, spark_options, operation, words)
    return 0


def replay(argv: Sequence[str]) -> int:
    """Run `replay ARGV`; returns the exit code, raises TidemarkError and, for wrong usage, SystemExit(2)."""
    words, spark_options = submit.split(argv)
    options = arguments.parse_replay(words)
    settings = arguments.settings_of(options)
    replays = Replays(settings)
    if options.step == "list":
        known = replays.all()
        print(json.dumps(report.as_fields(known)) if options.json else "\n".join(report.list_lines(known)))
        return 0
    if "id" in options:
        replays.require(options.id)
    settings.kafka.require_bootstrap_servers()
    if options.step == "plan" and not options.backfill:
        return _plan(settings, options)
    if options.step == "run" and not options.backfill and replays.find(options.job) is None:
        request_of(options)
        require_live(settings, options.job)
    submit.become("replay", settings, spark_options, "replay", words)
    return 0


def _plan(settings: Settings, options: Namespace) -> int:
    replays = Replays(settings)
    kept = replays.find(options.job) or replays.begin(plan_range(settings, request_of(options)), options.again)
    if options.json:
        print(kept.to_json())
        return 0
    print("\n".join(report.plan_lines(settings, kept, replays.speed(kept.job))))
    if kept.is_finished:
        print(f"it is {kept.state}; once more: {kept.command}")
    else:
        print(f"next: local/tidemark replay run {kept.id}")
    return 0
