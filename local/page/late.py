"""Reads late rows: what watermarks dropped, by query, over time, and the newest of them."""

import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from conf.settings import Settings
from jobs.connectors.delta.reading import StoredTable
from jobs.connectors.files import table_uri
from jobs.pipeline import paths
from jobs.pipeline.paths import find_stored
from local.page.charts import Chart, counts_over_time

SHOWN = 30
GROUP = ("query", "operator", "topic")


@dataclass(frozen=True)
class Late:
    """Late rows.

    Args:
        groups: by query, operator and topic: rows, of which Spark counted `dropped`, and when the newest was listed.
        newest: whole rows of the table, the newest first.
        command: what prints the table.
    """

    groups: tuple[Mapping[str, Any], ...]
    newest: tuple[Mapping[str, Any], ...]
    chart: Chart
    command: str

    @property
    def total(self) -> int:
        return sum(group["rows"] for group in self.groups)


def read_late(settings: Settings) -> Late:
    """Read the table `late`; empty where nothing was late, which makes no table. Errors as `naming_damage`."""
    uri = table_uri(paths.table(settings.paths.tables, paths.LATE))
    program = f"from deltalake import DeltaTable; print(DeltaTable({uri!r}).to_pandas().to_string())"
    command = shlex.join([sys.executable, "-c", program])
    table = find_stored(settings, paths.LATE)
    if table is None:
        return Late((), (), counts_over_time("", {}), command)
    rows = table.rows([*GROUP, "dropped", "listed_at"])
    rows = rows.set_column(4, "minute", pc.floor_temporal(rows["listed_at"], unit="minute")).append_column(
        "listed_at", rows["listed_at"]
    )
    grouped = rows.group_by(list(GROUP)).aggregate([("dropped", "sum"), ("listed_at", "max"), ([], "count_all")])
    groups = [
        {name: row[name] for name in GROUP}
        | {"rows": row["count_all"], "dropped": row["dropped_sum"], "at": row["listed_at_max"]}
        for row in grouped.to_pylist()
    ]
    over_time: Counter[tuple[str, datetime]] = Counter()
    for row in rows.group_by(["query", "minute"]).aggregate([([], "count_all")]).to_pylist():
        if row["minute"] is not None:
            over_time[row["query"], row["minute"]] += row["count_all"]
    chart = counts_over_time("Late rows by query, when they were listed", over_time)
    ordered = sorted(groups, key=lambda group: (-group["rows"], str(group["query"])))
    return Late(tuple(ordered), _newest(table, rows["listed_at"]), chart, command)


def _newest(table: StoredTable, listed: pa.ChunkedArray) -> tuple[Mapping[str, Any], ...]:
    if not len(listed):
        return ()
    order = [("listed_at", "descending")]
    since = pa.table({"listed_at": listed}).sort_by(order).slice(0, SHOWN)["listed_at"][-1]
    found = table.rows(where=pc.field("listed_at") >= since).sort_by(order).slice(0, SHOWN)
    return tuple(found.to_pylist())
