"""The whole way of a file's values: published, ingested, and read in silver as the file said them, or rejected by line.

The parts have property tests of their own, with many more draws (`tests/producers`, `tests/jobs/connectors`). Here all
of their values are columns of a few files, so that one run of `ingest` sees them.
"""

import csv
import datetime as dt
import io
import json
import re
from collections.abc import Callable
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from fastavro.schema import SchemaParseException
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conf.errors import TidemarkError
from conf.topics import Topic
from local.broker import Cluster
from producers.files.rejects import RejectLimit
from producers.files.request import Parts
from schemas.contracts import require_event
from tests.jobs.connectors.avro.avro_examples import collected, fields, in_spark, named, types, values
from tests.jobs.scratch import Scratch
from tests.producers.desk import Desk
from tests.producers.files.read_back import inferred
from tests.producers.files.test_avro_files import container
from tests.producers.files.test_json_types import TEXTS, VALUES, is_said, written
from tests.producers.files.test_parquet_files import KINDS, REJECTED, SHAPES, WRAPS, array, same, shaped
from tests.producers.files.test_text_types import CELLS, as_written, says_the_same

ROWS = 4
TEXT_CELLS = st.one_of(TEXTS, st.sampled_from(['"', 'a "b", c', "two\nlines", " ", "\ufeff", "0x1F", "=1+1", "é;"]))
# What spreadsheets take for formulas.
FORMULAS = ["=1+1", '=HYPERLINK("http://example.invalid","x")', "+1-2", "@SUM(A1:A9)"]
GIVEN = {
    "f": "float",
    "x": "double",
    "whole": "int",
    "number": "long",
    "cents": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    "exact": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10},
}
Says = Callable[[Any], bool]


