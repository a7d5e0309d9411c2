"""Who counts the bids of each auction in ten-second windows fastest, and at what price? Prints a table of engines.

    local/tidemark setup
    .tidemark/venv/bin/python -m bench.peers [--millions 2] [--rounds 1] [--peers tidemark plain-loop]
        [--results FILE.json]

On a broker of its own lies one topic of Avro bids (127 bytes, Confluent framing, 4 partitions, keyed by auction, out of
order by up to half a second). Each peer reads it from the beginning, counts by event time and waits 10 seconds for late
bids, and writes a record for each window and auction into a topic, from an empty start, as one process started from
its own environment. A peer's answer is compared with the exact one, row by row, before its figures count. Peers take
turns; every second round goes in the other order. Where there are several rounds, a figure is the median of them.

    rows/s       records from the first batch or record that the peer reads to its last answer in the topic
    from start   the same from the start of its process
    per CPU-s    records a CPU-second of all its processes, to their exit
    memory       the most resident memory of all its processes at once, MB; pages that several share counted once
    start        seconds from the start of its process to the first batch or record

An answer counts as there when a consumer of committed records can read it.
"""

import json
import os
import platform
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import psutil

from bench.peers.environments import UnavailableError
from bench.peers.peers import PEERS, Peer
from bench.peers.question import BIDS, WrongAnswerError, exact_answer, make_bids, publish_bids
from bench.peers.turns import Arena, FailedError, Turn, serve_registry
from bench.workbench import line, option_parser, own_broker
from conf import ROOT, command_line
from conf.errors import exit_on_error
from conf.settings import load
from conf.topics import load_topics
from local.processes import end_on_signal
from schemas.registry import FileRegistry

COLUMNS = ("rows/s", "from start", "per CPU-s", "memory", "start")


def main() -> int:
    parser = option_parser(__doc__, millions=2.0, rounds=1)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=[*PEERS], metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--results", type=Path, help="a file for all figures, as bench.peers.plot reads it")
    parser.add_argument("--seconds", type=float, default=600, help="a turn may take so long")
    options = command_line.parse(parser, sys.argv[1:])
    end_on_signal()
    versions = _available([PEERS[name] for name in dict.fromkeys(options.peers)])
    turns: list[Turn] = []
    try:
        count = int(options.millions * 1_000_000)
        failures = measure([PEERS[name] for name in versions], count, options.rounds, options.seconds, turns)
    finally:
        # What has been measured before somebody lost patience is shown, too.
        _print(turns, versions)
        if options.results:
            _write(options.results, turns, versions)
    return 1 if failures else 0


def _available(peers: Sequence[Peer]) -> dict[str, str]:
    """The versions of the peers that can be had, by name; those that cannot are named with the reason."""
    versions = {}
    for peer in peers:
        try:
            versions[peer.name] = peer.versions()
        except UnavailableError as why:
            print(f"{peer.title}: not to be had here: {why}", flush=True)
    return versions


def measure(peers: Sequence[Peer], count: int, rounds: int, limit_s: float, turns: list[Turn]) -> int:
    """Let the peers take turns on `count` bids, and return how many turns failed or gave a wrong answer.

    Args:
        limit_s: seconds that a turn may take.
        turns: gets each turn with a right answer as it ends.
    """
    failures = 0
    with own_broker() as (folder, cluster):
        shutil.copytree(ROOT / "schemas" / "registry", folder / "registry")
        sets = [f"kafka.bootstrap_servers={cluster.bootstrap_servers}", f"registry.path={folder / 'registry'}"]
        settings = load(overrides=sets)
        bids = make_bids(count)
        publish_bids(settings, bids)
        exact, records = exact_answer(bids), count + load_topics()[BIDS].partitions
        del bids
        print(f"{count:,} bids, {exact.num_rows:,} counts", flush=True)
        with serve_registry(FileRegistry(folder / "registry")) as registry:
            arena = Arena(settings, folder, registry, exact, records, limit_s)
            for number in range(rounds):
                for peer in peers if number % 2 == 0 else reversed(peers):
                    try:
                        turns.append(arena.turn(peer))
                        print(f"round {number + 1}  {figures_line(peer.title, figures(turns[-1:]))}", flush=True)
                    except (FailedError, WrongAnswerError) as failure:
                        failures += 1
                        print(f"round {number + 1}  {peer.title}: {failure}", flush=True)
    return failures


def _print(turns: Sequence[Turn], versions: dict[str, str]) -> None:
    print()
    print(line("", COLUMNS, label_width=24), " guarantee")
    for name in versions:
        if of_peer := [turn for turn in turns if turn.peer == name]:
            print(figures_line(PEERS[name].title, figures(of_peer)), f" {PEERS[name].guarantee}")
    print()
    for name, version in versions.items():
        print(f"{PEERS[name].title}: {version}; {PEERS[name].advice}")


def figures(turns: Sequence[Turn]) -> tuple[float, ...]:
    """Return the medians of some turns of one peer, by COLUMNS."""
    columns = (
        [turn.per_second_reading for turn in turns],
        [turn.per_second for turn in turns],
        [turn.per_cpu_second for turn in turns],
        [turn.peak_bytes / 1e6 for turn in turns],
        [turn.first_record for turn in turns],
    )
    return tuple(map(statistics.median, columns))


def figures_line(title: str, figures: tuple[float, ...], width: int = 24) -> str:
    """Return the row of a table for `figures`, by COLUMNS; the title takes `width` characters."""
    *large, start = figures
    return line(title, [*large, f"{start:.1f}"], label_width=width)


def _write(file: Path, turns: Sequence[Turn], versions: dict[str, str]) -> None:
    peers = {
        name: {"title": PEERS[name].title, "guarantee": PEERS[name].guarantee, "version": version}
        for name, version in versions.items()
    }
    machine = {"cores": os.cpu_count(), "memory_bytes": psutil.virtual_memory().total, "system": platform.platform()}
    results = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["python", "-m", "bench.peers", *sys.argv[1:]],
        "machine": machine,
        "peers": peers,
        "turns": [asdict(turn) for turn in turns],
    }
    file.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    exit_on_error(main)
