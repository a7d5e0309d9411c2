"""Finds the rows of a micro-batch that came too late: what each stateful operator took in and the watermark dropped.

Spark drops a row at the first stateful operator that it meets, where the row's event time, or the end of the window
that it is grouped by, is not after the watermark of the batch before. So parts of the stream's plan are computed again
over the records of the micro-batch.

The plan is Catalyst's, optimized as Spark optimizes the stream's: what a filter further up keeps from an operator is
not in the operator's input here either. The Kafka source is exchanged for a batch of the same offsets under the same
attributes, as Spark itself does with every micro-batch. The records' coordinates are led through, as far as they go.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from conf.settings import Kafka, Source
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.offsets import Position
from jobs.connectors.spark_internals import PlanBuilder, analyzed_plan, attribute_id, listed, nodes
from jobs.pipeline.plan_analysis import SESSION_MARK, is_stateful

FOUND = "operator string, event_time timestamp, topic string, partition int, offset long, row string, dropped long"
EVENT_TIME = "spark.watermarkDelayMs"  # marks the event time among the attributes of a plan
# If a processor has an initial state, its second child is that state.
ONE_INPUT = ("TransformWithState", "TransformWithStateInPySpark", "FlatMapGroupsWithState")
BY_TIMEOUT = ("FlatMapGroupsWithState", "FlatMapGroupsInPandasWithState")
TASK = "task"  # the column of the partition in which a row is read
# They keep state, and drop nothing.
NEVER_LATE = ("GlobalLimit",)
COORDINATES = {"topic": "string", "partition": "int", "offset": "bigint"}
SOURCE = "StreamingRelationV2"
# These nodes matter to the stream alone: its watermark, its observed metrics.
LEFT_OUT = ("EventTimeWatermark", "CollectMetrics")
CLOCKS = ("CurrentTimestamp", "Now", "LocalTimestamp", "CurrentDate")


class RereadError(Exception):
    """The micro-batch cannot be computed again; the text says why."""


def dropped_rows(reread: "Reread", watermark_ms: int, complete: bool) -> DataFrame | None:
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
    of_inputs = [_late(reread, *taken_in, watermark_ms) for taken_in in _inputs(reread.plan, complete)]
    frames = [frame for frame in of_inputs if frame is not None]
    return reduce(DataFrame.unionByName, frames) if frames else None


def _inputs(plan: Any, complete: bool) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each stateful operator, a child of it, and the attribute of that child that says what is late."""
    for operator in nodes(plan):
        if not operator.isStreaming() or not is_stateful(operator) or _takes_all(operator, complete):
            continue
        children = listed(operator.children())
        for child in children[:1] if str(operator.nodeName()) in ONE_INPUT else children:
            event_time = _event_time(operator, child)
            if event_time is not None:
                yield operator, child, event_time


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


