"""Says where everything lies: the names of tables, the folders of checkpoints, and our own files in a checkpoint.

What makes a path of a name raises TidemarkError BAD_NAME for one that would leave its folder (`conf.names`).
`jobs.pipeline.checkpoint_format` says what Spark's own folders hold.
"""

import re

from conf.names import within
from conf.settings import Paths
from jobs.connectors.delta.commit import RANGE, REPLAYS

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
    """Return the folder of the checkpoint of an output's query."""
    return within(checkpoints_of(paths, job), output)


def checkpoints_of(paths: Paths, job: str) -> str:
    """Return the folder of the checkpoints of all queries of a job."""
    return within(paths.checkpoints, job)


def replaced(folder: str, number: int) -> str:
    """Return where a checkpoint is moved that another one replaces."""
    return f"{folder}~replaced-{number}"


def replays(root: str) -> str:
    """Return where replays keep their records and tables; `root` is that of tables, or of checkpoints."""
    return f"{root}/{REPLAYS}"


def replay(root: str, id: str) -> str:
    """Return the folder of one replay under a root: SHADOW, CHECK and RESTORED under that of tables,
    else its checkpoints."""
    return within(replays(root), id)
