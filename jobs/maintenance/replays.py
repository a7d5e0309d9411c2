"""Replays as their records tell: which versions of tables they still need, which are finished.

A record is `<tables>/replays/<id>/replay.json`: `{"state": TEXT, "tables": {NAME: {"version": N}}}`, more may be there.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from jobs import checkpoint
from jobs.connectors.delta_commit import REPLAYS
from jobs.folders import Folders
from jobs.replay.record import FILE as RECORD
from jobs.replay.record import FINISHED


@dataclass(frozen=True)
class Replay:
    """A replay; `tables` are the versions that it needs while it is open, by name."""

    id: str
    uri: str
    state: str
    recorded: datetime
    tables: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED


def replays(spark: SparkSession, folders: Folders, root: str) -> list[Replay]:
    """Every replay under the tables root `root`.

    Raises:
        TidemarkError: BAD_REPLAY, where a record cannot be read: what it needs is not known then.
    """
    found = []
    for entry in folders.entries(f"{root}/{REPLAYS}"):
        records = [each for each in folders.entries(entry.uri) if each.name == RECORD] if entry.is_folder else []
        for record in records:
            text = checkpoint.read(spark, record.uri) or ""
            found.append(parse(entry.name, entry.uri, record.modified, text))
    return found


def parse(id: str, uri: str, recorded: datetime, text: str) -> Replay:
    """The replay that a record's text is of; raises TidemarkError BAD_REPLAY."""
    try:
        said = json.loads(text)
        tables = {str(name): int(at["version"]) for name, at in said.get("tables", {}).items()}
        return Replay(id, uri, str(said["state"]), recorded, tables)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        message = f"{uri}/{RECORD} is no record of a replay: {type(exc).__name__} {exc}"
        remedy = "mend it, or remove the replay's folder; until then no table is vacuumed"
        raise TidemarkError("BAD_REPLAY", message, remedy) from exc
