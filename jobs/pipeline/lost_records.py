"""Lets a query go on where records were lost: behind those that retention took, or with a topic that was created again.

What was published stays, and is not published again; a batch that was begun is finished with what is left of it.
"""

import json
import sys
from typing import Any

from confluent_kafka.admin import AdminClient
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Kafka, Settings
from jobs.connectors.delta.log import History
from jobs.connectors.exactly_once.markers import BatchId, offsets_hash
from jobs.connectors.kafka.offsets import edges
from jobs.pipeline import checkpoint, paths, plan_analysis
from jobs.pipeline.checkpoint_format import initial_offsets, source_offsets, start_file, topic_offsets
from jobs.pipeline.guards import SourceGuard
from jobs.pipeline.outputs import Batch, Output

# By topic and partition, as Spark's files have them.
Firsts = dict[str, dict[str, int]]


class LostRecords:
    """Says on stderr which offsets of a query's micro-batches are gone, each range once."""

    def __init__(self, kafka: Kafka, query: str) -> None:
        self._admin, self._query = AdminClient({**kafka.client_config(), "log_level": 0}), query
        self._told: set[str] = set()

    def tell(self, batch: Batch) -> None:
        """Compare where the batch begins with what its topics still have; raises what `offsets.edges` does."""
        spans = list(_spans(batch.offsets))
        found = edges(self._admin, {topic for topic, *_ in spans})
        for topic, partition, start, until in spans:
            first = min(found[topic, partition].first if (topic, partition) in found else until, until)
            if start < first:
                self._say(f"{topic} partition {partition}: offsets {start} to {first - 1}", batch.version)

    def _say(self, what: str, batch: int) -> None:
        if what not in self._told:
            self._told.add(what)
            why = "are gone: what of them was not written yet is lost"
            print(f"warning: {self._query} batch {batch}: {what} {why}", file=sys.stderr, flush=True)


def _spans(offsets: Any) -> list[tuple[str, int, int, int]]:
    """Return (topic, partition, first, end) of each partition in a batch's offsets that says where it begins."""
    starts = [topic_offsets(at) for at in offsets.get("from") or ()]
    ends = [topic_offsets(at) for at in offsets.get("until") or ()]
    return [
        (topic, partition, start, end[topic][partition])
        for begin, end in zip(starts, ends, strict=False)
        for topic, partitions in begin.items()
        for partition, start in partitions.items()
        if partition in end.get(topic, {})
    ]


def go_on_with_recreated(
    spark: SparkSession, settings: Settings, output: Output, folder: str, guard: SourceGuard
) -> None:
    """Let the checkpoint in `folder` go on at the beginning of those of its topics that were created again.

    The output's ledger is marked first: one that is cut short is done again, and until then the guard lets no batch by.

    Raises:
        TidemarkError: TOPIC_RECREATED, where a batch that was begun may be published in part, and its other topics or
            its state are needed to finish it; and what the ledger stops by.
    """
    recreated = guard.recreated()
    if not recreated:
        return
    done, begun = checkpoint.last_commit(spark, folder), checkpoint.last_entry(spark, folder)
    firsts = _firsts(settings.kafka, recreated)
    id = checkpoint.query_id(spark, folder)
    at = done
    if id is not None and begun is not None and begun != done:
        entry = checkpoint.entry(spark, folder, begun) or ""
        progress = output.progress(BatchId(id, begun, offsets_hash(entry)))
        if progress != "none" or _is_in_tables(spark, settings, output, id, begun):
            read = {topic for source in source_offsets(entry) or () for topic in topic_offsets(source)}
            if plan_analysis.keeps_state(output.frame) or (progress != "all" and read - set(recreated)):
                raise _cannot_finish(output, begun, recreated)
            at = begun
    _begin_at(spark, output, folder, id, at, done, firsts)
    guard.accept()
    what = "its offsets begin anew; what was not read of the old one is lost"
    for topic in recreated:
        print(f"warning: {output.query}: topic {topic} was created again: {what}", file=sys.stderr, flush=True)


def _begin_at(
    spark: SparkSession, output: Output, folder: str, id: str | None, at: int | None, done: int | None, firsts: Firsts
) -> None:
    """Let the next micro-batch be the one after `at`, which is done then, and begin at `firsts` in their topics."""
    if id is None or at is None:
        checkpoint.forget_after(spark, folder, -1)
        source = 0
        while (text := checkpoint.read(spark, f"{folder}/{start_file(source)}")) is not None:
            if (initial := initial_offsets(text)) is not None:
                checkpoint.set_initial_offsets(spark, folder, source, _with_firsts(initial, firsts))
            source += 1
        return
    entry = checkpoint.entry(spark, folder, at) or ""
    head, lines = entry.splitlines()[:2], entry.splitlines()[2:]
    sources = [json.loads(line) if line.startswith("{") else None for line in lines]
    anew = [
        line if source is None else json.dumps(_with_firsts(source, firsts), separators=(",", ":"))
        for line, source in zip(lines, sources, strict=True)
    ]
    text = "\n".join([*head, *anew])
    output.begin_after(BatchId(id, at, offsets_hash(text)))
    checkpoint.set_entry(spark, folder, at, text, is_done=at == done)
    checkpoint.forget_after(spark, folder, at)


def _with_firsts(source: dict[str, Any], firsts: Firsts) -> dict[str, Any]:
    return {name: firsts.get(name, at) for name, at in source.items()}


def _firsts(kafka: Kafka, topics: list[str]) -> Firsts:
    """Return where each partition of the topics begins."""
    firsts: Firsts = {topic: {} for topic in topics}
    for (topic, partition), edge in edges(AdminClient({**kafka.client_config(), "log_level": 0}), topics).items():
        firsts[topic][str(partition)] = edge.first
    return firsts


def _is_in_tables(spark: SparkSession, settings: Settings, output: Output, id: str, batch: int) -> bool:
    commit = {"sink": output.query, "query_id": id, "batch": batch}
    folders = (paths.table(settings.paths.tables, rows.table) for rows in output.tables)
    return any(History(spark, folder).newest(commit) for folder in folders)


def _cannot_finish(output: Output, batch: int, recreated: list[str]) -> TidemarkError:
    what = f"source topic {', '.join(recreated)} was deleted and created again while batch {batch} of {output.query}"
    why = "was written in part: with its state, or its other topics, it can be neither finished nor left"
    remedy = "restore the topic, or publish into a topic and from a job of another name"
    return TidemarkError("TOPIC_RECREATED", f"{what} {why}", remedy)
