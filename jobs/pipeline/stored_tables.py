"""Opens the tables of a tables root by their names, without a JVM."""

from conf.settings import Settings
from jobs.connectors.delta.reading import ANEW, StoredTable, find_table
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


def find_stored(settings: Settings, name: str, version: int | None = None) -> StoredTable | None:
    """Return a table under the tables root as it is now, or was at `version`; None where there is none.

    Raises:
        TidemarkError: as `jobs.connectors.delta.reading.naming_damage`.
    """
    return find_table(paths.table(settings.paths.tables, name), version, ANEW_BY_NAME.get(name, ANEW))
