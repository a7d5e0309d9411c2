"""Reads a query's plan: does it give the same rows when run again? keep state? from which sources, by which steps?"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame

from jobs.connectors.delta.commit import Repeats
from jobs.connectors.spark_internals import (
    analyzed_plan,
    attribute_id,
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
    """Return whether a batch of `frame` may hold two rows of one key, and if so,
    whether they come in their records' order."""
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
    """Return the attributes (ids) that named `expressions` with ids in `keys` stand for;
    a window's start is the window."""
    attributes = set()
    for expression in listed(expressions):
        if attribute_id(expression) not in keys:
            continue
        made = expression.child() if str(expression.nodeName()) == "Alias" else expression
        if str(made.nodeName()) == "GetStructField" and str(made.extractFieldName()) == "start":
            made = made.child() if _is_window(made.child()) else made
        if _is_attribute(made):
            attributes.add(attribute_id(made))
    return attributes


def _is_window(expression: Any) -> bool:
    return _is_attribute(expression) and any(
        expression.metadata().contains(mark) for mark in (WINDOW_MARK, SESSION_MARK)
    )


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
    """A source of a stream: a `topic` of Kafka, or the Delta table at `path`."""

    topic: str = ""
    path: str = ""


def sources(frame: DataFrame) -> list[Source]:
    """Return the sources of the stream, in the order in which Spark numbers them in a checkpoint."""
    return [_source(leaf) for leaf in source_leaves(frame)]


def source_leaves(frame: DataFrame) -> list[Any]:
    """Return the nodes of the plan that the sources are, in the same order."""
    leaves: list[Any] = []
    for node in nodes(analyzed_plan(frame)):
        # A frame that is used twice is one source.
        if node.isStreaming() and node.children().isEmpty() and not any(node.equals(leaf) for leaf in leaves):
            leaves.append(node)
    return leaves


def source_topics(frame: DataFrame) -> tuple[tuple[str, ...], ...]:
    """Return the topics of each source, in the same order; the source's name where it is none of Kafka's."""
    return tuple(_topics(leaf) for leaf in source_leaves(frame))


def _topics(leaf: Any) -> tuple[str, ...]:
    name = str(leaf.nodeName())
    subscribed = leaf.extraOptions().get("subscribe") if name == "StreamingRelationV2" else None
    return tuple(sorted(str(subscribed).split(","))) if subscribed else (name,)


def _source(node: Any) -> Source:
    if str(node.nodeName()) == "StreamingRelationV2":
        options = node.extraOptions()
        return Source(str(options.get("subscribe") or ""), str(options.get("path") or ""))
    if str(node.nodeName()) != "StreamingRelation":
        return Source()
    path = node.dataSource().options().get("path")
    return Source(path=str(path.get()) if path.isDefined() else "")


# What `Sources.decode` puts above decoding, whose expressions each schema version changes.
OBSERVED, OF_DECODING = "CollectMetrics", "decode "
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


def steps(frame: DataFrame) -> tuple[Step, ...]:
    """Return the nodes of a stream's plan, from the output down to decoding."""
    return tuple(_steps(analyzed_plan(frame)))


def _steps(node: Any) -> Iterator[Step]:
    if not node.isStreaming() or _is_decoding(node):
        return
    children = listed(node.children())
    if children and str(node.nodeName()) != OBSERVED:  # what is counted in passing changes no row
        yield _step(node)
    for child in children:
        yield from _steps(child)


def _is_decoding(node: Any) -> bool:
    return str(node.nodeName()) == OBSERVED and str(node.name()).startswith(OF_DECODING)


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
