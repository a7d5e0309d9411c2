"""Ledgers are known by their names, and go only by name, where nothing speaks for them."""

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Settings, load
from jobs.operations.maintenance.ledgers import LedgerMaintenance, LedgerReport, ledger_sink, use_of_sink
from local.broker import Cluster
from local.processes import wait_for
from tests.jobs.operations.maintenance.test_checkpoints import file


@pytest.mark.parametrize(
    ("topic", "sink"),
    [
        ("__tidemark.flights.delay_alerts.ledger", "flights.delay_alerts"),
        ("__other.flights.delay_alerts.ledger", None),
        ("__tidemark.ledger", None),
        ("tidemark.a.ledger", None),
    ],
)
def test_a_ledger_is_known_by_its_name(topic: str, sink: str | None) -> None:
    assert ledger_sink(topic, "tidemark") == sink


def test_a_job_a_checkpoint_or_a_publisher_speaks_for_a_ledger() -> None:
    assert use_of_sink("flights.delay_alerts", set(), {"flights.delay_alerts"}) == "its job is there"
    assert use_of_sink("a.b", {"a.b"}, set()) == "its query has a checkpoint"
    assert use_of_sink("publish.file.x", set(), set())
    assert use_of_sink("flights.delay", set(), {"flights.delay_alerts", "flights"}) == "its job is there"
    assert use_of_sink("flightsx", set(), {"flights"}) == ""


@pytest.fixture
def on_broker(broker: Cluster, tmp_path: Path) -> Settings:
    application = f"app-{tmp_path.name}"[:40]
    servers = f"kafka.bootstrap_servers={broker.bootstrap_servers}"
    return load("local", [servers, f"ledger.application={application}", f"paths.checkpoints={tmp_path}"])


def ledgers(spark: SparkSession, settings: Settings, *remove: str, dry_run: bool = False) -> list[LedgerReport]:
    return list(LedgerMaintenance(spark, settings).reports(remove, dry_run))


def test_only_what_nothing_speaks_for_is_removed_and_only_by_name(
    spark: SparkSession, on_broker: Settings, tmp_path: Path
) -> None:
    admin = AdminClient({**on_broker.kafka.client_config(), "log_level": 0})
    gone, there = (f"__{on_broker.ledger.application}.{sink}.ledger" for sink in ("gone.a", "there.a"))
    new = [NewTopic(name, 3, 1, config={"cleanup.policy": "compact"}) for name in (gone, there)]
    for made in admin.create_topics(new).values():
        made.result()
    file(tmp_path / "there" / "a" / "metadata")
    wait_for(lambda: len(ledgers(spark, on_broker)) == 2, 30, lambda: TimeoutError("the topics did not come"))
    listed = {each.topic: each for each in ledgers(spark, on_broker)}
    assert (listed[gone].in_use, listed[gone].partitions, listed[gone].problem) == ("", 3, "")
    assert next(iter(listed[gone].lines())).endswith(f"no job or checkpoint of its name: --remove {gone}")
    assert listed[there].in_use == "its query has a checkpoint"
    with pytest.raises(TidemarkError, match="LEDGER_IN_USE"):
        ledgers(spark, on_broker, there)
    with pytest.raises(TidemarkError, match="NO_LEDGER"):
        ledgers(spark, on_broker, gone, "else")
    assert [each.removed for each in ledgers(spark, on_broker, gone, dry_run=True)] == [False, False]
    assert {each.topic: each.removed for each in ledgers(spark, on_broker, gone)} == {
        gone: True,
        there: False,
    }
    wait_for(lambda: len(ledgers(spark, on_broker)) == 1, 30, lambda: TimeoutError(f"{gone} did not go"))


@pytest.mark.slow
def test_a_ledger_that_is_not_compacted_is_a_problem(spark: SparkSession, on_broker: Settings) -> None:
    admin = AdminClient({**on_broker.kafka.client_config(), "log_level": 0})
    topic = f"__{on_broker.ledger.application}.a.b.ledger"
    admin.create_topics([NewTopic(topic, 1, 1, config={"cleanup.policy": "delete"})])[topic].result()
    wait_for(lambda: len(ledgers(spark, on_broker)) == 1, 30, lambda: TimeoutError("the topic did not come"))
    (found,) = ledgers(spark, on_broker)
    assert found.problem == "cleanup.policy is delete: markers get lost, set it to compact"
    admin.delete_topics([topic])[topic].result()
