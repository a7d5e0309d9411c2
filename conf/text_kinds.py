"""Declares the kinds of settings that are texts: memory, masters, intervals, hosts, folders, options of Java.

Spark, Java and Kafka's clients fail on a text that they cannot read only when a job runs, in words of their own: what
stands here is judged when settings are loaded. The errors, ValueError, say the value and what is allowed.
"""

import json
import re
import shlex
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from conf.durations import moment
from conf.names import TOPIC_RULE, is_topic
from conf.secret_words import holds_login, named_secret, shown
from conf.urls import is_host

LOGIN_REFUSED = "it must hold no user and password: give them where that system looks for them, such as a variable"
NO_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
NO_NAME = re.compile(r"[\s\x00-\x1f\x7f-\x9f/@?#%\\,]")
MEMORY = re.compile(r"([0-9]{1,9})([mgt])", re.IGNORECASE)
MEGABYTES = {"m": 1, "g": 1 << 10, "t": 1 << 20}
LEAST_MEMORY, MOST_MEMORY = 512, 16 << 20  # megabytes: Spark refuses to start with less, and no machine has more
LOCAL_MASTER = re.compile(r"local(\[([1-9][0-9]{0,4}|\*)(\s*,\s*[1-9][0-9]{0,4})?\])?")
LOCAL_CLUSTER = re.compile(r"local-cluster\[\s*[1-9][0-9]*\s*,\s*[1-9][0-9]*\s*,\s*[1-9][0-9]*\s*\]")
MASTERS = "local[CORES], local[CORES,ATTEMPTS], spark://HOST:PORT, yarn or k8s://HOST:PORT"
NO_TABLE_PATH = re.compile(r"%[0-9A-Fa-f]{2}|[\[\]^|<>\\]")  # in which deltalake reads another path, or panics
WITHOUT_HOST = ("file", "hdfs", "viewfs")  # of the schemes of file systems: these know a place by its path alone
SCHEME_OF_LISTENER = re.compile(r"[A-Za-z_]+://")
# Java would do these instead of running a job, or Spark's launcher refuses them.
NOT_FOR_DRIVERS = re.compile(
    r"-Xm[xs].*|--?(version|help|showversion|fullversion|dry-run|help-extra|list-modules|validate-modules)|-h|-\?|-X"
    r"|--?show-version|--?X|-jar|-m|--module(=.*)?|-cp|-classpath|--class-path(=.*)?|-XshowSettings.*|--disable-@files"
    r"|-d|--describe-module(=.*)?|-XX:\+?PrintFlags.*|-XX:MaxHeapSize=.*"
)
# These take their value as the next word.
WITH_VALUE = ("--add-modules", "--add-opens", "--add-exports", "--add-reads", "--limit-modules", "--module-path", "-p")


def require_memory(text: str) -> str:
    """Return `text`, the size of a heap as Java and Spark both read it; raises ValueError."""
    match = MEMORY.fullmatch(text)
    if not match or not LEAST_MEMORY <= int(match[1]) * MEGABYTES[match[2].lower()] <= MOST_MEMORY:
        raise ValueError(f'{shown(text)} is no memory of a JVM: write a whole number and m or g, from "512m" to "16t"')
    return text


def require_master(text: str) -> str:
    """Return `text`, where Spark runs; raises ValueError."""
    _refuse_login(text)
    scheme, _, rest = text.partition("://")
    if scheme == "spark":
        is_master = _are_addresses(rest) and "_" not in rest  # which Java takes for no host
    elif scheme == "k8s" and rest:
        is_master = _is_kubernetes(rest)
    else:
        is_master = text == "yarn" or bool(LOCAL_MASTER.fullmatch(text) or LOCAL_CLUSTER.fullmatch(text))
    if not is_master:
        raise ValueError(f"{shown(text)} is no master of Spark: write {MASTERS}")
    return text


def require_java_options(text: str) -> str:
    """Return `text`, options of a driver's JVM with blanks between them; raises ValueError, and shows no value of one
    that may be a secret."""
    if name := named_secret(text):
        raise ValueError(f"{name} would show in the list of processes: give it in a file that Java reads (@FILE)")
    _refuse_login(text)
    try:
        words = shlex.split(text)
    except ValueError:
        raise ValueError(f"{shown(text)} cannot be taken apart into words: close its quotes") from None
    before = ""
    for word in words:
        if NOT_FOR_DRIVERS.fullmatch(word):
            instead = "a heap is set by spark.driver_memory" if word.startswith(("-Xm", "-XX:Max")) else "leave it out"
            raise ValueError(f"{shown(word)} is no option for a driver: {instead}")
        if before not in WITH_VALUE and (len(word) < 2 or word[0] not in "-@"):
            raise ValueError(f"{shown(word)} is no option of Java: write words that begin with `-`, or @FILE")
        before = word
    if before in WITH_VALUE:
        raise ValueError(f"{shown(before)} lacks its value: write it as the next word")
    return text


