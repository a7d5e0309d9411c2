"""Says where everything lies: the names of tables, the folders of checkpoints, and our own files in a checkpoint.

What makes a path of a name raises TidemarkError BAD_NAME for one that would leave its folder (`conf.names`).
`jobs.pipeline.checkpoint_format` says what Spark's own folders hold. What helps where a table or a topic is lost is
said here, too, and stored tables are opened by their names, without a JVM.
"""

import re

from conf.names import within
from conf.settings import Paths, Settings
from jobs.connectors.delta.commit import RANGE
from jobs.connectors.delta.log import ANEW, REPLAYS
from jobs.connectors.delta.reading import StoredTable, find_table

# Tables that the queries of all topics write, each with the batches that have something for them.
QUARANTINE = "quarantine"
RULE_COUNTS = "rule_counts"
LATE = "late"
SHARED = (QUARANTINE, RULE_COUNTS, LATE)
OUTBOX = "outbox"  # begins the names of the tables that freeze batches
REDRIVES, RESOLUTIONS = "redrives", "resolutions"  # what became of rejected records
MICRO_BATCHES = "_operations/micro_batches"  # what drivers keep of themselves

# Our own files in a checkpoint.
STARTED_FILE = "tidemark/query.json"  # the query as it was last started
WRITTEN_FILE = "tidemark/plan.json"  # the query as it has written its last batches
SOURCE_TOPICS_FILE = "tidemark/source-topics.json"  # the ids of the source topics, by name
CHECKED_FILE = "tidemark/real-time.json"  # the last batch of delivery real-time that was checked after its end
LATE_FILE = "tidemark/late.json"  # up to which batch all late rows are listed

# What a replay has beside the live tables: the tables of its stream, those of its one batch, records from bronze.
SHADOW, CHECK, RESTORED = "shadow", "check", "restored"

TOPIC_TABLE = re.compile(rf"^(?P<range>{RANGE}[^/]+/)?(?P<layer>bronze|silver)/(?P<topic>[^/]+)")  # begins the name
# Ends the name of a checkpoint that was moved aside. No topic can be called so; the dot is how it was written before.
REPLACED = re.compile(r"[~.]replaced-[0-9]+$")

MOVE_AWAY = "move the table away: it is begun anew, and its queries go on"
# What helps where no copy is left of a table that no single query writes.
ANEW_BY_NAME = {
    **dict.fromkeys(SHARED, MOVE_AWAY),
    MICRO_BATCHES: "move the table away: it is begun anew, without what was before",
    **dict.fromkeys((REDRIVES, RESOLUTIONS), "move the table away: `local/tidemark quarantine audit` makes it anew"),
}
# What a query that publishes can do in place of reading its topics again, which would publish records twice.
OTHER_NAME = "publish into a topic and from a job of another name"
SKIP = "start the job once with --until-caught-up --skip-lost"
GO_ON_WITH_NEW = f"{SKIP}: it goes on at the beginning of the new one, and what was published stays"


def bronze(topic: str) -> str:
    """Return the name of the table that holds every record of `topic` as it came."""
    return f"bronze/{topic}"


def silver(stream: str) -> str:
    """Return the name of the table that holds the accepted events of `stream` (`schemas.contracts`)."""
    return f"silver/{stream}"


def table(root: str, name: str) -> str:
    """Return the path of a table; `root` is the settings' `paths.tables`, or a folder of a range or a replay in it."""
    return within(root, name)


def outbox(root: str, query: str) -> str:
    """Return the path of the table that freezes the batches of `query` before they are published."""
    return within(root, OUTBOX, query)


def checkpoint(paths: Paths, job: str, output: str) -> str:
    return within(checkpoints_of(paths, job), output)


def checkpoints_of(paths: Paths, job: str) -> str:
    return within(paths.checkpoints, job)


def replaced(folder: str, number: int) -> str:
    """Return where a checkpoint is moved that another one replaces."""
    return f"{folder}~replaced-{number}"


def replays(root: str) -> str:
    """Return where replays keep their records and tables; `root` is that of tables, or of checkpoints."""
    return f"{root}/{REPLAYS}"


def replay(root: str, id: str) -> str:
    """Return the folder of one replay: under the tables' root of its SHADOW, CHECK and RESTORED."""
    return within(replays(root), id)


def lost_table_remedy(name: str) -> str:
    if name.startswith(RANGE):
        return f"remove the folder {name.partition('/')[0]} of its range, and run that range again"
    if name.startswith(f"{OUTBOX}/"):
        return OTHER_NAME
    return ANEW_BY_NAME.get(name, ANEW)


def recreated_topic_remedy(how: str) -> str:
    """Say what helps where a source topic was created again; `how`: what the query can go on by."""
    return f"its offsets mean other records now: restore the topic; or {how}"


def find_stored(settings: Settings, name: str) -> StoredTable | None:
    """Return a table under the tables root; None where there is none. Raises TidemarkError as
    `jobs.connectors.delta.reading.naming_damage`."""
    return find_table(table(settings.paths.tables, name), anew=lost_table_remedy(name))
