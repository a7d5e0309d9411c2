"""Says what each command must be allowed to do on the brokers, by the names that the code itself uses."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from conf import command_line
from conf.errors import TidemarkError, nearest
from conf.settings import Settings
from conf.topics import load_topics
from jobs.connectors.exactly_once.ledger import sink_rights
from jobs.connectors.kafka.access import CLUSTER, EVERY, Right, publishing
from jobs.operations.replay.replay_lock import lease_group, lease_topic
from producers import auctions, transfers
from producers.flights.events import TOPICS
from producers.friendships import TOPIC as FRIENDSHIPS
from producers.kafka.publish_progress import publisher_id
from producers.quarantine import marker_log
from producers.quarantine.redrive import redrive_id
from producers.quarantine.work_queue import queue_topic

COMMANDS = (
    *("publish flights", "publish friendships", "publish auctions", "publish transfers", "publish file"),
    *("quarantine list", "quarantine inspect", "quarantine audit", "quarantine redrive"),
    *("quarantine queue fill", "quarantine queue work", "quarantine queue status"),
    *("replay", "topics", "coverage", "maintain ledgers", "transactions", "acls", "page"),
)


@dataclass(frozen=True)
class CommandLine:
    """A command as it is given to `acls`: its text, its name in COMMANDS, and the words behind that.

    Args:
        topic: the topic, or the job, that it is about; empty for all of them.
        exactly_once: the name of `--exactly-once`: None without it, empty for any name.
    """

    text: str
    command: str
    topic: str = ""
    exactly_once: str | None = None
    create_topic: bool = False
    redrive: bool = False
    abort: bool = False


def find_command(text: str) -> CommandLine | None:
    """Return a command of COMMANDS with its words; None for what begins like none of them.

    Raises:
        TidemarkError: BAD_ARGUMENTS, for words that it does not take.
    """
    words = command_line.split_words(text)
    for count in range(len(words), 0, -1):
        command = " ".join(words[:count])
        if command in COMMANDS:
            parser = _Parser(prog=text, add_help=False, allow_abbrev=False)
            parser.add_argument("topic", nargs="?", default="")
            parser.add_argument("--exactly-once", nargs="?", const="")
            for option in ("--create-topic", "--redrive", "--abort"):
                parser.add_argument(option, action="store_true")
            return CommandLine(text, command, **vars(command_line.parse(parser, words[count:])))
    return None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise TidemarkError("BAD_ARGUMENTS", f"`{self.prog}`: {message}", "see docs/rights.md for what it takes")


def unknown_command(text: str, jobs: Sequence[str]) -> TidemarkError:
    """Return UNKNOWN_COMMAND: `text` is neither a job nor a command that uses brokers."""
    what = f"`{text}` is no job, and no command that needs rights"
    return TidemarkError("UNKNOWN_COMMAND", what, nearest(text, [*jobs, *COMMANDS]))


def command_rights(settings: Settings, line: CommandLine) -> list[Right]:
    """Return the rights that a command needs; for `replay` without those of its job."""
    names = [line.topic] if line.topic else list(load_topics())
    application = settings.ledger.application
    redriven, resolved = marker_log.redriven_topic(settings), marker_log.resolved_topic(settings)
    queue, queued = queue_topic(settings), marker_log.queued_topic(settings)
    audit = _topics([redriven, resolved], "Read")
    redrive = [
        *publishing(names),
        Right("topic", redriven, ("Read", "Write", "Create")),
        Right("transactional-id", redrive_id(settings, line.topic), ("Write",), is_prefix=True),
        *audit,
    ]
    of_queue = _topics([queue, queued, resolved], "Create", "Describe")
    of_queue.append(Right("group", queue, ("AlterConfigs", "DescribeConfigs")))
    coverage = [*_topics(names, "Read"), Right("topic", f"__{application}.", ("Read",), is_prefix=True)]
    match line.command:
        case "publish flights":
            return _publishing(settings, line, "flights", TOPICS)
        case "publish friendships":
            return publishing([FRIENDSHIPS])
        case "publish auctions":
            return publishing(auctions.TOPICS)
        case "publish transfers":
            return publishing([transfers.TOPIC])
        case "publish file":
            created = _topics(names, "Create") if line.create_topic else []
            return [*_publishing(settings, line, line.topic, names), *created]
        case "quarantine list" | "quarantine inspect":
            return [*_topics([redriven], "Read"), *_topics(names, "Describe")]
        case "quarantine audit":
            return audit
        case "quarantine redrive":
            return redrive
        case "quarantine queue fill":
            fill = Right("transactional-id", f"{queue}.fill", ("Write",))
            logs = [*_topics([queue], "Write"), *_topics([queued], "Read", "Write"), *_topics([resolved], "Read")]
            return [*of_queue, *logs, fill, *_topics(names, "Describe")]
        case "quarantine queue work":
            group = Right("group", queue, ("Read",))
            logs = [*_topics([queue], "Read"), *_topics([resolved], "Read", "Write")]
            return [*of_queue, *logs, group, *_topics(names, "Describe"), *(redrive if line.redrive else audit)]
        case "quarantine queue status":
            return _topics([queued, resolved], "Read")
        case "replay":  # beside its job's: the right to replay, and the sink by which a cutover publishes
            lease = Right("topic", lease_topic(settings), ("Read", "Create"))
            group = Right("group", lease_group(settings, line.topic), ("Read",), is_prefix=not line.topic)
            return [lease, group, *sink_rights(f"{application}.replay.", [], is_prefix=True)]
        case "topics":
            return _topics(names, "Create", "Alter", "DescribeConfigs", "AlterConfigs")
        case "coverage":
            return coverage
        case "page":
            return [*coverage, *_topics([redriven], "Read")]
        case "maintain ledgers":
            return [Right("topic", f"__{application}.", ("DescribeConfigs", "Delete"), is_prefix=True)]
        case "transactions":
            abort = Right("transactional-id", f"{application}.", ("Write",), is_prefix=True)
            seen = [Right("topic", EVERY, ("Read",)), Right("transactional-id", EVERY, ("Describe",))]
            return [*seen, abort] if line.abort else seen
        case "acls":
            return [Right("cluster", CLUSTER, ("Describe", "Alter"))]
    raise ValueError(f"{line.command} is none of COMMANDS")


def _topics(names: Iterable[str], *operations: str) -> list[Right]:
    return [Right("topic", name, operations) for name in names]


def _publishing(settings: Settings, line: CommandLine, kind: str, topics: Sequence[str]) -> list[Right]:
    rights = publishing(topics)
    if line.exactly_once is not None:
        # Without the kind there is no name either: then it is every publisher's.
        id = publisher_id(settings, kind, line.exactly_once) if kind else publisher_id(settings, "", "")[:-1]
        rights += sink_rights(id, topics, is_prefix=not (kind and line.exactly_once), shards=False)
    return rights
