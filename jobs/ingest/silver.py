"""Writes a stream's table silver (`schemas.contracts`): accepted events as typed rows; finds what it lacks of a batch.

An ordinary topic's events are appended. For a compacted topic the newest event of each key stays.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StructType

from conf.errors import TidemarkError
from conf.rules import OnEvent, Rule
from jobs.connectors.avro import decode
from jobs.connectors.delta import schema_evolution
from jobs.connectors.delta import table as delta_table
from jobs.pipeline import paths, rules
from jobs.pipeline.outputs import Batch, RowSelector
from jobs.pipeline.pii import Protection
from jobs.pipeline.progress import rejects_by_code
from jobs.pipeline.tombstones import DELETED_KEY
from jobs.pipeline.validation import reject_counts
from schemas.contracts import subject_of_stream
from schemas.pii_marks import PiiFields

COORDINATES = ("topic", "partition", "offset", "timestamp", "schema_id")


@dataclass(frozen=True)
class ValidationResult:
    """How many records of a micro-batch were accepted and rejected, of one stream, and which.

    Args:
        rules: the stream's.
        failed: how many records fail each rule, by its name.
        codes: how many are rejected by each code, as today's schemas and rules judge.
        is_new: False where silver had the micro-batch already.
    """

    rules: tuple[Rule, ...]
    records: int
    rejects: DataFrame
    rejected: int
    failed: dict[str, int]
    codes: dict[str, int]
    is_new: bool

    @property
    def still_invalid(self) -> DataFrame:
        """Return the rejects that would be rejected again: where schemas or rules were mended, the job goes on."""
        return self.rejects.where(F.col("error").isNotNull())


class SilverTable(ABC):
    """Writes the accepted events of `stream`, micro-batch by micro-batch.

    Args:
        stream_rules: the rules of the stream.
        owns_unmatched: whether records that are of no stream of the topic are rejected here.
    """

    keys: tuple[str, ...] = ()
    newest_by: tuple[str, ...] = ()
    sequence: tuple[str, str] | None = None
    exempt = ""  # SQL, true for rows that rules do not hold for

    def __init__(self, stream: str, stream_rules: tuple[Rule, ...], owns_unmatched: bool = True) -> None:
        self.stream, self.owns_unmatched, self.name = stream, owns_unmatched, paths.silver(stream)
        self._rules = stream_rules
        # The constraints and the columns that the table was last made ready for.
        self._ready_for: tuple[dict[str, str], StructType] | None = None

    @property
    @abstractmethod
    def selector(self) -> RowSelector:
        """Return which rows of the table a range of records makes."""

    @property
    @abstractmethod
    def is_rejected(self) -> Column:
        """Return whether a validated record is rejected, boolean."""

    @abstractmethod
    def accepted(self, validated: DataFrame, protection: Protection) -> DataFrame:
        """Return the table's rows of the accepted ones among `validated`, personal data treated."""

    @abstractmethod
    def rows_missing_from(self, held: DataFrame, validated: DataFrame, protection: Protection) -> DataFrame:
        """Select the rows of `validated` that are not in `held`, the table's, by `_partition` int, `_offset` long."""

    def write(
        self, validated: DataFrame, batch: Batch, table: delta_table.Table, protection: Protection
    ) -> ValidationResult:
        """Write the accepted ones of `validated`, the records of `batch`, into `table`, and count the rest."""
        counts = {"records": F.count("*"), "rejected": F.count_if(self.is_rejected)}
        counts |= rules.counts([rule.name for rule in self._rules]) | reject_counts(self.is_rejected)
        frame, observation = observe(validated, counts)
        constraints = self._constraints(protection.marks, validated.schema["event"].dataType)
        accepted = self.accepted(frame, protection)
        is_ready = self._ready_for == (constraints, accepted.schema)
        # A rule that was loosened or taken out must not fail rows by way of its old constraint.
        if not is_ready and delta_table.exists(frame.sparkSession, table.path):
            schema_evolution.drop_outdated(frame.sparkSession, table.path, constraints)
        try:
            is_new = delta_table.write(accepted, table, batch.commit("silver"))
        except TidemarkError as stop:
            raise self._with_remedy(stop, accepted, table) from stop
        if not is_ready:
            for name in schema_evolution.add_missing(frame.sparkSession, table.path, constraints):
                what = f"rows of table {table.name} break rule {name}: it gets no CHECK constraint"
                print(f"warning: {what}", file=sys.stderr, flush=True)
            self._ready_for = constraints, accepted.schema
        rejects = validated.where(self.is_rejected)
        if is_new:
            count = observation.get
        else:
            # Written before a crash, perhaps by other code, schemas or rules: what is there decides.
            rejects = self.rows_missing_from(self._rows_since(batch, table), validated, protection)
            count = validated.agg(*_named(counts)).collect()[0].asDict() | {"rejected": rejects.count()}
        failed = {rule.name: failures for rule in self._rules if (failures := count[f"{rules.FAILED}{rule.name}"])}
        counted = count["records"], rejects, count["rejected"], failed, rejects_by_code([count])
        return ValidationResult(self._rules, *counted, is_new)

    def _rows_since(self, batch: Batch, table: delta_table.Table) -> DataFrame:
        """Return the rows of the table since the batch's first offset: files of older ones need not be opened."""
        first = min(batch.starts(self.stream.partition("/")[0]).values(), default=0)
        return delta_table.read(batch.frame.sparkSession, table.path).where(F.col("_offset") >= first)

    def _constraints(self, marks: PiiFields, event: DataType) -> dict[str, str]:
        """Return the CHECK constraints that keep rules in the table itself: SQL by the rule's name."""
        conditions = {
            rule.name: rules.holds(rule, event)
            for rule in self._rules
            if isinstance(rule, OnEvent) and rule.on_failure != "warn"
            if not marks.covers(rule.field)
        }
        exempt = f"{self.exempt} OR " if self.exempt else ""
        return {name: f"{exempt}{condition}" for name, condition in conditions.items()}

    def _with_remedy(self, stop: TidemarkError, accepted: DataFrame, table: delta_table.Table) -> TidemarkError:
        """Return `stop`, a TYPE_CHANGED with what helps where the columns come from a schema."""
        if stop.code != "TYPE_CHANGED":
            return stop
        there = delta_table.read(accepted.sparkSession, table.path).schema
        changes = schema_evolution.refused_changes(there, accepted.schema)
        remedy = self._type_remedy(list(dict.fromkeys(change.field for change in changes)))
        return TidemarkError(stop.code, stop.message, remedy)

    def _type_remedy(self, fields: Sequence[str]) -> str:
        """Say what to do where the newest version of the schema gives `fields` types that their columns do not take."""
        return (
            f"register a further version of {subject_of_stream(self.stream)} that gives each of these fields "
            f'({", ".join(fields)}) another name and lists the old one in its "aliases" (rules that name it follow), '
            "then start the job again: silver gets a column of that name beside the old one, and no record is lost"
        )


