"""What the producers' tests share."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from conf.errors import TidemarkError
from jobs.connectors.exactly_once.transaction import Transaction
from local.broker import Cluster
from tests.producers.desk import Desk


@pytest.fixture
def desk(tmp_path: Path, broker: Cluster, new_topic: Callable[[int], str]) -> Desk:
    return Desk(tmp_path, broker.bootstrap_servers, new_topic(1))


@pytest.fixture
def lose_an_answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[], threading.Event]:
    """Lets the next commit of a transaction succeed, and fail as one whose answer was lost; set once that was so."""

    def patch() -> threading.Event:
        commit, lost = Transaction.commit, threading.Event()

        def without_answer(self: Transaction, marker: bytes, key: str) -> None:
            commit(self, marker, key)
            if not lost.is_set():
                lost.set()
                raise TidemarkError("KAFKA_FAILED", "no answer", "")

        monkeypatch.setattr(Transaction, "commit", without_answer)
        return lost

    return patch
