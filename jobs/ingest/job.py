"""What was in the topics? Every record as it came, forever; every event as a typed row; every reject with its reason.

topic -> Delta table bronze/<topic>; decode, rules -> Delta tables silver/<topic>, quarantine, rule_counts
    ./spark-submit.sh ingest --until-caught-up --set ingest.topics=departures,weather

A topic with events of several types has a table silver/<topic>/<event> for each.
Each topic is a query of its own, and one that cannot begin any more is left out: the others go on. No watermark:
nothing is ever too late here.
"""

from collections.abc import Sequence

from conf.errors import TidemarkError
from jobs.ingest.micro_batch import IngestOutput
from jobs.ingest.silver import AppendedTable, CompactedTable, SilverTable
from jobs.pipeline.run import Run
from jobs.pipeline.termination import OUTAGES


def build(run: Run) -> None:
    failures: dict[str, TidemarkError] = {}
    for topic in run.settings.ingest.topics:
        try:
            _declare(run, topic)
        except TidemarkError as stop:
            if stop.code in OUTAGES:
                raise
            failures[topic] = stop
    run.do_without(failures, run.settings.ingest.topics, "ingest.topics")


def _declare(run: Run, topic: str) -> None:
    """Declare the topic's output; a missing schema or hash key, or rules that do not fit, fail now, not in a batch."""
    versions = run.validator.versions(topic)
    for stream in versions:
        run.protection(stream, versions)
    records = run.records(topic)
    for stream in versions:
        run.validator.validate(records, stream, versions, run.clock(None))
    silver = _silver_tables(run, topic, list(versions))
    run.declare(IngestOutput(job=run.job, name=topic, frame=records, run=run, silver=silver))


def _silver_tables(run: Run, topic: str, streams: Sequence[str]) -> Sequence[SilverTable]:
    """Return a table for each stream; records of no stream are rejected once, with the first."""
    rules = run.validator.rules_of
    key = run.topics[topic].compaction_key if topic in run.topics else None
    if key:
        return [CompactedTable(topic, rules(topic), key)]
    return [AppendedTable(stream, rules(stream), stream == streams[0]) for stream in streams]
