"""Computes parts of a stream's plan again over the records of one micro-batch.

A plan is Catalyst's, optimized as Spark optimizes the stream's: what a filter further up keeps from an operator is not
in the operator's input here either. The Kafka source is exchanged for a batch of the same offsets under the same
attributes, as Spark itself does with every micro-batch. The records' coordinates are led through, as far as they go.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.settings import Kafka, Source
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.offsets import Position
from jobs.connectors.spark_internals import PlanBuilder, analyzed_plan, attribute_id, listed, nodes
from jobs.pipeline.plan_analysis import is_stateful

COORDINATES = {"topic": "string", "partition": "int", "offset": "bigint"}
SOURCE = "StreamingRelationV2"
# These nodes matter to the stream alone: its watermark, its observed metrics.
LEFT_OUT = ("EventTimeWatermark", "CollectMetrics")
CLOCKS = ("CurrentTimestamp", "Now", "LocalTimestamp", "CurrentDate")


class RereadError(Exception):
    """The micro-batch cannot be computed again; the text says why."""


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
        self.plan = self._builder.optimized(self._at(analyzed, round(planned_at.timestamp() * 1000)))
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
        found = [child.coordinates for child in children if child.coordinates]
        plan = self._builder.with_children(node, [child.plan for child in children])
        if found:
            plan = self._led_through(name, plan, found[0])
        known = found[0] if found and _ids(found[0]) <= _ids(listed(plan.output())) else ()
        return Rebuilt(plan, known, has_records)

    def _led_through(self, name: str, plan: Any, coordinates: Sequence[Any]) -> Any:
        """Return `plan`, with the coordinates of its child in its output,
        if it is a node that says what it puts out."""
        missing = [each for each in coordinates if not _ids([each]) <= _ids(listed(plan.output()))]
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
        kinds = next([each.dataType() for each in child.coordinates] for child in children if child.coordinates)
        nulls = [self._builder.alias(self._builder.null(kind), "unknown") for kind in kinds]
        # Two children may have the same source: a union's attributes are its first child's, and must be of one meaning.
        ends = [[self._builder.alias(each, "known") for each in child.coordinates] or nulls for child in children]
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
        columns = {str(each.name()): each for each in listed(read.output())}
        renamed = [self._builder.alias(columns[str(each.name())], str(each.name()), each.exprId()) for each in output]
        places = {str(each.name()): each for each in output}
        return Rebuilt(self._builder.project(renamed, read), [places[name] for name in COORDINATES], True)

    def _at(self, plan: Any, milliseconds: int) -> Any:
        """Return `plan` with its clock at the micro-batch's time, as Spark puts it into each micro-batch."""
        if not self._builder.has_clock(plan):
            return plan
        name, children = str(plan.nodeName()), [self._at(child, milliseconds) for child in listed(plan.children())]
        plan = self._builder.with_children(plan, children)
        if name == "Project":
            columns = [self._stopped(each, milliseconds) for each in listed(plan.projectList())]
            return self._builder.project(columns, plan.child())
        if name == "Filter":
            return self._builder.filter(self._stopped(plan.condition(), milliseconds), plan.child())
        return plan

    def _stopped(self, expression: Any, milliseconds: int) -> Any:
        if not self._builder.has_clock(expression):
            return expression
        if str(expression.getClass().getSimpleName()) in CLOCKS:
            return self._builder.batch_time(milliseconds, expression.dataType())
        children = [self._stopped(child, milliseconds) for child in listed(expression.children())]
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
    if not (_is_of_topics(start) and _is_of_topics(end)):
        return None
    until = {topic: {int(number): offset for number, offset in ends.items()} for topic, ends in end.items()}
    # A partition that was added has been read from its first record.
    since = {topic: {n: start.get(topic, {}).get(str(n), 0) for n in ends} for topic, ends in until.items()}
    return source_sink.Subscription(partitions={topic: [*ends] for topic, ends in until.items()}), since, until


def _is_of_topics(offsets: Any) -> bool:
    return isinstance(offsets, dict) and all(isinstance(partitions, dict) for partitions in offsets.values())


def _ids(attributes: Iterable[Any]) -> set[int]:
    return {attribute_id(each) for each in attributes}