class AppendedTable(SilverTable):
    """One row per accepted event: its fields, then the record's coordinates `_topic` string, `_partition` int,
    `_offset` long, `_timestamp` timestamp, `_schema_id` int.
    """

    @property
    def selector(self) -> RowSelector:
        return RowSelector(self.name, coordinates=("_topic", "_partition", "_offset"))

    @property
    def is_rejected(self) -> Column:
        return F.col("error").isNotNull()

    def accepted(self, validated: DataFrame, protection: Protection) -> DataFrame:
        return protection.accepted_events(validated, *_coordinates())

    def rows_missing_from(self, held: DataFrame, validated: DataFrame, protection: Protection) -> DataFrame:
        return _without_held(validated, held)


class CompactedTable(SilverTable):
    """One row per key of a compacted topic, whose events have the key as the field `key`.

    The columns are those of `AppendedTable`, then `_deleted` boolean. A tombstone gives what it deletes as the field
    `key`, all other fields null and `_deleted` true: kept as a row, so that an older event cannot bring the key back.

    In one partition the offset says which event of a key is the newest. A key is in another partition once the topic
    was given more of them, where offsets count anew: between two partitions the records' timestamps decide, and of
    equal ones the later micro-batch, within one the greater partition.
    """

    newest_by = ("_timestamp",)
    sequence = ("_partition", "_offset")
    exempt = "`_deleted`"

    def __init__(self, stream: str, stream_rules: tuple[Rule, ...], key: str) -> None:
        super().__init__(stream, stream_rules)
        self.keys = (key,)
        self._key = key

    @property
    def selector(self) -> RowSelector:
        return RowSelector(self.name, self.keys)

    @property
    def is_rejected(self) -> Column:
        return F.col("error").isNotNull() & ~_is_tombstone()

    def accepted(self, validated: DataFrame, protection: Protection) -> DataFrame:
        rows = validated.where(F.col("error").isNull() | _is_tombstone())
        fields = rows.select("event.*").columns
        columns = [self._record_key() if name == self._key else F.col("event").getField(name) for name in fields]
        named = [column.alias(name) for name, column in zip(fields, columns, strict=True)]
        return protection(rows.select(*named, *_coordinates(), _is_tombstone().alias("_deleted")))

    def rows_missing_from(self, held: DataFrame, validated: DataFrame, protection: Protection) -> DataFrame:
        """See `SilverTable.rows_missing_from`.

        An accepted record leaves its row or a later one: without either it was rejected. With a later one that cannot
        be told, and matters only to the count: there today's validation decides.
        """
        keyed = protection.of_field(validated.withColumn("record_key", self._record_key()), "record_key", self._key)
        places = [F.col(f"_{name}").alias(f"newest_{name}") for name in ("partition", "offset", "timestamp")]
        newest = held.select(F.col(self._key).alias("newest_key"), *places)
        same_key = F.col("record_key").eqNullSafe(F.col("newest_key"))
        joined = _without_held(keyed, held).join(newest, same_key, "left")
        of_one_partition = F.col("newest_partition") == F.col("partition")
        is_later_elsewhere = F.struct("newest_timestamp", "newest_partition") > F.struct("timestamp", "partition")
        is_later = F.when(of_one_partition, F.col("newest_offset") > F.col("offset")).otherwise(is_later_elsewhere)
        has_later = F.coalesce(is_later, F.lit(False))
        return joined.where(~(has_later & ~self.is_rejected)).select(validated.columns)

    def _type_remedy(self, fields: Sequence[str]) -> str:
        if self._key not in fields:
            return super()._type_remedy(fields)
        return (
            f"the key keeps its type: register a further version of {subject_of_stream(self.stream)} with the old type "
            f'of {self._key} and another "doc" (the old text would be the old version), or move away, together, '
            f"the query's checkpoint and the tables {self.name} and "
            f"{paths.bronze(self.stream)}, then start the job again: it reads the topic from the beginning, which "
            "still holds the newest record of each key"
        )

    def _rows_since(self, batch: Batch, table: delta_table.Table) -> DataFrame:
        """Return all rows: one of another partition may be later than the batch's records at any offset."""
        return delta_table.read(batch.frame.sparkSession, table.path)

    def _record_key(self) -> Column:
        """Return the key of a tombstone, which has no event, or of an event."""
        return F.when(_is_tombstone(), F.col(DELETED_KEY)).otherwise(F.col("event").getField(self._key))


def observe(frame: DataFrame, counts: Mapping[str, Column]) -> tuple[DataFrame, Observation]:
    """Return `frame`, and the counts of its rows, which are there once it is written."""
    observation = Observation()
    return frame.observe(observation, *_named(counts)), observation


def _named(counts: Mapping[str, Column]) -> list[Column]:
    return [count.alias(name) for name, count in counts.items()]


def _without_held(validated: DataFrame, held: DataFrame) -> DataFrame:
    places = held.select("_partition", "_offset")
    same = (F.col("partition") == F.col("_partition")) & (F.col("offset") == F.col("_offset"))
    return validated.join(places, same, "left_anti")


def _is_tombstone() -> Column:
    return F.col("error").eqNullSafe(decode.NO_VALUE)


def _coordinates() -> list[Column]:
    return [F.col(name).alias(f"_{name}") for name in COORDINATES]
