"""Reads a query's plan: does it give the same rows when run again? keep state? from which sources, in which windows?"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from pyspark.sql import DataFrame

from jobs.connectors.delta.commit import Repeats
from jobs.connectors.spark_internals import (
    analyzed_plan,
    attribute_id,
    interval_parts,
    is_optimization_barrier,
    listed,
    nodes,
)
from jobs.pipeline.pii import PADS

# Spark counts these as deterministic; what they give depends on the order in which rows come. A sorted list does not.
BY_ORDER = re.compile(
    r"(?<!sort_array\()(?<!array_sort\()\b"
    r"(first|last|first_value|last_value|any_value|collect_list|collect_set|listagg)\("
)
# They give the rows that they take in, or some of them.
PASSING = ("Filter", "SubqueryAlias", "EventTimeWatermark", "CollectMetrics", "ResolvedHint")
WATERMARK = "EventTimeWatermark"
WINDOW_MARK, SESSION_MARK = "spark.timeWindow", "spark.sessionWindow"
UNKNOWN_LENGTH = timedelta(days=1)  # of a session, or of what a processor of the job's own waits for
OPEN_ENDED = ("FlatMapGroupsWithState", "FlatMapGroupsInPandasWithState", "TransformWithState")
STATEFUL = {
    "Aggregate",
    "Deduplicate",
    "DeduplicateWithinWatermark",
    "Distinct",
    "GlobalLimit",
    "FlatMapGroupsWithState",
    "FlatMapGroupsInPandasWithState",
    "TransformWithState",
    "TransformWithStateInPySpark",
}


def changes_when_run_again(frame: DataFrame) -> str | None:
    """Name what in the plan of a stream (a micro-batch hides it) may differ between two runs; None for nothing.

    Python functions cannot be looked into: they count as what they were declared to be.
    """
    for node in nodes(analyzed_plan(frame)):
        expressions = str(node.expressions().mkString(", "))
        name = str(node.nodeName())
        for number in range(node.expressions().size()):
            expression = node.expressions().apply(number)
            if _is_random(expression):
                return f"{name}: {expression.sql()}"
        by_order = BY_ORDER.search(expressions) if name == "Aggregate" else None
        if by_order:
            return f"{name}: {by_order[1]}() takes rows in the order in which they come"
        if name == "GlobalLimit" and str(node.children().head().nodeName()) != "Sort":
            return f"{name}: which rows are within the limit is left open"
    return None


def _is_random(expression: Any) -> bool:
    if expression.deterministic() or is_optimization_barrier(expression):
        return False
    children = [expression.children().apply(number) for number in range(expression.children().size())]
    suspects = [child for child in children if not child.deterministic()]
    return not suspects or any(_is_random(child) for child in suspects)


def keeps_state(frame: DataFrame) -> bool:
    """Return whether the stream keeps state in its checkpoint."""
    return any(is_stateful(node) for node in nodes(analyzed_plan(frame)) if node.isStreaming())


def drops_late_rows(frame: DataFrame) -> bool:
    """Return whether the stream has a watermark, and state that rows come too late for."""
    names = {str(node.nodeName()) for node in nodes(analyzed_plan(frame)) if node.isStreaming()}
    return WATERMARK in names and keeps_state(frame)


def repeats(frame: DataFrame, keys: Sequence[str]) -> Repeats:
    """Return whether a batch may hold two rows of one key, and if so, whether they come in their records' order."""
    plan, lower_keys = analyzed_plan(frame), {key.lower() for key in keys}
    attributes = listed(plan.output())
    if _is_one_a_key(
        plan, {attribute_id(attribute) for attribute in attributes if str(attribute.name()).lower() in lower_keys}
    ):
        return "none"
    return "last" if _keeps_order(plan) else "stop"


def _is_one_a_key(node: Any, keys: set[int]) -> bool:
    """Return whether no two rows of `node` have the same in the attributes `keys` (ids)."""
    name = str(node.nodeName())
    if name == "Aggregate":
        below = _below(node.aggregateExpressions(), keys)
        return all(
            _is_attribute(attribute) and attribute_id(attribute) in below
            for attribute in listed(node.groupingExpressions())
        )
    if name in ("Deduplicate", "DeduplicateWithinWatermark"):
        return {attribute_id(attribute) for attribute in listed(node.keys())} <= keys
    if name == "Project":
        return _is_one_a_key(node.child(), _below(node.projectList(), keys))
    return name in PASSING and _is_one_a_key(node.children().head(), keys)


def _below(expressions: Any, keys: set[int]) -> set[int]:
    """Return the ids of what `expressions` with ids in `keys` stand for; a window's start is the window."""
    attributes = set()
    for expression in listed(expressions):
        if attribute_id(expression) not in keys:
            continue
        made = expression.child() if str(expression.nodeName()) == "Alias" else expression
        if str(made.nodeName()) == "GetStructField" and str(made.extractFieldName()) == "start":
            struct = made.child()
            is_window = _is_attribute(struct) and any(map(struct.metadata().contains, (WINDOW_MARK, SESSION_MARK)))
            made = struct if is_window else made
        if _is_attribute(made):
            attributes.add(attribute_id(made))
    return attributes


def _is_attribute(expression: Any) -> bool:
    return str(expression.nodeName()) == "AttributeReference"


