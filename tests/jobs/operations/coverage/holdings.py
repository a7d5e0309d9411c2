"""Tables as jobs write them, made without Spark, and the command that covers them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Producer
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from jobs.operations.coverage.cli import main
from jobs.operations.coverage.tables import TableCoverage, table_coverage

Ends = Mapping[int, int]  # an offset by partition


def kafka_offsets(topic: str, ends: Ends) -> list[Any]:
    return [{topic: {str(partition): offset for partition, offset in ends.items()}}]


class Holdings:
    """Writes tables under `folder` as the ingest of topics at `servers` would."""

    def __init__(self, folder: Path, servers: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.application = "tidemark"  # whose output topics are shown
        self.folder, self.servers, self._capsys = folder, servers, capsys

    def path(self, table: str) -> str:
        return str(self.folder / "tables" / table)

    def delta(self, table: str) -> DeltaTable:
        return DeltaTable(self.path(table))

    def coverage(self, table: str, verify: bool = False) -> TableCoverage:
        return table_coverage(self.path(table), verify)

    def batches(
        self,
        topic: str,
        *ends: Ends,
        table: str = "",
        statement: str = "bronze",
        query: str = "q1",
        sink: str = "",
        first: int = 0,
        start: Ends | None = None,
        since: bool = True,
        every: bool = True,
        without: Sequence[tuple[int, int]] = (),
        extra: Sequence[tuple[int, int]] = (),
        columns: Mapping[str, Any] | None = None,
    ) -> None:
        """A commit for each of `ends`, with a row for each offset.

        Args:
            first: the first one's batch.
            start: where the first one begins; 0 in each partition if left out.
            without, extra: rows (partition, offset) that are left out, or added to the last one.
            columns: what every row has besides.
        """
        begin = dict(start or {})
        for number, end in enumerate(ends):
            before = {partition: begin.get(partition, 0) for partition in end}
            places = [(p, o) for p in end for o in range(before[p], end[p]) if (p, o) not in without]
            places += extra if number == len(ends) - 1 else []
            offsets = {"from": kafka_offsets(topic, before), "until": kafka_offsets(topic, end)}
            offsets |= {"since": kafka_offsets(topic, start or dict.fromkeys(end, 0))} if since else {}
            said = {
                "sink": sink or f"ingest.{topic}",
                "query_id": query,
                "statement": statement,
                "batch": first + number,
            }
            said |= {"offsets": offsets} | ({} if every else {"every_batch": False})
            self.write(table or f"bronze/{topic}", places, said, columns or {})
            begin = dict(end)

    def write(
        self, table: str, places: Sequence[tuple[int, int]], said: Mapping[str, Any], columns: Mapping[str, Any]
    ) -> None:
        """One commit."""
        prefix = "_" if "silver/" in table else ""
        rows = {
            f"{prefix}partition": pa.array([p for p, _ in places], pa.int32()),
            f"{prefix}offset": pa.array([o for _, o in places], pa.int64()),
            **{name: pa.array([value] * len(places)) for name, value in columns.items()},
        }
        app_id = f"{said.get('sink')}/{table}/{said.get('statement')}/{said.get('query_id')}"
        recorded = [Transaction(app_id, said.get("batch", 0))]
        how = CommitProperties(custom_metadata={"userMetadata": json.dumps(said)}, app_transactions=recorded)
        write_deltalake(self.path(table), pa.table(rows), mode="append", commit_properties=how)

    def insert(self, table: str, *places: tuple[int, int]) -> None:
        """Rows that no job has written."""
        prefix = "_" if "silver/" in table else ""
        names = (f"{prefix}partition", f"{prefix}offset")
        kinds = (pa.int32(), pa.int64())
        rows = {name: pa.array([each[n] for each in places], kinds[n]) for n, name in enumerate(names)}
        write_deltalake(self.path(table), pa.table(rows), mode="append", schema_mode="merge")

    def command(self, *arguments: str) -> tuple[int, list[str]]:
        """The exit code of `coverage`, and what it printed."""
        own = {
            "kafka.bootstrap_servers": self.servers,
            "paths.tables": self.folder / "tables",
            "paths.checkpoints": self.folder / "checkpoints",
            "ledger.application": self.application,
        }
        code = main([*arguments, *(part for key, value in own.items() for part in ("--set", f"{key}={value}"))])
        return code, self._capsys.readouterr().out.splitlines()

    def check(self, *arguments: str) -> tuple[int, list[str]]:
        """The exit code and the lines of `coverage check`, without the last one."""
        code, lines = self.command("check", *arguments)
        assert lines[-1].endswith("all well") == (code == 0)
        return code, lines[:-1]


def send(servers: str, topic: str, count: int, partition: int = 0) -> None:
    """Records without a transaction."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
    for number in range(count):
        producer.produce(topic, str(number).encode(), partition=partition)
    assert producer.flush(30) == 0


def send_in_transaction(servers: str, topic: str, count: int, commit: bool = True, partition: int = 0) -> None:
    """Records, and the marker that ends their transaction: `count` + 1 offsets."""
    producer = Producer({"bootstrap.servers": servers, "transactional.id": f"{topic}-{partition}", "linger.ms": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(count):
        producer.produce(topic, str(number).encode(), partition=partition)
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)
