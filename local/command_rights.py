"""Says what each command must be allowed to do on the brokers, by the names that the code itself uses."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from conf import command_line
from conf.errors import TidemarkError, nearest
from conf.settings import Settings
from conf.topics import load_topics
from jobs.connectors.exactly_once.ledger_topic import sink_rights
from jobs.connectors.kafka.access import CLUSTER, EVERY, Right, publishing
from jobs.operations.replay.replay_lock import lease_group, lease_topic
from producers import auctions, transfers
from producers.flights.events import TOPICS
from producers.friendships import TOPIC as FRIENDSHIPS
from producers.kafka.publish_progress import publisher_id
from producers.quarantine import marker_log
from producers.quarantine.redrive import redrive_id
from producers.quarantine.work_queue import queue_topic

LOG = ("Read", "Write", "Create")
Found = Iterator[Right]


@dataclass(frozen=True)
class Words:
    """The words behind a command's name.

    Args:
        topic: the topic, or the job, that it is about; empty for all of them.
        name: of `--exactly-once`: None without it, empty for any name.
    """

    topic: str = ""
    name: str | None = None
    create_topic: bool = False
    redrive: bool = False
    abort: bool = False

    def topics(self) -> list[str]:
        """Return the topic, or all that are declared."""
        return [self.topic] if self.topic else list(load_topics())


def publish_flights(settings: Settings, words: Words) -> Found:
    yield from _published(settings, words, "flights", TOPICS)


def publish_friendships(settings: Settings, words: Words) -> Found:
    yield from publishing([FRIENDSHIPS])


def publish_auctions(settings: Settings, words: Words) -> Found:
    yield from publishing(auctions.TOPICS)


def publish_transfers(settings: Settings, words: Words) -> Found:
    yield from publishing([transfers.TOPIC])


def publish_file(settings: Settings, words: Words) -> Found:
    yield from _published(settings, words, words.topic, words.topics())
    if words.create_topic:
        yield from (Right("topic", topic, ("Create",)) for topic in words.topics())


def _published(settings: Settings, words: Words, kind: str, topics: Sequence[str]) -> Found:
    yield from publishing(topics)
    if words.name is not None:
        # Without the kind there is no name either: then it is every publisher's.
        id = publisher_id(settings, kind, words.name) if kind else publisher_id(settings, "", "")[:-1]
        yield from sink_rights(id, topics, is_prefix=not (kind and words.name), shards=False)


def quarantine_look(settings: Settings, words: Words) -> Found:
    yield Right("topic", marker_log.redriven_topic(settings), ("Read",))
    yield from (Right("topic", topic, ("Describe",)) for topic in words.topics())


def quarantine_audit(settings: Settings, words: Words) -> Found:
    for log in (marker_log.redriven_topic(settings), marker_log.resolved_topic(settings)):
        yield Right("topic", log, ("Read",))


def quarantine_redrive(settings: Settings, words: Words) -> Found:
    yield from publishing(words.topics())
    yield Right("topic", marker_log.redriven_topic(settings), LOG)
    yield Right("transactional-id", redrive_id(settings, words.topic), ("Write",), is_prefix=True)
    yield from quarantine_audit(settings, words)


def queue_fill(settings: Settings, words: Words) -> Found:
    yield from _queue(settings)
    yield Right("topic", queue_topic(settings), ("Write",))
    yield Right("topic", marker_log.queued_topic(settings), ("Read", "Write"))
    yield Right("topic", marker_log.resolved_topic(settings), ("Read",))
    yield Right("transactional-id", f"{queue_topic(settings)}.fill", ("Write",))
    yield from (Right("topic", topic, ("Describe",)) for topic in words.topics())


def queue_work(settings: Settings, words: Words) -> Found:
    yield from _queue(settings)
    yield Right("topic", queue_topic(settings), ("Read",))
    yield Right("topic", marker_log.resolved_topic(settings), ("Read", "Write"))
    yield Right("group", queue_topic(settings), ("Read",))
    yield from (Right("topic", topic, ("Describe",)) for topic in words.topics())
    yield from quarantine_redrive(settings, words) if words.redrive else quarantine_audit(settings, words)


def _queue(settings: Settings) -> Found:
    for topic in (queue_topic(settings), marker_log.queued_topic(settings), marker_log.resolved_topic(settings)):
        yield Right("topic", topic, ("Create", "Describe"))
    yield Right("group", queue_topic(settings), ("AlterConfigs", "DescribeConfigs"))


def queue_status(settings: Settings, words: Words) -> Found:
    for log in (marker_log.queued_topic(settings), marker_log.resolved_topic(settings)):
        yield Right("topic", log, ("Read",))


def replay(settings: Settings, words: Words) -> Found:
    """Return what a replay needs beside its job: the right to replay, and the sink by which a cutover publishes."""
    yield Right("topic", lease_topic(settings), ("Read", "Create"))
    yield Right("group", lease_group(settings, words.topic), ("Read",), is_prefix=not words.topic)
    yield from sink_rights(f"{settings.ledger.application}.replay.", [], is_prefix=True)


def topics(settings: Settings, words: Words) -> Found:
    for topic in words.topics():
        yield Right("topic", topic, ("Create", "Alter", "DescribeConfigs", "AlterConfigs"))


def coverage(settings: Settings, words: Words) -> Found:
    yield from (Right("topic", topic, ("Read",)) for topic in words.topics())
    yield Right("topic", _ledgers(settings), ("Read",), is_prefix=True)


def page(settings: Settings, words: Words) -> Found:
    yield from coverage(settings, words)
    yield Right("topic", marker_log.redriven_topic(settings), ("Read",))


def maintain_ledgers(settings: Settings, words: Words) -> Found:
    yield Right("topic", _ledgers(settings), ("DescribeConfigs", "Delete"), is_prefix=True)


def _ledgers(settings: Settings) -> str:
    return f"__{settings.ledger.application}."


def transactions(settings: Settings, words: Words) -> Found:
    yield Right("topic", EVERY, ("Read",))
    yield Right("transactional-id", EVERY, ("Describe",))
    if words.abort:
        yield Right("transactional-id", f"{settings.ledger.application}.", ("Write",), is_prefix=True)


def acls(settings: Settings, words: Words) -> Found:
    yield Right("cluster", CLUSTER, ("Describe", "Alter"))


COMMANDS: Mapping[str, Callable[[Settings, Words], Found]] = {
    "publish flights": publish_flights,
    "publish friendships": publish_friendships,
    "publish auctions": publish_auctions,
    "publish transfers": publish_transfers,
    "publish file": publish_file,
    "quarantine list": quarantine_look,
    "quarantine inspect": quarantine_look,
    "quarantine audit": quarantine_audit,
    "quarantine redrive": quarantine_redrive,
    "quarantine queue fill": queue_fill,
    "quarantine queue work": queue_work,
    "quarantine queue status": queue_status,
    "replay": replay,
    "topics": topics,
    "coverage": coverage,
    "maintain ledgers": maintain_ledgers,
    "transactions": transactions,
    "acls": acls,
    "page": page,
}


@dataclass(frozen=True)
class Who:
    """A command as it is named to `acls`: its name in COMMANDS, and what stands behind that."""

    text: str
    command: str
    words: Words


def find_command(text: str) -> Who | None:
    """Return a command of COMMANDS with its words; None for what begins like none of them.

    Raises:
        TidemarkError: BAD_ARGUMENTS, for words that it does not take.
    """
    words = command_line.split_words(text)
    for count in range(len(words), 0, -1):
        command = " ".join(words[:count])
        if command in COMMANDS:
            return Who(text, command, _parsed(text, words[count:]))
    return None


def unknown(text: str, jobs: Sequence[str]) -> TidemarkError:
    """Return UNKNOWN_COMMAND: `text` is neither a job nor a command that uses brokers."""
    what = f"`{text}` is no job, and no command that needs rights"
    return TidemarkError("UNKNOWN_COMMAND", what, nearest(text, [*jobs, *COMMANDS]))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise TidemarkError("BAD_ARGUMENTS", f"`{self.prog}`: {message}", "see docs/rights.md for what it takes")


def _parsed(text: str, words: Sequence[str]) -> Words:
    parser = _Parser(prog=text, add_help=False, allow_abbrev=False)
    parser.add_argument("topic", nargs="?", default="")
    parser.add_argument("--exactly-once", dest="name", nargs="?", const="")
    for option in ("--create-topic", "--redrive", "--abort"):
        parser.add_argument(option, action="store_true")
    return Words(**vars(command_line.parse(parser, words)))


def command_rights(settings: Settings, who: Who) -> list[Right]:
    """Return the rights that a command needs; for `replay` without those of its job."""
    return list(COMMANDS[who.command](settings, who.words))
