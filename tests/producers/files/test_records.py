"""Why a row was not published is said without what its schema marks as personal data."""

import json
from pathlib import Path
from typing import Any

import pytest

from producers.files.record_parts import Parts
from producers.files.records import FileRequest, RowReader
from schemas.codec import CodecError
from schemas.values import UnfitError

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