def _late(reread: "Reread", operator: Any, child: Any, event_time: Any, watermark_ms: int) -> DataFrame | None:
    frame = reread.input_of(child)
    if frame is None:
        return None
    output = _attributes(child.output())
    attributes = {attribute_id(attribute): attribute for attribute in output}
    # An attribute may be there twice, as keys are.
    columns = {attribute_id(attribute): f"c{number}" for number, attribute in enumerate(output)}
    at = F.col(columns[attribute_id(event_time)])
    is_window = str(event_time.dataType().typeName()) == "struct"
    time = (at["end"] if is_window else at).cast("timestamp")
    late = frame.where(F.unix_micros(time) <= watermark_ms * 1000).withColumn(TASK, F.spark_partition_id())
    named = [F.col(columns[id]).alias(str(attribute.name())) for id, attribute in attributes.items()]
    return late.select(
        F.lit(str(operator.nodeName())).alias("operator"),
        time.alias("event_time"),
        *COORDINATES,
        F.to_json(F.struct(*named)).alias("row"),
        _dropped(operator, columns).alias("dropped"),
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


@dataclass(frozen=True)
class Rebuilt:
    """A node of the stream's plan, rebuilt over a batch.

    Args:
        coordinates: its attributes topic, partition and offset; none where the plan has lost them.
        has_records: whether records of a source come through it.
    """

    plan: Any
    coordinates: Sequence[Any] = ()
    has_records: bool = False


class Reread:
    """Computes one micro-batch of the stream `frame` again.

    Args:
        offsets: of the micro-batch, as `checkpoint.batch_offsets` gives them.
        planned_at: what its clock shows.
    """

    def __init__(
        self,
        session: SparkSession,
        frame: DataFrame,
        kafka: Kafka,
        source: Source,
        offsets: Mapping[str, Any],
        planned_at: datetime,
    ) -> None:
        self._session, self._kafka, self._source = session, kafka, source
        self._builder, analyzed = PlanBuilder(session), analyzed_plan(frame)
        self._offsets = dict(zip(_sources(analyzed), _ranges(offsets), strict=False))
        self.plan = self._builder.optimized(self._with_clock(analyzed, round(planned_at.timestamp() * 1000)))
        """The stream's optimized plan."""

    def input_of(self, child: Any) -> DataFrame | None:
        """Return the rows that came out of the node `child` of the plan; None where no record can have come that way.

        Another stateful operator below gives nothing: what it lets through is not late.

        Returns:
            the columns of `child` as `c0`, `c1` ..., then the record's `topic` string, `partition` int, `offset` long:
            null where they are not known.

        Raises:
            RereadError: where a source is not Kafka's, or its offsets are not known.
        """
        built = self._rebuild(child)
        if not built.has_records:
            return None
        output = listed(child.output())
        frame = self._builder.frame(self._builder.project([*output, *built.coordinates], built.plan))
        names = [f"c{number}" for number in range(len(output))]
        if built.coordinates:
            return frame.toDF(*names, *COORDINATES)
        unknown = {name: F.lit(None).cast(kind) for name, kind in COORDINATES.items()}
        return frame.toDF(*names).withColumns(unknown)

    def _rebuild(self, node: Any) -> Rebuilt:
        name = str(node.nodeName())
        if not node.isStreaming():
            return Rebuilt(node)
        if is_stateful(node):
            return Rebuilt(self._builder.nothing(node.output()))
        if name == SOURCE:
            return self._records(node)
        children = [self._rebuild(child) for child in listed(node.children())]
        if not children:
            raise RereadError(f"its source {name} is not Kafka's")
        if name in LEFT_OUT:
            return children[0]
        has_records = any(child.has_records for child in children)
        if name == "Union":
            return self._union(node, children, has_records)
        coordinates = next((child.coordinates for child in children if child.coordinates), ())
        plan = self._builder.with_children(node, [child.plan for child in children])
        plan = self._with_coordinates(name, plan, coordinates)
        is_whole = _ids(coordinates) <= _ids(listed(plan.output()))
        return Rebuilt(plan, coordinates if is_whole else (), has_records)

    def _with_coordinates(self, name: str, plan: Any, coordinates: Sequence[Any]) -> Any:
        """Return `plan` with the coordinates of its child in its output, if it says what it puts out."""
        missing = [column for column in coordinates if attribute_id(column) not in _ids(listed(plan.output()))]
        if not missing:
            return plan
        if name == "Project":
            return self._builder.project([*listed(plan.projectList()), *missing], plan.child())
        if name == "Expand":
            rows = [[*listed(row), *missing] for row in listed(plan.projections())]
            return self._builder.expand(rows, [*listed(plan.output()), *missing], plan.child())
        return plan

    def _union(self, node: Any, children: Sequence[Rebuilt], has_records: bool) -> Rebuilt:
        """Rebuild a union, whose columns are matched by their place: the coordinates come last in every child."""
        if not any(child.coordinates for child in children):
            return Rebuilt(self._builder.with_children(node, [child.plan for child in children]), (), has_records)
        old = [listed(child.output()) for child in listed(node.children())]
        kinds = next([column.dataType() for column in child.coordinates] for child in children if child.coordinates)
        nulls = [self._builder.alias(self._builder.null(kind), "unknown") for kind in kinds]
        # Two children may have the same source: a union's attributes are its first child's, and must be of one meaning.
        ends = [[self._builder.alias(column, "known") for column in child.coordinates] or nulls for child in children]
        parts = zip(old, ends, children, strict=True)
        plans = [self._builder.project([*output, *end], child.plan) for output, end, child in parts]
        union = self._builder.with_children(node, plans)
        return Rebuilt(union, listed(union.output())[-len(COORDINATES) :], has_records)

    def _records(self, leaf: Any) -> Rebuilt:
        output = listed(leaf.output())
        at = self._offsets.get(attribute_id(output[0]))
        if at is None:
            raise RereadError("the offsets of its source are not known")
        batch = source_sink.read_batch(self._session, self._kafka, self._source, *at)
        read = analyzed_plan(batch)
        columns = {str(column.name()): column for column in listed(read.output())}
        named = {str(column.name()): column for column in output}
        renamed = [self._builder.alias(columns[name], name, column.exprId()) for name, column in named.items()]
        return Rebuilt(self._builder.project(renamed, read), [named[name] for name in COORDINATES], True)

    def _with_clock(self, plan: Any, milliseconds: int) -> Any:
        """Return `plan` with its clock at the micro-batch's time, as Spark puts it into each micro-batch."""
        if not self._builder.has_clock(plan):
            return plan
        name, children = (
            str(plan.nodeName()),
            [self._with_clock(child, milliseconds) for child in listed(plan.children())],
        )
        plan = self._builder.with_children(plan, children)
        if name == "Project":
            columns = [self._with_batch_time(column, milliseconds) for column in listed(plan.projectList())]
            return self._builder.project(columns, plan.child())
        if name == "Filter":
            return self._builder.filter(self._with_batch_time(plan.condition(), milliseconds), plan.child())
        return plan

    def _with_batch_time(self, expression: Any, milliseconds: int) -> Any:
        if not self._builder.has_clock(expression):
            return expression
        if str(expression.getClass().getSimpleName()) in CLOCKS:
            return self._builder.batch_time(milliseconds, expression.dataType())
        children = [self._with_batch_time(child, milliseconds) for child in listed(expression.children())]
        return self._builder.with_children(expression, children)


def _sources(analyzed: Any) -> Iterable[int]:
    """Name each source of a stream's plan, in the order of its offsets: one that is read twice is one source."""
    leaves = (node for node in nodes(analyzed) if node.isStreaming() and node.children().isEmpty())
    return dict.fromkeys(attribute_id(leaf.output().head()) for leaf in leaves)


def _ranges(offsets: Mapping[str, Any]) -> list[tuple[source_sink.Subscription, Position, Position] | None]:
    """Return the partitions of each source to read again, from where to before where; None where that is unknown."""
    until = offsets["until"] or []
    return [_range(*edges) for edges in zip(offsets["from"] or [None] * len(until), until, strict=False)]


def _range(start: Any, end: Any) -> tuple[source_sink.Subscription, Position, Position] | None:
    for offsets in (start, end):
        if not (isinstance(offsets, dict) and all(isinstance(partitions, dict) for partitions in offsets.values())):
            return None
    until = {topic: {int(number): offset for number, offset in ends.items()} for topic, ends in end.items()}
    # A partition that was added has been read from its first record.
    since = {topic: {n: start.get(topic, {}).get(str(n), 0) for n in ends} for topic, ends in until.items()}
    return source_sink.Subscription(partitions={topic: [*ends] for topic, ends in until.items()}), since, until


def _ids(attributes: Iterable[Any]) -> set[int]:
    return {attribute_id(attribute) for attribute in attributes}
