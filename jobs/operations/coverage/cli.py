"""Runs `coverage`: which offsets does each table and output topic hold, and is that all of them, each once?"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from confluent_kafka.admin import AdminClient

from conf import command_line
from conf.errors import TidemarkError, exit_on_error
from conf.settings import Settings
from jobs.connectors.kafka.access import connect
from jobs.connectors.kafka.consumer import ReadCommittedConsumer
from jobs.operations.coverage.check import check_coverage
from jobs.operations.coverage.holdings import Coverage, read_coverage
from jobs.operations.coverage.query_offsets import Finding, QueryOffsets, Span

TABLES = ("table", "sink/statement", "query id", "topic", "partition", "from", "to", "commits", "newest commit")
SINKS = ("output topic", "sink", "query id", "topic", "partition", "from", "to", "batch", "records", "newest batch")
NUMBERS = {"partition", "from", "to", "commits", "batch", "records"}
REPLACED = ("table", "replaced by", "column", "from", "until", "version", "undone by")
SHOWN = 20  # lines of one kind in one partition; past that, only how many more there are
ID_SHOWN = 18  # characters of a query id: a range's whole


def json_objects(coverage: Coverage) -> Iterator[dict[str, Any]]:
    """Give an object for each span of a chain, of `kind` table or topic, and for each replaced or undone range."""
    for name, table in coverage.tables.items():
        for chain in table.chains:
            for span in chain.spans:
                yield {"kind": "table", "table": name, "version": table.version} | _chain(chain) | _span(span)
        for rows in table.replaced:
            fields = {"kind": "replaced", "table": name, "replay": rows.replay, "column": rows.column}
            yield fields | {"from": rows.start, "until": rows.end, "version": rows.version, "undone_by": rows.undone_by}
        for undone in table.undone:
            fields = {"kind": "undone", "table": name} | undone.key._asdict()
            yield fields | _span(undone.span) | {"version": undone.version, "undone_by": undone.undone_by}
    for sink in coverage.sinks:
        if sink.chain:
            begun: dict[str, Any] = {"kind": "topic", "output_topics": sorted(sink.topics), "begun_batch": sink.batch}
            begun |= {"records": sink.records, "shards": sink.shards, "missing_shards": list(sink.missing)}
            for span in sink.chain.spans:
                yield begun | _chain(sink.chain) | _span(span)


def _chain(chain: QueryOffsets) -> dict[str, Any]:
    counts = {"batch": chain.newest.batch, "commits": chain.commits, "commits_counted": chain.is_counted}
    return chain.key._asdict() | counts | {"at": chain.newest.at.isoformat() if chain.newest.at else None}


def _span(span: Span) -> dict[str, Any]:
    return {"topic": span.topic, "partition": span.partition, "from": span.start, "to": span.end}


def text_lines(coverage: Coverage) -> list[str]:
    """Return the lines of `coverage show`; one that says so where there is nothing."""
    held: list[tuple[str, ...]] = []
    topics: list[tuple[str, ...]] = []
    replaced: list[tuple[str, ...]] = []
    lost: list[str] = []
    for name, table in coverage.tables.items():
        for chain in table.chains:
            who = name, f"{chain.key.sink}/{chain.key.statement}", chain.key.query_id[:ID_SHOWN]
            commits = f"{chain.commits:,}" if chain.is_counted else f"{chain.commits:,}+"
            held += [(*who, *_span_texts(span), commits, _time(chain.newest.at)) for span in chain.spans]
        for rows in table.replaced:
            undone_by = str(rows.undone_by or "")
            replaced.append((name, rows.replay, rows.column, rows.start, rows.end, str(rows.version), undone_by))
        for undone in table.undone:
            span = (
                f"{undone.span.topic} partition {undone.span.partition} from {undone.span.start} to {undone.span.end}"
            )
            lost.append(f"{name}: {span} was taken back by version {undone.undone_by} (RESTORE)")
    for sink in coverage.sinks:
        if sink.chain:
            who = " ".join(sorted(sink.topics)), sink.sink, sink.chain.key.query_id[:ID_SHOWN]
            counts = str(sink.batch), f"{sink.records:,}", _time(sink.at)
            topics += [(*who, *_span_texts(span), *counts) for span in sink.chain.spans]
    parts = [
        command_line.table_lines([heading, *rows], NUMBERS)
        for heading, rows in ((TABLES, held), (SINKS, topics), (REPLACED, replaced))
        if rows
    ]
    parts += [lost] if lost else []
    return [line for part in parts for line in ["", *part]][1:] or ["no table and no output topic says what it holds"]


def _span_texts(span: Span) -> tuple[str, ...]:
    return span.topic, str(span.partition), "?" if span.start is None else str(span.start), str(span.end)


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}" if at else ""


def main(argv: Sequence[str]) -> int:
    """Run `coverage ARGV`; returns the exit code, raises TidemarkError and, for wrong usage, SystemExit(2)."""
    return command_line.run(build_parser(), argv)


def build_parser() -> argparse.ArgumentParser:
    """Return the whole command line."""
    parser = argparse.ArgumentParser(
        prog="local/tidemark coverage",
        description="What tables and output topics hold of their topics, offset by offset; see docs/coverage.md.",
        epilog="exit code: 0 all is well, 1 a check found something, or a failure, 2 wrong usage",
    )
    commands = parser.add_subparsers(required=True, metavar="show|check")
    common = argparse.ArgumentParser(add_help=False, parents=[command_line.settings_options()])
    names = "a table, a folder of tables, a query, an output topic, or a topic that is read; all, if left out"
    common.add_argument("names", nargs="*", metavar="NAME", help=names)
    common.add_argument("--json", action="store_true", help="one JSON object a line")
    command = commands.add_parser("show", parents=[common], help="from which offset to which, by what commits recorded")
    command.set_defaults(run=_show)
    command = commands.add_parser(
        "check", parents=[common], help="contiguous, disjoint, complete? with each row's record"
    )
    command.add_argument("--complete", action="store_true", help="being behind the end of a topic is a problem too")
    command.set_defaults(run=_check)
    return parser


def _show(loaded: Settings, options: argparse.Namespace) -> int:
    admin = _admin_if_any(loaded)
    with ReadCommittedConsumer({} if admin is None else loaded.kafka.client_config()) as reader:
        coverage = read_coverage(loaded, admin, reader, verify=False).only(options.names)
    if options.json:
        for fields in json_objects(coverage):
            print(json.dumps(fields))
    else:
        print("\n".join(text_lines(coverage)))
    return 0


def _check(loaded: Settings, options: argparse.Namespace) -> int:
    admin = connect(loaded.kafka)
    with ReadCommittedConsumer(loaded.kafka.client_config()) as reader:
        everything = read_coverage(loaded, admin, reader, verify=True)
        coverage = everything.only(options.names)
        report = check_coverage(loaded, admin, reader, coverage, everything, options.complete)
    if options.json:
        for finding in report.findings:
            print(json.dumps(finding.to_json()))
        print(json.dumps(report.to_json()))
    else:
        print("\n".join([*(finding.line() for finding in shorten(report.findings)), report.summary()]))
    return 1 if report.problems else 0


def shorten(findings: Iterable[Finding]) -> list[Finding]:
    """Keep SHOWN of each code, place and partition, and one that says how many more there are."""
    kept: list[Finding] = []
    alike: dict[tuple[str, str, str, int | None], list[Finding]] = {}
    for finding in findings:
        same = alike.setdefault((finding.code, finding.where, finding.topic, finding.partition), [])
        same.append(finding)
        if len(same) <= SHOWN:
            kept.append(finding)
    for (code, where, topic, partition), same in alike.items():
        if len(same) > SHOWN:
            text = f"{len(same) - SHOWN:,} more like these; --json shows them all"
            kept.append(Finding(code, where, f"{where}: {topic} partition {partition}: {text}", "", topic, partition))
    return kept


def _admin_if_any(loaded: Settings) -> AdminClient | None:
    """Return a client of the cluster; None, with a line that says so, where no broker can be asked."""
    try:
        return connect(loaded.kafka)
    except TidemarkError as error:
        print(f"what the output topics hold is not known: {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
