"""Decides what becomes of a failed query and the others of its run, by settings, error code and past restarts alone."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from conf.durations import milliseconds
from conf.errors import TidemarkError
from conf.settings import Kafka, Running
from jobs.connectors.hadoop_files import FILE_UNREADABLE
from jobs.pipeline.errors import WORKER_DIED, WORKER_LATE
from jobs.pipeline.guards import SCHEMA_ADDED
from jobs.pipeline.left_out import OUTAGES
from jobs.pipeline.termination import BATCH_FAILED, QUERY_FAILED, query_failed

# Whatever `on_failure` says, WORKER_LATE is retried at most 3 times in 600 s: a machine busy longer needs its owner.
MOST_RETRIES, RETRY_SECONDS = 3, 600.0
LIMIT_SECONDS = 3600.0  # that `run.restart_limit` is counted in
# Refused logins are retried, too, whatever it says: a changed secret reaches a mounted file a minute or two after the
# brokers have it.
LOGINS, LOGIN_SECONDS, LOGIN_PAUSE = 8, 300.0, 15.0
BROKER_REFUSES = "BROKER_REFUSES"
# These codes may stop a query whose password, key or certificate has changed.
LOGIN_STOPS = frozenset({BROKER_REFUSES, "BROKER_UNREACHABLE", "KAFKA_FAILED"})
# fixed: the login cannot change while the job runs; same: it can, and has not since the query was planned; changed: it
# has.
Login = Literal["fixed", "same", "changed"]
# These stops may pass by themselves: of brokers, registry, disk and machine, and unforeseen ones. Stops by data,
# schemas, tables, checkpoints, rights and settings would come again with the same batch.
PASSING = frozenset(
    {
        *(QUERY_FAILED, BATCH_FAILED, WORKER_LATE, WORKER_DIED, "DISK_FULL", FILE_UNREADABLE),
        *("BROKER_UNREACHABLE", "KAFKA_FAILED", "TRANSACTION_TIMED_OUT", "REGISTRY_UNAVAILABLE"),
    }
)


@dataclass(frozen=True)
class Decision:
    """The answer to a query that has failed.

    Args:
        seconds: until the restart.
        reason: why a query that might start again does not; empty for others.
    """

    action: Literal["restart", "isolate", "stop-all"]
    seconds: float = 0.0
    reason: str = ""


def decide(settings: Running, code: str, restarted: Sequence[float], now: float, login: Login = "fixed") -> Decision:
    """Decide about a query that was stopped by `code`.

    Args:
        restarted: when the query was restarted, in seconds of the clock of `now`, SCHEMA_ADDED aside.
        login: whether the login to the brokers has changed.
    """
    if code == SCHEMA_ADDED:
        return Decision("restart")
    if login == "changed" and code in LOGIN_STOPS:
        return Decision("restart")
    if login == "same" and code == BROKER_REFUSES and _since(restarted, now - LOGIN_SECONDS) < LOGINS:
        return Decision("restart", LOGIN_PAUSE)
    if code == WORKER_LATE and _since(restarted, now - RETRY_SECONDS) < MOST_RETRIES:
        return Decision("restart")
    if settings.on_failure != "restart":
        return Decision(settings.on_failure)
    if code not in PASSING:
        return Decision("isolate", reason=f"{code} does not pass by itself")
    count = _since(restarted, now - LIMIT_SECONDS)
    if count >= settings.restart_limit:
        return Decision("isolate", reason=f"it was restarted {count} times within an hour (run.restart_limit)")
    first, most = (milliseconds(each) / 1000 for each in (settings.restart_after, settings.restart_after_most))
    return Decision("restart", float(min(first * 2**count, most)))


def _since(times: Sequence[float], start: float) -> int:
    return sum(at > start for at in times)


class Failures:
    """The failures of a run's queries.

    Args:
        kafka: the connection to the brokers, whose secrets may change while the run lasts.

    Attributes:
        isolated: what stopped each query that is not started again, by its name.
        taking_turns: names of independent queries that run one after another; without this, one failure would keep the
            others from running.
    """

    def __init__(self, settings: Running, kafka: Kafka | None = None) -> None:
        self._settings, self._kafka = settings, kafka if kafka is not None and kafka.rotates else None
        self._first = self._kafka.credentials() if self._kafka else ""
        self._planned_with: dict[str, str] = {}
        self._restarted: dict[str, list[float]] = defaultdict(list)
        self.isolated: dict[str, TidemarkError] = {}
        self.taking_turns: Collection[str] = ()

    def decide(self, query: str, stop: TidemarkError, now: float) -> Decision:
        """Decide about a failure, and remember it; see `decide` of this module."""
        restarted = [at for at in self._restarted[query] if at > now - LIMIT_SECONDS]
        decision = decide(self._settings, stop.code, restarted, now, self._login(query))
        if decision.action == "stop-all" and query in self.taking_turns and stop.code not in OUTAGES:
            decision = Decision("isolate")
        if decision.action == "restart" and stop.code != SCHEMA_ADDED:
            restarted.append(now)
        if decision.action == "isolate":
            self.isolated[query] = stop
        self._restarted[query] = restarted
        return decision

    def _login(self, query: str) -> Login:
        """Say whether the login has changed since `query` was planned, and note that it is planned with it now."""
        if self._kafka is None:
            return "fixed"
        before, now = self._planned_with.get(query, self._first), self._kafka.credentials()
        self._planned_with[query] = now
        return "same" if now == before else "changed"

    def error(self) -> TidemarkError | None:
        """Return the error that a run with isolated queries ends with, though others ended well; None without any."""
        if not self.isolated:
            return None
        if len(self.isolated) == 1:
            ((name, stop),) = self.isolated.items()
            return query_failed(name, stop)
        stops = ", ".join(f"{name} ({stop.code})" for name, stop in self.isolated.items())
        remedy = "each has its line above, with what to do; `local/tidemark history --failed` has them too"
        return TidemarkError(QUERY_FAILED, f"{len(self.isolated)} queries stopped: {stops}", remedy)
