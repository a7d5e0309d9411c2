"""Delta tables made of registers, for people to query: whatever is in the register is in the table, once.

A commit names the register's offset up to which the table has it (a Delta transaction identifier); the next one goes on
from there. Of two that write at a time, one commits, and the other finds that done.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from confluent_kafka.admin import AdminClient
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from conf.settings import Settings
from jobs.connectors.ledger.topic import topic_ids
from producers.quarantine import register as registers
from producers.quarantine.register import Mark

TIME = pa.timestamp("us", "UTC")
RECORD = [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64()), ("topic_id", pa.string())]
REDRIVES = pa.schema(
    [
        *RECORD,
        ("run", pa.string()),
        ("at", TIME),
        ("attempt", pa.int32()),
        ("origin", pa.string()),
        ("error", pa.string()),
        ("rule", pa.string()),
        ("to_partition", pa.int32()),
        ("to_offset", pa.int64()),
        ("code_version", pa.string()),
    ]
)
RESOLUTIONS = pa.schema(
    [
        *RECORD,
        ("run", pa.string()),
        ("at", TIME),
        ("resolution", pa.string()),
        ("delivery", pa.int32()),
        ("queue_offset", pa.int64()),
        ("note", pa.string()),
    ]
)
ATTEMPTS = 5
COMMIT_ROWS = 20_000  # some 30 MB while they are marks


def bring_up_to_date(settings: Settings, admin: AdminClient) -> dict[str, int]:
    """The tables `redrives` and `resolutions`, as far as their registers are there; rows added by table.

    Raises:
        TidemarkError: KAFKA_FAILED.
    """
    sources = {
        "redrives": (registers.redriven_topic(settings), REDRIVES),
        "resolutions": (registers.resolved_topic(settings), RESOLUTIONS),
    }
    ids = topic_ids(admin, [topic for topic, _ in sources.values()])
    return {
        name: _append_new(settings, f"{settings.paths.tables}/{name}", topic, ids[topic], schema)
        for name, (topic, schema) in sources.items()
        if topic in ids
    }


def _append_new(settings: Settings, path: str, topic: str, topic_id: str, schema: pa.Schema) -> int:
    for _ in range(ATTEMPTS - 1):
        try:
            return _append(settings, path, topic, topic_id, schema)
        except CommitFailedError:
            continue
    return _append(settings, path, topic, topic_id, schema)


def _append(settings: Settings, path: str, topic: str, topic_id: str, schema: pa.Schema) -> int:
    # By its id: a register that was created again begins with offset 0.
    application = f"{topic}/{topic_id}"
    table = DeltaTable.create(path, schema, mode="ignore")
    rows: list[Mark] = []
    added = 0

    def commit(end: int) -> None:
        nonlocal added
        properties = CommitProperties(app_transactions=[Transaction(application, end)])
        write_deltalake(table, _frame(rows, schema), mode="append", commit_properties=properties)
        added += len(rows)
        rows.clear()

    def take(mark: Mark, offset: int) -> None:
        rows.append(mark)
        if len(rows) == COMMIT_ROWS:
            commit(offset + 1)

    end = registers.marks(settings, topic, table.transaction_version(application) or 0, take)
    if rows:
        commit(end)
    return added


def _frame(rows: Sequence[Mark], schema: pa.Schema) -> pa.Table:
    def value(mark: Mark, field: Any) -> Any:
        return datetime.fromisoformat(mark["at"]) if field.name == "at" else mark.get(field.name)

    return pa.table({field.name: pa.array([value(mark, field) for mark in rows], field.type) for field in schema})
