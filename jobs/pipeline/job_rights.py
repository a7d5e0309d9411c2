"""Finds what the user of a job must be allowed to do on the brokers, by the outputs that the job declares."""

from collections.abc import Iterable

from pyspark.sql import DataFrame

from conf.settings import Settings
from jobs.connectors.exactly_once.ledger_topic import sink_rights
from jobs.connectors.kafka import source_sink
from jobs.connectors.kafka.access import Right, publishing
from jobs.pipeline import plan_analysis
from jobs.pipeline.monitoring.lag import group_of
from jobs.pipeline.outputs import Output
from jobs.pipeline.run import Run
from jobs.pipeline.topic_sink import TopicOutput

LAG = "its lag in tools that show that of groups (source.commit_to_group)"


class DeclaredRun(Run):
    """Takes what a job declares, and asks no broker whether its topics are there."""

    def records(self, topic: str) -> DataFrame:
        subscription = source_sink.Subscription((topic,))
        return source_sink.read_stream(self.spark, self.settings.kafka, self._source(), subscription)


def job_rights(run: Run) -> list[Right]:
    """Return the rights that the declared outputs of a stream need together."""
    return [right for output in run.outputs for right in output_rights(run.settings, output)]


def output_rights(settings: Settings, output: Output) -> list[Right]:
    """Return the rights that the query of an output needs."""
    rights = reading_rights(settings, sorted(set(plan_analysis.topics_read(output.frame))), output.query)
    if isinstance(output, TopicOutput) and output.keeps_ledger:
        return rights + sink_rights(output.sink_id, [output.topic])
    return rights + (publishing([output.topic]) if output.topic else [])


def reading_rights(settings: Settings, topics: Iterable[str], query: str) -> list[Right]:
    """Return the rights that a query that reads `topics` needs;
    none on the groups of Spark's consumers, which join none."""
    rights = [Right("topic", topic, ("Read",)) for topic in topics]
    if settings.source.commit_to_group:
        rights.append(Right("group", group_of(settings, query), ("Read",), without=LAG))
    return rights
