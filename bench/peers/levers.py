"""Which setting gives Tidemark what on the peers' question, alone and together? Prints a factorial table.

    .tidemark/venv/bin/python -m bench.peers.levers [--millions 2] [--rounds 1] [--levers one-batch heap]

Each combination of the levers takes a turn as a peer of `bench.peers` does: a process of its own, the same topic, the
answer checked before its figures count. A row says which levers were pulled; the last rows say what each lever does to
bids a second and to bids a CPU-second: the median over all combinations of the ratio with it to without it.
"""

import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

from bench.peers.__main__ import COLUMNS, figures, figures_line, measure
from bench.peers.peers import PEERS, Peer, ours
from bench.peers.turns import Turn
from bench.workbench import line, option_parser
from conf import command_line
from conf.errors import exit_on_error
from local.processes import end_on_signal

LEVERS = {
    "one-batch": {"source.max_offsets_per_trigger": "1000000000"},
    "heap": {"spark.driver_memory": "4g"},
    "early-c2": {"spark.driver_java_options": "-XX:+UseParallelGC"},  # Java's own thresholds for its second compiler
    "no-c2": {"spark.driver_java_options": "-XX:+UseParallelGC -XX:TieredStopAtLevel=1"},
    "at-least-once": {"sink.delivery": "at-least-once"},
}
STANDARD = ("one-batch", "heap", "early-c2")
NONE = "as-it-comes"
AND = "."  # turns name ledgers, which are topics


def main() -> int:
    parser = option_parser(__doc__, millions=2.0, rounds=1)
    parser.add_argument("--levers", nargs="+", choices=LEVERS, default=[*STANDARD], metavar="LEVER")
    parser.add_argument("--seconds", type=float, default=600, help="a turn may take so long")
    options = command_line.parse(parser, sys.argv[1:])
    end_on_signal()
    levers = [*dict.fromkeys(options.levers)]
    turns: list[Turn] = []
    try:
        count = int(options.millions * 1_000_000)
        failures = measure([*_combinations(levers)], count, options.rounds, options.seconds, turns)
    finally:
        _print(turns, levers)
    return 1 if failures else 0


def _combinations(levers: Sequence[str]) -> Iterator[Peer]:
    for pulled in product((False, True), repeat=len(levers)):
        names = [lever for lever, is_pulled in zip(levers, pulled, strict=True) if is_pulled]
        changed = {key: value for name in names for key, value in LEVERS[name].items()}
        name = _name(names)
        yield replace(PEERS["tidemark"], name=name, title=name, start=partial(ours, changed=changed))


def _name(levers: Sequence[str]) -> str:
    return AND.join(levers) or NONE


def _print(turns: Sequence[Turn], levers: Sequence[str]) -> None:
    by_name: dict[str, list[Turn]] = {}
    for turn in turns:
        by_name.setdefault(turn.peer, []).append(turn)
    print()
    print(line("", COLUMNS, label_width=32))
    measured = {name: figures(of_name) for name, of_name in by_name.items()}
    for name, values in measured.items():
        print(figures_line(name, values, 32))
    print()
    for lever in levers:
        ratios = []
        for name, values in measured.items():
            pulled = name.split(AND)
            without = _name([other for other in pulled if other != lever])
            if lever in pulled and without in measured:
                ratios.append([a / b for a, b in zip(values, measured[without], strict=True)])
        if ratios:
            medians = (statistics.median(of_column) for of_column in zip(*ratios, strict=True))
            print(line(f"with ÷ without {lever}", [f"{ratio:.2f}" for ratio in medians], label_width=32))


if __name__ == "__main__":
    exit_on_error(main)
