"""What became of the events that were handed over: counts, by topic and by error."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conf.errors import TidemarkError


@dataclass(frozen=True)
class Report:
    """Events by outcome: every one that was handed over is delivered, failed or undelivered.

    `failed`: (topic, librdkafka's error name) -> events that the client or the broker refused.
    `undelivered`: topic -> events that were given up before the broker acknowledged them.
    `cause`: what ended the events before their time; those before it are accounted for.
    """

    delivered: Mapping[str, int]
    failed: Mapping[tuple[str, str], int]
    undelivered: Mapping[str, int]
    seconds: float
    interrupted: bool = False
    cause: TidemarkError | None = None

    @property
    def delivered_count(self) -> int:
        """Events that the broker acknowledged."""
        return sum(self.delivered.values())

    @property
    def complete(self) -> bool:
        """Whether all events came, and all were delivered."""
        return not (self.failed or self.undelivered or self.interrupted or self.cause)

    def __str__(self) -> str:
        rate = self.delivered_count / self.seconds if self.seconds > 0 else 0.0
        topics = ", ".join(f"{topic} {count:,}" for topic, count in self.delivered.items())
        text = f"{self.delivered_count:,} events in {self.seconds:.1f} s ({rate:,.0f}/s)"
        text += f": {topics}" if topics else ""
        for (topic, error), count in sorted(self.failed.items()):
            text += f"; failed: {count:,} to {topic} ({error})"
        for topic, count in sorted(self.undelivered.items()):
            text += f"; undelivered: {count:,} to {topic}"
        return text

    def require_complete(self) -> None:
        """Raises TidemarkError DELIVERY_FAILED, with counts, where events failed or were given up; then `cause`."""
        if self.failed or self.undelivered:
            lost = [f"{count:,} to {topic} ({error})" for (topic, error), count in sorted(self.failed.items())]
            lost += [f"{count:,} to {topic} (given up)" for topic, count in sorted(self.undelivered.items())]
            errors = {error for _, error in self.failed}
            remedy = "; ".join(REMEDIES[error] for error in sorted(errors & REMEDIES.keys()))
            raise TidemarkError("DELIVERY_FAILED", ", ".join(lost), remedy or "see the broker's log, and publish again")
        if self.cause:
            raise self.cause


def settle(handed_over: Counter[str], failed: Counter[tuple[str, str]], **circumstances: Any) -> Report:
    """The accounts once nothing is under way any more; `circumstances` are the report's other fields."""
    given_up = Counter({topic: count for (topic, error), count in failed.items() if error in GIVEN_UP})
    refused = {where: count for where, count in failed.items() if where[1] not in GIVEN_UP}
    lost: Counter[str] = Counter()
    for (topic, _), count in failed.items():
        lost[topic] += count
    delivered = {topic: count - lost[topic] for topic, count in handed_over.items()}
    return Report(delivered, refused, given_up, **circumstances)


GIVEN_UP = ("_PURGE_QUEUE", "_PURGE_INFLIGHT")
REMEDIES = {
    "MSG_SIZE_TOO_LARGE": "raise the topic's max.message.bytes, or publish smaller values",
    "_MSG_TIMED_OUT": "the broker was away for too long: check it, and publish again",
    "INVALID_TIMESTAMP": "the broker refuses event times that lie ahead of its clock: mend the event times, "
    "or raise the topic's message.timestamp.after.max.ms",
    "TOPIC_AUTHORIZATION_FAILED": "grant this user write access to the topic",
    "INVALID_RECORD": "a compacted topic takes no record without a key: name a key field",
}
