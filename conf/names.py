"""Checks names that come from outside: topics by Kafka's own rule, hosts and URLs as clients take them, and all names
where they become paths."""

import re
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

from conf.credentials import holds_login
from conf.errors import TidemarkError

TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # Kafka's, in org.apache.kafka.common.internals.Topic
TOPIC_RULE = "1 to 249 letters, digits, dots, - and _ of ASCII, and neither `.` nor `..`"
ELSEWHERE = ("", ".", "..")
DELTA_LOG = "_delta_log"  # a table of that name would write into the log of the one around it
NO_PATH_PART = re.compile(r"[\\\x00-\x1f\x7f]")
NO_URL = re.compile(r"[\x00-\x20\x7f]")
LONGEST_URL = 8_192
LONGEST_LABEL = 63  # of a host's name in DNS


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
            if part in ELSEWHERE or part == DELTA_LOG or NO_PATH_PART.search(part):
                what = f"{name!r} is no name of anything under {root}"
                raise TidemarkError("BAD_NAME", what, f"its part {part!r} would lead elsewhere: correct the name")
    return "/".join((root, *names))


def require_url(setting: str, text: str, login: str, form: str = "http://HOST… or https://HOST…") -> SplitResult:
    """Return the parts of the address `text`, the value of `setting`; raises ValueError where no client would take it.

    The error says what it must look like (`form`), or what to do with a user and password (`login`), which it must not
    hold; the text is not shown.
    """
    if holds_login(text):
        raise ValueError(f"{setting} must hold no user and password: {login}")
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # raises ValueError, for one that is no number up to 65535
        is_address = parts.scheme in ("http", "https") and is_host(parts.hostname or "", "[" in parts.netloc)
    except ValueError:
        is_address = False
    if not is_address or NO_URL.search(text) or len(text) > LONGEST_URL:
        raise ValueError(f"{setting} must be {form}, with a port that is a number, if any, and no blank")
    return parts


def is_host(name: str, is_in_brackets: bool) -> bool:
    """Return whether a client can ask for `name`; raises ValueError for digits that are no IP address."""
    if is_in_brackets:
        return bool(IPv6Address(name))
    if re.fullmatch(r"\d+\.\d+\.\d+\.\d+", name):
        IPv4Address(name)
    if not name.isascii():
        import httpx2  # here: it takes long to load, and hardly any host has such a name

        try:
            name = httpx2.URL(f"http://{name}").raw_host.decode()
        except httpx2.InvalidURL:
            return False
    return all(0 < len(label) <= LONGEST_LABEL for label in name.removesuffix(".").split("."))
