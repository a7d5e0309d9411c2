"""What a query's plan says of itself: is a micro-batch the same when it is computed again, and does it keep state?"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame

from jobs.connectors.fence import is_fence

# Spark counts these as deterministic; what they give depends on the order in which rows come. A sorted list does not.
BY_ORDER = re.compile(
    r"(?<!sort_array\()(?<!array_sort\()\b"
    r"(first|last|first_value|last_value|any_value|collect_list|collect_set|listagg)\("
)
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
    """What in the plan of a stream (a micro-batch hides it) may differ between two runs; None for nothing.

    Python functions cannot be looked into: they count as what they were declared to be.
    """
    for node in nodes(analyzed(frame)):
        expressions = str(node.expressions().mkString(", "))
        name = str(node.nodeName())
        for number in range(node.expressions().size()):
            expression = node.expressions().apply(number)
            if _is_random(expression):
                return f"{name}: {expression.sql()}"
        found = BY_ORDER.search(expressions) if name == "Aggregate" else None
        if found:
            return f"{name}: {found[1]}() takes rows in the order in which they come"
        if name == "GlobalLimit" and str(node.children().head().nodeName()) != "Sort":
            return f"{name}: which rows are within the limit is left open"
    return None


def _is_random(expression: Any) -> bool:
    if expression.deterministic() or is_fence(expression):
        return False
    children = [expression.children().apply(number) for number in range(expression.children().size())]
    suspects = [child for child in children if not child.deterministic()]
    return not suspects or any(_is_random(child) for child in suspects)


def keeps_state(frame: DataFrame) -> bool:
    """Whether the stream keeps state in its checkpoint."""
    return any(is_stateful(node) for node in nodes(analyzed(frame)) if node.isStreaming())


def drops_late_rows(frame: DataFrame) -> bool:
    """Whether the stream has a watermark, and state that rows come too late for."""
    names = {str(node.nodeName()) for node in nodes(analyzed(frame)) if node.isStreaming()}
    return "EventTimeWatermark" in names and keeps_state(frame)


def is_stateful(node: Any) -> bool:
    """Whether a node of a stream's plan, analyzed or optimized, keeps state."""
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
    """The sources of the stream, in the order in which Spark numbers them in a checkpoint."""
    return [_source(leaf) for leaf in source_leaves(frame)]


def source_leaves(frame: DataFrame) -> list[Any]:
    """The nodes of the plan that the sources are, in the same order."""
    leaves: list[Any] = []
    for node in nodes(analyzed(frame)):
        # A frame that is used twice is one source.
        if node.isStreaming() and node.children().isEmpty() and not any(node.equals(leaf) for leaf in leaves):
            leaves.append(node)
    return leaves


def _source(node: Any) -> Source:
    if str(node.nodeName()) == "StreamingRelationV2":
        options = node.extraOptions()
        return Source(str(options.get("subscribe") or ""), str(options.get("path") or ""))
    if str(node.nodeName()) != "StreamingRelation":
        return Source()
    path = node.dataSource().options().get("path")
    return Source(path=str(path.get()) if path.isDefined() else "")


def analyzed(frame: DataFrame) -> Any:
    """The analyzed plan of `frame`."""
    return frame._jdf.queryExecution().analyzed()


def nodes(plan: Any) -> Iterator[Any]:
    """The nodes of a plan, each before what it takes in, from left to right, as Spark numbers them."""
    yield plan
    children = plan.children()
    for number in range(children.size()):
        yield from nodes(children.apply(number))
