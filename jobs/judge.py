"""Which records of a topic are accepted: by the registered schemas, the declared rules and the clock."""

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.errors import TidemarkError, nearest
from conf.rules import Reference, Rule, Unique
from conf.settings import Settings
from conf.topics import Topic, subject_of
from jobs import lookups, rules
from jobs.connectors import avro, delta
from schemas.registry import Registry


@dataclass(frozen=True)
class Judge:
    """Knows what every topic's records must be."""

    settings: Settings
    registry: Registry
    topics: Mapping[str, Topic]
    rules: dict[str, tuple[Rule, ...]]

    def decide(self, records: DataFrame, topic: str, clock: Column) -> DataFrame:
        """`avro.decode` of `records` (Kafka's columns), then every rule that needs nothing but the record.

        Each is decoded by the registered version that it names, into the newest one.

        Args:
            clock: what an event time is compared with, timestamp.

        Returns:
            what `rules.judge` gives.

        Raises:
            TidemarkError: UNKNOWN_SUBJECT, or BAD_RULES, where a rule asks for what events of the topic do not have.
        """
        versions = self.registry.versions(subject_of(topic))
        decoded = rules.unjudged(avro.decode(records, versions, reader=versions[-1].text))
        declared, event_time = self.of(topic), self.event_time(topic)
        self._require_comparable(topic)
        rules.require_fields(topic, declared, event_time, decoded.schema["event"].dataType)
        stateless = rules.stateless(declared)
        ahead = rules.ahead(event_time, clock, self.settings.quarantine.max_ahead) if event_time else None
        return rules.judge(decoded, stateless, rules.failures(stateless), ahead)

    def look_up(self, judged: DataFrame, topic: str, silver: str, starts: Mapping[int, int]) -> DataFrame:
        """Let the rules have their effect that compare a batch, as `decide` gives it, with tables.

        Args:
            silver: the path of the table that holds the topic's events.
            starts: the batch's first offset in each partition.

        Raises:
            TidemarkError: TABLE_MISSING, where a rule refers to a table that is not there.
        """
        for rule in self.of(topic):
            if isinstance(rule, Reference):
                marked = lookups.with_reference(judged, rule, self._values(judged, rule))
            elif isinstance(rule, Unique):
                event_time = self.event_time(topic) or ""
                earlier = self._earlier(judged, rule, event_time, silver, starts)
                marked = lookups.with_repeats(judged, rule, event_time, earlier)
            else:
                continue
            judged = rules.judge(marked, [rule], {rule.name: F.col(lookups.MARK)}).drop(lookups.MARK)
        return judged

    def of(self, topic: str) -> tuple[Rule, ...]:
        """The rules of `topic`."""
        return self.rules.get(topic, ())

    def event_time(self, topic: str) -> str | None:
        """The field that holds the event time, where the topic is declared with one."""
        declared = self.topics.get(topic)
        return declared.event_time if declared else None

    def _require_comparable(self, topic: str) -> None:
        declared = self.topics.get(topic)
        if declared and declared.cleanup_policy == "compact" and any(isinstance(r, Unique) for r in self.of(topic)):
            what = f"topic {topic} is compacted, and has a rule that asks for unique events"
            raise TidemarkError("BAD_RULES", what, "take it out: the newest event of each key stays, others go")

    def _values(self, judged: DataFrame, rule: Reference) -> DataFrame:
        # A range writes into a folder of its own, and refers to the live tables.
        table = delta.read(judged.sparkSession, f"{self.settings.paths.tables}/{rule.table}")
        kept = table.where("NOT _deleted") if "_deleted" in table.columns else table
        if rule.column not in table.columns:
            what = f"rule `{rule.name}` refers to {rule.table}, which has no column `{rule.column}`"
            raise TidemarkError("BAD_RULES", what, nearest(rule.column, table.columns))
        return kept.select(F.col(rule.column).alias("value"))

    def _earlier(
        self, judged: DataFrame, rule: Unique, event_time: str, silver: str, starts: Mapping[int, int]
    ) -> DataFrame | None:
        """None where silver holds nothing of before the batch that could be compared."""
        spark = judged.sparkSession
        if not starts or not delta.exists(spark, silver):
            return None
        table, at = delta.read(spark, silver), lookups.field_of_event(event_time)
        needed = {name.partition(".")[0] for name in (*rule.fields, event_time)}
        at_ms = F.unix_millis(at.cast("timestamp"))
        between = judged.where(F.col("error").isNull()).agg(F.min(at_ms), F.max(at_ms)).collect()[0]
        if between[0] is None or not needed <= set(table.columns):
            return None
        return lookups.before_batch(table, rule, event_time, starts, (between[0], between[1]))
