"""Which records of a topic are accepted: by the registered schemas, the declared rules and the clock."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from conf.errors import TidemarkError, nearest
from conf.rules import Reference, Rule, Unique, fields_of, load_rules
from conf.settings import Settings
from conf.topics import Topic
from jobs import lookups, rules
from jobs.connectors import avro, delta
from schemas.personal import Marks, marks_of
from schemas.registry import RegisteredSchema, Registry
from schemas.subjects import subject_of_stream

Versions = Mapping[str, Sequence[RegisteredSchema]]
"""The registered versions of each stream of a topic, the newest last."""


@dataclass(frozen=True)
class Judge:
    """Knows what every topic's records must be; rules are held by stream (`schemas.subjects`)."""

    settings: Settings
    registry: Registry
    topics: Mapping[str, Topic]
    rules: dict[str, tuple[Rule, ...]]

    def streams(self, topic: str) -> list[str]:
        """The streams of `topic`: itself, where it has events of one type."""
        return list(self.topics[topic].streams) if topic in self.topics else [topic]

    def versions(self, topic: str) -> Versions:
        """What the registry has of each stream of `topic`. One answer is for all that is done with a micro-batch: a
        version that comes in its middle must not change half of it.

        Raises:
            TidemarkError: UNKNOWN_SUBJECT, and the registry's errors.
        """
        return {stream: self.registry.versions(subject_of_stream(stream)) for stream in self.streams(topic)}

    def decide(
        self, records: DataFrame, stream: str, versions: Versions, clock: Column, takes_strays: bool = True
    ) -> DataFrame:
        """`avro.decode` of those of `records` (Kafka's columns) that are of `stream`, then every rule that needs
        nothing but the record.

        Each is decoded by the registered version that it names, into the newest one.

        Args:
            versions: of the stream's topic.
            clock: what an event time is compared with, timestamp.
            takes_strays: whether records that are of no stream of the topic are among the rejected ones.

        Returns:
            what `rules.judge` gives.

        Raises:
            TidemarkError: BAD_RULES, where a rule asks for what events of the topic do not have.
        """
        newest = versions[stream][-1].text
        own = self._own(records, stream, versions, takes_strays)
        decoded = rules.unjudged(avro.decode(own, versions[stream], reader=newest))
        declared, event_time = self.of(stream), self.event_time(stream)
        self._require_comparable(stream, marks_of(newest))
        rules.require_fields(stream, declared, event_time, decoded.schema["event"].dataType)
        stateless = rules.stateless(declared)
        ahead = rules.ahead(event_time, clock, self.settings.quarantine.max_ahead) if event_time else None
        return rules.judge(decoded, stateless, rules.failures(stateless), ahead)

    def _own(self, records: DataFrame, stream: str, versions: Versions, takes_strays: bool) -> DataFrame:
        foreign = [version for other in versions if other != stream for version in versions[other]]
        if not foreign:
            return records
        return records.where(~avro.carries(foreign) if takes_strays else avro.carries(versions[stream]))

    def look_up(self, judged: DataFrame, stream: str, silver: str, starts: Mapping[int, int]) -> DataFrame:
        """Let the rules have their effect that compare a batch, as `decide` gives it, with tables.

        Args:
            silver: the path of the table that holds the stream's events.
            starts: the batch's first offset in each partition.

        Raises:
            TidemarkError: TABLE_MISSING, where a rule refers to a table that is not there.
        """
        for rule in self.of(stream):
            if isinstance(rule, Reference):
                marked = lookups.with_reference(judged, rule, self._values(judged, rule))
            elif isinstance(rule, Unique):
                event_time = self.event_time(stream) or ""
                earlier = self._earlier(judged, rule, event_time, silver, starts)
                marked = lookups.with_repeats(judged, rule, event_time, earlier)
            else:
                continue
            judged = rules.judge(marked, [rule], {rule.name: F.col(lookups.MARK)}).drop(lookups.MARK)
        return judged

    def of(self, stream: str) -> tuple[Rule, ...]:
        """The rules of `stream`."""
        return self.rules.get(stream, ())

    def event_time(self, stream: str) -> str | None:
        """The field that holds the event time, where the stream's topic is declared with one."""
        declared = self.topics.get(stream.partition("/")[0])
        return declared.event_time if declared else None

    def _require_comparable(self, stream: str, marks: Marks) -> None:
        declared, looking = self.topics.get(stream), [r for r in self.of(stream) if isinstance(r, Reference | Unique)]
        if declared and declared.compaction_key and any(isinstance(rule, Unique) for rule in looking):
            what = f"topic {stream} is compacted, and has a rule that asks for unique events"
            raise TidemarkError("BAD_RULES", what, "take it out: the newest event of each key stays, others go")
        for rule in looking:
            if marked := [field for field in fields_of(rule) if marks.hold(field)]:
                what = f"rule {rule.name} of {stream} compares {marked[0]} with a table, and it is marked as personal"
                raise TidemarkError("BAD_RULES", what, "take it out: tables hold another value, or none")

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


def rules_of(topics: Mapping[str, Topic], more: Iterable[str]) -> dict[str, tuple[Rule, ...]]:
    """The declared rules, by stream; topics that are not declared (`more`) may have some too."""
    streams = {stream for topic in topics.values() for stream in topic.streams}
    return load_rules(streams | (set(more) - topics.keys()))
