"""The rows of a verified replay put in the place of the live ones, a transaction a table; and taken back again.

The live queries go on meanwhile: they write windows that are still open, a replay replaces those that are closed.
"""

import json
from collections.abc import Callable

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf import code
from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors import delta, kafka
from jobs.connectors.delta_history import History, snapshot
from jobs.connectors.delta_replace import CONFLICT, replace_rows
from jobs.connectors.ledger.failpoints import reach
from jobs.connectors.ledger.sink import BatchFacts, LedgerSink
from jobs.replay import extents
from jobs.replay.comparing import fingerprint
from jobs.replay.record import Part, Replacement, Replay

ATTEMPTS = 20  # a live query commits in between; each of its commits lets one attempt fail
HEADER = "tidemark-replay"
CUTOVER, UNDO = "cutover", "undo"
Seen = Callable[[DataFrame], bool]


class Cutover:
    """Swaps the tables of a replay in, or out again.

    Args:
        alive: raises, where the right to run the replay is lost.
    """

    def __init__(self, spark: SparkSession, settings: Settings, replay: Replay, alive: Callable[[], None]) -> None:
        self._spark, self._settings, self._replay, self._alive = spark, settings, replay, alive

    def swap_in(self, part: Part, each: Replacement) -> int | None:
        """Put the replay's rows in; the table's version that holds them, None where they are there already.

        Raises:
            TidemarkError: LIVE_CHANGED, where the live rows are no longer those that were compared; BUSY_TABLE.
        """
        rows = each.rows
        ours = extents.rows_of(self._spark, extents.shadow_path(self._settings, self._replay, rows.table), "true")
        path = extents.live_path(self._settings, rows.table)
        if ours is None:
            return None
        delta.create_if_missing(ours, delta.Table(rows.table, path, rows.keys))
        made = self._made(path, CUTOVER)
        if made is not None:
            return made
        where = extents.condition(self._replay, part, each)
        seen = tuple(self._replay.findings["tables"][rows.table]["live"])
        new = ours.where(where)

        def is_as_seen(now: DataFrame) -> bool:
            return fingerprint(now) == seen

        return self._swap(path, where, new, self._said(CUTOVER, each, where), is_as_seen)

    def swap_out(self, part: Part, each: Replacement) -> int | None:
        """Put the rows back that `swap_in` has replaced; the table's version that holds them.

        Raises:
            TidemarkError: LIVE_CHANGED, where the rows were changed since; BUSY_TABLE.
        """
        path = extents.live_path(self._settings, each.rows.table)
        made = self._made(path, CUTOVER)
        if made is None:
            return None
        where = extents.condition(self._replay, part, each)
        before, swapped = (extents.rows_of(self._spark, path, where, at) for at in (made - 1, made))
        if before is None or swapped is None:
            return None
        ours = fingerprint(swapped)
        return self._swap(path, where, before, self._said(UNDO, each, where), lambda now: fingerprint(now) == ours)

    def publish(self, part: Part) -> int:
        """Send the records of an output topic, each once however often this is run, with the header HEADER.

        Raises:
            TidemarkError: the named stops of `ledger.stops`.
        """
        topic = str(part.topic)
        records = extents.rows_of(self._spark, extents.shadow_path(self._settings, self._replay, topic), "true")
        if records is None:
            return 0
        id = f"{self._settings.ledger.application}.replay.{self._replay.id}.{part.query}"
        sink = LedgerSink(id, topic, self._settings.kafka, self._settings.sink, self._settings.ledger, "exactly-once")
        sink.open()
        facts = BatchFacts(id, 0, {"offsets/0": json.dumps({"replay": self._replay.id})}, code=code.version())
        return sink.write(_marked(records, self._replay.id), facts)

    def _swap(self, path: str, where: str, new: DataFrame, said: str, is_as_seen: Seen) -> int:
        for _ in range(ATTEMPTS):
            self._alive()
            version = int(snapshot(self._spark, path).version())
            now = extents.rows_of(self._spark, path, where, version)
            if now is None or not is_as_seen(now):
                raise self._changed(path)
            reach("replay-before-swap", self._replay.job)
            try:
                made = replace_rows(new, path, where, version, said)
            except CONFLICT:
                continue
            reach("replay-after-swap", self._replay.job)
            return made
        message = f"table {path}: live writes came between in all of {ATTEMPTS} attempts"
        raise TidemarkError("BUSY_TABLE", message, "try again, or with a longer trigger of the live query")

    def _made(self, path: str, statement: str) -> int | None:
        """The version of the table that made this replay's swap and still counts."""
        history = History(self._spark, path)
        made = history.find({"statement": statement, "query_id": self._query_id})
        undone = history.find({"statement": UNDO, "query_id": self._query_id})
        if made is None or history.undone_at(made) is not None or (undone is not None and undone > made):
            return None
        return made

    @property
    def _query_id(self) -> str:
        return f"replay-{self._replay.id}"

    def _said(self, statement: str, each: Replacement, where: str) -> str:
        """What the commit says of itself, as JSON: `coverage` shows it."""
        starts, untils = ([{t: dict(of)} for t, of in at.items()] for at in (self._replay.starts, self._replay.untils))
        start, until = (at.isoformat() if at else None for at in (each.start, each.until))
        span = {"replay": self._replay.id, "column": each.rows.event_time, "from": start, "until": until}
        said = {
            "sink": self._replay.job,
            "query_id": self._query_id,
            "statement": statement,
            "batch": 0,
            "offsets": {"from": starts, "until": untils},
            "replaces" if statement == CUTOVER else "restores": span | {"where": where},
            "code": code.version(),
        }
        return json.dumps(said)

    def _changed(self, path: str) -> TidemarkError:
        message = f"table {path}: rows of the range were changed since replay {self._replay.id} was compared with them"
        return TidemarkError("LIVE_CHANGED", message, f"`local/tidemark replay verify {self._replay.id}` compares anew")


def _marked(records: DataFrame, id: str) -> DataFrame:
    own = F.array(F.struct(F.lit(HEADER).alias("key"), F.encode(F.lit(id), "UTF-8").alias("value")))
    if "headers" not in records.columns:
        return records.withColumn("headers", own.cast(kafka.HEADERS))
    given = F.coalesce(F.col("headers"), F.array().cast(kafka.HEADERS))
    return records.withColumn("headers", F.concat(given, own.cast(kafka.HEADERS)))
