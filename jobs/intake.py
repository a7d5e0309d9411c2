"""What becomes of one micro-batch of a topic: every record in bronze, and in silver or quarantine; counts; limits.

Delta has no transaction over several tables, so the batch is the unit. Bronze and silver are written side by side, then
what silver lacks goes to quarantine. A batch that was cut short is run again, and each table takes what it has not got.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from conf import code
from conf.errors import TidemarkError
from conf.rules import Pattern, Range, Required
from jobs import limits, quarantine, rules
from jobs.connectors import delta, delta_constraints
from jobs.outputs import Batch
from jobs.parallel import in_parallel
from jobs.run import Run

RULE_COUNTS = (
    "topic string, query_id string, batch long, rule string, action string, failed long, records long, at timestamp"
)


@dataclass(frozen=True)
class Target:
    """Where the accepted events of a topic go.

    Args:
        table: gives the table, once a batch is there: where a range's lie depends on all topics that it reads.
        rows: makes the table's rows of judged records.
        bad: where a judged record is rejected, boolean.
        left_out: those of judged records that the table (the second frame) does not hold.
        exempt: SQL, true for rows of the table that rules do not hold for.
    """

    table: Callable[[], delta.Table]
    rows: Callable[[DataFrame], DataFrame]
    bad: Column
    left_out: Callable[[DataFrame, DataFrame], DataFrame]
    exempt: str = ""


@dataclass(frozen=True)
class Verdicts:
    """What the records of a batch were found to be; `failed`: how many fail each rule, by its name."""

    records: int
    rejects: DataFrame
    rejected: int
    failed: dict[str, int]
    is_new: bool


class Intake:
    """Writes the micro-batches of `topic`, whose accepted events go to `target`."""

    def __init__(self, run: Run, topic: str, target: Target) -> None:
        self._run, self._topic, self._target = run, topic, target
        self._rules = run.judge.of(topic)
        self._is_constrained = False

    def __call__(self, batch: Batch) -> None:
        """Write one micro-batch.

        Raises:
            TidemarkError: REJECT_LIMIT, once the batch is written; UNACCOUNTED, where records went missing.
        """
        decided = self._run.judge.decide(batch.frame, self._topic, self._run.clock(batch.planned_at))
        judged = self._run.judge.look_up(decided, self._topic, self._target.table().path, batch.starts(self._topic))
        seen: dict[str, int] = {}
        found: list[Verdicts] = []

        def write_bronze() -> None:
            frame, counted = _counted(batch.frame, {"records": F.count("*")})
            if delta.write(frame, self._bronze(), batch.commit("bronze")):
                seen["bronze"] = counted.get["records"]

        def write_silver() -> None:
            verdicts = self._write_silver(batch, judged)
            if verdicts.is_new:
                seen["silver"] = verdicts.records
            self._run.count(batch, verdicts.records, verdicts.rejected, verdicts.failed)
            self._write_quarantine(batch, verdicts)
            self._write_rule_counts(batch, verdicts)
            found.append(verdicts)

        in_parallel(batch.frame.sparkSession, write_bronze, write_silver)
        self._require_accounted(batch, seen)
        self._require_within_limits(batch, found[0])

    def _bronze(self) -> delta.Table:
        return self._run.table(f"bronze/{self._topic}")

    def _write_silver(self, batch: Batch, judged: DataFrame) -> Verdicts:
        target, spark = self._target, judged.sparkSession
        wanted = {"records": F.count("*"), "rejected": F.count_if(target.bad)}
        wanted |= rules.counts([rule.name for rule in self._rules])
        frame, counted = _counted(judged, wanted)
        self._drop_outdated(spark)
        is_new = delta.write(target.rows(frame), target.table(), batch.commit("silver"))
        self._add_constraints(spark)
        rejects = judged.where(target.bad)
        if is_new:
            count = counted.get
        else:
            # Written before a crash, perhaps by other code, schemas or rules: what is there decides.
            rejects = target.left_out(judged, self._held(batch))
            count = judged.agg(*_named(wanted)).collect()[0].asDict() | {"rejected": rejects.count()}
        failed = {name.removeprefix(rules.FAILED): number for name, number in count.items() if name in wanted}
        failed = {rule.name: failed[rule.name] for rule in self._rules if failed[rule.name]}
        return Verdicts(count["records"], rejects, count["rejected"], failed, is_new)

    def _held(self, batch: Batch) -> DataFrame:
        """The rows of silver that may be the batch's: files of older ones need not be opened."""
        held = delta.read(batch.frame.sparkSession, self._target.table().path)
        return held.where(F.col("_offset") >= min(batch.starts(self._topic).values(), default=0))

    def _write_quarantine(self, batch: Batch, verdicts: Verdicts) -> None:
        if not verdicts.rejected:
            return
        rows = quarantine.envelope(verdicts.rejects, self._rules, code.version(), datetime.now(UTC))
        frame, counted = _counted(rows, {"records": F.count("*")})
        if self._write_shared(batch, "quarantine", "quarantine", frame):
            written = counted.get["records"]
            if written != verdicts.rejected:
                raise self._unaccounted(batch, f"silver rejected {verdicts.rejected}, {written} went to quarantine")

    def _write_rule_counts(self, batch: Batch, verdicts: Verdicts) -> None:
        if verdicts.failed:
            rows = [self._rule_count(batch, verdicts, *each) for each in verdicts.failed.items()]
            frame = batch.frame.sparkSession.createDataFrame(rows, RULE_COUNTS)
            self._write_shared(batch, "rule_counts", "rules", frame)

    def _rule_count(self, batch: Batch, verdicts: Verdicts, name: str, failed: int) -> tuple[object, ...]:
        action = next(rule.on_failure for rule in self._rules if rule.name == name)
        of_batch = (self._topic, batch.query_id, batch.version)
        return (*of_batch, name, action, failed, verdicts.records, batch.planned_at)

    def _write_shared(self, batch: Batch, table: str, statement: str, rows: DataFrame) -> bool:
        """Write into a table that the queries of all topics write, and most batches leave out."""
        commit = batch.commit(statement, every_batch=False, own_rows=f"topic = '{self._topic}'")
        return delta.write(rows, self._run.table(table), commit)

    def _require_accounted(self, batch: Batch, seen: dict[str, int]) -> None:
        """Each table was written from a reading of its own: had the topic changed, records would be missing."""
        if len(seen) == 2 and seen["bronze"] != seen["silver"]:
            found = f"{seen['bronze']} records went to bronze, {seen['silver']} to silver or quarantine"
            raise self._unaccounted(batch, found)

    def _unaccounted(self, batch: Batch, found: str) -> TidemarkError:
        message = f"batch {batch.version} of {self._topic}: {found}"
        return TidemarkError("UNACCOUNTED", message, "compare the topic's retention with the time that a batch takes")

    def _require_within_limits(self, batch: Batch, verdicts: Verdicts) -> None:
        # Only what would be rejected again counts: where schemas or rules were mended since, the job goes on.
        standing = verdicts.rejects.where(F.col("error").isNotNull())
        count = verdicts.rejected if verdicts.is_new else standing.count()
        if not count:
            return
        spark = batch.frame.sparkSession
        kept, quarantined = (delta.read(spark, table.path) for table in (self._bronze(), self._run.table("quarantine")))
        of_batch = (self._topic, batch.frame, verdicts.records, standing, count)
        account = limits.Account(*of_batch, kept, quarantined, batch.starts(self._topic))
        limits.require_within(self._run.settings.quarantine, account)

    def _conditions(self) -> dict[str, str]:
        """What the table silver itself can refuse, as SQL by rule."""
        kept_out = [rule for rule in self._rules if rule.on_failure != "warn"]
        exempt = self._target.exempt
        return {
            rule.name: f"{exempt} OR {rules.holds(rule)}" if exempt else rules.holds(rule)
            for rule in kept_out
            if isinstance(rule, Required | Range | Pattern)
        }

    def _drop_outdated(self, spark: SparkSession) -> None:
        # A rule that was loosened or taken out must not fail rows by way of its old constraint.
        path = self._target.table().path
        if not self._is_constrained and delta.exists(spark, path):
            delta_constraints.drop_outdated(spark, path, self._conditions())

    def _add_constraints(self, spark: SparkSession) -> None:
        if self._is_constrained:
            return
        table = self._target.table()
        for name in delta_constraints.add_missing(spark, table.path, self._conditions()):
            what = f"rows of table {table.name} break rule {name}: it gets no CHECK constraint"
            print(f"warning: {what}", file=sys.stderr, flush=True)
        self._is_constrained = True


def _counted(frame: DataFrame, counts: dict[str, Column]) -> tuple[DataFrame, Observation]:
    observation = Observation()
    return frame.observe(observation, *_named(counts)), observation


def _named(counts: dict[str, Column]) -> list[Column]:
    return [count.alias(name) for name, count in counts.items()]
