"""Reads the topics: as conf/topics.toml declares them, as the cluster has them, and the versions of their schemas."""

from collections.abc import Mapping
from dataclasses import dataclass

from conf.errors import TidemarkError
from conf.settings import Settings
from conf.topics import FOREVER_MS, Topic, load_topics
from jobs.connectors.kafka.offsets import edges
from local.page.background import Brokers
from local.topics import Change, Existing, plan, read_cluster
from schemas.open_registry import open_registry
from schemas.registry import RegisteredSchema, RetryPolicy

REGISTRY_SECONDS = 5.0
DAY_MS = 86_400_000


@dataclass(frozen=True)
class TopicRow:
    """One topic; None where it is not declared, is not on the cluster, or the cluster cannot be asked."""

    name: str
    declared: Topic | None
    existing: Existing | None
    offsets: int | None
    changes: tuple[Change, ...]
    schemas: tuple[RegisteredSchema, ...]

    @property
    def retention(self) -> str:
        milliseconds = self.declared.retention_ms if self.declared else FOREVER_MS
        return "forever" if milliseconds == FOREVER_MS else f"{milliseconds / DAY_MS:,.1f} days"


@dataclass(frozen=True)
class Topics:
    """All topics; `broker` and `registry` are why these cannot be asked."""

    rows: tuple[TopicRow, ...]
    broker: TidemarkError | None
    registry: TidemarkError | None

    @property
    def differing(self) -> list[str]:
        return [row.name for row in self.rows if any(change.kind != "undeclared" for change in row.changes)]


def read_topics(settings: Settings, brokers: Brokers) -> Topics:
    """Compare declaration, cluster and registry; raises TidemarkError BAD_TOPICS."""
    declared = load_topics()
    existing: Mapping[str, Existing] = {}
    changes: list[Change] = []
    sizes: dict[str, int] = {}
    down = None
    try:
        admin = brokers.admin(settings.kafka)
        existing, nodes = read_cluster(admin, declared.values())
        copies = settings.kafka.replication_factor
        changes = plan(declared.values(), existing, brokers=nodes, replication_factor=copies)
        for (name, _), edge in edges(admin, list(existing)).items():
            sizes[name] = sizes.get(name, 0) + edge.end - edge.first
    except TidemarkError as error:
        down = error
    schemas, silent = _schemas(settings)
    rows = []
    for name in [*declared, *sorted(existing.keys() - declared.keys())]:
        of_topic = tuple(change for change in changes if change.topic == name)
        versions = tuple(schemas.get(name, ()))
        rows.append(TopicRow(name, declared.get(name), existing.get(name), sizes.get(name), of_topic, versions))
    return Topics(tuple(rows), down, silent)


def _schemas(settings: Settings) -> tuple[dict[str, list[RegisteredSchema]], TidemarkError | None]:
    """Return every version of the schemas of a topic's values, oldest first, by the topic."""
    found: dict[str, list[RegisteredSchema]] = {}
    try:
        registry = open_registry(settings.registry, RetryPolicy(REGISTRY_SECONDS))
        for subject in registry.subjects():
            found.setdefault(subject.split("-", 1)[0], []).extend(registry.all_versions(subject))
    except TidemarkError as error:
        return found, error
    return found, None
