"""What becomes of one micro-batch of a topic: every record in bronze, and in silver or quarantine; counts; limits.

Delta has no transaction over several tables, so the batch is the unit. Bronze and silver are written side by side, then
what silver lacks goes to quarantine. A batch that was cut short is run again, and each table takes what it has not got.
"""

from collections import Counter
from collections.abc import Sequence
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs import limits
from jobs.connectors import delta, kafka
from jobs.outputs import Batch
from jobs.parallel import in_parallel
from jobs.run import Run
from jobs.silver import Silver, Target, Verdicts, observed

RULE_COUNTS = (
    "topic string, query_id string, batch long, rule string, action string, failed long, records long, at timestamp"
)
JUDGED = (*kafka.COLUMNS, "schema_id", "error", "rule")


class Intake:
    """Writes the micro-batches of `topic`, each stream's accepted events to its target."""

    def __init__(self, run: Run, topic: str, targets: Sequence[Target]) -> None:
        self._run, self._topic = run, topic
        self._silvers = [Silver(run, target) for target in targets]

    def __call__(self, batch: Batch) -> None:
        """Write one micro-batch.

        Raises:
            TidemarkError: REJECT_LIMIT, once the batch is written; UNACCOUNTED, where records went missing.
        """
        seen: dict[str, int] = {}
        found: list[Verdicts] = []

        def write_bronze() -> None:
            frame, counted = observed(batch.frame, {"records": F.count("*")})
            if delta.write(frame, self._bronze(), batch.commit("bronze")):
                seen["bronze"] = counted.get["records"]

        def write_silver() -> None:
            versions = self._run.judge.versions(self._topic)
            verdicts = [silver.write(batch, versions) for silver in self._silvers]
            if all(each.is_new for each in verdicts):
                seen["silver"] = sum(each.records for each in verdicts)
            records, rejected, failed = _sums(verdicts)
            self._run.count(batch, records, rejected, failed)
            self._write_quarantine(batch, verdicts)
            self._write_rule_counts(batch, verdicts)
            found.extend(verdicts)

        in_parallel(batch.frame.sparkSession, write_bronze, write_silver)
        self._require_accounted(batch, seen)
        self._require_within_limits(batch, found)

    def _bronze(self) -> delta.Table:
        return self._run.table(f"bronze/{self._topic}")

    def _write_quarantine(self, batch: Batch, verdicts: Sequence[Verdicts]) -> None:
        pairs = zip(self._silvers, verdicts, strict=True)
        rejects = [silver.quarantined(each) for silver, each in pairs if each.rejected]
        if not rejects:
            return
        _, rejected, _ = _sums(verdicts)
        frame, counted = observed(reduce(DataFrame.unionByName, rejects), {"records": F.count("*")})
        if self._write_shared(batch, "quarantine", "quarantine", frame):
            written = counted.get["records"]
            if written != rejected:
                raise self._unaccounted(batch, f"silver rejected {rejected}, {written} went to quarantine")

    def _write_rule_counts(self, batch: Batch, verdicts: Sequence[Verdicts]) -> None:
        pairs = zip(self._silvers, verdicts, strict=True)
        rows = [row for silver, each in pairs for row in silver.rule_counts(batch, each)]
        if rows:
            frame = batch.frame.sparkSession.createDataFrame(rows, RULE_COUNTS)
            self._write_shared(batch, "rule_counts", "rules", frame)

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

    def _require_within_limits(self, batch: Batch, verdicts: Sequence[Verdicts]) -> None:
        # Only what would be rejected again counts: where schemas or rules were mended since, the job goes on.
        standing = reduce(DataFrame.unionByName, (each.standing.select(*JUDGED) for each in verdicts))
        records, rejected, _ = _sums(verdicts)
        count = rejected if all(each.is_new for each in verdicts) else standing.count()
        if not count:
            return
        spark = batch.frame.sparkSession
        kept, quarantined = (delta.read(spark, table.path) for table in (self._bronze(), self._run.table("quarantine")))
        of_batch = (self._topic, batch.frame, records, standing, count)
        account = limits.Account(*of_batch, kept, quarantined, batch.starts(self._topic))
        limits.require_within(self._run.settings.quarantine, account)


def _sums(verdicts: Sequence[Verdicts]) -> tuple[int, int, dict[str, int]]:
    """Of all streams: records, rejected ones, and failures by rule."""
    failed: Counter[str] = Counter()
    for each in verdicts:
        failed.update(each.failed)
    return sum(each.records for each in verdicts), sum(each.rejected for each in verdicts), dict(failed)
