"""Labels say of each log line, Python's and the JVM's, which job, query and micro-batch it belongs to.

They are there where `logging.format` is "ecs": JSON lines by the Elastic Common Schema. A thread that writes a batch
keeps its labels until its next batch, so that what Spark says of the batch's end has them too.
"""

import logging
import socket
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import ecs_logging
from pyspark.sql import SparkSession

from conf.settings import Settings
from jobs.connectors.spark_internals import jvm
from jobs.pipeline.outputs import Batch
from jobs.pipeline.progress import offsets_of_batch

BATCHES = "tidemark.batches"
PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
TASKS = "mdc."  # local properties of that name become labels of the tasks' threads, by the whole name
NANOSECONDS = 1_000_000  # in a millisecond

_labels: ContextVar[Mapping[str, str] | None] = ContextVar("labels", default=None)
_batches = logging.getLogger(BATCHES)


class Labelling(logging.Filter):
    """Adds `labels` to every record that passes: the job's, the thread's, and those that the record has already."""

    def __init__(self, job: str) -> None:
        super().__init__()
        self._job = job

    def filter(self, record: logging.LogRecord) -> bool:
        record.labels = {"job": self._job, **(_labels.get() or {}), **getattr(record, "labels", {})}
        return True


def log_to_file(settings: Settings, path: Path, job: str) -> None:
    """Let Python's log of this process go to `path`, in the format of the settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if settings.logging.format == "plain":
        logging.basicConfig(filename=path, level=logging.WARNING, format=PLAIN)
        return
    handler = logging.FileHandler(path)
    handler.setFormatter(ecs_logging.StdlibFormatter(extra={"service.name": job, "host.name": socket.gethostname()}))
    handler.addFilter(Labelling(job))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    # The ends of batches are for logs that are read together; for a plain log the table of micro-batches has them.
    _batches.setLevel(logging.INFO)


def label_batch(spark: SparkSession, settings: Settings, job: str, batch: Batch) -> None:
    """Label this thread, its JVM's and those of the tasks that it starts; nothing where logs are plain."""
    if settings.logging.format == "plain":
        return
    labels = labels_of(job, batch.sink, batch.version, batch.offsets)
    _labels.set(labels)
    context = jvm(spark).org.apache.logging.log4j.ThreadContext
    for name, value in labels.items():
        context.put(name, value)
        spark.sparkContext.setLocalProperty(f"{TASKS}{name}", value)


def labels_of(job: str, query: str, batch: int, offsets: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a micro-batch, texts all of them: `job`, `query`, `batch` and `offsets`.

    Args:
        offsets: as `Batch.offsets` has them; written as `TOPIC-PARTITION:FROM-UNTIL`, with blanks between them.
    """
    return _as_labels(job, query, batch, offsets_of_batch(offsets))


def _as_labels(job: str, query: str, batch: int, spans: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    texts = (f"{span['topic']}-{span['partition']}:{span['start'] or 0}-{span['end']}" for span in spans)
    return {"job": job, "query": query, "batch": str(batch), "offsets": " ".join(texts)}


def tell_batch(row: Mapping[str, Any]) -> None:
    """Log the end of a micro-batch, with its labels and how long it took.

    Args:
        row: of the table of micro-batches.
    """
    took = row["phases"].get("triggerExecution", 0)
    labels = _as_labels(row["job"], row["query"], row["batch"], row["offsets"])
    fields = {"labels": labels, "event.duration": took * NANOSECONDS, "event.outcome": "success"}
    message = "batch %d of %s took %d ms: %d records, %d rejected"
    _batches.info(message, row["batch"], row["query"], took, row["rows_in"], row["rejected"], extra=fields)
