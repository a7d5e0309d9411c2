"""Keeps which queries a run leaves out: those that cannot begin, where the others do not depend on them.

What never ran is refused before anything starts. What ran before, and turned bad since, is left out: the others go on,
and the run ends by its name.
"""

import sys
from collections.abc import Callable, Iterable, Mapping

from conf.errors import TidemarkError
from jobs.pipeline.termination import QUERY_FAILED

# These are about what every topic needs: to go on with the next topic would only take longer.
OUTAGES = (
    *("BROKER_UNREACHABLE", "BROKER_REFUSES", "KAFKA_FAILED", "DISK_FULL"),
    *("REGISTRY_UNAVAILABLE", "REGISTRY_REFUSED", "REGISTRY_DAMAGED", "NOT_A_REGISTRY"),
)
TOPICS_REFUSED = "TOPICS_REFUSED"


class LeftOut:
    """The queries that one run goes on without, and why.

    Attributes:
        is_allowed: whether it may go on without anything.
        on_left_out: is called with the name of each query that is left out, and why.
    """

    def __init__(self, is_allowed: bool = False) -> None:
        self.is_allowed = is_allowed
        self.on_left_out: Callable[[str, TidemarkError], None] = lambda query, stop: None
        self._stops: dict[str, TidemarkError] = {}

    def add(self, query: str, stop: TidemarkError) -> None:
        """Leave out a query; this is reported when the others start."""
        self._stops[query] = stop

    def tell(self) -> None:
        """Say what is left out so far."""
        for query in self._stops:
            self._tell(query)

    def add_and_tell(self, query: str, stop: TidemarkError) -> None:
        """Leave out a query while the others start already."""
        self.add(query, stop)
        self._tell(query)

    def _tell(self, query: str) -> None:
        print(f"query {query} is left out: {self._stops[query]}; the others go on", file=sys.stderr, flush=True)
        self.on_left_out(query, self._stops[query])

    def require_there(self, query: str) -> None:
        """Raise why that query is left out, if it is."""
        if query in self._stops:
            raise self._stops[query]

    def error(self) -> TidemarkError | None:
        """Return QUERY_FAILED, with each query that is left out and why; None where none is."""
        if not self._stops:
            return None
        stops = self._stops.items()
        listed = "; ".join(f"query {query} was left out: {stop.code}: {stop.message}" for query, stop in stops)
        remedies = "; ".join(dict.fromkeys(stop.remedy for stop in self._stops.values()))
        return TidemarkError(QUERY_FAILED, listed, f"{remedies}; all others went on")


def refusal(failures: Mapping[str, TidemarkError], topics: Iterable[str], setting: str) -> TidemarkError:
    """Make one error of all that keeps `topics` from being read; where some are sound, with how to read those alone.

    Args:
        failures: at least one, by topic.
        setting: the one that lists the topics.
    """
    sound = [topic for topic in topics if topic not in failures]
    alone = f"; or read the others alone: --set {setting}={','.join(sound)}" if sound else ""
    if len(failures) == 1:
        (stop,) = failures.values()
        return TidemarkError(stop.code, stop.message, f"{stop.remedy}{alone}")
    listed = "; ".join(f"({n}) {stop}" for n, stop in enumerate(failures.values(), start=1))
    return TidemarkError(TOPICS_REFUSED, f"{len(failures)} topics cannot be read: {listed}", f"mend each{alone}")
