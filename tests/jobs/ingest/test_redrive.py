"""The whole way of a record that comes too early: quarantine, its schema is registered, redrive, silver."""

from pathlib import Path

import pytest
from deltalake import DeltaTable

from producers.quarantine import cli
from schemas.codec import frame
from tests.jobs.scratch import Scratch
from tests.sent import T0, Record

pytestmark = pytest.mark.slow


def redrive(scratch: Scratch, *argv: str) -> None:
    loaded = scratch.settings()
    own = {
        "kafka.bootstrap_servers": loaded.kafka.bootstrap_servers,
        "registry.path": loaded.registry.path,
        "paths.tables": loaded.paths.tables,
        "ledger.application": f"app-{Path(loaded.paths.tables).parent.name}",
    }
    assert cli.main([*argv, *(part for item in own.items() for part in ("--set", "=".join(map(str, item))))]) == 0


def test_a_record_whose_schema_is_registered_late_is_in_silver_once_after_a_redrive(
    scratch: Scratch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = scratch.topic(2)
    early = scratch.reading(topic, "a", 1, partition=1)
    assert early.value
    newer = scratch.register(topic) + 1
    value = frame(newer, early.value[5:] + b"\x02\x04ok")
    scratch.send(topic, Record(value, b"a", 1, headers=[("trace", b"1")]), scratch.reading(topic, "b", 2))
    scratch.ingest(topic)
    assert scratch.rows("quarantine", "partition", "offset", "error") == [(1, 0, "UNKNOWN_SCHEMA_ID")]
    assert scratch.rows(f"silver/{topic}", "id") == [("b",)]

    assert scratch.register(topic, {"name": "note", "type": ["null", "string"], "default": None}) == newer
    for _ in range(2):
        redrive(scratch, "redrive", "--topic", topic, "--error", "UNKNOWN_SCHEMA_ID")
        scratch.ingest(topic)
        silver = scratch.rows(f"silver/{topic}", "id", "level", "note", "_partition", "_offset")
        assert [row[:4] for row in silver] == [("a", 1, "ok", 1), ("b", 2, None, 0)]
        assert len(scratch.rows("quarantine")) == 1
    [audit] = DeltaTable(scratch.folder / "tables" / "redrives").to_pyarrow_table().to_pylist()
    assert (audit["partition"], audit["offset"], audit["to_partition"], audit["to_offset"]) == (1, 0, 1, silver[0][4])
    bronze = scratch.rows(f"bronze/{topic}", "partition", "offset", "timestamp", "headers")
    assert len(bronze) == 3
    again = next(row for row in bronze if row[:2] == (1, audit["to_offset"]))
    assert again[2].timestamp() * 1000 == T0
    told = {header.key: bytes(header.value).decode() for header in again[3]}
    assert (told["trace"], told["tidemark.redrive.of"]) == ("1", f"{topic}/1/0")


def test_a_record_that_is_as_bad_as_before_comes_back_and_tells_of_its_attempt(
    scratch: Scratch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = scratch.topic()
    scratch.send(topic, Record(b"bad"))
    scratch.ingest(topic)
    for _ in range(2):
        redrive(scratch, "redrive", "--topic", topic)
        scratch.ingest(topic)
    assert len(scratch.rows("quarantine")) == 3
    capsys.readouterr()
    redrive(scratch, "list")
    assert capsys.readouterr().out.splitlines()[1].split()[:6] == [topic, "BAD_FRAMING", "3", "2", "1", "2"]
