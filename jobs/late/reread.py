"""Parts of a stream's plan, computed again over the records of one micro-batch.

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
from jobs.connectors import kafka
from jobs.connectors.positions import Position
from jobs.plans import is_stateful, nodes

COORDINATES = {"topic": "string", "partition": "int", "offset": "bigint"}
SOURCE = "StreamingRelationV2"
# They bear on the stream alone: its watermark, its observed metrics.
LEFT_OUT = ("EventTimeWatermark", "CollectMetrics")
CLOCKS = ("CurrentTimestamp", "Now", "LocalTimestamp", "CurrentDate")


class RereadError(Exception):
    """The micro-batch cannot be computed again; the text says why."""


@dataclass(frozen=True)
class Rebuilt:
    """A node over a batch.

    Args:
        coordinates: its attributes topic, partition and offset; none where the plan has lost them.
        has_records: whether records of a source come through it.
    """

    plan: Any
    coordinates: Sequence[Any] = ()
    has_records: bool = False


class Reread:
    """One micro-batch of the stream `frame`.

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
        jvm: Any = session._jvm
        self._jvm, self._catalyst = jvm, jvm.org.apache.spark.sql.catalyst
        analyzed = frame._jdf.queryExecution().analyzed()
        self._offsets = dict(zip(_sources(analyzed), _ranges(offsets), strict=False))
        state: Any = session._jsparkSession.sessionState()
        self.plan = state.optimizer().execute(self._at(analyzed, round(planned_at.timestamp() * 1000)))
        """The stream's optimized plan."""

    def input_of(self, child: Any) -> DataFrame | None:
        """The rows that came out of the node `child` of the plan; None where no record can have come that way.

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
        output = _listed(child.output())
        plan = self._project([*output, *built.coordinates], built.plan)
        # Static: `session` is a classic one.
        jdf = self._jvm.org.apache.spark.sql.classic.Dataset.ofRows(self._session._jsparkSession, plan)
        names = [f"c{number}" for number in range(len(output))]
        frame = DataFrame(jdf, self._session)
        if built.coordinates:
            return frame.toDF(*names, *COORDINATES)
        unknown = {name: F.lit(None).cast(kind) for name, kind in COORDINATES.items()}
        return frame.toDF(*names).withColumns(unknown)

    def _rebuild(self, node: Any) -> Rebuilt:
        name = str(node.nodeName())
        if not node.isStreaming():
            return Rebuilt(node)
        if is_stateful(node):
            return Rebuilt(self._nothing(node.output()))
        if name == SOURCE:
            return self._records(node)
        children = [self._rebuild(child) for child in _listed(node.children())]
        if not children:
            raise RereadError(f"its source {name} is not Kafka's")
        if name in LEFT_OUT:
            return children[0]
        has_records = any(child.has_records for child in children)
        if name == "Union":
            return self._union(node, children, has_records)
        found = [child.coordinates for child in children if child.coordinates]
        plan = node.withNewChildren(self._seq([child.plan for child in children]))
        if found:
            plan = self._led_through(name, plan, found[0])
        known = found[0] if found and _ids(found[0]) <= _ids(_listed(plan.output())) else ()
        return Rebuilt(plan, known, has_records)

    def _led_through(self, name: str, plan: Any, coordinates: Sequence[Any]) -> Any:
        """`plan`, with the coordinates of its child in its output, if it is a node that says what it puts out."""
        missing = [each for each in coordinates if not _ids([each]) <= _ids(_listed(plan.output()))]
        if name == "Project":
            return self._project([*_listed(plan.projectList()), *missing], plan.child())
        if name == "Expand":
            rows = [self._seq([*_listed(row), *missing]) for row in _listed(plan.projections())]
            output = self._seq([*_listed(plan.output()), *missing])
            return self._catalyst.plans.logical.Expand(self._seq(rows), output, plan.child())
        return plan

    def _union(self, node: Any, children: Sequence[Rebuilt], has_records: bool) -> Rebuilt:
        """Columns of a union are matched by their place: the coordinates come last, of every child."""
        if not any(child.coordinates for child in children):
            return Rebuilt(node.withNewChildren(self._seq([child.plan for child in children])), (), has_records)
        old = [_listed(child.output()) for child in _listed(node.children())]
        kinds = next([each.dataType() for each in child.coordinates] for child in children if child.coordinates)
        nulls = [self._alias(self._catalyst.expressions.Literal(None, kind), "unknown") for kind in kinds]
        # Two children may have the same source: a union's attributes are its first child's, and must be of one meaning.
        ends = [[self._alias(each, "known") for each in child.coordinates] or nulls for child in children]
        parts = zip(old, ends, children, strict=True)
        plans = [self._project([*output, *end], child.plan) for output, end, child in parts]
        union = node.withNewChildren(self._seq(plans))
        return Rebuilt(union, _listed(union.output())[-len(COORDINATES) :], has_records)

    def _records(self, leaf: Any) -> Rebuilt:
        output = _listed(leaf.output())
        at = self._offsets.get(_id(output[0]))
        if at is None:
            raise RereadError("the offsets of its source are not known")
        batch = kafka.read_batch(self._session, self._kafka, self._source, *at)
        read: Any = batch._jdf.queryExecution().analyzed()
        columns = {str(each.name()): each for each in _listed(read.output())}
        renamed = [self._alias(columns[str(each.name())], str(each.name()), each.exprId()) for each in output]
        places = {str(each.name()): each for each in output}
        return Rebuilt(self._project(renamed, read), [places[name] for name in COORDINATES], True)

    def _nothing(self, output: Any) -> Any:
        return self._catalyst.plans.logical.LocalRelation(output, self._seq([]), False, self._none())

    def _project(self, columns: Sequence[Any], child: Any) -> Any:
        return self._catalyst.plans.logical.Project(self._seq(columns), child)

    def _alias(self, expression: Any, name: str, id: Any = None) -> Any:
        expressions = self._catalyst.expressions
        id = id or expressions.NamedExpression.newExprId()
        return expressions.Alias(expression, name, id, self._seq([]), self._none(), self._seq([]))

    def _at(self, plan: Any, milliseconds: int) -> Any:
        """`plan`, where the clock stands at the micro-batch's time: Spark puts it into each micro-batch so."""
        if not plan.containsPattern(self._clock_pattern()):
            return plan
        logical, name = self._catalyst.plans.logical, str(plan.nodeName())
        plan = plan.withNewChildren(self._seq([self._at(child, milliseconds) for child in _listed(plan.children())]))
        if name == "Project":
            columns = [self._stopped(each, milliseconds) for each in _listed(plan.projectList())]
            return logical.Project(self._seq(columns), plan.child())
        if name == "Filter":
            return logical.Filter(self._stopped(plan.condition(), milliseconds), plan.child())
        return plan

    def _stopped(self, expression: Any, milliseconds: int) -> Any:
        if not expression.containsPattern(self._clock_pattern()):
            return expression
        if str(expression.getClass().getSimpleName()) in CLOCKS:
            zone = self._jvm.scala.Option.apply(self._session.conf.get("spark.sql.session.timeZone"))
            shown = self._catalyst.expressions.CurrentBatchTimestamp(milliseconds, expression.dataType(), zone)
            return shown.toLiteral()
        children = [self._stopped(child, milliseconds) for child in _listed(expression.children())]
        return expression.withNewChildren(self._seq(children))

    def _clock_pattern(self) -> Any:
        return self._catalyst.trees.TreePattern.CURRENT_LIKE()

    def _seq(self, items: Sequence[Any]) -> Any:
        return self._jvm.PythonUtils.toSeq(list(items))

    def _none(self) -> Any:
        return self._jvm.scala.Option.empty()


