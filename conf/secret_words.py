"""Recognises secrets of any system in a text: by the name that a value is given, and by a URL that holds a login.

Commands that run before any package is installed use it: it needs the standard library alone.
"""

import re
from collections.abc import Iterator, Sequence

from conf.errors import TidemarkError

SHOWN_CHARACTERS = 60

# What makes a name that of a secret, wherever it stands in it. `key` alone is a word of many meanings.
SECRET = re.compile(
    r"""passw(or)?d | passphrase | secret(?!ar) | credential | jaas\.config | authorization | token(?!i[sz])
    | (^|\.) (pwd|sas|sig) (\.|$) | (^|\.) pass $
    | (access|account|api|encryption|hash|hmac|master|private|provided|shared|signing|storage) \.? key (\.|$)""",
    re.VERBOSE,
)
# The last word of a name that only speaks of a secret: where it lies, how it is made, whether there is one.
ABOUT = re.compile(
    r"(\w*file|\w*path)s?|(provider|type|id|name|count|day|sec|second|byte|attempt|bit)s?|location|dir|class|alias|mode"
    r"|enabled?|required|mechanism|algorithm|binding|length|size|lifetime|regex|ur[il]|endpoint|host|port|ms|interval"
    r"|timeout|period|validity|epoch|ratio|index|version"
)
# Names that end like a secret's and are none; jobs may have any name.
NO_SECRET = re.compile(
    r"jobs\..+|(.+\.)?GOOGLE_APPLICATION_CREDENTIALS|spark\.kerberos\.renewal\.credentials"
    r"|spark\.kubernetes\.(kerberos\..+|container\.image\.pullSecrets)"
    r"|spark\.security\.credentials\..+|spark\.ssl\.(\w+\.)?privateKey"
)
# It names a secret of Kubernetes, as a variable or a folder, and holds none.
REFERENCE = re.compile(
    r"(--conf=)?spark\.kubernetes\.(driver|executor)\."
    r"(secretKeyRef\.\w+=[a-z0-9.-]+:[\w.-]+|secrets\.[a-z0-9.-]+=/[^\s=@]*)"
)
# A key of a service that keeps keys is an address (arn:…).
HARMLESS_VALUE = re.compile(r"""["']?(true|false|arn:.*)?["']?""", re.DOTALL)
# An account's name, at the end of a property of Azure's.
ACCOUNT = re.compile(r"\.[\w-]+\.(dfs|blob)\.core\.[\w.]+$")
OPTION = re.compile(r"--?(?!D)([A-Za-z][\w.-]*)")
NAME = r"[A-Za-z_][\w.$-]*"
ASSIGNED = re.compile(rf"""(?:^|[\s"'{{(\[,;?&]|(?<=-D))({NAME})["'\s]*=""")
# A table of topics, as a position has it, is no value.
IN_JSON = re.compile(rf'"({NAME})"\s*:\s*(?![\s{{\[])')
WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")
# A password, a key of S3 among them, may have any character, `/` and `@` too. A port is none; nor is a name alone,
# which is a container before an account in abfss://.
LOGIN = re.compile(
    r"https?://[^/?#\s]*@|s3[an]?://[^/?#\s@]*(:|%3a)\S*?@|://[^/?#\s@]*?(:|%3a)(?!\d{1,5}(/|,|$))\S*?@",
    re.IGNORECASE,
)


def refuse(words: Sequence[str]) -> None:
    """Refuse words of a command line that hold a secret; no value is shown.

    Raises:
        TidemarkError: BAD_ARGUMENTS, with what takes the secret in its place.
    """
    for before, word in zip(["", *words], words, strict=False):
        if name := named_secret(word):
            raise _would_show(name)
        if holds_login(word):
            raise _would_show(f"the user and password in {_place(before, word)}")


def named_secret(word: str) -> str | None:
    """Return the name in `word` that is given a secret, as an option, a property or a key of JSON; None for none."""
    if REFERENCE.fullmatch(word):
        return None
    for name, value in _given(word):
        if _is_secret(name) and not HARMLESS_VALUE.fullmatch(value):
            return name
    option = OPTION.match(word)
    # The value may be the next word.
    return option[1] if option and option.end() == len(word) and _is_secret(option[1]) else None


def holds_login(text: str) -> bool:
    """Return whether a URL in `text` has a user and password before its `@`."""
    return bool(LOGIN.search(text))


def shown(text: str) -> str:
    """Return a text as an error shows it: cut short, and not at all where it may hold a secret."""
    if holds_login(text) or named_secret(text):
        return "what is set (not shown: it may hold a secret)"
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…")


def _place(before: str, word: str) -> str:
    """Return what a word gives a URL to: a property, or an option."""
    named, equals, _ = word.partition("://")[0].rpartition("=")
    if equals:
        return named.rpartition("=")[2]
    return before if before.startswith("-") else "a URL"


def _would_show(what: str) -> TidemarkError:
    remedy = (
        "give it where that client looks for it: a setting or a variable of its own, such as AWS_SECRET_ACCESS_KEY, "
        "or a file that only you can read, such as core-site.xml in HADOOP_CONF_DIR"
    )
    return TidemarkError("BAD_ARGUMENTS", f"{what} would show in the list of processes", remedy)


def _given(word: str) -> Iterator[tuple[str, str]]:
    if option := OPTION.match(word):
        rest = word[option.end() :]
        yield option[1], rest[1:] or " "
        word = rest.removeprefix("=")
    for pattern in (ASSIGNED, IN_JSON):
        for found in pattern.finditer(word):
            yield found[1], word[found.end() :]


def _is_secret(name: str) -> bool:
    if NO_SECRET.fullmatch(name):
        return False
    plain = ".".join(filter(None, WORDS.split(ACCOUNT.sub("", name)))).lower()
    return bool(SECRET.search(plain)) and not ABOUT.fullmatch(plain.rpartition(".")[2])