def require_servers(text: str) -> str:
    """Return `text`, addresses of brokers, or nothing; raises ValueError."""
    if "@" in text:
        raise ValueError("bootstrap_servers must be HOST:PORT,…, with no user and password: see sasl_username")
    if text and not _are_addresses(text):
        raise ValueError(f"{shown(text)} is no list of brokers: write HOST:PORT,HOST:PORT")
    return text


def require_listening_host(text: str) -> str:
    """Return `text`, a name or address of this machine; raises ValueError."""
    if not _is_name(text):
        raise ValueError(f"{shown(text)} is no host to listen on: write 127.0.0.1, 0.0.0.0 for all, or a name")
    return text


def require_place(text: str) -> str:
    """Return `text`, a folder or a URI; raises ValueError."""
    _refuse_login(text)
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("this is neither a folder nor a URI") from None
    _require_name(text)
    if parts.scheme in ("", "file") and (found := NO_TABLE_PATH.search(text)):
        raise ValueError(f"{shown(text)} has {found[0]!r}, by which tables are not found again: name another folder")
    is_whole = bool(parts.netloc) or (parts.scheme in WITHOUT_HOST and parts.path.startswith("/"))
    if parts.scheme and not is_whole:
        raise ValueError(f"{shown(text)} names nothing behind its scheme: write a folder, or a URI s3a://BUCKET/PATH")
    return text


def require_folder(text: str) -> str:
    """Return `text`, a folder of this machine; raises ValueError."""
    _require_name(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        raise ValueError(f"{shown(text)} is no folder of this machine: write a path, with no scheme")
    return text


def require_region(text: str) -> str:
    """Return `text`, a cluster's name in MirrorMaker, which begins the names of its topics; raises ValueError."""
    if not is_topic(f"{text}.t") or not text:
        raise ValueError(f"{shown(text)} is no name of a region: it begins names of topics, of {TOPIC_RULE}")
    return text


def require_position(text: str) -> str:
    """Return `text`, where reading begins; offsets are judged further where they are read. Raises ValueError."""
    try:
        is_position = text in ("earliest", "latest") or (
            isinstance(json.loads(text), dict) if text.lstrip().startswith("{") else bool(moment(text))
        )
    except (ValueError, RecursionError):
        is_position = False
    if not is_position:
        raise ValueError(f'{shown(text)} is no position: write earliest, latest, a time or {{"topic": {{"0": 42}}}}')
    return text


def require_line(text: str) -> str:
    """Return `text`, one line without control characters; raises ValueError."""
    if NO_LINE.search(text):
        raise ValueError(f"{shown(text)} has a line break or a control character: write one line")
    return text


def clock(value: Any) -> Any:
    """Return the time that a text in ISO's form names, with its zone, and None for none; raises ValueError."""
    if value == "":
        return None
    example = "write a time with its zone, as 2026-01-31T12:00:00Z"
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{shown(value)} is no time: {example}") from None
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is no time: {example}")
    if value.tzinfo is None:
        raise ValueError(f"{shown(str(value))} names no zone: {example}")
    moment(value.isoformat())
    return value


def _refuse_login(text: str) -> None:
    if holds_login(text):
        raise ValueError(LOGIN_REFUSED)


def _require_name(text: str) -> None:
    if not text.strip():
        raise ValueError(f"{text!r} names no folder: write one (a variable that is not set gives an empty text)")
    require_line(text)


def _are_addresses(text: str) -> bool:
    """Return whether `text` has HOST:PORT, and no more than commas and blanks between several."""
    addresses = [part.strip() for part in text.split(",") if part.strip()]
    return bool(addresses) and all(map(_is_address, addresses))


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(f"//{SCHEME_OF_LISTENER.sub('', text, count=1)}")
        is_bare = parts.netloc == parts.geturl().removeprefix("//")
        return is_bare and text.isascii() and bool(parts.port) and _is_name(parts.hostname or "")
    except ValueError:
        return False


def _is_kubernetes(rest: str) -> bool:
    try:
        parts = urlsplit(rest if "://" in rest else f"https://{rest}")
        return parts.scheme in ("http", "https") and parts.port != 0 and _is_name(parts.hostname or "")
    except ValueError:
        return False


def _is_name(text: str) -> bool:
    """Return whether `text` is the name of a host or an IP address, of version 6 with brackets or without."""
    try:
        bare = text.removeprefix("[").removesuffix("]")
        return bool(text) and not NO_NAME.search(text) and is_host(bare, ":" in bare)
    except ValueError:
        return False


Memory = Annotated[str, AfterValidator(require_memory)]
Master = Annotated[str, AfterValidator(require_master)]
JavaOptions = Annotated[str, AfterValidator(require_java_options)]
Servers = Annotated[str, AfterValidator(require_servers)]
ListeningHost = Annotated[str, AfterValidator(require_listening_host)]
Place = Annotated[str, AfterValidator(require_place)]
Folder = Annotated[str, AfterValidator(require_folder)]
Region = Annotated[str, AfterValidator(require_region)]
StartingOffsets = Annotated[str, AfterValidator(require_position)]
Line = Annotated[str, AfterValidator(require_line)]
StoreFolder = Annotated[Path, BeforeValidator(lambda value: require_folder(value) if isinstance(value, str) else value)]
Clock = BeforeValidator(clock)