def _keeps_order(node: Any) -> bool:
    """Return whether the rows of `node` come in the order of the records of one topic, partition by partition."""
    name, children = str(node.nodeName()), listed(node.children())
    if name == "Join":
        # What hashes personal data is one row, beside every event.
        hashing = [str(attribute.name()) for attribute in listed(children[1].output())]
        return hashing == [part.split()[0] for part in PADS.split(", ")] and _keeps_order(children[0])
    if children:
        return name in ("Project", "Generate", *PASSING) and _keeps_order(children[0])
    of_kafka = str(node.sourceName()) if name == "StreamingRelationV2" else str(node.toString())
    return of_kafka == "kafka" or "KafkaRelation" in of_kafka


def is_stateful(node: Any) -> bool:
    """Return whether a node of a stream's plan, analyzed or optimized, keeps state."""
    children = node.children()
    if str(node.nodeName()) == "Join":
        return all(children.apply(number).isStreaming() for number in range(children.size()))
    return str(node.nodeName()) in STATEFUL


@dataclass(frozen=True)
class Source:
    """A source of a stream: a `topic` of Kafka (several, with commas between them), or the Delta table at `path`;
    `node`: the name of its node in the plan."""

    topic: str = ""
    path: str = ""
    node: str = field(default="", compare=False)

    @property
    def topics(self) -> tuple[str, ...]:
        """Return its topics; of one that is none of Kafka's, the name of its node."""
        return tuple(sorted(self.topic.split(","))) if self.topic else (self.node,)


def sources(frame: DataFrame) -> list[Source]:
    """Return the sources of the stream, in the order in which Spark numbers them in a checkpoint."""
    leaves: list[Any] = []
    for node in nodes(analyzed_plan(frame)):
        # A frame that is used twice is one source.
        if node.isStreaming() and node.children().isEmpty() and not any(node.equals(leaf) for leaf in leaves):
            leaves.append(node)
    return [_source(leaf) for leaf in leaves]


def topics_read(frame: DataFrame) -> list[str]:
    """Return the topics of the stream, as often as there are sources that read them."""
    return [topic for source in sources(frame) if source.topic for topic in source.topics]


def _source(node: Any) -> Source:
    name = str(node.nodeName())
    if name == "StreamingRelationV2":
        options = node.extraOptions()
        return Source(str(options.get("subscribe") or ""), str(options.get("path") or ""), name)
    path = node.dataSource().options().get("path") if name == "StreamingRelation" else None
    return Source(path=str(path.get()) if path is not None and path.isDefined() else "", node=name)


@dataclass(frozen=True)
class TimeWindow:
    """A window of event time that a node of the plan puts rows into; a session has UNKNOWN_LENGTH."""

    length: timedelta
    slide: timedelta


@dataclass(frozen=True)
class EventTimeSpan:
    """How far the event times of a query's rows are from those of the events that the rows are made of.

    Args:
        back: a row's event time may be this much earlier than that of an event it is made of: a window's start.
        ahead: or this much later: a join's other side.
        context: a row is whole once all events this much before and after its event time are read.
    """

    back: timedelta = timedelta(0)
    ahead: timedelta = timedelta(0)
    context: timedelta = timedelta(0)


def event_time_span(frame: DataFrame) -> EventTimeSpan:
    """Return the span of the stream `frame`, from its windows, its lateness and its joins; zero without a watermark."""
    windows = lateness = timedelta(0)
    joined = False
    for node in nodes(analyzed_plan(frame)):
        name = str(node.nodeName())
        if name == WATERMARK:
            months, days, microseconds = interval_parts(node.delay())
            lateness += timedelta(days=days + 31 * months, microseconds=microseconds)
        elif name.startswith(OPEN_ENDED):
            windows += UNKNOWN_LENGTH
        windows += max((window.length for window in _windows_of(node)), default=timedelta(0))
        joined = joined or (name == "Join" and is_stateful(node))
    return EventTimeSpan(windows, lateness if joined else timedelta(0), windows + lateness)


def time_windows(frame: DataFrame) -> tuple[TimeWindow, ...]:
    """Return the windows that a stream's rows are put into, the last of the plan first."""
    return tuple(window for node in nodes(analyzed_plan(frame)) for window in _windows_of(node))


def _windows_of(node: Any) -> Iterator[TimeWindow]:
    """Yield the windows that a node makes: columns with a mark of Spark's, and a struct of start and end."""
    if str(node.nodeName()) == "Project":
        aliases = [named for named in listed(node.projectList()) if str(named.nodeName()) == "Alias"]
        columns = [(alias, alias.child()) for alias in aliases]
    elif str(node.nodeName()) == "Expand":
        columns = list(zip(listed(node.output()), listed(node.projections().head()), strict=True))
    else:
        return
    for named, value in columns:
        is_struct = str(value.nodeName()) == "CreateNamedStruct"
        if is_struct and named.metadata().contains(SESSION_MARK):
            yield TimeWindow(UNKNOWN_LENGTH, UNKNOWN_LENGTH)
        elif is_struct and named.metadata().contains(WINDOW_MARK):
            yield _time_window(value)


def _time_window(struct: Any) -> TimeWindow:
    """Return the window that the analyzer has replaced by its arithmetic, on microseconds.

    The end is `start + length`; the start is `(time - CASE ... ELSE (time - offset) % slide END) - number * slide`.
    """
    start, end = listed(struct.valExprs())
    length = _first_of_kind(end, "Add").right().value()
    slide = _first_of_kind(start, "Subtract").left().right().elseValue().get().right().value()
    return TimeWindow(timedelta(microseconds=int(length)), timedelta(microseconds=int(slide)))


def _first_of_kind(expression: Any, kind: str) -> Any:
    """Return the nearest expression of that kind on the way down the first children."""
    while str(expression.nodeName()) != kind:
        expression = expression.children().head()
    return expression
