"""Writes what a query reads, writes and keeps in its state into its checkpoint, beside Spark's own files.

Replay, the checkpoint doctor and the next start read it, without running the job. There are two files, since a query is
started before it has written anything: one says how the query was last started, the other how it
has written its last batches, which may have been made by other code.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta
from typing import Any, Self

from pyspark.sql import SparkSession

from conf import code_version
from jobs.connectors.spark_internals import analyzed_plan, listed
from jobs.pipeline import checkpoint, plan_analysis
from jobs.pipeline.outputs import Output, RowSelector
from jobs.pipeline.paths import STARTED_FILE, WRITTEN_FILE
from jobs.pipeline.plan_analysis import WATERMARK, EventTimeSpan, is_stateful
from jobs.pipeline.progress import OF_DECODING

# Version 0.1.0 refuses any other field in STARTED_FILE. In WRITTEN_FILE it passes over those that it does not know.
STARTED_FIELDS = ("job", "query", "name", "mode", "topics", "tables", "topic", "reach", "code")


# What `Sources.decode` puts above decoding, whose expressions each schema version changes.
OBSERVED = "CollectMetrics"
# Numbers that Spark gives expressions anew in each run, and the delay of the watermark that it shows beside names.
NUMBERED = re.compile(r"#\d+L?(?:-T\d+ms)?|-T\d+ms|(?<=\b[xyz]_)\d+")
HASH_DIGITS = 12
# What is in the text of a node that makes windows, or has to do with sessions.
WINDOW_TEXTS = ("precisetimestampconversion", "session_window")


@dataclass(frozen=True)
class Step:
    """A node of the plan of a query.

    Args:
        kind: "state", "window", "watermark" or "other".
        text: its expressions; of "other" a hash, enough to tell that it has changed.
    """

    kind: str
    node: str
    text: str


@dataclass(frozen=True)
class QueryDescription:
    """A query as its code declares it. Fields with a default may be missing in a file of an older version.

    Args:
        code: the version that wrote this.
        topics: that are read, in the order of the plan.
        tables: that are written.
        topic: that is published to; None for none.
        reach: how far the event time of a row may be from those of the events it is made of.
        table, keys: the table whose rows are the query's, and what it is merged by; empty for other outputs.
        sources: the topics of each source, in Spark's order; the source's name where it is none of Kafka's.
        steps: of the plan, from the output down to decoding.
        windows: length and slide of each window in it, in seconds; None where that is not known.
        columns: name and type of what is written.
    """

    mode: str
    code: str
    job: str = ""
    query: str = ""
    name: str = ""
    topics: tuple[str, ...] = ()
    tables: tuple[RowSelector, ...] = ()
    topic: str | None = None
    reach: EventTimeSpan = field(default_factory=EventTimeSpan)
    table: str = ""
    keys: tuple[str, ...] = ()
    sources: tuple[tuple[str, ...], ...] = ()
    steps: tuple[Step, ...] = ()
    windows: tuple[tuple[float, float], ...] | None = None
    columns: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, output: Output) -> Self:
        """Return the description of a declared output, whose frame is a stream."""
        sources = plan_analysis.sources(output.frame)
        return cls(
            mode=output.mode,
            code=code_version.version(),
            job=output.job,
            query=output.query,
            name=output.name,
            topics=tuple(dict.fromkeys(source.topic for source in sources if source.topic)),
            tables=output.tables,
            topic=output.topic,
            reach=plan_analysis.event_time_span(output.frame),
            table=output.table,
            keys=output.keys,
            sources=tuple(source.topics for source in sources),
            steps=tuple(_steps(analyzed_plan(output.frame))),
            windows=tuple(
                (window.length.total_seconds(), window.slide.total_seconds())
                for window in plan_analysis.time_windows(output.frame)
            ),
            columns=tuple((column.name, column.dataType.simpleString()) for column in output.frame.schema.fields),
        )

    def of_kind(self, kind: str) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.kind == kind)

    def below_state(self) -> tuple[Step, ...]:
        """Return the other steps, which make the rows that flow into the state."""
        state = [at for at, step in enumerate(self.steps) if step.kind == "state"]
        return tuple(step for step in self.steps[state[0] :] if step.kind == "other") if state else ()

    def started_json(self) -> str:
        """Return the content of STARTED_FILE, on one line; durations in seconds."""
        values = self._values()
        return json.dumps({name: values[name] for name in STARTED_FIELDS})

    def written_json(self) -> str:
        """Return the content of WRITTEN_FILE: everything."""
        return json.dumps(self._values())

    def _values(self) -> dict[str, Any]:
        reach = {edge: span.total_seconds() for edge, span in asdict(self.reach).items()}
        return asdict(self) | {"reach": reach}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the description in either file; what only a newer version knows is left out. Raises ValueError,
        KeyError, TypeError where the text is damaged."""
        kept: Mapping[str, Any] = json.loads(text)
        read: dict[str, Callable[[Any], Any]] = {
            "topics": tuple,
            "tables": lambda tables: tuple(map(RowSelector.from_fields, tables)),
            "reach": lambda spans: EventTimeSpan(**{edge: timedelta(seconds=at) for edge, at in spans.items()}),
            "keys": tuple,
            "sources": lambda sources: tuple(map(tuple, sources)),
            "steps": lambda steps: tuple(Step(**step) for step in steps),
            "windows": lambda windows: windows and tuple(map(tuple, windows)),
            "columns": lambda columns: tuple(map(tuple, columns)),
        }
        known = [name for name in (declared.name for declared in fields(cls)) if name in kept]
        return cls(**{name: read[name](kept[name]) if name in read else kept[name] for name in known})


