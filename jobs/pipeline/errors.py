"""Finds the named stop, with a remedy, for a failure, by the exceptions behind it.

Its class and Spark's condition say what an exception is. Texts are read for one thing alone: which file it is about.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from conf.errors import TidemarkError
from jobs.connectors.causes import KAFKA, ROCKSDB, TRACEBACK, Cause
from jobs.connectors.files import UNOPENED
from jobs.connectors.hadoop_files import unreadable
from jobs.connectors.kafka.access import Right, denied, reading, writing
from jobs.connectors.kafka.refusals import REFUSALS

OWN_ERROR = "conf.errors.TidemarkError: "
# What a Column raises in our words: code, what, what to do.
RAISED, RAISED_TEXT = "USER_RAISED_EXCEPTION", re.compile(r"[A-Z_]+: .*; .*")
NOT_REAL_TIME = "NOT_REAL_TIME"
AGAIN = "then start the job again: it goes on where it was"


class Named(NamedTuple):
    """A stop with a code and a remedy, and what it is recognised by.

    Args:
        conditions: Spark's and Delta's names of errors that tell of it, or what such names begin with.
        kinds: the classes of exceptions that tell of it.
    """

    code: str
    remedy: str
    conditions: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    def is_named_by(self, cause: Cause) -> bool:
        return cause.kind in self.kinds or any(cause.condition.startswith(name) for name in self.conditions)


NAMED = (
    Named(
        "DATA_LOST",
        "records that were still to be read are gone: give the topic a longer retention",
        ("KAFKA_DATA_LOSS",),
        ("org.apache.kafka.clients.consumer.OffsetOutOfRangeException",),
    ),
    Named(
        NOT_REAL_TIME,
        'let the job deliver "exactly-once" or "at-least-once" (sink.delivery, or of this job alone jobs.JOB.delivery)',
        ("STREAMING_REAL_TIME_MODE", "INVALID_STREAMING_REAL_TIME_MODE"),
    ),
    Named(
        "TWO_DRIVERS",
        "two runs use one checkpoint: let one of them go on alone",
        ("CONCURRENT_STREAM_LOG_UPDATE", "CONCURRENT_QUERY"),
        ("org.apache.spark.SparkConcurrentModificationException",),
    ),
    Named(
        "STATE_CHANGED",
        "`local/tidemark checkpoint doctor JOB` says which change of the job or of a schema its state does not fit: "
        "take that back (cast a field that got wider to the type it had), or give the output another name, which reads "
        "the topics from the start",
        (
            *("STATE_STORE_KEY_SCHEMA_NOT_COMPATIBLE", "STATE_STORE_VALUE_SCHEMA_NOT_COMPATIBLE"),
            *("STATE_STORE_COLUMN_FAMILY_SCHEMA_INCOMPATIBLE", "STATE_STORE_INVALID_VALUE_SCHEMA_EVOLUTION"),
            *("STATE_STORE_INVALID_VARIABLE_TYPE_CHANGE", "STATE_STORE_INVALID_CONFIG_AFTER_RESTART"),
            "STREAMING_STATEFUL_OPERATOR_NOT_MATCH_IN_STATE_METADATA",
        ),
    ),
    Named(
        "BROKER_REFUSES",
        "check kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password, or kafka.oauth_client_id and its "
        "secret, against the brokers' users, kafka.security_protocol, kafka.ssl_ca_location and "
        "kafka.ssl_certificate_location against their listeners; then start the job again",
        kinds=(
            f"{KAFKA}SaslAuthenticationException",
            f"{KAFKA}SslAuthenticationException",
            f"{KAFKA}UnsupportedSaslMechanismException",
            f"{KAFKA}IllegalSaslStateException",
        ),
    ),
    *(
        Named(known.code, f"{known.remedy}, {AGAIN}", kinds=tuple(f"{KAFKA}{name}" for name in known.java))
        for known in REFUSALS
    ),
)
NO_TOPIC_RIGHT = "TopicAuthorizationException"
NOT_AUTHORIZED = Named(
    "NOT_AUTHORIZED",
    "",
    kinds=(
        f"{KAFKA}{NO_TOPIC_RIGHT}",
        f"{KAFKA}GroupAuthorizationException",
        f"{KAFKA}ClusterAuthorizationException",
        f"{KAFKA}TransactionalIdAuthorizationException",
    ),
)
UNREADABLE_TIME = Named("TIMESTAMP_OUT_OF_RANGE", "", ("KAFKA_MALFORMED_RECORD_TIMESTAMP",))
COPY = "copy the topic without such records, and read the copy by a job of another name"
NO_SPACE = "No space left on device"  # of an IOException, whose class says nothing
DISK_FULL = "free some space, then start the job again: it goes on where it was"

# Spark gives a worker that it starts for itself, as of transformWithState, 10 seconds.
WORKER_LATE = "WORKER_LATE"
WORKER_FACTORY = "org.apache.spark.api.python.PythonWorkerFactory"
LESS_AT_ONCE = (
    "start the job again when the machine is less busy, or let fewer queries run at once: it goes on where it was"
)

WORKER_DIED = "WORKER_DIED"
WORKER_GONE = "Python worker exited unexpectedly"  # of a SparkException without a condition
MORE_MEMORY = (
    "where the system ended it for want of memory (the machine's log says so), give it more, or let fewer queries run "
    "at once; then start the job again: it goes on where it was"
)

NOT_FOUND = "java.io.FileNotFoundException"
# These mean that a file is not there, or is not what was written.
DAMAGE = Named(
    "",
    "",
    (
        *("FAILED_READ_FILE", "MALFORMED_LOG_FILE", "CHECKPOINT_FILE_CHECKSUM_VERIFICATION_FAILED"),
        "ROCKSDB_Corruption",
        *(f"CANNOT_LOAD_STATE_STORE.{each}" for each in ("CANNOT_READ", "CANNOT_FIND", "UNEXPECTED_FILE_SIZE")),
        *(f"CANNOT_LOAD_STATE_STORE.{each}" for each in ("KEY_ROW_FORMAT", "VALUE_ROW_FORMAT", "INVALID_CH")),
    ),
    (
        *(NOT_FOUND, "java.io.EOFException", "java.io.UTFDataFormatException"),
        *("org.apache.hadoop.fs.ChecksumException", "net.jpountz.lz4.LZ4Exception", "java.util.zip.ZipException"),
        *("com.fasterxml.jackson.core.JsonParseException", "com.fasterxml.jackson.core.io.JsonEOFException"),
    ),
)
# The system's own words, in exceptions that say of many files no more than that one was not opened.
NOT_OPENED = (*UNOPENED, "(Is a directory)")
OPENING = ("java.io.", "java.nio.file.", "org.apache.hadoop.security.AccessControlException", ROCKSDB)
# If a file could not be read, these causes mean a lost connection, no memory or a wanted end, not a damaged file.
PASSING = ("java.net.", "javax.net.", "java.lang.OutOfMemoryError", "java.lang.Interrupted", "java.io.InterruptedIO")
STATE_DAMAGED = "STATE_DAMAGED"
LOG_PACKAGE = "org.apache.spark.sql.execution.streaming.checkpointing."  # reads the logs of offsets and commits
FOOTER_READER = "org.apache.parquet.hadoop.ParquetFileReader"  # throws RuntimeException, of any file that is none
STATE_SCHEMA_READER = "org.apache.spark.sql.execution.streaming.state.SchemaHelper"  # throws what its parser throws
STATE_PACKAGE = "org.apache.spark.sql.execution.streaming.state."
STATE = Named(STATE_DAMAGED, "", ("CANNOT_LOAD_STATE_STORE",))
FILE = re.compile(r"(?:(?<![a-z0-9])[a-z][a-z0-9]*:)?/[^\s'\",;]*[^\s'\",;:.)]")
LOCAL = re.compile("^file:/+")
PARTS = (
    (STATE_DAMAGED, r".*/state/\d+/", "restore the checkpoint from a copy"),
    (
        "TABLE_LOG_DAMAGED",
        r"(?P<table>.*)/_delta_log/[^/]*\.checkpoint\.[^/]*$",
        "restore it from a copy, or remove it and {table}/_delta_log/_last_checkpoint: Delta then reads the older "
        "files of the log, where they were not cleaned yet",
    ),
    ("TABLE_LOG_DAMAGED", r".*/_delta_log(?:/|$)", "restore it from a copy"),
    ("CHECKPOINT_DAMAGED", r".*/(?:(?:offsets|commits|sources)/.*|metadata)$", "restore it from a copy"),
    ("DATA_FILE_DAMAGED", r".*\.parquet$", "restore it from a copy"),
)


class DeniedError(TidemarkError):
    """NOT_AUTHORIZED as Java's exceptions report it: what was denied, but not to whom; see `with_rights`."""

    rights: tuple[Right, ...] = ()
    exception = ""
    said = ""


