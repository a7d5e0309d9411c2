"""A JSON value is read back as the file said it, as itself or as its JSON text, whatever else its field holds."""

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.producers.files.read_back import inferred, read_back

NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["1.0", "1e3", "-0.0", "0.1234567890123456789", "1e400", "12345678901234567890", "1E-400", "1.50"]),
)
TEXTS = st.one_of(
    st.text(max_size=4),
    st.sampled_from(["", "2013-01-31", "2013-02-30", "2013-01-31T10:00:00Z", "2013-01-31 10:00", "1", "NaN", "null"]),
)


class Number(str):
    """A number as the file writes it."""


SCALARS = st.one_of(
    st.none(), st.booleans(), NUMBERS.map(lambda n: Number(n if isinstance(n, str) else json.dumps(n))), TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=5,
)


def written(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def is_said(value: Any, found: Any) -> bool:
    """Whether `found` is what the file said, itself or as JSON text."""
    if isinstance(value, str) and not isinstance(value, Number):
        return bool(found == value) or is_time(value, found)
    if isinstance(found, str):
        return bool(in_json(found) == in_json(written(value)))
    if isinstance(value, Number):
        return type(found) in (int, float) and in_json(str(value)) == in_json(json.dumps(found))
    if isinstance(value, dict):
        missing = set(found) - set(value)
        return all(found[name] is None for name in missing) and all(
            is_said(each, found[n]) for n, each in value.items()
        )
    if isinstance(value, list):
        return len(value) == len(found) and all(map(is_said, value, found))
    return bool(type(value) is type(found) and value == found)


def in_json(text: str) -> Any:
    """With numbers as what they say, to the last digit."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=str)


def is_time(text: str, found: Any) -> bool:
    if isinstance(found, dt.datetime):
        moment = dt.datetime.fromisoformat(text)
        return found == (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC))
    return isinstance(found, dt.date) and found == dt.date.fromisoformat(text)


@settings(max_examples=400, deadline=None)
@given(values=st.lists(VALUES, min_size=1, max_size=4))
def test_every_value_is_read_back_as_the_file_said_it(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("json") / "in.json"
    path.write_text("".join(f'{{"v": {written(value)}}}\n' for value in values))
    for value, result in zip(values, read_back(path), strict=True):
        if isinstance(result, dict):
            assert is_said(value, result["v"]), (value, result, inferred(path))
        else:
            # Only what looks like a day or a time and is none is found out so late.
            assert "2013-02-30" in written(value), (value, result)