def _sources(analyzed: Any) -> Iterable[int]:
    """What names each source of a stream's plan, in the order of its offsets: one that is read twice is one source."""
    leaves = (node for node in nodes(analyzed) if node.isStreaming() and node.children().isEmpty())
    return dict.fromkeys(_id(leaf.output().head()) for leaf in leaves)


def _ranges(offsets: Mapping[str, Any]) -> list[tuple[kafka.Subscription, Position, Position] | None]:
    """What is read again of each source: which partitions, from where, to before where; None where that is unknown."""
    until = offsets["until"] or []
    return [_range(*edges) for edges in zip(offsets["from"] or [None] * len(until), until, strict=False)]


def _range(start: Any, end: Any) -> tuple[kafka.Subscription, Position, Position] | None:
    if not (_is_of_topics(start) and _is_of_topics(end)):
        return None
    until = {topic: {int(number): offset for number, offset in ends.items()} for topic, ends in end.items()}
    # A partition that was added has been read from its first record.
    since = {topic: {n: start.get(topic, {}).get(str(n), 0) for n in ends} for topic, ends in until.items()}
    return kafka.Subscription(partitions={topic: [*ends] for topic, ends in until.items()}), since, until


def _is_of_topics(offsets: Any) -> bool:
    return isinstance(offsets, dict) and all(isinstance(partitions, dict) for partitions in offsets.values())


def _listed(seq: Any) -> list[Any]:
    return [seq.apply(number) for number in range(seq.size())]


def _id(attribute: Any) -> int:
    return int(attribute.exprId().id())


def _ids(attributes: Iterable[Any]) -> set[int]:
    return {_id(each) for each in attributes}
