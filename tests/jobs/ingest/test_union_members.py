"""Unions that somebody else's registry changed: silver's members keep their meaning, in every kind of table."""

from typing import Any

import pytest

from schemas.registry import RegisteredSchema
from tests.jobs.connectors.avro.framed import framed
from tests.jobs.scratch import Scratch
from tests.schemas.test_silver_columns import array, field, part
from tests.sent import Record

PAID, LOST, NEW = part("Paid"), part("Lost"), part("New")


@pytest.mark.slow
@pytest.mark.parametrize("compacted", [False, True])
def test_events_stay_in_the_members_that_the_table_has(compacted: bool, scratch: Scratch) -> None:
    topic = scratch.topic(compacted=compacted)
    for number, union in enumerate([[PAID, LOST], [LOST, PAID], [LOST, NEW, PAID]], 1):
        named: Any = [kind["name"] for kind in union]
        scratch.register(topic, field(union, default={"x": ""}), field(array(named), "l", default=[]))
        newest: RegisteredSchema = scratch.registry.latest(f"{topic}-value")
        value = {"id": str(number), "level": 1, "f": ("Paid", {"x": "p"}), "l": [("Paid", {"x": "p"})]}
        scratch.send(topic, Record(framed(newest, value), str(number).encode()))
        scratch.ingest(topic)
    assert scratch.rows(f"silver/{topic}", "id", "f.member0.x", "l.member0.x") == [
        (str(number), "p", ["p"]) for number in (1, 2, 3)
    ]
    others = [(None, None, [None], [None])] * 3
    assert scratch.rows(f"silver/{topic}", "f.member1", "f.member2", "l.member1", "l.member2") == others
