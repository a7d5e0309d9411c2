"""The `replay` command: what needs no JVM is done here, the rest by spark-submit."""

import json
from argparse import Namespace
from collections.abc import Sequence

from conf import ROOT
from conf.settings import Settings
from jobs.arguments import settings_of
from jobs.replay import arguments, showing
from jobs.replay.live import require_live
from jobs.replay.planning import plan_range
from jobs.replay.record import Replays
from local import submit

SCRIPT = ROOT / "jobs" / "replay" / "main.py"


def main(argv: Sequence[str]) -> int:
    """Run `replay ARGV`; returns the exit code, raises TidemarkError and, for wrong usage, SystemExit(2)."""
    words, spark_options = submit.split(argv)
    options = arguments.parse(words)
    settings = settings_of(options)
    if options.step == "list":
        found = Replays(settings).all()
        print(json.dumps(showing.as_fields(found)) if options.json else "\n".join(showing.list_lines(found)))
        return 0
    if "id" in options:
        Replays(settings).require(options.id)
    settings.kafka.require_bootstrap_servers()
    if options.step == "plan" and not options.backfill:
        return _plan(settings, options)
    if options.step == "run" and not options.backfill and Replays(settings).find(options.job) is None:
        arguments.asked(options)
        require_live(settings, options.job)
    submit.become("replay", settings, spark_options, SCRIPT, words)
    return 0


def _plan(settings: Settings, options: Namespace) -> int:
    replays = Replays(settings)
    planned = replays.find(options.job) or plan_range(settings, arguments.asked(options))
    kept = replays.find(planned.id) or replays.keep(planned)
    if options.json:
        print(kept.to_json())
        return 0
    print("\n".join(showing.plan_lines(settings, kept, replays.speed(kept.job))))
    print(f"next: local/tidemark replay run {kept.id}")
    return 0
