"""Writes the micro-batches of `ingest`: the whole story of one is here.

    records ─┬──────────────────────────────────────────> bronze, as they came
             └─> decode, validate ─┬─> protect ──────────> silver, the accepted ones
                                   └─> what silver lacks > quarantine; counts of failed rules > rule_counts

Delta has no transaction over several tables, so the micro-batch is the unit: one that was cut short is run again, and
each table takes what it has not got. Past the limits of rejects the job stops, once everything is written.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from conf import code_version
from conf.errors import TidemarkError
from jobs.connectors.delta import table as delta_table
from jobs.connectors.kafka import source_sink
from jobs.connectors.spark_internals import in_parallel, is_observed
from jobs.ingest import quarantine
from jobs.ingest.silver import SilverTable, ValidationResult, observe
from jobs.pipeline import paths
from jobs.pipeline.outputs import Batch, Output, RowSelector
from jobs.pipeline.progress import SIZE, Counted
from jobs.pipeline.run import Run
from jobs.pipeline.tombstones import OTHER_KEY

RULE_COUNTS = (
    "topic string, query_id string, batch long, rule string, action string, failed long, records long, at timestamp"
)
VALIDATED = (*source_sink.COLUMNS, "schema_id", "error", "rule")
COORDINATES = ("topic", "partition", "offset")
STAMPS = ("code_version", "quarantined_at")
FIRST = "first_other_key"


@dataclass(frozen=True, kw_only=True)
class IngestOutput(Output):
    """Writes the records of the topic `name` into bronze, and each stream's events into one of the tables `silver`."""

    is_independent = counts_itself = True
    run: Run = field(repr=False)
    silver: Sequence[SilverTable]
    warned: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def tables(self) -> tuple[RowSelector, ...]:
        bronze = RowSelector(paths.bronze(self.name), coordinates=COORDINATES)
        rejects = RowSelector(paths.QUARANTINE, coordinates=COORDINATES, stamps=STAMPS)
        return (bronze, rejects, *(silver.selector for silver in self.silver))

    def write(self, batch: Batch) -> None:
        """Write one micro-batch; raises TidemarkError REJECT_LIMIT, once the batch is written; UNACCOUNTED, where
        records went missing."""
        in_bronze: list[dict[str, int]] = []
        results: list[ValidationResult] = []
        in_parallel(
            batch.frame.sparkSession,
            lambda: in_bronze.extend(self._append_to_bronze(batch)),
            lambda: results.extend(self._write_silver(batch)),
        )
        total = Total.of(results)
        size = in_bronze[0][SIZE] if in_bronze else None
        self.run.count(batch, Counted(total.records, total.rejected, total.failed, total.codes, size))
        self._append_to_quarantine(batch, results, total)
        self._append_rule_counts(batch, results)
        self._require_accounted(batch, in_bronze, total)
        self._require_within_limits(batch, results, total)

    def _append_to_bronze(self, batch: Batch) -> list[dict[str, int]]:
        """Returns how many records and bytes were written; nothing where bronze had them already."""
        frame, observation = observe(batch.frame, {"records": F.count("*"), SIZE: source_sink.size()})
        is_new = delta_table.write(frame, self.run.table(paths.bronze(self.name)), batch.commit("bronze"))
        return [observation.get] if is_new else []

    def _write_silver(self, batch: Batch) -> list[ValidationResult]:
        validator, clock, starts = self.run.validator, self.run.clock(batch.planned_at), batch.starts(self.name)
        versions, results = validator.versions(self.name), []
        for silver in self.silver:
            table = self.run.table(silver.name, silver.keys, silver.newest_by, sequence=silver.sequence)
            records = batch.frame
            of_stream = silver.stream, versions, clock, silver.owns_unmatched
            validated = validator.validate_batch(records, *of_stream, table.path, starts)
            observation = None
            if OTHER_KEY in validated.columns and not self.warned:
                first = F.min(F.when(F.col(OTHER_KEY), F.struct("partition", "offset")))
                validated, observation = observe(validated, {FIRST: first})
            results.append(silver.write(validated, batch, table, self.run.protection(silver.stream, versions)))
            if observation is not None and is_observed(observation) and (place := observation.get[FIRST]):
                self._warn_of_other_key(place)
        return results

    def _warn_of_other_key(self, place: Row) -> None:
        """Say once that record keys are not what tombstones would be read by: nobody else would notice."""
        self.warned.add(self.name)
        what = f"topic {self.name}, partition {place.partition}, offset {place.offset}: the record key is not that of"
        what = f"{what} the event's `{self.run.topics[self.name].key}`, so no tombstone with it deletes the event"
        remedy = "write keys in the form that docs/quarantine.md has, or register their schema as"
        print(f"warning: {what}; {remedy} {self.name}-key", file=sys.stderr, flush=True)

    def _append_to_quarantine(self, batch: Batch, results: Sequence[ValidationResult], total: "Total") -> None:
        by, at = code_version.version(), datetime.now(UTC)
        rejects = [quarantine.envelope(result.rejects, result.rules, by, at) for result in results if result.rejected]
        if not rejects:
            return
        frame, observation = observe(reduce(DataFrame.unionByName, rejects), {"records": F.count("*")})
        if self._append_to_shared(batch, paths.QUARANTINE, "quarantine", frame):
            written = observation.get["records"]
            if written != total.rejected:
                raise self._unaccounted(batch, f"silver rejected {total.rejected}, {written} went to quarantine")

    def _append_rule_counts(self, batch: Batch, results: Sequence[ValidationResult]) -> None:
        id, number = batch.query_id, batch.version
        rows = [
            (self.name, id, number, rule.name, rule.on_failure, failed, result.records, batch.planned_at)
            for result in results
            for rule in result.rules
            if (failed := result.failed.get(rule.name))
        ]
        if rows:
            frame = batch.frame.sparkSession.createDataFrame(rows, RULE_COUNTS)
            self._append_to_shared(batch, paths.RULE_COUNTS, "rules", frame)

    def _append_to_shared(self, batch: Batch, table: str, statement: str, rows: DataFrame) -> bool:
        """Write into a table that the queries of all topics write, and most batches leave out."""
        commit = batch.commit(statement, contiguous=False, delete_predicate=f"topic = '{self.name}'")
        return delta_table.write(rows, self.run.table(table), commit)

    def _require_accounted(self, batch: Batch, in_bronze: Sequence[dict[str, int]], total: "Total") -> None:
        """Check that bronze and silver, which read the topic separately, got as many records: it may have changed."""
        if total.is_new and in_bronze and in_bronze[0]["records"] != total.records:
            what = f"{in_bronze[0]['records']} records went to bronze, {total.records} to silver or quarantine"
            raise self._unaccounted(batch, what)

    def _unaccounted(self, batch: Batch, what: str) -> TidemarkError:
        message = f"batch {batch.version} of {self.name}: {what}"
        return TidemarkError("UNACCOUNTED", message, "compare the topic's retention with the time that a batch takes")

    def _require_within_limits(self, batch: Batch, results: Sequence[ValidationResult], total: "Total") -> None:
        # Only records that would be rejected again count: if schemas or rules were mended since, the job goes on.
        invalid = reduce(DataFrame.unionByName, (result.still_invalid.select(*VALIDATED) for result in results))
        count = total.rejected if total.is_new else invalid.count()
        if not count:
            return
        bronze, quarantined = (
            delta_table.read(batch.frame.sparkSession, self.run.table(table).path)
            for table in (paths.bronze(self.name), paths.QUARANTINE)
        )
        of_batch = self.name, batch.frame, total.records, invalid, count
        rejects = quarantine.BatchRejects(*of_batch, bronze, quarantined, batch.starts(self.name))
        quarantine.require_within(self.run.settings.quarantine, rejects)


@dataclass(frozen=True)
class Total:
    """The counts of all streams: records, rejected ones, failures by rule, and rejected ones by code; `is_new`: False
    where any table had the micro-batch already."""

    records: int
    rejected: int
    failed: dict[str, int]
    codes: dict[str, int]
    is_new: bool

    @classmethod
    def of(cls, results: Sequence[ValidationResult]) -> "Total":
        failed, codes = Counter[str](), Counter[str]()
        for result in results:
            failed.update(result.failed)
            codes.update(result.codes)
        records, rejected = sum(result.records for result in results), sum(result.rejected for result in results)
        return cls(records, rejected, dict(failed), dict(codes), all(result.is_new for result in results))
