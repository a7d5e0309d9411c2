"""What an output topic holds, by the markers in its sink's ledger."""

import json
from collections.abc import Callable

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from jobs.connectors.exactly_once.ledger import BatchId, Done, Plan, Published
from jobs.connectors.kafka.consumer import ReadCommittedConsumer
from jobs.operations.coverage import holdings
from jobs.operations.coverage.holdings import SinkCoverage, sink_coverages
from local.broker import Cluster
from tests.jobs.operations.coverage.holdings import Holdings, send

HEADER = 'v1\n{"batchWatermarkMs":0}\n'


def entry(source: str, end: int) -> str:
    return HEADER + json.dumps({source: {"0": end}})


class Markers:
    """Writes markers of one sink, whose query reads partition 0 of `source` from offset 2 on."""

    def __init__(self, servers: str, source: str) -> None:
        self.source, self._servers = source, servers
        self.application = f"app-{source}"
        self.sink = f"{self.application}.probe"
        self.ledger = f"__{self.sink}.ledger"
        self.admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        self.admin.create_topics([NewTopic(self.ledger, 3, 1)])[self.ledger].result()

    def write(self, partition: int, value: bytes) -> None:
        producer = Producer({"bootstrap.servers": self._servers})
        producer.produce(self.ledger, value, partition=partition)
        assert producer.flush(30) == 0

    def plan(self, batch: int, start: int, end: int, topics: dict[str, str] | None = None) -> None:
        files = {f"offsets/{batch}": entry(self.source, end)}
        files |= {f"offsets/{batch - 1}": entry(self.source, start)} if batch else {}
        files["sources/0/0"] = "v1\n" + json.dumps({self.source: {"0": 2}})
        id = BatchId("q", batch, f"hash {batch}")
        self.write(0, Plan(id, "source", 2, topics=topics or {}, checkpoint=files).to_json())

    def done(self, batch: int, *records: int) -> None:
        """A batch of as many shards as there are `records`."""
        for shard, count in enumerate(records):
            self.write(1 + shard, Done(BatchId("q", batch, f"hash {batch}"), shard, count).to_json())

    def covered(self) -> SinkCoverage:
        with ReadCommittedConsumer({"bootstrap.servers": self._servers}) as reader:
            (found,) = sink_coverages(self.admin, reader, self.application)
        return found


@pytest.fixture
def markers(covered: Holdings, new_topic: Callable[[int], str]) -> Markers:
    source = new_topic(1)
    send(covered.servers, source, 20)
    return Markers(covered.servers, source)


def spans(found: SinkCoverage) -> list[tuple[int | None, int]]:
    assert found.chain is not None
    return [(span.start, span.end) for span in found.chain.spans]


def test_published_batches_are_held_from_where_the_query_began(markers: Markers) -> None:
    for batch, (start, end) in enumerate([(2, 5), (5, 9)]):
        markers.plan(batch, start, end)
        markers.done(batch, 3, 4)
    found = markers.covered()
    assert (found.sink, found.query, found.batch, found.records) == (markers.sink, "probe", 1, 7)
    assert (spans(found), found.missing) == ([(2, 9)], ())


@pytest.mark.parametrize("older", [True, False])
def test_a_batch_that_is_not_published_whole_is_not_held(older: bool, markers: Markers) -> None:
    if older:
        markers.plan(0, 2, 5)
    markers.done(0, 3, 4)
    markers.plan(1, 5, 9)
    markers.done(1, 3)
    found = markers.covered()
    assert (found.batch, found.records, found.missing, spans(found)) == (1, 3, (1,), [(2, 5)])


def test_of_a_first_batch_that_is_not_published_nothing_is_held(markers: Markers) -> None:
    markers.plan(0, 2, 5)
    found = markers.covered()
    assert (found.missing, spans(found)) == ((0, 1), [(2, 2)])


def test_a_plan_far_back_is_found(markers: Markers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "PLAN_TAIL", 1)
    markers.plan(0, 2, 5)
    markers.done(0, 3, 4)
    for _ in range(3):
        markers.write(0, b'{"kind": "open", "writer": "x"}')
    assert spans(markers.covered()) == [(2, 5)]


def test_a_ledger_that_began_anew_says_nothing_of_what_was_before(markers: Markers) -> None:
    markers.write(0, Plan(BatchId("q", 4, "hash"), "key", 0).to_json())
    found = markers.covered()
    assert (found.chain, found.batch, found.missing) == (None, 4, ())


def test_the_ledger_of_a_publisher_is_no_sink(markers: Markers, broker: Cluster) -> None:
    markers.write(0, Published(BatchId("name", 0, ""), 0).to_json())
    with ReadCommittedConsumer({"bootstrap.servers": broker.bootstrap_servers}) as reader:
        assert sink_coverages(markers.admin, reader, markers.application) == []


def test_the_check_names_a_gap_an_output_topic_that_is_gone_and_what_is_unfinished(
    markers: Markers, covered: Holdings
) -> None:
    markers.plan(0, 2, 5)
    markers.plan(1, 7, 9, topics={"gone": "id"})
    markers.done(1, 3)
    markers.plan(2, 9, 12, topics={"gone": "id"})
    covered.application = markers.application
    code, lines = covered.check(markers.source)
    assert code == 1
    assert [line.split(";")[0] for line in lines] == [
        f"TOPIC_RECREATED: {markers.sink}: its output topic gone was deleted since it was written",
        f"GAP: {markers.source} partition 0: offsets 5 to 6 are not in {markers.sink}: between batch 0 and batch 1 of"
        f" {markers.sink}",
        f"NOT_FROM_START: {markers.source} partition 0: offsets 0 to 1 are in the topic and not in {markers.sink}:"
        f" {markers.sink} began behind",
        f"note: {markers.sink}: 2 of 2 shards of batch 2 are not published",
        f"note: {markers.sink} is 11 offsets behind the topic {markers.source}",
    ]


def test_an_installation_without_ledgers_has_no_sinks(broker: Cluster) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    with ReadCommittedConsumer({"bootstrap.servers": broker.bootstrap_servers}) as reader:
        assert sink_coverages(admin, reader, "no-such-application") == []


def test_a_line_shows_what_a_sink_holds(markers: Markers, covered: Holdings) -> None:
    markers.plan(0, 2, 5, topics={"alerts": "id"})
    markers.done(0, 3, 4)
    covered.application = markers.application
    _, lines = covered.command("show")
    assert [line.split()[:10] for line in lines[1:]] == [
        ["alerts", markers.sink, "q", markers.source, "0", "2", "5", "0", "7", lines[1].split()[-1]]
    ]
