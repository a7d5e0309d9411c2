"""Works at the queue: takes one record after the other from the share group, has it resolved, and writes that down.

    take         from now on no other worker has it, until it is acknowledged or its lock runs out
    resolve      accept (done), reject (never again), release (give it to somebody, maybe this worker, again)
    note         in the log of resolutions, which `quarantine audit` turns into a table
    acknowledge  accepted and rejected records are gone from the group

A worker that dies leaves its record to be taken by another one when the lock has run out.
"""

import json
import os
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from confluent_kafka import AcknowledgeType, KafkaException, Message, ShareConsumer

from conf.errors import TidemarkError
from conf.settings import Settings, without_secrets
from jobs.connectors.exactly_once.fail_points import fail_point
from jobs.connectors.kafka.access import Right, client_error
from producers.kafka.pacing import Progress
from producers.kafka.preflight import connect
from producers.kafka.publisher import connection_config, never
from producers.quarantine import inspection
from producers.quarantine.records import Rejected
from producers.quarantine.redrive import Redriver
from producers.quarantine.work_queue import (
    EXPIRED,
    GIVEN_UP,
    OutcomeLog,
    Outcomes,
    open_queue,
    queue_terms,
    queue_topic,
)
from schemas.registry import Registry

Kind = Literal["accept", "release", "reject"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RELEASE_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later
NOTE_LENGTH = 200
QUESTION = "[a]ccept, [d] redrive and accept, [r]elease, re[j]ect, [q]uit? "
POLL_SECONDS = 0.5
COMMIT_SECONDS = 30.0
# Shorter than a lock: a transaction that a dead worker leaves open holds up those of the others for this long.
TRANSACTION_MS = 10_000
# A member learns what it is to read with its second heartbeat, 5 s after the first.
JOIN_SECONDS = 10.0
# A record that is released is handed out again at once: without a pause its deliveries would soon be used up.
PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True)
class Resolution:
    """The decision on a record, with a note for the audit; `stop`: the worker ends with it."""

    kind: Kind
    note: str = ""
    redrive: bool = False
    stop: bool = False


Resolve = Callable[[Rejected, int], Resolution]
"""Decides on a record, which is delivered for so many times now."""


ANSWERS = {
    "a": Resolution("accept", "by hand"),
    "d": Resolution("accept", "by hand", redrive=True),
    "r": Resolution("release", "by hand"),
    "j": Resolution("reject", "by hand"),
    "q": Resolution("release", "not decided", stop=True),
}


@dataclass
class Worker:
    """One worker.

    Args:
        name: of this worker, in what it notes.
        resolve: decides; may take until the lock runs out.
        idle_seconds: end when nothing came for so long; None waits on.
        lock_seconds: how long the group lets workers have a record from now on; None leaves that.
        into_compacted: see `Redriver`.
        most: end after so many records; None has no limit.
    """

    settings: Settings
    name: str
    resolve: Resolve
    idle_seconds: float | None = None
    most: int | None = None
    lock_seconds: float | None = None
    into_compacted: bool = False
    stopped: Callable[[], bool] = never
    show: Callable[[str], None] = print
    resolved: Counter[str] = field(default_factory=Counter)

    def work(self) -> Counter[str]:
        """Resolve records until there is a reason to end; return counts by resolution.

        Raises:
            TidemarkError: NO_BROKER, BROKER_UNREACHABLE, KAFKA_FAILED, and what redriving raises; the record that was
                in hand is released then.
        """
        self._ended = False
        self._admin = connect(self.settings.kafka)
        open_queue(self.settings, self._admin, self.lock_seconds)
        self._outcomes = Outcomes(self.settings)
        self._redrivers: dict[str, Redriver] = {}
        connection = connection_config(self.settings.kafka, lambda error: None)
        self._log = OutcomeLog(self.settings, self._admin, self.name)
        self._terms = queue_terms(self.settings, self._admin)
        self._taken_at = 0.0
        queue = queue_topic(self.settings)
        options = {"group.id": queue, "share.acknowledgement.mode": "explicit", "max.poll.records": 1}
        with ShareConsumer({**connection, **options}) as consumer:
            consumer.subscribe([queue])
            for messages in self._taken(consumer):
                self._work_on(consumer, messages)
        return self.resolved

    def _taken(self, consumer: Any) -> Iterator[list[Message]]:
        last = time.monotonic() + JOIN_SECONDS
        while not self._is_done():
            try:
                messages = list(consumer.poll(POLL_SECONDS))
            except KafkaException as exc:
                name = queue_topic(self.settings)
                needed = [Right("group", name, ("Read", "Describe")), Right("topic", name, ("Read", "Describe"))]
                raise client_error(name, exc.args[0], needed, self.settings.kafka.client_config()) from exc
            if taken := [message for message in messages if message.error() is None]:
                self._taken_at = time.monotonic()
                yield taken
                last = time.monotonic()
            elif self.idle_seconds is not None and time.monotonic() - last > self.idle_seconds:
                return

    def _is_done(self) -> bool:
        return self.stopped() or self._ended or (self.most is not None and self.resolved.total() >= self.most)

    def _work_on(self, consumer: Any, messages: list[Message]) -> None:
        """Resolve messages in turn; what is not resolved when this ends, for whatever reason, is given back."""
        left = list(messages)
        try:
            while left and not self._is_done():
                row = Rejected.from_json(json.loads(left[0].value() or b""))
                self._fail_point("taken", row)
                resolution = self._resolve(row, left[0])
                self._acknowledge(consumer, row, left.pop(0), resolution)
                self._ended = resolution.stop
        finally:
            for message in left:
                consumer.acknowledge(message, AcknowledgeType.RELEASE)

    def _resolve(self, row: Rejected, message: Message) -> Resolution:
        if (message.delivery_count() or 1) > 1 and (earlier := self._resolved_by_another(message)):
            return earlier
        resolution = self.resolve(row, message.delivery_count() or 1)
        # Before half of the lock's time nobody else can have had the record, even if clocks differ.
        is_late = time.monotonic() - self._taken_at > self._terms.lock_seconds / 2
        if is_late and (earlier := self._resolved_by_another(message)):
            return earlier
        if resolution.redrive:
            redriver = self._redriver(row.at.topic)
            redriver.send([row])
            redriver.require_all_taken()
        return resolution

    def _resolved_by_another(self, message: Message) -> Resolution | None:
        """Return how another worker resolved it: brokers ignore an acknowledgement that is too late, so ask the log."""
        self._outcomes.read()
        final = self._outcomes.final(int(message.offset() or 0))
        return Resolution(final["resolution"], f"as resolved at delivery {final['delivery']}") if final else None

    def _redriver(self, topic: str) -> Redriver:
        if topic not in self._redrivers:
            ledger = self.settings.ledger.model_copy(update={"transaction_timeout_ms": TRANSACTION_MS})
            settings = self.settings.model_copy(update={"ledger": ledger})
            self._redrivers[topic] = Redriver(
                settings, topic, self.name, self.into_compacted, self.name, self.stopped, Progress()
            )
        return self._redrivers[topic]

    def _acknowledge(self, consumer: Any, row: Rejected, message: Message, resolution: Resolution) -> None:
        delivery = message.delivery_count() or 1
        is_given_up = resolution.kind == "release" and delivery >= self._terms.deliveries
        kind: str = GIVEN_UP if is_given_up else resolution.kind
        self._log.add(row, message, kind, resolution.note)
        self._fail_point("noted", row)
        if failure := _commit(consumer, message, AcknowledgeType[resolution.kind.upper()]):
            kind = EXPIRED
            self._log.add(row, message, kind, failure.args[0].str())
        self.resolved[kind] += 1
        self.show(f"{kind:8}  {row.at}  {row.error}  delivery {message.delivery_count()}  {resolution.note}".rstrip())
        if kind == "release":
            self._pause(delivery)

    def _pause(self, delivery: int) -> None:
        until = time.monotonic() + min(PAUSE_SECONDS * 2 ** (delivery - 1), LONGEST_PAUSE_SECONDS)
        while not self.stopped() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))

    def _fail_point(self, point: str, row: Rejected) -> None:
        fail_point(f"work-{point}", sink=f"{queue_topic(self.settings)}.work", offset=row.at.offset, worker=self.name)


