"""Finds the rows of a micro-batch that came too late: what each stateful operator took in and the watermark dropped.

Spark drops a row at the first stateful operator that it meets, where the row's event time, or the end of the window
that it is grouped by, is not after the watermark of the batch before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.connectors.spark_internals import attribute_id, listed, nodes
from jobs.pipeline.late_rows.reread import COORDINATES, Reread
from jobs.pipeline.plan_analysis import SESSION_MARK, is_stateful

FOUND = "operator string, event_time timestamp, topic string, partition int, offset long, row string, dropped long"
EVENT_TIME = "spark.watermarkDelayMs"  # marks the event time among the attributes of a plan
# If a processor has an initial state, its second child is that state.
ONE_INPUT = ("TransformWithState", "TransformWithStateInPySpark", "FlatMapGroupsWithState")
BY_TIMEOUT = ("FlatMapGroupsWithState", "FlatMapGroupsInPandasWithState")
TASK = "task"  # the column of the partition in which a row is read
# They keep state, and drop nothing.
NEVER_LATE = ("GlobalLimit",)


@dataclass(frozen=True)
class _Input:
    """A child of a stateful operator, with the attribute that says what is late."""

    operator: Any
    child: Any
    event_time: Any


def late_rows(reread: Reread, watermark_ms: int, complete: bool) -> DataFrame | None:
    """Return the rows that were dropped; None where no operator of the plan drops any.

    Args:
        watermark_ms: of the batch before, in milliseconds since 1970.
        complete: whether the output mode is complete, in which aggregates drop nothing.

    Returns:
        `operator` string (Spark's name), `event_time` timestamp (what was compared with the watermark), `topic` string,
        `partition` int, `offset` long, `row` string (the operator's input, as JSON), `dropped` long: how many Spark's
        own count has for this row: 1, but for an aggregate Spark counts dropped groups, not rows: the first row of a
        group has 1, its others 0.

    Raises:
        RereadError: where a source cannot be read again.
    """
    of_inputs = [_late(reread, taken_in, watermark_ms) for taken_in in _inputs(reread.plan, complete)]
    frames = [frame for frame in of_inputs if frame is not None]
    return reduce(DataFrame.unionByName, frames) if frames else None


def _inputs(plan: Any, complete: bool) -> Iterator[_Input]:
    for operator in nodes(plan):
        if not operator.isStreaming() or not is_stateful(operator) or _takes_all(operator, complete):
            continue
        children = listed(operator.children())
        for child in children[:1] if str(operator.nodeName()) in ONE_INPUT else children:
            event_time = _event_time(operator, child)
            if event_time is not None:
                yield _Input(operator, child, event_time)


def _takes_all(operator: Any, complete: bool) -> bool:
    name = str(operator.nodeName())
    if name in BY_TIMEOUT:
        return str(operator.timeout()) != "EventTimeTimeout"
    return name in NEVER_LATE or (complete and name == "Aggregate")


def _event_time(operator: Any, child: Any) -> Any:
    """Return the attribute that the operator compares with the watermark; None where it compares none."""
    is_aggregate = str(operator.nodeName()) == "Aggregate"
    attributes = operator.groupingExpressions() if is_aggregate else child.output()
    return next((attribute for attribute in _attributes(attributes) if attribute.metadata().contains(EVENT_TIME)), None)


def _attributes(expressions: Any) -> list[Any]:
    kinds = ((expression, str(expression.getClass().getSimpleName())) for expression in listed(expressions))
    return [expression for expression, kind in kinds if kind == "AttributeReference"]


def _late(reread: Reread, of: _Input, watermark_ms: int) -> DataFrame | None:
    frame = reread.input_of(of.child)
    if frame is None:
        return None
    output = _attributes(of.child.output())
    attributes = {attribute_id(attribute): attribute for attribute in output}
    # An attribute may be there twice, as keys are.
    columns = {attribute_id(attribute): f"c{number}" for number, attribute in enumerate(output)}
    at = F.col(columns[attribute_id(of.event_time)])
    is_window = str(of.event_time.dataType().typeName()) == "struct"
    event_time = (at["end"] if is_window else at).cast("timestamp")
    late = frame.where(F.unix_micros(event_time) <= watermark_ms * 1000).withColumn(TASK, F.spark_partition_id())
    named = [F.col(columns[id]).alias(str(attribute.name())) for id, attribute in attributes.items()]
    return late.select(
        F.lit(str(of.operator.nodeName())).alias("operator"),
        event_time.alias("event_time"),
        *COORDINATES,
        F.to_json(F.struct(*named)).alias("row"),
        _dropped(of.operator, columns).alias("dropped"),
    )


def _dropped(operator: Any, columns: dict[int, str]) -> Column:
    """Return 1 for a row that Spark counts, 0 for one that it counts with another."""
    if str(operator.nodeName()) != "Aggregate":
        return F.lit(1).cast("long")
    grouped_by = _attributes(operator.groupingExpressions())
    keys = [F.col(columns[attribute_id(attribute)]) for attribute in grouped_by]
    # Windows are merged over all partitions before they meet the state, sessions only within each.
    within = [F.col(TASK)] if any(attribute.metadata().contains(SESSION_MARK) for attribute in grouped_by) else []
    place = F.row_number().over(Window.partitionBy(*within, *keys).orderBy(*COORDINATES))
    return (place == 1).cast("long")
