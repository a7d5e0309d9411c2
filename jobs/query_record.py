"""What a query was when it last ran: kept in its checkpoint, for whoever wants to know what has changed since.

Spark keeps the types of the state, and nothing of what they mean: how long windows are, how late a row may be, what is
counted. A query that means something else now goes on all the same, with the rows of both meanings in one table.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from conf import code
from jobs import checkpoint
from jobs.outputs import Batch, Output
from jobs.plans import is_stateful, source_leaves
from jobs.publishing import InTurn

FILE = "tidemark/plan.json"  # in the checkpoint
WATERMARK = "EventTimeWatermark"
# What `Inputs.decode` puts above decoding, whose expressions each schema version changes.
OBSERVED, OF_DECODING = "CollectMetrics", "decode "
# Numbers that Spark gives expressions anew in each run, and the delay of the watermark that it shows beside names.
NUMBERED = re.compile(r"#\d+L?(?:-T\d+ms)?|-T\d+ms|(?<=\b[xyz]_)\d+")
WINDOW = re.compile(r"precisetimestampconversion|session_window")
SHOWN = 12  # hex digits of a hash


@dataclass(frozen=True)
class Step:
    """A node of the plan, from the output down to decoding.

    Args:
        kind: "state", "window", "watermark" or "other".
        text: its expressions; of "other" a hash, enough to tell that it has changed.
    """

    kind: str
    node: str
    text: str


@dataclass(frozen=True)
class QueryRecord:
    """A query as its code declares it.

    Args:
        sources: the topics of each source, in Spark's order; the source's name where it is none of Kafka's.
        table, keys: of an output that is a table; both empty for others, `keys` for a table that is appended to.
        columns: name and type of what is written.
    """

    mode: str
    table: str
    keys: tuple[str, ...]
    sources: tuple[tuple[str, ...], ...]
    steps: tuple[Step, ...]
    columns: tuple[tuple[str, str], ...]
    code: str

    def of_kind(self, kind: str) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.kind == kind)

    def below_state(self) -> tuple[Step, ...]:
        """What other steps make the rows that flow into the state."""
        state = [at for at, step in enumerate(self.steps) if step.kind == "state"]
        return tuple(step for step in self.steps[state[0] :] if step.kind == "other") if state else ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def describe(output: Output) -> QueryRecord:
    """The record of a declared output."""
    plan = output.frame._jdf.queryExecution().analyzed()
    table, keys = table_of(output.write) or ("", ())
    columns = tuple((field.name, field.dataType.simpleString()) for field in output.frame.schema.fields)
    return QueryRecord(output.mode, table, keys, sources(output.frame), tuple(_steps(plan)), columns, code.version())


def table_of(write: Callable[[Batch], None]) -> tuple[str, tuple[str, ...]] | None:
    """The table that an output's writer appends to or merges into, and its keys; None for other outputs."""
    if isinstance(write, InTurn):
        return table_of(write.to_table)
    if isinstance(write, partial) and write.func.__name__ == "_write_table":
        return str(write.args[0]), tuple(write.keywords.get("keys", ()))
    return None


def sources(frame: DataFrame) -> tuple[tuple[str, ...], ...]:
    """The topics of each of a stream's sources, in the order in which Spark numbers them."""
    return tuple(_topics(leaf) for leaf in source_leaves(frame))


def _topics(leaf: Any) -> tuple[str, ...]:
    name = str(leaf.nodeName())
    subscribed = leaf.extraOptions().get("subscribe") if name == "StreamingRelationV2" else None
    return tuple(sorted(str(subscribed).split(","))) if subscribed else (name,)


def _steps(node: Any) -> Iterator[Step]:
    if not node.isStreaming() or _is_decoding(node):
        return
    children = node.children()
    if not children.isEmpty():
        yield _step(node)
    for number in range(children.size()):
        yield from _steps(children.apply(number))


def _is_decoding(node: Any) -> bool:
    return str(node.nodeName()) == OBSERVED and str(node.name()).startswith(OF_DECODING)


def _step(node: Any) -> Step:
    name, expressions = str(node.nodeName()), node.expressions()
    text = "; ".join(NUMBERED.sub("", _unnamed(expressions.apply(n))) for n in range(expressions.size()))
    if name == WATERMARK:
        return Step("watermark", name, f"{text}: {node.delay().toString()}")
    if is_stateful(node):
        return Step("state", name, text)
    if WINDOW.search(text):
        return Step("window", name, text)
    return Step("other", name, hashlib.sha256(text.encode()).hexdigest()[:SHOWN])


def _unnamed(expression: Any) -> str:
    """The expression without the name that its result has."""
    named = str(expression.nodeName()) == "Alias"
    return str(expression.child().toString() if named else expression.toString())


def read(spark: SparkSession, folder: str) -> QueryRecord | None:
    """The record in a checkpoint; None where its query ran before records were kept, or the file is damaged."""
    text = checkpoint.read(spark, f"{folder}/{FILE}")
    try:
        said = json.loads(text or "")
        steps = tuple(Step(**step) for step in said["steps"])
        columns = tuple((name, kind) for name, kind in said["columns"])
        topics = tuple(tuple(each) for each in said["sources"])
        return QueryRecord(said["mode"], said["table"], tuple(said["keys"]), topics, steps, columns, said["code"])
    except (ValueError, KeyError, TypeError):
        return None


class Keeper:
    """Keeps the record of a query in its checkpoint, once a batch of it has been written."""

    def __init__(self, spark: SparkSession, folder: str, output: Output) -> None:
        self._spark, self._file, self._output = spark, f"{folder}/{FILE}", output
        self._is_kept = False

    def keep(self) -> None:
        if not self._is_kept:
            checkpoint.write(self._spark, self._file, describe(self._output).to_json())
            self._is_kept = True
