"""Checks addresses of services over HTTP, before a client fails on them in words of its own."""

import re
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import SplitResult, urlsplit

from conf.secret_words import holds_login

NO_PART = re.compile(r"[\x00-\x20\x7f]")
DOTTED = re.compile(r"\d+\.\d+\.\d+\.\d+")
LONGEST = 8_192
LONGEST_LABEL = 63  # of a host's name in DNS


def require_url(setting: str, text: str, login: str, form: str = "http://HOST… or https://HOST…") -> SplitResult:
    """Return the parts of the address `text`, the value of `setting`.

    Args:
        login: what to do with a user and password, which it must not hold.
        form: what it must look like.

    Raises:
        ValueError: no client would take it; the text is not shown, which may hold a password.
    """
    if holds_login(text):
        raise ValueError(f"{setting} must hold no user and password: {login}")
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # raises ValueError, for one that is no number up to 65535
        is_address = parts.scheme in ("http", "https") and is_host(parts.hostname or "", "[" in parts.netloc)
    except ValueError:
        is_address = False
    if not is_address or NO_PART.search(text) or len(text) > LONGEST:
        raise ValueError(f"{setting} must be {form}, with a port that is a number, if any, and no blank")
    return parts


def is_host(name: str, is_in_brackets: bool) -> bool:
    """Return whether a client can ask for `name`; raises ValueError for digits that are no IP address."""
    if is_in_brackets:
        return bool(IPv6Address(name))
    if DOTTED.fullmatch(name):
        IPv4Address(name)
    if not name.isascii():
        import httpx2  # here: it takes long to load, and hardly any host has such a name

        try:
            name = httpx2.URL(f"http://{name}").raw_host.decode()
        except httpx2.InvalidURL:
            return False
    return all(0 < len(label) <= LONGEST_LABEL for label in name.removesuffix(".").split("."))