def decide_always(kind: Kind, redrive: bool) -> Resolve:
    """Decide the same for every record."""
    return lambda row, delivery: Resolution(kind, "by option", redrive and kind == "accept")


def ask_command(command: str, redrive: bool) -> Resolve:
    """Give `command` the envelope as JSON on stdin: exit code 0 accepts, 75 releases, any other rejects.

    One that is ended by a signal has decided nothing, and releases. Its last line of output is the note.

    Raises:
        TidemarkError: NO_COMMAND, where there is none; `Resolve` raises it where the system cannot run it.
    """
    try:
        argv = shlex.split(command)
    except ValueError as exc:
        raise _no_command(command, str(exc).lower(), "close each quote, as in a shell") from exc
    if not argv or shutil.which(argv[0]) is None:
        raise _no_command(command, "there is no such program", "name one that is on PATH, or its path")

    def resolve(row: Rejected, delivery: int) -> Resolution:
        envelope = json.dumps({**row.to_json(), "delivery": delivery})
        try:
            out, data = subprocess.PIPE, envelope.encode()
            done = subprocess.run(
                argv, env=without_secrets(os.environ), input=data, stdout=out, stderr=subprocess.STDOUT, check=False
            )
        except OSError as exc:
            raise _no_command(command, str(exc.strerror or exc).lower(), "a script begins with #!/bin/sh") from exc
        kind: Kind = "accept" if done.returncode == 0 else "reject"
        if done.returncode == RELEASE_CODE or done.returncode < 0:
            kind = "release"
        lines = done.stdout.decode(errors="replace").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "")
        note = f"exit code {done.returncode} {last}".strip()[:NOTE_LENGTH]
        return Resolution(kind, note, redrive and kind == "accept")

    return resolve


def ask_person(registry: Registry, ask: Callable[[str], str] = input, show: Callable[[str], None] = print) -> Resolve:
    """Show the record to a person, and ask."""

    def resolve(row: Rejected, delivery: int) -> Resolution:
        for line in inspection.lines(row, inspection.read(row, registry), None):
            show(line)
        show(f"  delivery    {delivery}")
        while True:
            try:
                answer = ask(QUESTION).strip().lower()[:1]
            except EOFError:
                answer = "q"
            if answer in ANSWERS:
                return ANSWERS[answer]

    return resolve


def _commit(consumer: Any, message: Message, how: AcknowledgeType) -> KafkaException | None:
    """Acknowledge, and return what the brokers refuse it with; None where they have taken it."""
    try:
        consumer.acknowledge(message, how)
        return next(filter(None, consumer.commit_sync(COMMIT_SECONDS).values()), None)
    except KafkaException as exc:
        return exc


def _no_command(command: str, why: str, remedy: str) -> TidemarkError:
    return TidemarkError("NO_COMMAND", f"`{command}` cannot be run: {why}", remedy)