def with_rights(
    stop: TidemarkError, connection: Mapping[str, Any], read: Iterable[str] = (), written: str | None = None
) -> TidemarkError:
    """Add to `stop` the client's user and the right that is lacking, where that is why: it reads these topics, and
    writes to `written`, if any.

    Java's clients mostly say which topic it is, and its client for administration does not.
    """
    if not isinstance(stop, DeniedError):
        return stop
    rights = stop.rights
    if not rights and stop.exception == NO_TOPIC_RIGHT:
        rights = tuple(reading([*read, *([written] if written else [])]))
    lacking = [writing([right.name])[0] if right.name == written else right for right in rights]
    return denied(stop.exception, stop.said, lacking, connection)


class DamagedError(TidemarkError):
    """A damaged file as exceptions report it; with the path of one that was not found, where that is why."""

    not_found = ""


class UnreadableError(TidemarkError):
    """TIMESTAMP_OUT_OF_RANGE, with where the record is."""

    topic = ""
    partition = offset = 0


def known_error(causes: Sequence[Cause]) -> TidemarkError | None:
    """Return the named stop that the `causes` of a failure point to; None where it is none of those.

    It is the innermost of ours, else a damaged file, else one of NAMED.
    """
    inwards = tuple(reversed(causes))
    for cause in inwards:
        if raised := _own_error(cause):
            return raised
    if any(NO_SPACE in cause.message for cause in causes):
        return TidemarkError("DISK_FULL", inwards[0].line, DISK_FULL)
    if any(cause.kind == "java.net.SocketTimeoutException" and cause.has_frame_in(WORKER_FACTORY) for cause in causes):
        return TidemarkError(WORKER_LATE, "a Python worker did not start in time", LESS_AT_ONCE)
    if any(WORKER_GONE in cause.message and cause.kind.startswith("org.apache.spark.") for cause in causes):
        return TidemarkError(WORKER_DIED, "a Python worker was ended, or crashed", MORE_MEMORY)
    for cause in inwards:
        if NOT_AUTHORIZED.is_named_by(cause):
            return _denied(cause)
        if UNREADABLE_TIME.is_named_by(cause):
            return _unreadable(cause.parameters)
    for named in NAMED:
        for cause in inwards:
            if named.is_named_by(cause):
                return TidemarkError(named.code, cause.line.rstrip("; "), named.remedy)
    return _unopened(inwards) or _damage(inwards)


