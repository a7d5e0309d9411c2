"""Opens the tables of a tables root by their names, without a JVM; says what helps where a table or a topic is lost."""

from conf.settings import Settings
from jobs.connectors.delta.commit import ANEW, RANGE
from jobs.connectors.delta.reading import StoredTable, find_table
from jobs.pipeline import paths

MOVE_AWAY = "move the table away: it is begun anew, and its queries go on"
# What helps where no copy is left of a table that no single query writes.
ANEW_BY_NAME = {
    **dict.fromkeys(paths.SHARED, MOVE_AWAY),
    paths.MICRO_BATCHES: "move the table away: it is begun anew, without what was before",
    **dict.fromkeys(
        (paths.REDRIVES, paths.RESOLUTIONS), "move the table away: `local/tidemark quarantine audit` makes it anew"
    ),
}
# What a query that publishes can do in place of reading its topics again, which would publish records twice.
OTHER_NAME = "publish into a topic and from a job of another name"
SKIP = "start the job once with --until-caught-up --skip-lost"
GO_ON_WITH_NEW = f"{SKIP}: it goes on at the beginning of the new one, and what was published stays"


def anew(name: str) -> str:
    """Say what helps where no copy is left of the table of that name."""
    if name.startswith(RANGE):
        return f"remove the folder {name.partition('/')[0]} of its range, and run that range again"
    if name.startswith(f"{paths.OUTBOX}/"):
        return OTHER_NAME
    return ANEW_BY_NAME.get(name, ANEW)


def with_other_topic(how: str) -> str:
    """Say what helps where a source topic was created again; `how`: what the query can go on by."""
    return f"its offsets mean other records now: restore the topic; or {how}"


def find_stored(settings: Settings, name: str, version: int | None = None) -> StoredTable | None:
    """Return a table under the tables root as it is now, or was at `version`; None where there is none.

    Raises:
        TidemarkError: as `jobs.connectors.delta.reading.naming_damage`.
    """
    return find_table(paths.table(settings.paths.tables, name), version, anew(name))
