"""What a writer says when brokers refuse it, by the error code of each request, as librdkafka's mock brokers say no."""

import ctypes
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError, Producer

from conf.errors import TidemarkError
from conf.kafka import CLIENT_LOG
from jobs.connectors.exactly_once import bulk
from jobs.connectors.exactly_once.transaction import Transaction, Writer
from jobs.connectors.kafka import access as kafka_access
from producers.kafka.pacing import Progress
from producers.kafka.publisher import Batch, never
from producers.kafka.transactional import TransactionSender

PRODUCE, INIT_PRODUCER_ID, FIND_COORDINATOR, ADD_PARTITIONS, END = 0, 22, 10, 24, 26
TIMES = 8
Refuse = Callable[[int, int], None]


@pytest.fixture(scope="module")
def mocked() -> Iterator[tuple[str, Refuse]]:
    """The address of a mock broker, and what lets it answer the next requests of a kind by an error (0: by none)."""
    owner = Producer({"test.mock.num.brokers": 1, "logger": CLIENT_LOG})
    library = bulk._library()
    assert library is not None
    library.rd_kafka_handle_mock_cluster.restype = ctypes.c_void_p
    library.rd_kafka_handle_mock_cluster.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_push_request_errors.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int16,
        ctypes.c_size_t,
        *([ctypes.c_int] * TIMES),
    ]
    library.rd_kafka_mock_clear_request_errors.argtypes = [ctypes.c_void_p, ctypes.c_int16]
    handle = ctypes.c_void_p.from_address(id(owner) + object.__basicsize__).value
    cluster = library.rd_kafka_handle_mock_cluster(handle)
    brokers = owner.list_topics(timeout=10).brokers.values()

    def refuse(request: int, code: int) -> None:
        # What another client asks meanwhile, as one that ends, must not use up the only error.
        library.rd_kafka_mock_clear_request_errors(cluster, request)
        if code:
            library.rd_kafka_mock_push_request_errors(cluster, request, TIMES, *([code] * TIMES))

    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers), refuse
    del owner


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # The mock cannot say which rights a user has.
    monkeypatch.setattr(kafka_access, "RIGHTS_S", 0.2)


def stopped(mocked: tuple[str, Refuse], request: int, code: int, at_start: bool) -> TidemarkError:
    """How a transaction ends that is refused at its start, or once its barrier is placed."""
    servers, refuse = mocked
    connection = {"bootstrap.servers": servers, "sasl.username": "bob", "logger": CLIENT_LOG}
    writer = Writer(f"id-{request}-{code}-{at_start}", "ledger", 0, connection, 20_000, topics=("out",))
    with pytest.raises(TidemarkError) as stop:
        if at_start:
            refuse(request, code)
        with Transaction(writer) as transaction:
            with transaction.named():
                transaction._barrier()
            if not at_start:
                refuse(request, code)
            with transaction.named():
                sender = TransactionSender("name", 10, never, Progress(), {"step": "test"})
                sender.send(transaction.producer, [Batch(["out"], [b"v"], ["k"], [0])])
            transaction.commit(b"{}", "done")
    refuse(request, 0)
    return stop.value


@pytest.mark.parametrize("at_start", [True, False])
@pytest.mark.parametrize("request_kind", [ADD_PARTITIONS, PRODUCE])
def test_who_may_not_write_is_told_the_topics_and_the_command_and_never_what_was_purged(
    request_kind: int, at_start: bool, mocked: tuple[str, Refuse], capfd: pytest.CaptureFixture[str]
) -> None:
    stop = stopped(mocked, request_kind, KafkaError.TOPIC_AUTHORIZATION_FAILED, at_start)
    assert stop.code == "NOT_AUTHORIZED"
    assert stop.message == (
        "TOPIC_AUTHORIZATION_FAILED: user bob lacks the right to Read, Write, Describe on topic ledger, "
        "and Write, Describe on topic out"
    )
    granted = "--add --allow-principal User:bob --operation Write --operation Describe --topic out"
    assert f"`kafka-acls.sh --bootstrap-server {mocked[0]} {granted}`" in stop.remedy
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("request_kind", [INIT_PRODUCER_ID, FIND_COORDINATOR])
def test_who_may_not_use_a_transactional_id_is_told_which(request_kind: int, mocked: tuple[str, Refuse]) -> None:
    code = KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    stop = stopped(mocked, request_kind, code, at_start=True)
    identity = f"id-{request_kind}-{code}-True"
    assert stop.code == "NOT_AUTHORIZED"
    assert f"Write, Describe on transactional id {identity}" in stop.message
    assert f"--transactional-id {identity}`" in stop.remedy


def test_a_batch_that_is_too_large_and_a_producer_that_is_fenced_are_told_as_that(mocked: tuple[str, Refuse]) -> None:
    assert stopped(mocked, PRODUCE, KafkaError.MSG_SIZE_TOO_LARGE, at_start=False).code == "RECORD_TOO_LARGE"
    assert stopped(mocked, ADD_PARTITIONS, KafkaError.INVALID_PRODUCER_EPOCH, at_start=False).code == "FENCED"