def _unopened(inwards: Sequence[Cause]) -> TidemarkError | None:
    """Return the stop for a file that the system did not open, which may be whole."""
    for cause in inwards:
        why = next((said for said in NOT_OPENED if said in cause.message), None)
        if why is not None and cause.kind.startswith(OPENING):
            # The texts around it may name other files.
            file = next(_files([cause]), None) or next(_named_files(inwards), "a file")
            return unreadable(LOCAL.sub("/", file), why.strip("()"))
    return None


def _own_error(cause: Cause) -> TidemarkError | None:
    """Return an error of our own that this process, a Python worker or a Column raised."""
    if isinstance(cause.error, TidemarkError):
        return cause.error
    raised = [line.removeprefix(OWN_ERROR) for line in TRACEBACK.findall(cause.message) if line.startswith(OWN_ERROR)]
    if cause.condition == RAISED and RAISED_TEXT.fullmatch(cause.parameters.get("errorMessage", "")):
        raised.append(cause.parameters["errorMessage"])
    if text := (raised or [""])[-1].strip():
        code, _, rest = text.partition(": ")
        what, _, remedy = rest.rpartition("; ")
        return TidemarkError(code, what, remedy)
    return None


def _denied(cause: Cause) -> DeniedError:
    rights = reading(cause.parameters.get("topics", "").split())
    if group := cause.parameters.get("group"):
        rights.append(Right("group", group, ("Read",)))
    exception, message = cause.kind.rpartition(".")[2], cause.message
    general = denied(exception, message, rights, {})
    stop = DeniedError(general.code, general.message, general.remedy)
    stop.rights, stop.exception, stop.said = tuple(rights), exception, message
    return stop


def _unreadable(parameters: Mapping[str, str]) -> UnreadableError:
    topic, partition, offset = (parameters[name] for name in ("topic", "partition", "offset"))
    what = (
        f"{topic} partition {partition} offset {offset}: the record's timestamp is {parameters['timestamp']} ms after "
        "1970, past the year 294,247, which Spark does not read"
    )
    stop = UnreadableError(UNREADABLE_TIME.code, what, f"mend its producer; {COPY}")
    stop.topic, stop.partition, stop.offset = topic, int(partition), int(offset)
    return stop


def _damage(inwards: Sequence[Cause]) -> TidemarkError | None:
    """Return the stop for a damaged file, by what the file is a part of."""
    readers = (LOG_PACKAGE, FOOTER_READER, STATE_SCHEMA_READER)
    is_damage = any(DAMAGE.is_named_by(cause) or any(map(cause.has_frame_in, readers)) for cause in inwards)
    if not is_damage or any(cause.kind.startswith(PASSING) for cause in inwards):
        return None
    for file in (LOCAL.sub("/", name) for name in _files(inwards)):
        for code, pattern, remedy in PARTS:
            if match := re.match(pattern, file):
                # What the cause says may quote the file, and with it what records hold.
                what = f"{file} is lost or damaged ({inwards[0].kind.rpartition('.')[2]})"
                stop = DamagedError(code, what, remedy.format(**match.groupdict()))
                missing = _files([cause for cause in inwards if cause.kind == NOT_FOUND])
                stop.not_found = LOCAL.sub("/", next(missing, ""))
                return stop
    if any(STATE.is_named_by(cause) or cause.has_frame_in(STATE_PACKAGE) for cause in inwards):
        what = f"a file of the query's state is damaged ({inwards[0].kind.rpartition('.')[2]})"
        return TidemarkError(STATE_DAMAGED, what, "restore the checkpoint from a copy")
    return None


def _files(inwards: Sequence[Cause]) -> Iterator[str]:
    """Yield the files that causes name: as parameters of Spark's conditions, else in their texts."""
    yield from _named_files(inwards)
    for cause in inwards:
        yield from FILE.findall(cause.message)


def _named_files(inwards: Sequence[Cause]) -> Iterator[str]:
    for cause in inwards:
        yield from (value for value in cause.parameters.values() if FILE.fullmatch(value))
