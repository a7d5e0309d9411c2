"""A row's values go to the fields that they are named for, and what is left out or not published is said."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.errors import TidemarkError
from jobs.connectors.kafka.refusals import Limits
from producers.files.records import MOST_NOTES, OTHER_NOTES, Codec, FileRows
from producers.files.rejects import RejectLimit, Rejects
from producers.files.request import FileRequest, Parts
from producers.files.row_reader import RowReader
from schemas.codec import HEADER, CodecError
from schemas.codec import reader as decoder
from schemas.values import Reading, UnfitError

AGE = {"name": "age", "source": "Age in years", "type": {"type": "int", "pii": "hash"}}
LEVEL = {"name": "level", "type": "int"}


def reader(*fields: dict[str, Any]) -> RowReader:
    text = json.dumps({"type": "record", "name": "R", "fields": list(fields)})
    return RowReader(text, FileRequest("rs", [Path("in.csv")], Parts(key=None)))


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (UnfitError("'anna' is no int", "Age in years"), "field `Age in years`: its value does not fit"),
        (UnfitError("'anna' is no int", "level"), "field `level`: 'anna' is no int"),
        (CodecError("ENCODE_FAILED", "'anna' is no int", ""), "it does not fit its schema, some of it is personal"),
    ],
)
def test_a_reason_does_not_quote_a_marked_field(problem: UnfitError | CodecError, says: str) -> None:
    assert reader(AGE, LEVEL).reason(problem).startswith(says)


def test_without_marks_a_reason_quotes_the_value() -> None:
    assert reader(LEVEL).reason(CodecError("ENCODE_FAILED", "'anna' is no int", "")) == "'anna' is no int"


FORMATS = ["csv", "jsonl", "parquet", "avro"]
NEW = {"name": "new", "type": ["null", "long"], "default": None, "aliases": ["older", "old"]}
PRICE = {"name": "price", "source": "Price ($)", "type": ["null", "long"], "default": None}
ID = {"name": "id", "type": "long"}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Whole numbers, in a file of the kind that its name says."""
    names = list(rows[0])
    if path.suffix == ".csv":
        with path.open("w") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        fields = [{"name": name, "type": "long"} for name in names]
        with path.open("wb") as file:
            fastavro.writer(file, fastavro.parse_schema({"type": "record", "name": "R", "fields": fields}), rows)
    return path


def published(
    path: Path, fields: list[Any], by_columns: bool, ignore_extra: bool = False
) -> tuple[list[Any], Counter[str], FileRows]:
    text = json.dumps({"type": "record", "name": "R", "fields": fields})
    request = FileRequest("rs", [path], Parts(None), reading=Reading(ignore_extra=ignore_extra))
    rejects = Rejects(iter([path.with_suffix(f".{by_columns}")]), RejectLimit(share=None), reported=0)
    rows = FileRows(request, Codec(RowReader(text, request), 1, text, Limits(), by_columns), rejects)
    decode = decoder(text)
    records = [decode((value or b"")[HEADER.size :]) for batch in rows.batches() for value in batch.values]
    rejects.close()
    return records, rows.notes, rows


@pytest.mark.parametrize("by_columns", [True, False])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_column_goes_to_the_field_that_knows_it_by_any_of_its_names(
    tmp_path: Path, kind: str, by_columns: bool
) -> None:
    path = written(tmp_path / f"in.{kind}", [{"id": 1, "old": 5, "price": 7}, {"id": 2, "old": 6, "price": 8}])
    expected = [{"id": 1, "new": 5, "price": 7}, {"id": 2, "new": 6, "price": 8}]
    assert published(path, [ID, NEW, PRICE], by_columns)[:2] == (expected, Counter())
    assert published(path, [ID, NEW, PRICE], by_columns, ignore_extra=True)[:2] == (expected, Counter())


def test_a_field_takes_one_of_its_names_the_first(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", [{"id": 1, "old": 5}, {"old": 6, "id": 2, "older": 7}, {"id": 3, "new": 8}])
    records, notes, _ = published(path, [ID, NEW], by_columns=False, ignore_extra=True)
    assert [record["new"] for record in records] == [5, 7, 8]
    assert notes == {"field `old` left out (--ignore-extra), for which the schema has none": 1}


@pytest.mark.parametrize("by_columns", [True, False])
def test_a_field_of_an_inner_record_has_its_names_too(tmp_path: Path, by_columns: bool) -> None:
    inner = {"name": "in", "type": {"type": "record", "name": "In", "fields": [NEW]}}
    for kind in ("jsonl", "parquet"):
        path = written(tmp_path / f"in.{kind}", [{"in": {"old": 5}}])
        assert published(path, [inner], by_columns)[0] == [{"in": {"new": 5}}]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_left_out_is_counted_whichever_way_it_is_read(tmp_path: Path, kind: str) -> None:
    rows = [{"id": number if number % 9 else 2**40, "a": 1, "b": 2} for number in range(100)]
    path = written(tmp_path / f"in.{kind}", rows)
    small = {"name": "id", "type": "int"}
    line = "field `{}` left out (--ignore-extra), for which the schema has none"
    for by_columns in (True, False):
        records, notes, told = published(path, [small], by_columns, ignore_extra=True)
        assert len(records) == 88
        assert notes == {line.format("a"): 88, line.format("b"): 88}
        first = 3 if kind == "csv" else 2
        assert set(told._first.values()) == {f"{path} line {first}"}
    with pytest.raises(TidemarkError, match="UNKNOWN_COLUMNS" if kind != "jsonl" else "TOO_MANY_REJECTS"):
        published(written(tmp_path / f"strict.{kind}", rows), [small], by_columns=True)


def test_notes_of_any_number_of_kinds_take_no_more_room_than_some(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"id": 1, "f{number}": 1}}\n' for number in range(MOST_NOTES + 50)))
    _, notes, _ = published(path, [ID], by_columns=True, ignore_extra=True)
    assert (len(notes), notes[OTHER_NOTES], notes.total()) == (MOST_NOTES + 1, 50, MOST_NOTES + 50)
