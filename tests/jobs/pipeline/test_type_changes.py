"""A job whose code gives a column another type stops by name, and goes on by each way that the line says."""

import pytest

from conf.errors import TidemarkError
from tests.jobs.scratch import Scratch

pytestmark = pytest.mark.slow
TEXT = "CAST(level AS STRING)"


def write(scratch: Scratch, topic: str, column: str, table: str = "levels", is_merged: bool = False) -> None:
    run = scratch.run()
    rows = run.read(topic).selectExpr("id", column)
    if is_merged:
        run.upsert(rows, table, keys=("id",))
    else:
        run.append(rows, table)
    scratch.catch_up(run)


@pytest.mark.parametrize("is_merged", [False, True])
def test_a_column_of_another_type_is_named_and_each_remedy_works(is_merged: bool, scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, scratch.reading(topic, "a", 1))
    write(scratch, topic, "level", is_merged=is_merged)
    scratch.send(topic, scratch.reading(topic, "b", 2))
    with pytest.raises(TidemarkError, match=r"TYPE_CHANGED: .*column level is int there and string") as refused:
        write(scratch, topic, f"{TEXT} AS level", is_merged=is_merged)
    assert "cast the column to the type that the table has, or give it another name" in str(refused.value)
    assert scratch.rows("levels") == [("a", 1)]
    write(scratch, topic, f"{TEXT} AS level_text", is_merged=is_merged)
    scratch.send(topic, scratch.reading(topic, "c", 3))
    write(scratch, topic, f"CAST({TEXT} AS INT) AS level", is_merged=is_merged)
    assert scratch.rows("levels", "id", "level", "level_text") == [("a", 1, None), ("b", None, "2"), ("c", 3, None)]
    write(scratch, topic, f"{TEXT} AS level", "level_texts", is_merged)
    assert scratch.rows("level_texts") == [("a", "1"), ("b", "2"), ("c", "3")]
