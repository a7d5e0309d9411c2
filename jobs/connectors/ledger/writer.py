"""Who writes: an identity towards the brokers, and how its producer works."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# A broker that hangs closes no connection. librdkafka waits a whole transaction for its answer, and asks for the new
# leader only then; an answer that waits for a lost follower takes 9 s (the brokers' session) and more.
ANSWER_MS = 20_000
PRODUCER = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",  # Java's: every client finds a key in the same partition
    "reconnect.backoff.ms": 10,
    "log_level": 0,
}


@dataclass(frozen=True)
class Writer:
    """One identity that writes, and the ledger partition that only it marks.

    Args:
        connection: librdkafka's properties of the connection, secrets included; tuning: of the producer.
        where: what fail points know it by.
    """

    transactional_id: str
    ledger: str
    partition: int
    connection: Mapping[str, str] = field(repr=False)
    timeout_ms: int
    tuning: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answer_ms(self) -> int:
        """How long a broker may take to answer: so long that there is time to try again."""
        return min(ANSWER_MS, self.timeout_ms // 3)
