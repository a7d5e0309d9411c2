"""Runs `publish`: flights into their topics, or any file into any topic."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from datetime import date

from conf import command_line
from conf.command_line import count_up_to, positive_number, whole_number
from conf.errors import exit_on_error
from conf.settings import Settings
from producers.auctions import BEGAN_MS, AuctionHouse, publish_auctions
from producers.files.publish import infer_only, publish_files
from producers.files.request import FILE, add_exactly_once, add_file_arguments, file_request
from producers.flights.events import END_DAY, FIRST_DAY, require_days
from producers.flights.publish import Disorder, publish_flights
from producers.friendships import publish_friendships
from producers.kafka.pacing import Interrupt, Pace
from producers.kafka.publisher import Report
from producers.transfers import Bank, publish_transfers
from schemas.wire import LAST

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST_SECONDS = 3_650 * SECONDS["d"]  # far beyond that, a time would be before 1970, which Kafka refuses
# A day and a half of publishing, at 8,000 a second. Those that are paced are counted out beforehand, at 24 bytes each.
MOST_EVENTS, MOST_PACED = 1_000_000_000, 100_000_000
MOST_ACCOUNTS = 2**31 - 1  # two such numbers add up to one of 64 bits
DESCRIPTION = "Publish events to Kafka: keyed, Avro in Confluent framing, acknowledged, none dropped."
EXIT_CODES = "exit code: 0 all delivered, 1 failure, 2 wrong usage, 130 interrupted (after a flush, with counts)"
FLIGHTS = """\
Every flight out of New York's three airports in 2013, as events in event-time order: departures, arrivals,
cancellations, hourly weather, and planes before all else. As fast as possible, unless --speed or --rate say otherwise.
"""
FRIENDSHIPS = """\
Who became friends in the region `regions.here`, and who no longer are: events of a few people, drawn by a seed, in no
order of time.
"""
AUCTIONS = """\
An auction house by the model of the Nexmark benchmark: persons, auctions and bids, 1 : 3 : 46, drawn by a seed. As fast
as possible, unless --speed or --rate say otherwise.
"""
TRANSFERS = """\
The transfers of a bank, from account to account, drawn by a seed: whatever is read of them, all balances sum to zero.
"""


def main(argv: Sequence[str]) -> int:
    """Run `publish ARGV`; returns the exit code, raises TidemarkError and, for wrong usage, SystemExit(2)."""
    arguments = command_line.parse(build_parser(), argv)
    settings = command_line.settings_of(arguments)
    interrupt = Interrupt()
    report: Report | None = arguments.run(settings, arguments, interrupt)
    return finish(report, interrupt) if report else 0


def finish(report: Report, interrupt: Interrupt) -> int:
    """Print the summary and return the exit code; raises TidemarkError DELIVERY_FAILED."""
    print(f"published {report}")
    if report.interrupted:
        return interrupt.exit_code("interrupted: what comes after that was not published")
    report.require_complete()
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="local/tidemark publish", description=DESCRIPTION, epilog=EXIT_CODES)
    sources = parser.add_subparsers(dest="source", required=True, metavar="flights|auctions|transfers|friendships|file")
    common = command_line.settings_options()
    add_file_arguments(sources.add_parser("file", parents=[common], help="any file", description=FILE), _run_file)
    friendships = sources.add_parser("friendships", parents=[common], help="a region's", description=FRIENDSHIPS)
    _add_drawn(friendships, 200, _run_friendships)
    _add_auctions(sources.add_parser("auctions", parents=[common], help="an auction house", description=AUCTIONS))
    _add_transfers(sources.add_parser("transfers", parents=[common], help="a bank's", description=TRANSFERS))
    _add_flights(sources.add_parser("flights", parents=[common], help="the flights of 2013", description=FLIGHTS))
    return parser


def _run_friendships(settings: Settings, arguments: argparse.Namespace, interrupt: Interrupt) -> Report:
    return publish_friendships(settings, arguments.count, arguments.seed, interrupt)


def _add_flights(parser: argparse.ArgumentParser) -> None:
    days = "days of New York, by the timetable; the range takes in its first day and leaves out its last"
    group = parser.add_argument_group("range", days)
    group.add_argument("--from", dest="first", type=_day, default=FIRST_DAY, metavar="DAY", help="default 2013-01-01")
    group.add_argument("--to", dest="end", type=_day, default=END_DAY, metavar="DAY", help="default 2014-01-01")
    add_exactly_once(parser, "the range")
    _add_pace(parser)
    late = "so that lateness can be shown; records of one key may then change their order"
    group = parser.add_argument_group("disorder", late)
    group.add_argument(
        "--disorder", type=_duration, default=0.0, metavar="TIME", help="delay events by up to this: 30s, 10m, 2h"
    )
    group.add_argument("--duplicates", type=_share, default=0.0, metavar="SHARE", help="repeat this share: 0.01")
    group.add_argument("--seed", type=whole_number, default=0, help="the same seed gives the same disorder; default 0")
    parser.set_defaults(run=_run_flights)


def _add_auctions(parser: argparse.ArgumentParser) -> None:
    _add_drawn(parser, 1_000_000, _run_auctions)
    parser.add_argument(
        "--events-per-second",
        type=positive_number,
        default=AuctionHouse.events_per_second,
        metavar="N",
        help="how many fall into a second of event time; default 10000",
    )
    late = "events go out up to so long after they happened: 500ms, 30s; default 0"
    parser.add_argument("--disorder", type=_duration, default=0.0, metavar="TIME", help=late)
    _add_pace(parser)


def _add_transfers(parser: argparse.ArgumentParser) -> None:
    _add_drawn(parser, 100_000, _run_transfers)
    parser.add_argument(
        "--accounts",
        type=count_up_to(MOST_ACCOUNTS, least=2),
        default=Bank.accounts,
        metavar="N",
        help="two or more, for money to go from one to the other; default 100",
    )


def _add_drawn(parser: argparse.ArgumentParser, count: int, run: Callable[..., Report]) -> None:
    """Add the options of events that a seed draws, `count` of them by default."""
    parser.set_defaults(run=run)
    parser.add_argument(
        "--count", type=count_up_to(MOST_EVENTS), default=count, metavar="N", help=f"how many events; default {count}"
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="the same seed gives the same events; default 0")


def _add_pace(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pace")
    group.add_argument(
        "--speed",
        type=positive_number,
        metavar="N",
        help="seconds of event time per second: 3600 is an hour a second",
    )
    group.add_argument("--rate", type=positive_number, metavar="N", help="at most N events per second")


def _run_auctions(settings: Settings, arguments: argparse.Namespace, interrupt: Interrupt) -> Report:
    house = AuctionHouse(arguments.seed, arguments.events_per_second, round(arguments.disorder * 1000))
    if arguments.count / arguments.events_per_second * 1000 > LAST - BEGAN_MS:
        build_parser().error(f"--count {arguments.count}: the last of them would be after the year 9999")
    if (arguments.speed or arguments.rate) and arguments.count > MOST_PACED:
        build_parser().error(f"--count {arguments.count}: with --speed or --rate, {MOST_PACED} at most")
    return publish_auctions(settings, house, arguments.count, Pace(arguments.speed, arguments.rate), interrupt)


def _run_transfers(settings: Settings, arguments: argparse.Namespace, interrupt: Interrupt) -> Report:
    return publish_transfers(settings, Bank(arguments.seed, arguments.accounts), arguments.count, interrupt)


def require_flights(first: str, end: str) -> None:
    """Refuse days that `publish flights --from FIRST --to END` would refuse: SystemExit(2), TidemarkError NO_EVENTS."""
    _require_days(build_parser().parse_args(["flights", f"--from={first}", f"--to={end}"]))


def _require_days(arguments: argparse.Namespace) -> None:
    if arguments.end <= arguments.first:
        build_parser().error(f"--to {arguments.end} must lie after --from {arguments.first}")
    require_days(arguments.first, arguments.end)


def _run_flights(settings: Settings, arguments: argparse.Namespace, interrupt: Interrupt) -> Report:
    _require_days(arguments)
    disorder = Disorder(arguments.seed, round(arguments.disorder * 1000), arguments.duplicates)
    pace = Pace(arguments.speed, arguments.rate)
    name = f"{arguments.first}_{arguments.end}" if arguments.exactly_once == "" else arguments.exactly_once
    return publish_flights(settings, arguments.first, arguments.end, pace, disorder, interrupt, name)


def _run_file(settings: Settings, arguments: argparse.Namespace, interrupt: Interrupt) -> Report | None:
    request = file_request(arguments)
    if arguments.infer_only:
        infer_only(request)
        return None
    return publish_files(settings, request, interrupt)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day like 2013-01-31") from None


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 1")
    return share


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time like 30s, 10m or 2h")
    seconds = float(match[1]) * SECONDS[match[2]]
    if seconds > LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than {LONGEST_SECONDS / SECONDS['d']:,.0f} days")
    return seconds


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
