"""What a query's plan says of itself: is a micro-batch the same when it is computed again, and does it keep state?"""

import re
from collections.abc import Iterator
from typing import Any

from pyspark.sql import DataFrame

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
    for node in _nodes(frame._jdf.queryExecution().analyzed()):
        expressions = str(node.expressions().mkString(", "))
        name = str(node.nodeName())
        for number in range(node.expressions().size()):
            expression = node.expressions().apply(number)
            if not expression.deterministic():
                return f"{name}: {expression.sql()}"
        found = BY_ORDER.search(expressions) if name == "Aggregate" else None
        if found:
            return f"{name}: {found[1]}() takes rows in the order in which they come"
        if name == "GlobalLimit" and str(node.children().head().nodeName()) != "Sort":
            return f"{name}: which rows are within the limit is left open"
    return None


def keeps_state(frame: DataFrame) -> bool:
    """Whether the stream keeps state in its checkpoint."""
    return any(is_stateful(node) for node in _nodes(frame._jdf.queryExecution().analyzed()) if node.isStreaming())


def is_stateful(node: Any) -> bool:
    """Whether a node of a stream's logical plan is an operator that keeps state."""
    children = node.children()
    if str(node.nodeName()) == "Join":
        return all(children.apply(number).isStreaming() for number in range(children.size()))
    return str(node.nodeName()) in STATEFUL


def _nodes(plan: Any) -> Iterator[Any]:
    yield plan
    children = plan.children()
    for number in range(children.size()):
        yield from _nodes(children.apply(number))
