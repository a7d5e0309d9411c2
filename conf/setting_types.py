"""Declares the types of settings: durations, memory, masters, hosts, folders, options of Java, and tables of these.

Spark, Java and Kafka's clients fail on a text that they cannot read only when a job runs, in words of their own: what
stands here is judged when settings are loaded. Each `require_*` returns its text; the errors, ValueError, say the value
and what is allowed. Command lines and declarations write durations and times the same; so does Spark's INTERVAL.
"""

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from conf.credentials import holds_login, named_secret, shown
from conf.names import TOPIC_RULE, is_host, is_topic

INT, LONG = 2**31 - 1, 2**63 - 1  # the largest numbers that Kafka, Spark and Java have room for
UNIT_MS = {"second": 1000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000, "week": 604_800_000}
DURATION_EXAMPLE = 'write for example "1 day", "2 weeks"'
LONGEST_DAYS = 365_000  # a thousand years: before or after any time of today, it is still a time
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


class Section(BaseModel):
    """A table of the settings, or of another TOML file; frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def milliseconds(text: str) -> int:
    """Return how long `text` lasts; raises ValueError where it is no whole number of one unit, or too long."""
    match = re.fullmatch(rf"([1-9][0-9]*) ({'|'.join(UNIT_MS)})s?", text)
    if match is None:
        raise ValueError(f"{shown(text)} is no duration: {DURATION_EXAMPLE}")
    # Python takes no text of thousands of digits for a number.
    lasts = int(match[1][:18]) * UNIT_MS[match[2]]
    if len(match[1]) > 18 or lasts > LONGEST_DAYS * UNIT_MS["day"]:
        raise ValueError(f"{shown(text)} is longer than {LONGEST_DAYS:,} days: {DURATION_EXAMPLE}")
    return lasts


def require_duration(text: str) -> str:
    milliseconds(text)
    return text


def require_interval(text: str) -> str:
    """Take how often micro-batches begin: a duration, in milliseconds too, or 0 for one after the other."""
    if re.fullmatch(r"[0-9]{1,9} milliseconds?|0 seconds?", text):
        return text
    try:
        milliseconds(text)
    except ValueError:
        example = '"5 seconds", "100 milliseconds", or "0 seconds" for one batch after the other'
        raise ValueError(f"{shown(text)} is no interval between batches: write for example {example}") from None
    return text


def moment(text: str) -> datetime:
    """Return a time in ISO's form, in UTC where it names no zone; raises ValueError, also for one that UTC has not."""
    at = datetime.fromisoformat(text)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    try:
        at.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is before the year 1 or after 9999 in UTC") from None
    return at


def require_memory(text: str) -> str:
    """Take the size of a heap as Java and Spark both read it."""
    match = MEMORY.fullmatch(text)
    if not match or not LEAST_MEMORY <= int(match[1]) * MEGABYTES[match[2].lower()] <= MOST_MEMORY:
        raise ValueError(f'{shown(text)} is no memory of a JVM: write a whole number and m or g, from "512m" to "16t"')
    return text


def require_master(text: str) -> str:
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
    """Take options of a driver's JVM, with blanks between them; a value that may be a secret is not shown."""
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
    if "@" in text:
        raise ValueError("bootstrap_servers must be HOST:PORT,…, with no user and password: see sasl_username")
    if text and not _are_addresses(text):
        raise ValueError(f"{shown(text)} is no list of brokers: write HOST:PORT,HOST:PORT")
    return text


def require_listening_host(text: str) -> str:
    if not _is_name(text):
        raise ValueError(f"{shown(text)} is no host to listen on: write 127.0.0.1, 0.0.0.0 for all, or a name")
    return text


def require_place(text: str) -> str:
    _refuse_login(text)
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("this is neither a folder nor a URI") from None
    _require_name(text)
    if parts.scheme in ("", "file") and (wrong := NO_TABLE_PATH.search(text)):
        raise ValueError(f"{shown(text)} has {wrong[0]!r}, by which tables are not found again: name another folder")
    is_whole = bool(parts.netloc) or (parts.scheme in WITHOUT_HOST and parts.path.startswith("/"))
    if parts.scheme and not is_whole:
        raise ValueError(f"{shown(text)} names nothing behind its scheme: write a folder, or a URI s3a://BUCKET/PATH")
    return text


def require_folder(text: str) -> str:
    _require_name(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        raise ValueError(f"{shown(text)} is no folder of this machine: write a path, with no scheme")
    return text


def require_region(text: str) -> str:
    """Take a cluster's name in MirrorMaker, which begins the names of its topics."""
    if not is_topic(f"{text}.t") or not text:
        raise ValueError(f"{shown(text)} is no name of a region: it begins names of topics, of {TOPIC_RULE}")
    return text


def require_position(text: str) -> str:
    """Take where reading begins; offsets are judged further where they are read."""
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
    if NO_LINE.search(text):
        raise ValueError(f"{shown(text)} has a line break or a control character: write one line")
    return text


def read_clock(value: Any) -> Any:
    """Return the time that a text in ISO's form names, with its zone, and None for none; raises ValueError."""
    if value == "":
        return None
    example = "write a time with its zone, as 2026-01-31T12:00:00Z"
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{shown(value)} is no time: {example}") from None
    if not isinstance(at, datetime):
        raise ValueError(f"{value!r} is no time: {example}")
    if at.tzinfo is None:
        raise ValueError(f"{shown(str(at))} names no zone: {example}")
    return moment(at.isoformat())


def _refuse_login(text: str) -> None:
    if holds_login(text):
        where = "give them where that system looks for them, such as a variable"
        raise ValueError(f"it must hold no user and password: {where}")


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


Duration = Annotated[str, AfterValidator(require_duration)]
Interval = Annotated[str, AfterValidator(require_interval)]
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
Clock = BeforeValidator(read_clock)
