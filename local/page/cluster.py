"""Asks the brokers for the page: by one client, and a cluster that is down is not asked again at once."""

import threading
import time

from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from conf.settings import Kafka
from jobs.connectors.kafka.access import Connection, connect

ANSWER_SECONDS = 2.0
REST_SECONDS = 5.0  # after a cluster did not answer


class Brokers:
    """Connects to the cluster of the settings, which may become another: an embedded broker is started again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._admin: tuple[Kafka, AdminClient] | None = None
        self._refused: tuple[Kafka, float, TidemarkError] | None = None

    def admin(self, kafka: Kafka) -> AdminClient:
        """Return a client of the cluster.

        Raises:
            TidemarkError: NO_BROKER, BROKER_UNREACHABLE, BROKER_REFUSES.
        """
        with self._lock:
            if self._refused and self._refused[0] == kafka and time.monotonic() - self._refused[1] < REST_SECONDS:
                raise TidemarkError(*self._refused[2].args)
            try:
                if self._admin is None or self._admin[0] != kafka:
                    self._admin = kafka, connect(kafka, ANSWER_SECONDS)
                else:
                    require_answer(kafka, self._admin[1])
            except TidemarkError as error:
                self._refused = kafka, time.monotonic(), error
                raise
            return self._admin[1]

    def ask(self, kafka: Kafka) -> tuple[AdminClient | None, TidemarkError | None]:
        """Return a client of the cluster, or why it cannot be asked."""
        try:
            return self.admin(kafka), None
        except TidemarkError as error:
            return None, error


def require_answer(kafka: Kafka, admin: AdminClient) -> None:
    """Ask a client that is connected already whether its cluster is still there; errors as `connect` has them."""
    Connection(kafka, ANSWER_SECONDS).metadata(admin)
