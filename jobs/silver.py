"""The accepted events of one stream (`schemas.subjects`): a table of typed rows, and what it lacks of each batch."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from conf import code
from conf.rules import Pattern, Range, Required
from jobs import quarantine, rules
from jobs.connectors import delta, delta_constraints
from jobs.judge import Versions
from jobs.outputs import Batch
from jobs.personal import Protection
from jobs.run import Run
from schemas.personal import Marks


@dataclass(frozen=True)
class Target:
    """Where the accepted events of a stream go.

    Args:
        stream: of which events.
        table: gives the table, once a batch is there: where a range's lie depends on all topics that it reads.
        rows: makes the table's rows of judged records, with personal data treated.
        bad: where a judged record is rejected, boolean.
        left_out: those of judged records that the table (the second frame) does not hold; given what treated its
            personal data.
        exempt: SQL, true for rows of the table that rules do not hold for.
        takes_strays: whether records that are of no stream of the topic are rejected here.
    """

    stream: str
    table: Callable[[], delta.Table]
    rows: Callable[[DataFrame, Protection], DataFrame]
    bad: Column
    left_out: Callable[[DataFrame, DataFrame, Protection], DataFrame]
    exempt: str = ""
    takes_strays: bool = True


@dataclass(frozen=True)
class Verdicts:
    """What the records of a batch were found to be; `failed`: how many fail each rule, by its name."""

    records: int
    rejects: DataFrame
    rejected: int
    failed: dict[str, int]
    is_new: bool

    @property
    def standing(self) -> DataFrame:
        """The rejects that would be rejected again: where schemas or rules were mended since, the job goes on."""
        return self.rejects.where(F.col("error").isNotNull())


class Silver:
    """Writes the events of a target, micro-batch by micro-batch, and says what was rejected."""

    def __init__(self, run: Run, target: Target) -> None:
        self._run, self._target = run, target
        self._topic = target.stream.partition("/")[0]
        self._rules = run.judge.of(target.stream)
        self._is_constrained = False

    def write(self, batch: Batch, versions: Versions) -> Verdicts:
        """Write the accepted events of a micro-batch, decoded by `versions`."""
        target, judge = self._target, self._run.judge
        clock, protection = self._run.clock(batch.planned_at), self._run.protection(target.stream, versions)
        decided = judge.decide(batch.frame, target.stream, versions, clock, target.takes_strays)
        judged = judge.look_up(decided, target.stream, target.table().path, batch.starts(self._topic))
        wanted = {"records": F.count("*"), "rejected": F.count_if(target.bad)}
        wanted |= rules.counts([rule.name for rule in self._rules])
        frame, counted = observed(judged, wanted)
        conditions = self._conditions(protection.marks)
        self._drop_outdated(judged.sparkSession, conditions)
        is_new = delta.write(target.rows(frame, protection), target.table(), batch.commit("silver"))
        self._add_constraints(judged.sparkSession, conditions)
        rejects = judged.where(target.bad)
        if is_new:
            count = counted.get
        else:
            # Written before a crash, perhaps by other code, schemas or rules: what is there decides.
            rejects = target.left_out(judged, self._held(batch), protection)
            count = judged.agg(*_named(wanted)).collect()[0].asDict() | {"rejected": rejects.count()}
        failed = {name.removeprefix(rules.FAILED): number for name, number in count.items() if name in wanted}
        failed = {rule.name: failed[rule.name] for rule in self._rules if failed[rule.name]}
        return Verdicts(count["records"], rejects, count["rejected"], failed, is_new)

    def quarantined(self, verdicts: Verdicts) -> DataFrame:
        """The rejects in their envelope."""
        return quarantine.envelope(verdicts.rejects, self._rules, code.version(), datetime.now(UTC))

    def rule_counts(self, batch: Batch, verdicts: Verdicts) -> list[tuple[object, ...]]:
        """A row for each rule that records of the batch failed, of the table rule_counts."""
        actions = {rule.name: rule.on_failure for rule in self._rules}
        of_batch = (self._topic, batch.query_id, batch.version)
        return [
            (*of_batch, name, actions[name], failed, verdicts.records, batch.planned_at)
            for name, failed in verdicts.failed.items()
        ]

    def _held(self, batch: Batch) -> DataFrame:
        """The rows of silver that may be the batch's: files of older ones need not be opened."""
        held = delta.read(batch.frame.sparkSession, self._target.table().path)
        return held.where(F.col("_offset") >= min(batch.starts(self._topic).values(), default=0))

    def _conditions(self, marks: Marks) -> dict[str, str]:
        """What the table silver itself can refuse, as SQL by rule."""
        kept_out = [rule for rule in self._rules if rule.on_failure != "warn"]
        exempt = self._target.exempt
        return {
            rule.name: f"{exempt} OR {rules.holds(rule)}" if exempt else rules.holds(rule)
            for rule in kept_out
            if isinstance(rule, Required | Range | Pattern) and not marks.hold(rule.field)
        }

    def _drop_outdated(self, spark: SparkSession, conditions: dict[str, str]) -> None:
        # A rule that was loosened or taken out must not fail rows by way of its old constraint.
        path = self._target.table().path
        if not self._is_constrained and delta.exists(spark, path):
            delta_constraints.drop_outdated(spark, path, conditions)

    def _add_constraints(self, spark: SparkSession, conditions: dict[str, str]) -> None:
        if self._is_constrained:
            return
        table = self._target.table()
        for name in delta_constraints.add_missing(spark, table.path, conditions):
            what = f"rows of table {table.name} break rule {name}: it gets no CHECK constraint"
            print(f"warning: {what}", file=sys.stderr, flush=True)
        self._is_constrained = True


def observed(frame: DataFrame, counts: dict[str, Column]) -> tuple[DataFrame, Observation]:
    """`frame`, and what will have counted its rows once it is written."""
    observation = Observation()
    return frame.observe(observation, *_named(counts)), observation


def _named(counts: dict[str, Column]) -> list[Column]:
    return [count.alias(name) for name, count in counts.items()]
