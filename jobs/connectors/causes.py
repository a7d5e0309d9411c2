"""Gives the exceptions behind a failure, Python's and Java's, as data: classes, Spark's error conditions, texts."""

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jobs.connectors.spark_internals import is_instance, java_exception

MOST_CAUSES = 40  # a chain of Java exceptions may go round in a circle
FRAMES = 20
KAFKA = "org.apache.kafka.common.errors."
# By class of Kafka's exceptions: our name for what they deny, and the method that gives it.
DENIED = {
    f"{KAFKA}TopicAuthorizationException": ("topics", "unauthorizedTopics"),
    f"{KAFKA}GroupAuthorizationException": ("group", "groupId"),
}
ROCKSDB = "org.rocksdb.RocksDBException"
# This finds the line below a Python traceback: an error of a Python worker, another process, comes as text alone.
TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n)*(\S.*)")


class Cause(NamedTuple):
    """One exception.

    Args:
        kind: its class, with the package: `java.io.FileNotFoundException`, `builtins.OSError`.
        condition: the name that Spark or Delta gives the error, as `CONCURRENT_QUERY`, or the status of RocksDB, as
            `ROCKSDB_Corruption`; empty where there is none.
        parameters: what Spark or Delta names in the error, by the names of its condition; what Kafka denies, as
            `topics` (with spaces between them) or `group`.
        error: the exception itself, where it was raised in this process.
        frames: the innermost classes of its stack, of the last exception of a chain of Java's.
    """

    kind: str
    message: str
    condition: str = ""
    parameters: Mapping[str, str] = MappingProxyType({})
    error: BaseException | None = None
    frames: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Return the exception on one line; what a Python worker raised, where its message holds that."""
        if raised := TRACEBACK.findall(self.message):
            return str(raised[-1]).strip()
        first = next((line.strip() for line in self.message.splitlines() if line.strip()), "")
        name = self.kind.removeprefix("builtins.") if self.error is not None else self.kind
        return ": ".join(part for part in (name, first) if part)

    def has_frame_in(self, package: str) -> bool:
        """Return whether a method of that package was being run."""
        return any(name.startswith(package) for name in self.frames)


def causes(failure: Any) -> tuple[Cause, ...]:
    """Return the exceptions behind `failure` (one of Python's, or py4j's object of one of Java's),
    the outermost first."""
    chain = _of_python(failure) if isinstance(failure, BaseException) else _of_java(failure)
    return tuple(cause for cause, _ in zip(chain, range(MOST_CAUSES), strict=False))


def cause_line(failure: BaseException | Iterable[Cause]) -> str:
    """Return the innermost cause of a failure, on one line, with the one around it that says more than its class."""
    chain = causes(failure) if isinstance(failure, BaseException) else tuple(failure)
    if not chain:
        return "no cause given"
    said = next((cause for cause in reversed(chain) if cause.message.strip()), chain[-1])
    return chain[-1].line if said is chain[-1] else f"{said.line} ({chain[-1].line})"


def _of_python(error: BaseException | None) -> Iterator[Cause]:
    while error is not None:
        java = java_exception(error)
        if java is not None:
            yield from _of_java(java)
        else:
            yield Cause(f"{type(error).__module__}.{type(error).__qualname__}", str(error), error=error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _of_java(java: Any) -> Iterator[Cause]:
    while java is not None:
        inner = java.getCause()
        frames = (
            () if inner is not None else tuple(str(frame.getClassName()) for frame in java.getStackTrace()[:FRAMES])
        )
        yield Cause(str(java.getClass().getName()), str(java.getMessage() or ""), *_named(java), frames=frames)
        java = inner


def _named(java: Any) -> tuple[str, dict[str, str]]:
    """Return Spark's or RocksDB's condition of an exception, and its parameters."""
    if denied := DENIED.get(str(java.getClass().getName())):
        name, method = denied
        refused = getattr(java, method)()
        refused = refused if isinstance(refused, str) else " ".join(sorted(map(str, refused or ())))
        return "", {name: refused} if refused else {}
    if is_instance(java, ROCKSDB):
        status = java.getStatus()
        return ("" if status is None else f"ROCKSDB_{status.getCode().name()}"), {}
    if not is_instance(java, "org.apache.spark.SparkThrowable"):
        return "", {}
    parameters = java.getMessageParameters()
    return str(java.getCondition() or ""), {str(name): str(value) for name, value in parameters.items()}
