"""Decides which records of a topic are accepted, by the registered schemas, the declared rules and the clock."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import NumericType

from conf.errors import TidemarkError, nearest
from conf.rules import Reference, Rule, Unique, fields_of, load_rules
from conf.settings import Settings
from conf.topics import Topic
from jobs.connectors.avro import decode
from jobs.connectors.delta import table as delta_table
from jobs.pipeline import paths, rules, tombstones
from jobs.pipeline.progress import REJECTED_AS
from schemas.contracts import subject_of_stream, with_fields
from schemas.pii_marks import PiiFields, pii_fields_of
from schemas.registry import RegisteredSchema, Registry, avro_of
from schemas.spark_limits import require_storable
from schemas.validity import is_valid

NOT_AVRO = "NOT_AVRO"
RULE_STOPPED = "RULE_STOPPED"
# All codes of rejects but VERDICT_CHANGED, which only a batch that is run again has.
REJECT_CODES = (
    *(decode.NO_VALUE, decode.BAD_FRAMING, decode.UNKNOWN_SCHEMA_ID, decode.UNDECODABLE),
    *(NOT_AVRO, tombstones.BAD_KEY, rules.NO_EVENT_TIME, rules.FUTURE_EVENT_TIME, rules.RULE_FAILED),
)


class Versions(dict[str, Sequence[RegisteredSchema]]):
    """The registered versions of each stream of a topic that are Avro, the newest last.

    Args:
        not_avro: the ids of those that are not.
        of_keys: the versions of a compacted topic's record keys; none where no schema is registered for these.
    """

    def __init__(
        self,
        of_streams: Mapping[str, Sequence[RegisteredSchema]],
        not_avro: Collection[int] = (),
        of_keys: Sequence[RegisteredSchema] = (),
    ) -> None:
        super().__init__(of_streams)
        self.not_avro, self.of_keys = frozenset(not_avro), tuple(of_keys)


@dataclass(frozen=True)
class Validator:
    """Decides which records of every topic are accepted; rules are kept by stream (`schemas.contracts`)."""

    settings: Settings
    registry: Registry
    topics: Mapping[str, Topic]
    rules_by_stream: dict[str, tuple[Rule, ...]]

    def versions(self, topic: str) -> Versions:
        """Return the registered versions of each stream of `topic`. One answer serves a whole micro-batch: a version
        that comes in its middle must not change half of it.

        Raises:
            TidemarkError: NO_CONTRACT, for a topic of JSON; UNKNOWN_SUBJECT; UNSUPPORTED_SCHEMA, where nothing that is
                registered for a stream is Avro; and the registry's errors.
        """
        declared = self.topics.get(topic)
        if declared is not None:
            declared.require_contract()
        streams = declared.streams if declared is not None else (topic,)
        subjects = {stream: subject_of_stream(stream) for stream in streams}
        # Where there is none, the registry says so in its own words.
        registered = {
            stream: self.registry.all_versions(subject) or self.registry.versions(subject)
            for stream, subject in subjects.items()
        }
        try:
            of_streams = {stream: avro_of(versions) for stream, versions in registered.items()}
        except TidemarkError as exc:
            raise TidemarkError(exc.code, f"topic {topic}: {exc.message}", exc.remedy) from exc
        not_avro = [version.id for versions in registered.values() for version in versions if not version.is_avro]
        return Versions(of_streams, not_avro, self._of_keys(topic))

    def _of_keys(self, topic: str) -> Sequence[RegisteredSchema]:
        if topic not in self.topics or not self.topics[topic].compaction_key:
            return ()
        try:
            return self.registry.all_versions(f"{topic}-key")
        except TidemarkError as exc:
            # A user who may not see it has keys of the topic's other form, or finds them in quarantine.
            if exc.code != "REGISTRY_REFUSED":
                raise
            return ()

    def validate(
        self,
        records: DataFrame,
        stream: str,
        versions: Versions,
        clock: Column,
        owns_unmatched: bool = True,
        fields: Collection[str] | None = None,
    ) -> DataFrame:
        """Decode those of `records` (Kafka's columns) that are of `stream`, and apply every rule that needs nothing
        but the record.

        Each is decoded by the registered version that it names, into the newest one.

        Args:
            versions: of the stream's topic.
            clock: what an event time is compared with, timestamp.
            owns_unmatched: whether records that are of no stream of the topic are among the rejected ones.
            fields: that are read, beside those that rules, key and event time need; others are skipped, and it is not
                checked whether their values are of their types. None: all.

        Returns:
            what `apply_rules` gives; of a compacted topic, with `tombstones.DELETED_KEY` and `tombstones.OTHER_KEY`.

        Raises:
            TidemarkError: BAD_RULES, where a rule asks for what events of the topic do not have; BAD_TOPICS, where a
                compacted topic's key is nothing that a tombstone can name; BAD_SCHEMA, where a registered schema is
                none that can be read; UNKNOWN_FIELD.
        """
        newest = versions[stream][-1].text
        of_stream = self._of_stream(records, stream, versions, owns_unmatched)
        declared, event_time = self.rules_of(stream), self.event_time(stream)
        key = self.topics[stream].compaction_key if stream in self.topics else None
        with naming_schema(stream, versions):
            require_storable(newest)
            marks = pii_fields_of(newest)
            if fields is not None:
                asked = [event_time or "", key or "", *(name for rule in declared for name in fields_of(rule))]
                newest = with_fields(newest, fields, beside=[name.partition(".")[0] for name in asked])
            decoded = decode.decode(of_stream, versions[stream], reader=newest)
            decoded = decoded.withColumn("rule", F.lit(None).cast("string"))
        if versions.not_avro:
            is_other = F.col("error").eqNullSafe(decode.UNKNOWN_SCHEMA_ID) & F.col("schema_id").isin(*versions.not_avro)
            decoded = decoded.withColumn("error", F.when(is_other, NOT_AVRO).otherwise(F.col("error")))
        if key:
            decoded = tombstones.with_deleted_keys(decoded, stream, newest, key, versions.of_keys)
        self._require_comparable(stream, marks)
        event = decoded.schema["event"].dataType
        rules.require_fields(stream, declared, event_time, event)
        stateless = rules.stateless(declared)
        failures, max_ahead = rules.failures(stateless, event), self.settings.quarantine.max_ahead
        time_error = rules.event_time_error(event_time, clock, max_ahead) if event_time else None
        return apply_rules(decoded, stateless, failures, time_error)

    def validate_batch(
        self,
        records: DataFrame,
        stream: str,
        versions: Versions,
        clock: Column,
        owns_unmatched: bool,
        silver: str,
        starts: Mapping[int, int],
    ) -> DataFrame:
        """Do what `validate` does, and then apply the rules that need other tables (reference, unique).

        Args:
            silver: the path of the table that holds the stream's events.
            starts: the batch's first offset in each partition.

        Raises:
            TidemarkError: what `validate` raises; TABLE_MISSING, where a rule refers to a table that is not there.
        """
        validated = self.validate(records, stream, versions, clock, owns_unmatched)
        for rule in self.rules_of(stream):
            if isinstance(rule, Reference):
                marked = rules.with_reference(validated, rule, self._values(validated, rule))
            elif isinstance(rule, Unique):
                event_time = self.event_time(stream) or ""
                earlier = self._earlier(validated, rule, event_time, silver, starts)
                marked = rules.with_repeats(validated, rule, event_time, earlier)
            else:
                continue
            validated = apply_rules(marked, [rule], {rule.name: F.col(rules.MARK)}).drop(rules.MARK)
        return validated

    def _of_stream(self, records: DataFrame, stream: str, versions: Versions, owns_unmatched: bool) -> DataFrame:
        foreign = [version for other in versions if other != stream for version in versions[other]]
        if not foreign:
            return records
        return records.where(~decode.carries(foreign) if owns_unmatched else decode.carries(versions[stream]))

    def rules_of(self, stream: str) -> tuple[Rule, ...]:
        return self.rules_by_stream.get(stream, ())

    def event_time(self, stream: str) -> str | None:
        """Return the field that holds the event time, where the stream's topic is declared with one."""
        declared = self.topics.get(stream.partition("/")[0])
        return declared.event_time if declared else None

    def _require_comparable(self, stream: str, marks: PiiFields) -> None:
        declared = self.topics.get(stream)
        looking = [rule for rule in self.rules_of(stream) if isinstance(rule, Reference | Unique)]
        if declared and declared.compaction_key and any(isinstance(rule, Unique) for rule in looking):
            what = f"topic {stream} is compacted, and has a rule that asks for unique events"
            raise TidemarkError("BAD_RULES", what, "take it out: the newest event of each key stays, others go")
        for rule in looking:
            if marked := [field for field in fields_of(rule) if marks.covers(field)]:
                what = f"rule {rule.name} of {stream} compares {marked[0]} with a table, and it is marked as personal"
                raise TidemarkError("BAD_RULES", what, "take it out: tables hold another value, or none")

    def _values(self, validated: DataFrame, rule: Reference) -> DataFrame:
        # A range writes into a folder of its own, and refers to the live tables.
        table = delta_table.read(validated.sparkSession, paths.table(self.settings.paths.tables, rule.table))
        kept = table.where("NOT _deleted") if "_deleted" in table.columns else table
        if rule.column not in table.columns:
            what = f"rule `{rule.name}` refers to {rule.table}, which has no column `{rule.column}`"
            raise TidemarkError("BAD_RULES", what, nearest(rule.column, table.columns))
        kinds = (
            rules.field_type(validated.schema["event"].dataType, rule.field),
            table.schema[rule.column].dataType,
        )
        if kinds[0] != kinds[1] and not all(isinstance(kind, NumericType) for kind in kinds):
            what = f"rule `{rule.name}` compares {rule.field} with {rule.column} of {rule.table}"
            what += f", and the one is {kinds[0].simpleString()}, the other {kinds[1].simpleString()}"
            raise TidemarkError("BAD_RULES", what, "name a column of the field's type")
        return kept.select(F.col(f"`{rule.column}`").alias("value"))

    def _earlier(
        self, validated: DataFrame, rule: Unique, event_time: str, silver: str, starts: Mapping[int, int]
    ) -> DataFrame | None:
        """Return silver's rows of before the batch; None where it holds none that could be compared."""
        spark = validated.sparkSession
        if not starts or not delta_table.exists(spark, silver):
            return None
        table, at = delta_table.read(spark, silver), rules.field_of_event(event_time)
        needed = {name.partition(".")[0] for name in (*rule.fields, event_time)}
        at_ms = F.unix_millis(at.cast("timestamp"))
        between = validated.where(F.col("error").isNull()).agg(F.min(at_ms), F.max(at_ms)).collect()[0]
        if between[0] is None or not needed <= set(table.columns):
            return None
        return rules.before_batch(table, rule, event_time, starts, (between[0], between[1]))


def declared_rules(topics: Mapping[str, Topic], more: Iterable[str]) -> dict[str, tuple[Rule, ...]]:
    """Return the declared rules, by stream; topics that are not declared (`more`) may have some too."""
    streams = {stream for topic in topics.values() for stream in topic.streams}
    return load_rules(streams | (set(more) - topics.keys()))


@contextmanager
def naming_schema(stream: str, versions: Versions) -> Iterator[None]:
    """Turn complaints about a schema into BAD_SCHEMA, with topic, subject and version."""
    try:
        yield
    except TidemarkError as exc:
        if exc.code not in ("INVALID_SCHEMA", "BAD_SCHEMA"):
            raise
        registered = versions[stream]
        bad = next((version for version in registered if not is_valid(version.text)), registered[-1])
        topic = stream.partition("/")[0]
        place = f"topic {topic}, subject {bad.subject}, version {bad.version} (schema id {bad.id})"
        what, remedy = bad.problem or (exc.message, exc.remedy)
        raise TidemarkError("BAD_SCHEMA", f"{place}: {what}", remedy) from exc


def apply_rules(
    decoded: DataFrame, declared: Sequence[Rule], failures: Mapping[str, Column], time_error: Column | None = None
) -> DataFrame:
    """Let each of the `declared` rules have its effect on the rows that have no `error` yet.

    Args:
        decoded: the result of `avro.decode` and `rule` string, or of this function for other rules.
        failures: where each rule fails, boolean (null: it does not), by the rule's name.
        time_error: what is wrong with the event time, string; null: nothing is.

    Returns:
        the same columns with `error` string, the time's error or RULE_FAILED, and then `rule` string, the first that
        failed; and a column `rules.FAILED` and name, boolean and never null, for each rule, whatever its action. Where
        a rule that stops fails, the evaluation of `error` does: RULE_STOPPED.
    """
    good = F.col("error").isNull()
    columns = {f"{rules.FAILED}{rule.name}": F.coalesce(good & failures[rule.name], F.lit(False)) for rule in declared}
    marked = decoded.withColumns(columns) if columns else decoded
    failed = {rule.name: F.col(f"{rules.FAILED}{rule.name}") for rule in declared}
    error = F.when(~good, F.col("error"))
    for rule in (rule for rule in declared if rule.on_failure == "stop"):
        error = error.when(failed[rule.name], _stopped(rule))
    is_timed = F.lit(True) if time_error is None else time_error.isNull()
    if time_error is not None:
        error = error.when(~is_timed, time_error)
    names = [F.when(failed[rule.name], rule.name) for rule in declared if rule.on_failure == "quarantine"]
    if not names:
        return marked.withColumn("error", error) if declared or time_error is not None else marked
    first = F.coalesce(*names)
    name = F.coalesce("rule", F.when(good & is_timed, first))
    return marked.withColumns({"error": error.when(first.isNotNull(), rules.RULE_FAILED), "rule": name})


def _stopped(rule: Rule) -> Column:
    place = F.format_string(
        f"{RULE_STOPPED}: rule `{rule.name}` of topic %s fails at partition %d, offset %d: %s; "
        "mend the rule in conf/rules.toml, or set its on_failure to quarantine, and start again",
        "topic",
        "partition",
        "offset",
        F.lit(str(rule)),
    )
    return F.raise_error(place).cast("string")


def reject_counts(is_rejected: Column) -> dict[str, Column]:
    """Return how many records are rejected by each code, as aggregates by name: REJECTED_AS and the code."""
    return {f"{REJECTED_AS}{code}": F.count_if(is_rejected & (F.col("error") == code)) for code in REJECT_CODES}
