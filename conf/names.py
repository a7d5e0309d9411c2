"""Checks names and texts that come from outside: topics by Kafka's own rule, and all where they become paths."""

import re

from conf.errors import TidemarkError

TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # Kafka's, in org.apache.kafka.common.internals.Topic
TOPIC_RULE = "1 to 249 letters, digits, dots, - and _ of ASCII, and neither `.` nor `..`"
ELSEWHERE = ("", ".", "..")
DELTA_LOG = "_delta_log"  # a table of that name would write into the log of the one around it
NO_PART = re.compile(r"[\\\x00-\x1f\x7f]")


def is_text(value: str) -> bool:
    """Return whether `value` can be written in UTF-8 and handed to C: bytes that are none come as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def is_topic(name: object) -> bool:
    """Return whether Kafka takes `name` for a topic."""
    return isinstance(name, str) and bool(TOPIC.fullmatch(name)) and name not in ELSEWHERE


def require_topic(name: str) -> str:
    """Return `name`; raises TidemarkError BAD_NAME where Kafka would not take it for a topic."""
    if not is_topic(name):
        raise TidemarkError("BAD_NAME", f"{name!r} is no name of a topic", f"a topic's name has {TOPIC_RULE}")
    return name


def within(root: str, *names: str) -> str:
    """Return the path of what lies under `root`, a folder or a URI, by names with or without `/`.

    Raises:
        TidemarkError: BAD_NAME, where the path would lead elsewhere: a part of a name is empty, `.`, `..` or
            `_delta_log`, or has a backslash or a control character.
    """
    for name in names:
        for part in name.split("/"):
            if part in ELSEWHERE or part == DELTA_LOG or NO_PART.search(part):
                what = f"{name!r} is no name of anything under {root}"
                raise TidemarkError("BAD_NAME", what, f"its part {part!r} would lead elsewhere: correct the name")
    return "/".join((root, *names))
