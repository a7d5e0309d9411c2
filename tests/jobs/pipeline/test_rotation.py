"""A password that is changed while a job runs: the query is planned anew with what its file says, nothing lost."""

import uuid
from pathlib import Path
from threading import Thread

import pytest
from confluent_kafka.admin import AclOperation, ResourceType
from pyspark import inheritable_thread_target
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from jobs.connectors.kafka.access import LongLivedClient
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import Failures, make_restart, supervise
from local.processes import wait_for
from tests.faults import nodes
from tests.faults.oracle import fill, judge
from tests.jobs.scratch import Scratch
from tests.secured import LOGIN, SecuredCluster

SECONDS = 120
OLD, NEW = "open-sesame-old", "open-sesame-new"


@pytest.mark.slow
def test_a_password_that_is_changed_while_a_job_publishes_is_read_again_and_each_record_is_there_once(
    spark: SparkSession,
    secured: SecuredCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    user, password = f"rotated-{uuid.uuid4().hex[:8]}", tmp_path / "password"
    secured.set_password(OLD, user)
    password.write_text(f"{OLD}\n")
    monkeypatch.setenv("TIDEMARK_KAFKA__SASL_PASSWORD_FILE", str(password))
    scratch = Scratch(spark, secured, lambda partitions: secured.topic(f"in-{uuid.uuid4().hex[:8]}"), tmp_path)
    scratch.application = user
    source, target = (secured.topic(f"{name}-{user}") for name in ("in", "out"))
    for kind in (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID):
        secured.allow(kind, "*", AclOperation.ALL, user=user)
    access = {"bootstrap_servers": secured.address(LOGIN), "security_protocol": LOGIN, "sasl_username": user}
    access |= {"sasl_mechanism": "SCRAM-SHA-512", "ssl_ca_location": str(secured.ca)}

    def build(run: Run) -> None:
        run.publish(run.records(source).select("key", "value"), target)

    def published() -> int:
        return judge(secured.bootstrap_servers, target, range(0)).rows

    run = scratch.run("spark.trigger=1 second", *(f"kafka.{key}={value}" for key, value in access.items()))
    build(run)
    client = LongLivedClient(run.settings.kafka)
    before = client.admin()
    stops: list[TidemarkError] = []
    on_stop = lambda name, stop, query: stops.append(stop)  # noqa: E731
    failures = Failures(run.settings.run, run.settings.kafka)
    waiting = Thread(
        target=inheritable_thread_target(spark)(supervise),
        args=(spark, run.starts(True), failures.decide, make_restart(run, build, True)),
        kwargs={"on_stop": on_stop},
    )
    fill(secured.bootstrap_servers, source, range(100), [0])
    waiting.start()
    try:
        wait_for(lambda: published() == 100, SECONDS, lambda: AssertionError("the first records are not published"))
        secured.set_password(NEW, user)
        password.write_text(NEW)
        nodes.restart(secured, 1)  # drops every connection
        fill(secured.bootstrap_servers, source, range(100, 200), [0])
        late = lambda: AssertionError(f"the later records are not published: {stops}")  # noqa: E731
        wait_for(lambda: published() >= 200 or not waiting.is_alive(), SECONDS, late)
    finally:
        for query in spark.streams.active:
            query.stop()
        waiting.join(SECONDS)
    assert client.admin() is not before
    assert target in client.admin().list_topics(timeout=SECONDS).topics
    assert {stop.code for stop in stops} == {"BROKER_REFUSES"}
    assert judge(secured.bootstrap_servers, target, range(200), f"__{user}.probe.{target}.ledger").clean
    said = "".join(capfd.readouterr())
    assert "starts again: " in said
    assert OLD not in said
    assert NEW not in said