def _steps(node: Any) -> Iterator[Step]:
    """Yield the nodes of a stream's plan, from the output down to decoding."""
    is_observed = str(node.nodeName()) == OBSERVED
    if not node.isStreaming() or (is_observed and str(node.name()).startswith(OF_DECODING)):
        return
    children = listed(node.children())
    if children and not is_observed:  # what is counted in passing changes no row
        yield _step(node)
    for child in children:
        yield from _steps(child)


def _step(node: Any) -> Step:
    name = str(node.nodeName())
    text = "; ".join(NUMBERED.sub("", _without_alias(expression)) for expression in listed(node.expressions()))
    if name == WATERMARK:
        return Step("watermark", name, f"{text}: {node.delay().toString()}")
    if is_stateful(node):
        return Step("state", name, text)
    if any(part in text for part in WINDOW_TEXTS):
        return Step("window", name, text)
    return Step("other", name, hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS])


def _without_alias(expression: Any) -> str:
    is_named = str(expression.nodeName()) == "Alias"
    return str(expression.child().toString() if is_named else expression.toString())


class DescriptionFiles:
    """The files that describe the query of `output` in the checkpoint `folder`."""

    def __init__(self, spark: SparkSession, folder: str, output: Output) -> None:
        self._spark, self._folder = spark, folder
        self._description = QueryDescription.of(output)
        self._has_written = False

    def write_started(self) -> None:
        """Say how the query is started, where that is not said yet."""
        text = self._description.started_json()
        if checkpoint.read(self._spark, f"{self._folder}/{STARTED_FILE}") != text:
            checkpoint.write(self._spark, f"{self._folder}/{STARTED_FILE}", text)

    def write_written(self) -> None:
        """Say how the query has written a batch; once for all batches of this run."""
        if not self._has_written:
            checkpoint.write(self._spark, f"{self._folder}/{WRITTEN_FILE}", self._description.written_json())
            self._has_written = True


def read_written(spark: SparkSession, folder: str) -> QueryDescription | None:
    """Return how the query has written its last batches; None where an older version ran, or the file is damaged."""
    try:
        return QueryDescription.from_json(checkpoint.read(spark, f"{folder}/{WRITTEN_FILE}") or "")
    except (ValueError, KeyError, TypeError):
        return None
