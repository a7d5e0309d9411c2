"""Has a topic got a schema version since the plan of a query was made?

A producer registers a version before it sends records by it. So whoever asks the registry once a micro-batch is
planned finds each version that the batch's records may name; and a query whose plan lacks one stops before it reads any
of them, to be started again with a new plan.
"""

from collections.abc import Iterable

from conf.errors import TidemarkError
from schemas.registry import RegisteredSchema, Registry

SCHEMA_ADDED = "SCHEMA_ADDED"


class SchemaGuard:
    """Knows the versions that the plans of one run can read, by topic and subject."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[str, str], set[int]] = {}

    def remember(self, topic: str, subject: str, versions: Iterable[RegisteredSchema]) -> None:
        """Take down the `versions` that a plan is made of."""
        self._known[topic, subject] = {version.id for version in versions}

    def check(self, topics: Iterable[str]) -> None:
        """Compare the versions of `topics` with the remembered ones.

        Raises:
            TidemarkError: SCHEMA_ADDED, and the registry's errors.
        """
        wanted = set(topics)
        for (topic, subject), known in self._known.items():
            added = [version for version in self._versions(topic, subject, wanted) if version.id not in known]
            if added:
                what = (
                    f"{subject} got version {added[-1].version} (schema id {added[-1].id}) since the query was planned"
                )
                raise TidemarkError(SCHEMA_ADDED, what, "start the job again: it goes on with the new version")

    def _versions(self, topic: str, subject: str, wanted: set[str]) -> list[RegisteredSchema]:
        return self._registry.versions(subject) if topic in wanted else []
