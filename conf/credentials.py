"""Recognises secrets of any system in a text, so that none is shown, and checks certificates and keys.

A secret is known by the name that a value is given, or by a URL that holds a login. Commands that run before any
package is installed recognise it, too: loaded, this needs the standard library alone.
"""

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import TidemarkError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

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
PLAIN_KEY, ANY_KEY = b"-----BEGIN PRIVATE KEY-----", b"PRIVATE KEY-----"
ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")


def refuse_secrets(words: Sequence[str]) -> None:
    """Refuse words of a command line that hold a secret; no value is shown. Raises TidemarkError BAD_ARGUMENTS, with
    what takes the secret in its place."""
    for before, word in zip(["", *words], words, strict=False):
        what = named_secret(word)
        if what is None and holds_login(word):
            what = f"the user and password in {_place(before, word)}"
        if what is not None:
            remedy = (
                "give it where that client looks for it: a setting or a variable of its own, such as "
                "AWS_SECRET_ACCESS_KEY, or a file that only you can read, such as core-site.xml in HADOOP_CONF_DIR"
            )
            raise TidemarkError("BAD_ARGUMENTS", f"{what} would show in the list of processes", remedy)


def named_secret(word: str) -> str | None:
    """Return the name in `word` that is given a secret, as an option, a property or a key of JSON; None for none."""
    if REFERENCE.fullmatch(word):
        return None
    for name, value in _named_values(word):
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


def _named_values(word: str) -> Iterator[tuple[str, str]]:
    if option := OPTION.match(word):
        rest = word[option.end() :]
        yield option[1], rest[1:] or " "
        word = rest.removeprefix("=")
    for pattern in (ASSIGNED, IN_JSON):
        for match in pattern.finditer(word):
            yield match[1], word[match.end() :]


def _is_secret(name: str) -> bool:
    if NO_SECRET.fullmatch(name):
        return False
    plain = ".".join(filter(None, WORDS.split(ACCOUNT.sub("", name)))).lower()
    return bool(SECRET.search(plain)) and not ABOUT.fullmatch(plain.rpartition(".")[2])


def require_certificates(path: str, setting: str) -> None:
    """Raise ValueError where `path`, the value of `setting`, is no file of PEM certificates that can be read, or holds
    none that is valid today."""
    _require_valid(_certificates(path, setting), path, setting)


def require_key_pair(certificate: str, key: str, password: str) -> None:
    """Raise ValueError where the client certificate and its private key are not PEM, not of each other, or the key is
    not encrypted by the password, if there is one; `key` is empty where it lies in the certificate's file."""
    where = f"ssl_key_location {key}" if key else f"ssl_certificate_location {certificate}"
    pem = _read(certificate, "ssl_certificate_location")
    held = _read(key, "ssl_key_location") if key else pem
    if ANY_KEY not in held:
        raise ValueError(f"{where} holds no private key in PEM")
    is_encrypted = any(mark in held for mark in ENCRYPTED)
    if is_encrypted and not password:
        raise ValueError(f"{where} is encrypted: set ssl_key_password")
    if password and not is_encrypted:
        raise ValueError(f"{where} is not encrypted, though ssl_key_password is set")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    first = _certificates(certificate, "ssl_certificate_location")[0]
    try:
        private = serialization.load_pem_private_key(held, password.encode() if password else None)
    except UnsupportedAlgorithm as exc:
        raise ValueError(f"{where} has a key of a kind that clients do not know: {exc}") from None
    except (ValueError, TypeError):
        raise ValueError(f"{where} does not open{' by ssl_key_password' if password else ''}") from None
    try:
        public = first.public_key().public_bytes(*form)
    except (UnsupportedAlgorithm, ValueError) as exc:
        what = f"ssl_certificate_location {certificate} has a key of a kind that clients do not know"
        raise ValueError(f"{what}: {exc}") from None
    if public != private.public_key().public_bytes(*form):
        raise ValueError(f"{where} is not the key of the certificate in {certificate}")
    # In a client's chain only the first is its own.
    _require_valid([first], certificate, "ssl_certificate_location")


def key_for_java(path: str, password: str) -> str | None:
    """Return the private key as PEM in PKCS#8, without a password; None where the file has it like that already.

    Kafka's client in Java reads no other, and Java 17 none that is encrypted as OpenSSL does it (PBES2).
    """
    held = Path(path).read_bytes()
    if PLAIN_KEY in held:
        return None
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(held, password.encode() if password else None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


def certificate_subject(path: str) -> str:
    """Return the subject of the file's first certificate, as brokers name the user who shows it: `CN=app,O=org`."""
    from cryptography import x509

    return x509.load_pem_x509_certificates(Path(path).read_bytes())[0].subject.rfc4514_string()


def _read(path: str, setting: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise ValueError(f"{setting} {path} cannot be read: {exc.strerror}") from None


def _certificates(path: str, setting: str) -> "list[Certificate]":
    from cryptography import x509  # here: it takes longer to load than all else, and most settings name no certificate

    pem = _read(path, setting)
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError(f"{setting} {path} cannot be read: it holds no PEM certificates") from None


def _require_valid(certificates: "list[Certificate]", path: str, setting: str) -> None:
    """Raise ValueError where every certificate is expired, or begins later."""
    now, first = dt.datetime.now(dt.UTC), certificates[0]
    if not any(known.not_valid_before_utc <= now <= known.not_valid_after_utc for known in certificates):
        if first.not_valid_before_utc > now:
            raise ValueError(f"{setting} {path} is not valid before {first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
        raise ValueError(f"{setting} {path} expired at {first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
