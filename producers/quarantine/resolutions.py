"""What became of each delivery from the work queue: noted by the workers, read by everybody.

A note comes before the acknowledgement: a worker that dies between the two leaves the record to another one, which
finds the note and acknowledges the record without resolving it again.
"""

from collections import Counter
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient

from conf.settings import Settings
from jobs.connectors.ledger import stops
from jobs.connectors.ledger.topic import topic_ids
from producers.publisher import connection_config, producer_config
from producers.quarantine import register as registers
from producers.quarantine.records import Rejected
from producers.quarantine.register import Mark

FINAL = ("accept", "reject")
# A release that was one too many: the group hands a record out so often and no more.
GIVEN_UP = "given up"
# An acknowledgement that came too late: somebody else had the record by then.
EXPIRED = "expired"


@dataclass
class Resolutions:
    """What became of the deliveries so far, by the record's offset in the queue."""

    settings: Settings
    position: int = 0
    last: dict[int, dict[int, Mark]] = field(default_factory=dict)

    def read(self) -> None:
        """Read on to the end; raises TidemarkError KAFKA_FAILED."""
        register = registers.resolved_topic(self.settings)
        self.position = registers.marks(self.settings, register, self.position, self._take)

    def final(self, queue_offset: int) -> Mark | None:
        """How the record was resolved for good, if it was."""
        found = (each for each in self.last.get(queue_offset, {}).values() if each["resolution"] in FINAL)
        return next(found, None)

    def given_up(self) -> set[int]:
        """The queue's offsets of records that the group hands out no more, though nobody has resolved them."""
        return {offset for offset in self.last if self._of(offset) == GIVEN_UP}

    def count(self) -> Counter[str]:
        """Records by what became of them in the end, or of their last delivery so far."""
        return Counter(self._of(offset) for offset in self.last)

    def _of(self, offset: int) -> str:
        deliveries = self.last[offset]
        return str((self.final(offset) or deliveries[max(deliveries)])["resolution"])

    def _take(self, mark: Mark, _: int) -> None:
        self.last.setdefault(mark["queue_offset"], {})[mark["delivery"]] = mark


class Notes:
    """Notes what a worker, of that `name`, does."""

    def __init__(self, settings: Settings, admin: AdminClient, name: str) -> None:
        self._register, self._admin, self._name = registers.resolved_topic(settings), admin, name
        connection = connection_config(settings.kafka, lambda error: None)
        self._producer = Producer({**connection, **producer_config(settings.producer, []), "linger.ms": 0})
        self._ids: dict[str, str] = {}

    def add(self, row: Rejected, message: Message, resolution: str, note: str) -> None:
        """Note what becomes of a delivery; raises TidemarkError KAFKA_FAILED."""
        offset, delivery = int(message.offset() or 0), message.delivery_count() or 1
        if row.at.topic not in self._ids:
            self._ids |= topic_ids(self._admin, [row.at.topic])
        more = {"resolution": resolution, "delivery": delivery, "queue_offset": offset, "note": note}
        mark = registers.mark(row.at, self._ids, self._name, **more)
        refused: list[KafkaError] = []

        def answered(error: KafkaError | None, _: Message) -> None:
            refused.extend([error] if error else [])

        self._producer.produce(self._register, mark, f"{offset}/{delivery}", registers.PARTITION, on_delivery=answered)
        self._producer.flush()
        if refused:
            raise stops.kafka_failed(self._register, refused[0].str())
