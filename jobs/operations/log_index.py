"""Fills the index of log lines in OpenSearch from the table `app_logs`, so that one that was lost is filled again.

The index itself says which offsets it holds. A document's id is topic, partition and offset of its record, and it is
only ever created: what is sent a second time changes nothing. A day is an index of its own, and retention deletes days.
"""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import islice
from typing import Any

from pyspark.sql import Column, Row, SparkSession
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from conf.setting_types import milliseconds
from conf.settings import Search
from jobs.connectors.delta import table as delta_table
from jobs.connectors.opensearch import Document, OpenSearch

NAME = "app_logs"
BULK = 1_000  # documents of a request: some megabytes with stack traces, a tenth of what OpenSearch takes
AGAIN_SECONDS = 30.0  # after a failure; until then batches do not even try
KEYWORD = {"type": "keyword", "ignore_above": 1024}
TEMPLATE: Mapping[str, Any] = {
    "index_patterns": [f"{NAME}-*"],
    "template": {
        "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1"},
        "mappings": {
            "dynamic": False,  # a label that somebody adds makes no field
            "properties": {
                "@timestamp": {"type": "date"},
                "message": {"type": "text"},
                "message_pattern": KEYWORD,
                "log": {"properties": {"level": KEYWORD, "logger": KEYWORD}},
                "labels": {
                    "properties": {"job": KEYWORD, "query": KEYWORD, "batch": {"type": "long"}, "offsets": KEYWORD}
                },
                "event": {"properties": {"duration_ms": {"type": "long"}}},
                "host": {"properties": {"name": KEYWORD}},
                "error": {
                    "properties": {"type": KEYWORD, "message": {"type": "text"}, "stack_trace": {"type": "text"}}
                },
                "kafka": {
                    "properties": {"topic": KEYWORD, "partition": {"type": "integer"}, "offset": {"type": "long"}}
                },
            },
        },
    },
}

logger = logging.getLogger(__name__)


class LogIndex:
    """Keeps the index up with the table at `path`. Where OpenSearch does not answer it says so once, and goes on."""

    def __init__(self, settings: Search, topic: str, path: str) -> None:
        self._settings, self._topic, self._path = settings, topic, path
        self._search = OpenSearch(settings) if settings.url else None
        self._is_ready, self._is_down, self._again_at = False, False, 0.0

    def fill(self, spark: SparkSession, now: datetime) -> int:
        """Index what the table has and the index lacks; return how many lines that were, 0 where OpenSearch is down."""
        if self._search is None or time.monotonic() < self._again_at or not delta_table.exists(spark, self._path):
            return 0
        try:
            indexed = self._fill(self._search, spark, now)
        except TidemarkError as exc:
            self._again_at, self._is_ready = time.monotonic() + AGAIN_SECONDS, False
            logger.warning("%s", exc)
            if not self._is_down:
                self._is_down = True
                _say(f"note: the index of logs: {exc.message}; tables go on, and what is missing is indexed later")
            return 0
        if self._is_down:
            self._is_down = False
            _say(f"note: the index of logs: OpenSearch answers again, {indexed} lines indexed")
        return indexed

    def _fill(self, search: OpenSearch, spark: SparkSession, now: datetime) -> int:
        oldest = now - timedelta(milliseconds=milliseconds(self._settings.keep))
        if not self._is_ready:
            search.put_template(NAME, TEMPLATE)
        search.delete_indices(outdated(search.indices(f"{NAME}-*"), oldest))
        self._is_ready = True
        position = search.position(self._topic)
        table = delta_table.read(spark, self._path)
        missing = table.where(after(position) & (F.col("at") >= F.lit(start_of_day(oldest))))
        rows, indexed = missing.orderBy("partition", "offset").toLocalIterator(), 0
        while chunk := list(islice(rows, BULK)):
            for refused in search.create(map(document, chunk)):
                logger.error("document %s is not indexed: %s", refused.place, refused.reason)
            indexed += len(chunk)
            position |= ends(chunk)
            search.set_position(self._topic, position)
        return indexed


def outdated(indices: Iterable[str], oldest: datetime) -> list[str]:
    """Select those of the daily `indices` that hold nothing as new as `oldest`."""
    first = index_of(oldest)
    return [name for name in indices if name < first]


def index_of(at: datetime) -> str:
    """Return the index of a line's day, in UTC."""
    return f"{NAME}-{at.astimezone(UTC):%Y.%m.%d}"


def start_of_day(at: datetime) -> datetime:
    """Return midnight before `at`, in UTC: what is deleted with its day is not indexed either."""
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def after(position: Mapping[int, int]) -> Column:
    """Return the condition that a row lies at or after `position`, or in a partition that it does not name."""
    partition, offset = F.col("partition"), F.col("offset")
    beyond = ((partition == number) & (offset >= start) for number, start in position.items())
    return reduce(Column.__or__, beyond, ~partition.isin(list(position)) if position else F.lit(True))


def ends(rows: Iterable[Row]) -> dict[int, int]:
    """Return the offset after the last one of each partition; rows are in the order of partition and offset."""
    return {row["partition"]: row["offset"] + 1 for row in rows}


def document(row: Row) -> Document:
    """Return a row of the table as a document; fields that it lacks are left out."""
    fields = {
        "@timestamp": row["at"].astimezone(UTC).isoformat(timespec="milliseconds"),
        "message": row["message"],
        "message_pattern": row["pattern"],
        "log": {"level": row["level"], "logger": row["logger"]},
        "labels": {name: row[name] for name in ("job", "query", "batch", "offsets")},
        "event": {"duration_ms": row["duration_ms"]},
        "host": {"name": row["host"]},
        "error": {"type": row["error_type"], "message": row["error_message"], "stack_trace": row["stack_trace"]},
        "kafka": {name: row[name] for name in ("topic", "partition", "offset")},
    }
    return Document(
        index_of(row["at"]), f"{row['topic']}-{row['partition']}-{row['offset']}", dict(_without_nulls(fields))
    )


def _without_nulls(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        kept = dict(_without_nulls(value)) if isinstance(value, dict) else value
        if kept is not None and kept != {}:
            yield name, kept


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
