"""Coverage for people, a table of lines, and for programs, a JSON object a line."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from jobs.coverage.chains import Chain
from jobs.coverage.claims import Span
from jobs.coverage.ledgers import SinkCoverage
from jobs.coverage.reading import Covered
from jobs.coverage.tables import TableCoverage

TABLES = ("table", "sink/statement", "query id", "topic", "partition", "from", "to", "commits", "newest commit")
SINKS = ("output topic", "sink", "query id", "topic", "partition", "from", "to", "batch", "records", "newest batch")
NUMBERS = {"partition", "from", "to", "commits", "batch", "records"}
REPLACED = ("table", "replaced by", "column", "from", "until", "version", "undone by")
ID_SHOWN = 18  # characters of a query id: a range's whole


def objects(found: Covered) -> Iterator[dict[str, Any]]:
    """One for each span of a chain, of `kind` table or topic; one for each replaced range, and for each undone one."""
    for name, table in found.tables.items():
        for chain in table.chains:
            for span in chain.spans:
                yield {"kind": "table", "table": name, "version": table.version} | _chain(chain) | _span(span)
        for each in table.replaced:
            said = {"kind": "replaced", "table": name, "replay": each.replay, "column": each.column}
            edges = {"from": each.start, "until": each.end}
            yield said | edges | {"version": each.version, "undone_by": each.undone_by}
        for lost in table.undone:
            said = {"kind": "undone", "table": name} | lost.key._asdict()
            yield said | _span(lost.span) | {"version": lost.version, "undone_by": lost.undone_by}
    for sink in found.sinks:
        for span in sink.chain.spans if sink.chain else ():
            yield _sink(sink) | _chain(sink.chain) | _span(span) if sink.chain else {}


def lines(found: Covered) -> list[str]:
    """All of it; one line that says so where there is nothing."""
    held = [_row(name, chain, span) for name, chain, span in _spans(found.tables)]
    topics = [_sink_row(each, span) for each in found.sinks for span in (each.chain.spans if each.chain else ())]
    replaced = [
        (name, each.replay, each.column, each.start, each.end, str(each.version), str(each.undone_by or ""))
        for name, table in found.tables.items()
        for each in table.replaced
    ]
    parts = [
        _aligned([heading, *rows]) for heading, rows in ((TABLES, held), (SINKS, topics), (REPLACED, replaced)) if rows
    ]
    lost = [
        f"{name}: {each.span.topic} partition {each.span.partition} from {each.span.start} to {each.span.end}"
        f" was taken back by version {each.undone_by} (RESTORE)"
        for name, table in found.tables.items()
        for each in table.undone
    ]
    parts += [lost] if lost else []
    return [line for part in parts for line in ["", *part]][1:] or ["no table and no output topic says what it holds"]


def _spans(tables: dict[str, TableCoverage]) -> Iterator[tuple[str, Chain, Span]]:
    for name, table in tables.items():
        for chain in table.chains:
            for span in chain.spans:
                yield name, chain, span


def _row(name: str, chain: Chain, span: Span) -> tuple[str, ...]:
    key = chain.key
    commits = f"{chain.commits:,}" if chain.is_counted else f"{chain.commits:,}+"
    who = f"{key.sink}/{key.statement}", key.query_id[:ID_SHOWN]
    return (name, *who, *_span_row(span), commits, _time(chain.newest.at))


def _sink_row(sink: SinkCoverage, span: Span) -> tuple[str, ...]:
    query_id = sink.chain.key.query_id[:ID_SHOWN] if sink.chain else ""
    who = " ".join(sorted(sink.topics)), sink.sink, query_id
    return (*who, *_span_row(span), str(sink.batch), f"{sink.records:,}", _time(sink.at))


def _span_row(span: Span) -> tuple[str, ...]:
    return span.topic, str(span.partition), "?" if span.start is None else str(span.start), str(span.end)


def _chain(chain: Chain) -> dict[str, Any]:
    counts = {"batch": chain.newest.batch, "commits": chain.commits, "commits_counted": chain.is_counted}
    return chain.key._asdict() | counts | {"at": chain.newest.at.isoformat() if chain.newest.at else None}


def _sink(sink: SinkCoverage) -> dict[str, Any]:
    said = {"kind": "topic", "output_topics": sorted(sink.topics), "begun_batch": sink.batch}
    return said | {"records": sink.records, "shards": sink.shards, "missing_shards": list(sink.missing)}


def _span(span: Span) -> dict[str, Any]:
    return {"topic": span.topic, "partition": span.partition, "from": span.start, "to": span.end}


def _time(at: datetime | None) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}" if at else ""


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    headings = rows[0]
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    return [
        "  ".join(
            text.rjust(width) if heading in NUMBERS else text.ljust(width)
            for heading, text, width in zip(headings, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
