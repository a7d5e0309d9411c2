"""The command line of replays; the same words reach the part without a JVM and the one that spark-submit starts."""

import argparse
from collections.abc import Sequence
from datetime import timedelta

from conf.durations import milliseconds
from conf.errors import TidemarkError
from jobs.arguments import add_settings, refuse_secrets
from jobs.connectors.positions import parse_position
from jobs.replay.asking import Asked

DESCRIPTION = "Any range of the past run again beside the live tables, verified, and swapped in; see docs/replay.md."
EXIT_CODES = (
    "exit code: 0 done or nothing to do, 1 failure, 2 wrong usage, 3 differences that nobody can explain, 4 locked"
)
THROUGH = ("run", "verify", "cutover")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    found = argparse.ArgumentParser(prog="local/tidemark replay", description=DESCRIPTION, epilog=EXIT_CODES)
    common = argparse.ArgumentParser(add_help=False)
    add_settings(common)
    steps = found.add_subparsers(
        dest="step", required=True, metavar="plan|run|verify|cutover|undo|abandon|list|catch-up"
    )
    plan = steps.add_parser("plan", parents=[common], help="what would be read, replaced, and how long it would take")
    _add_asked(plan)
    plan.add_argument("--json", action="store_true", help="the whole plan as JSON")
    run = steps.add_parser("run", parents=[common], help="run it beside the live tables, from where it was cut short")
    _add_asked(run)
    run.add_argument("--through", choices=THROUGH, default="run", help="then verify, or verify and cut over, too")
    _add_accept(run)
    verify = steps.add_parser("verify", parents=[common], help="compare it with a recomputation and the live tables")
    cutover = steps.add_parser("cutover", parents=[common], help="swap its rows in, a transaction a table")
    _add_accept(cutover)
    undo = steps.add_parser("undo", parents=[common], help="put the replaced rows back")
    abandon = steps.add_parser("abandon", parents=[common], help="remove what it has written beside the live tables")
    for each in (verify, cutover, undo, abandon):
        each.add_argument("id", metavar="ID", help="of the replay")
    listing = steps.add_parser("list", parents=[common], help="all replays and how far they are")
    listing.add_argument("--json", action="store_true", help="as JSON")
    catch_up = steps.add_parser("catch-up", parents=[common], help="every period that is due, in turn")
    catch_up.add_argument("job", metavar="JOB")
    catch_up.add_argument("--every", default="1 day", metavar="PERIOD", help='as "1 day" (the default), "1 hour"')
    catch_up.add_argument("--since", metavar="TIME", help="of the first period (default: the end of the last replay)")
    catch_up.add_argument("--through", choices=THROUGH, default="cutover", help="how far (default: cutover)")
    catch_up.add_argument("--dry-run", action="store_true", help="only say which periods are due")
    _add_accept(catch_up)
    return found


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments; raises TidemarkError BAD_ARGUMENTS where --set names a secret."""
    options = parser().parse_args(words)
    refuse_secrets(options)
    return options


def _add_asked(found: argparse.ArgumentParser) -> None:
    found.add_argument("job", metavar="JOB|ID", help="the job's name, or the id of a replay that was planned")
    found.add_argument("--from", dest="start", metavar="POSITION", help="a time, offsets as JSON, or earliest")
    found.add_argument("--to", dest="end", metavar="POSITION", help="its end, exclusive: a time, offsets, or latest")
    found.add_argument("--backfill", action="store_true", help="the whole history, for a job that has never run")
    found.add_argument("--context", metavar="DURATION", help="read so much more on both sides (default: the job's own)")
    found.add_argument("--hold-watermark", action="store_true", help="trust no watermark before all is read")


def _add_accept(found: argparse.ArgumentParser) -> None:
    told = "cut over though rows differ for no known reason"
    found.add_argument("--accept-differences", action="store_true", help=told)


def asked(options: argparse.Namespace) -> Asked:
    """What the options of `plan` and `run` ask for.

    Raises:
        TidemarkError: BAD_ARGUMENTS, BAD_POSITION.
    """
    if options.backfill and (options.start or options.end):
        raise TidemarkError("BAD_ARGUMENTS", "--backfill is the whole history", "leave out --from and --to")
    if not options.backfill and not (options.start or options.end):
        remedy = "say --from and --to, as in --from 2013-03-01 --to 2013-04-01, or --from earliest for all"
        raise TidemarkError("BAD_ARGUMENTS", "the range is missing", remedy)
    for position in (options.start, options.end):
        parse_position(position or "earliest")
    context = duration(options.context) if options.context else None
    start, end = options.start or "earliest", options.end or "latest"
    return Asked(options.job, start, end, context, options.hold_watermark)


def duration(text: str) -> timedelta:
    """A duration; BAD_ARGUMENTS for what is none."""
    try:
        return timedelta(milliseconds=milliseconds(text))
    except ValueError as exc:
        raise TidemarkError("BAD_ARGUMENTS", str(exc), 'as in --context "1 day"') from exc