def drawn(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """That many values."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(value: Any) -> None:
        found.append(value)

    keep()
    return found


class Files:
    """Publishes files, each to a topic of its own, and keeps by topic what each of its lines says."""

    def __init__(self, scratch: Scratch, broker: Cluster) -> None:
        self.scratch, self._broker = scratch, broker
        self.lines: dict[str, dict[int, dict[str, Says]]] = {}
        self.rejected: dict[str, dict[int, str]] = {}

    def publish(self, name: str, data: bytes, lines: dict[int, dict[str, Says]], schema: str | None = None) -> None:
        topic = f"{name.replace('.', '-')}-{self.scratch.folder.name}"
        desk = Desk(self.scratch.folder, self._broker.bootstrap_servers, topic)
        desk.rejects_path = self.scratch.folder / f"{name}.rejects"
        options: dict[str, Any] = {"parts": Parts(None), "create_partitions": 1, "limit": RejectLimit(share=None)}
        report = desk.publish(desk.write(name, data), schema=schema, **options)
        self.rejected[topic] = {line: why for line, why, _ in desk.rejected()} if desk.rejects_path.exists() else {}
        assert sum(report.delivered.values()) + len(self.rejected[topic]) == len(lines)
        self.scratch.declared[topic] = Topic(topic, 1, "n", "row")
        self.lines[topic] = lines

    def check(self, topic: str) -> None:
        table = DeltaTable(self.scratch.folder / "tables" / "silver" / topic).to_pyarrow_table()
        rows = {row["_offset"]: row for row in table.to_pylist(maps_as_pydicts="strict")}
        accepted = [line for line in self.lines[topic] if line not in self.rejected[topic]]
        assert sorted(rows) == list(range(len(accepted)))
        for offset, line in enumerate(accepted):
            for column, says in self.lines[topic][line].items():
                assert says(rows[offset][column]), (topic, line, column, rows[offset][column])


def equal(wanted: Any) -> Says:
    return lambda found: comparable(found) == comparable(wanted)


def comparable(value: Any) -> Any:
    """As `collected`, of Arrow's values, too."""
    if isinstance(value, np.floating):
        return comparable(float(value))
    if isinstance(value, dict):
        return {name: comparable(item) for name, item in value.items()}
    return [comparable(each) for each in value] if isinstance(value, list) else collected(value)


def publish_csv(files: Files) -> None:
    """Types are inferred: every column holds numbers as people write them, or text."""
    cells = st.one_of(
        CELLS.filter(lambda column: len(column) == ROWS), st.lists(TEXT_CELLS, min_size=ROWS, max_size=ROWS)
    )
    columns = {f"v{number}": column for number, column in enumerate(drawn(cells, 25))}
    text, line, lines = io.StringIO(newline=""), 2, {}
    writer = csv.writer(text)
    writer.writerow(["n", "formula", *columns])
    for row in range(ROWS):
        before = text.tell()
        writer.writerow([row, FORMULAS[row], *(column[row] for column in columns.values())])
        lines[line] = {name: cell_says(column[row]) for name, column in columns.items()}
        lines[line]["formula"] = equal(FORMULAS[row])
        line += len(re.findall(r"\r\n|\r|\n", text.getvalue()[before:]))
    files.publish("inferred.csv", text.getvalue().encode(), lines)


def cell_says(cell: str) -> Says:
    def says(found: Any) -> bool:
        if cell == "":
            return found is None
        return is_said(cell, found) if isinstance(found, str | dt.date) else says_the_same(cell, found)

    return says


def publish_csv_with_a_schema(files: Files) -> None:
    """A cell a line, so that one that does not fit takes no other with it."""
    listed = [(name, cell) for column in drawn(CELLS, 12) for cell in column for name in GIVEN]
    schema: list[dict[str, Any]] = [{"name": "n", "type": "int"}]
    schema += [{"name": name, "type": ["null", kind], "default": None} for name, kind in GIVEN.items()]
    text = "n," + ",".join(GIVEN) + "\n"
    lines: dict[int, dict[str, Says]] = {}
    for number, (own, cell) in enumerate(listed):
        text += f"{number}," + ",".join(cell if name == own else "" for name in GIVEN) + "\n"
        lines[number + 2] = {name: given_says(name, cell) if name == own else equal(None) for name in GIVEN}
    record = json.dumps({"type": "record", "name": "Row", "fields": schema})
    files.publish("given.csv", text.encode(), lines, record)


def given_says(name: str, cell: str) -> Says:
    return lambda found: says_the_same(cell, found) or (name == "f" and says_the_same(cell, as_written(found, cell)))


def publish_json(files: Files) -> None:
    columns = {
        f"v{number}": column for number, column in enumerate(drawn(st.lists(VALUES, min_size=ROWS, max_size=ROWS), 25))
    }
    rows = [
        f'{{"n":{row},' + ",".join(f'"{name}":{written(column[row])}' for name, column in columns.items()) + "}\n"
        for row in range(ROWS)
    ]
    lines = {row + 1: {name: json_says(column[row]) for name, column in columns.items()} for row in range(ROWS)}
    files.publish("in.jsonl", "".join(rows).encode(), lines)


def json_says(value: Any) -> Says:
    return lambda found: is_said(value, found)


def publish_parquet(files: Files) -> None:
    """Every kind of Arrow's in some shape; a value a row, so that one that no table holds takes no other with it."""
    kinds = [(number, shape) for number in range(len(KINDS)) for shape in ("plain", SHAPES[number % len(SHAPES)])]
    count = len(kinds) * ROWS
    columns: dict[str, Any] = {"n": pa.array(range(count), pa.int32())}
    said: list[dict[str, Any]] = []
    for at, (number, shape) in enumerate(kinds):
        kind, strategy, expected = KINDS[number]
        shape = shape if shape in WRAPS else "plain"
        own = drawn(strategy, ROWS)
        own += own[:1] * (ROWS - len(own))
        columns[f"v{at}"] = shaped(shape, array(kind, [None] * len(said) + own + [None] * (count - len(said) - ROWS)))
        wanted = [expected(value) for value in own]
        said += [{f"v{at}": each if is_rejected(each) else WRAPS.get(shape, same)(each)} for each in wanted]
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    path = files.scratch.folder / "in.parquet"
    path.write_bytes(stream.getvalue())
    kind_of = {field["name"]: field["type"] for field in json.loads(inferred(path))["fields"]}
    lines: dict[int, dict[str, Says]] = {
        line: {name: never if is_rejected(each) else equal(in_spark(each, kind_of[name])) for name, each in row.items()}
        for line, row in enumerate(said, start=1)
    }
    files.publish("in.parquet", stream.getvalue(), lines)


def is_rejected(wanted: Any) -> bool:
    return isinstance(wanted, str) and wanted == REJECTED


def never(found: Any) -> bool:
    """Nothing is right for a value that no table holds: its line is to be rejected."""
    return False


def publish_avro(files: Files) -> None:
    kinds = [kind for kind in drawn(types(), 30) if is_storable(kind)]
    schema = named({"type": "record", "fields": fields(kinds)}, "Event")
    stream = container(schema, drawn(values(schema), ROWS))
    records: list[Any] = list(fastavro.reader(io.BytesIO(stream)))
    kind_of = {field["name"]: field["type"] for field in schema["fields"]}
    lines = {
        row: {name: equal(in_spark(value, kind_of[name])) for name, value in dict(record).items()}
        for row, record in enumerate(records, start=1)
    }
    files.publish("in.avro", stream, lines)


def is_storable(kind: Any) -> bool:
    schema = named({"type": "record", "fields": fields([kind])}, "Event")
    try:
        require_event("", json.dumps(schema))
        container(schema, [])
    except (TidemarkError, SchemaParseException):
        return False
    return True


@pytest.mark.slow
def test_silver_says_what_the_file_said_or_the_line_is_rejected(scratch: Scratch, broker: Cluster) -> None:
    files = Files(scratch, broker)
    for publish in (publish_csv, publish_csv_with_a_schema, publish_json, publish_parquet, publish_avro):
        publish(files)
    scratch.ingest(*files.lines)
    assert scratch.rows("quarantine", "topic", "offset", "error", "reason") == []
    for topic in files.lines:
        files.check(topic)
