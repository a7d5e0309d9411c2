"""A producer and a job that know their schemas from a real registry over HTTP; the registry dies while the job runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.ingest import job
from jobs.pipeline.run import Run
from local.broker import Cluster
from local.processes import wait_for
from producers.files.publish import publish_files
from producers.files.request import FileRequest
from producers.kafka.pacing import Interrupt
from schemas.open_registry import open_registry
from tests.contracts.apicurio import Apicurio
from tests.jobs.scratch import Scratch
from tests.producers.desk import GOOD, HEADER, KEYED, ORDERS
from tests.sent import Record

pytestmark = pytest.mark.registry
SECONDS = 120


class Shop:
    """Orders, published and ingested by way of a registry over HTTP."""

    def __init__(self, scratch: Scratch, topic: str, url: str) -> None:
        self.scratch, self.topic = scratch, topic
        self.sets = (f"registry.url={url}", f"ingest.topics={topic}", "jobs.ingest.trigger=100 milliseconds")
        self.settings = scratch.settings(*self.sets)

    def publish(self, count: int) -> None:
        """`count` orders, from a file."""
        schema, rows = self.scratch.folder / "order.avsc", self.scratch.folder / "orders.csv"
        schema.write_text(ORDERS)
        rows.write_text(HEADER + GOOD * count)
        request = FileRequest(self.topic, [rows], KEYED, schema=schema)
        publish_files(self.settings, request, Interrupt(), self.scratch.folder)

    def ingest(self) -> Run:
        run = self.scratch.run(*self.sets, job="ingest")
        job.build(run)
        return run

    def orders(self) -> int:
        return len(self.scratch.rows(f"silver/{self.topic}"))

    def framed(self) -> bytes:
        """The value of an order that was ingested."""
        [(value,), *_] = self.scratch.rows(f"bronze/{self.topic}", "value")
        return bytes(value)

    def require(self, count: int) -> None:
        wait_for(
            lambda: self.orders() == count, SECONDS, lambda: AssertionError(f"{self.orders()} orders, not {count}")
        )


@pytest.fixture
def shop(
    spark: SparkSession, broker: Cluster, new_topic: Callable[[int], str], tmp_path: Path, apicurio: Apicurio
) -> Shop:
    return Shop(Scratch(spark, broker, new_topic, tmp_path), new_topic(1), apicurio.url)


def test_what_is_published_is_ingested_by_the_registrys_schema(shop: Shop) -> None:
    shop.publish(3)
    shop.scratch.catch_up(shop.ingest())
    assert shop.orders() == 3
    [registered] = open_registry(shop.settings.registry).versions(f"{shop.topic}-value")
    assert set(shop.scratch.rows(f"silver/{shop.topic}", "id", "note", "_schema_id")) == {("a", "x", registered.id)}
    assert not (shop.scratch.folder / "registry").exists()


def test_a_job_whose_registry_dies_waits_for_it_and_goes_on_and_nothing_is_quarantined(
    shop: Shop, apicurio: Apicurio, capfd: pytest.CaptureFixture[str]
) -> None:
    shop.publish(2)
    [query] = shop.ingest().start(continuous=True)
    try:
        shop.require(2)
        value = shop.framed()
        apicurio.kill()
        shop.scratch.send(shop.topic, *[Record(value)] * 3)
        told = f"registry {apicurio.url} does not answer"
        wait_for(lambda: told in capfd.readouterr().err, SECONDS, lambda: AssertionError("it does not wait"))
        assert query.isActive
        assert shop.orders() == 2
        apicurio.start()
        shop.require(5)
    finally:
        query.stop()
    assert shop.scratch.rows("quarantine") == []


def test_a_job_that_waits_for_its_registry_can_be_stopped(
    shop: Shop, apicurio: Apicurio, capfd: pytest.CaptureFixture[str]
) -> None:
    shop.publish(1)
    run = shop.ingest()
    [query] = run.start(continuous=True)
    shop.require(1)
    value = shop.framed()
    apicurio.kill()
    shop.scratch.send(shop.topic, Record(value))
    wait_for(lambda: "does not answer" in capfd.readouterr().err, SECONDS, lambda: AssertionError("it does not wait"))
    run.ending.set()
    query.stop()
    assert not query.isActive
    assert shop.scratch.rows("quarantine") == []
