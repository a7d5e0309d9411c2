"""A right that is taken back while a query runs stops it by name; whoever follows the stop goes on, nothing lost."""

import uuid
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation, ResourceType
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from jobs.ingest import job
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from local.processes import wait_for
from tests.jobs.scratch import Scratch
from tests.kafka_commands import follow
from tests.secured import PASSWORD, SASL, USER, SecuredCluster

SECONDS = 120  # until a first batch is done, on a busy machine


@pytest.mark.slow
@pytest.mark.parametrize(
    "kept",
    [
        pytest.param((AclOperation.DESCRIBE,), id="it may still be described"),
        pytest.param((), id="nothing is left", marks=pytest.mark.exhaustive),
    ],
)
def test_a_right_that_is_lost_while_a_query_runs_is_named_and_once_it_is_granted_the_query_goes_on(
    kept: tuple[AclOperation, ...],
    spark: SparkSession,
    secured: SecuredCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIDEMARK_KAFKA__SASL_PASSWORD", PASSWORD)
    scratch = Scratch(spark, secured, lambda partitions: secured.topic(f"lost-{uuid.uuid4().hex[:8]}"), tmp_path)
    topic = scratch.topic()
    secured.allow(ResourceType.TOPIC, topic, AclOperation.READ, *kept)
    secured.allow(ResourceType.GROUP, "*", AclOperation.READ)

    def declared() -> Run:
        kafka = {"bootstrap_servers": secured.address(SASL), "security_protocol": SASL, "sasl_username": USER}
        settings = [f"kafka.{key}={value}" for key, value in (kafka | {"sasl_mechanism": "SCRAM-SHA-256"}).items()]
        run = scratch.run(f"ingest.topics={topic}", "spark.trigger=1 second", *settings, job="ingest")
        job.build(run)
        return run

    def levels() -> list[int]:
        return [level for (level,) in scratch.rows(f"silver/{topic}", "level")]

    scratch.send(topic, scratch.reading(topic, "a", 1))
    queries = declared().start(continuous=True)
    late = AssertionError("the first record is not read")
    wait_for(lambda: levels() == [1] or not queries[0].isActive, SECONDS, lambda: late)
    secured.take_back(ResourceType.TOPIC, topic, AclOperation.READ)
    scratch.send(topic, scratch.reading(topic, "a", 2))

    with pytest.raises(TidemarkError) as stopped:
        await_all(spark, queries)

    said = str(stopped.value)
    assert "NOT_AUTHORIZED: " in said
    assert f"user {USER} lacks the right to Read" in said
    assert f"on topic {topic}" in said
    assert follow(said, **{secured.address(SASL): secured.bootstrap_servers})
    scratch.catch_up(declared())
    assert levels() == [1, 2]
