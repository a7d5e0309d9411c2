"""Regions whose link was cut end with the same table, row for row."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from jobs.operations import compare
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from jobs.regions import friends
from local.regions import JOB, NAMES, Regions
from producers.friendships import friendship_events, publish_friendships
from producers.kafka.pacing import Interrupt

Event = dict[str, Any]


def latest(events: list[Event]) -> set[tuple[Any, ...]]:
    """What the table should say, by hand."""
    newest: dict[str, Event] = {}
    for event in events:
        other = newest.get(event["pair"])
        if other is None or (event["happened_at"], event["event_id"]) > (other["happened_at"], other["event_id"]):
            newest[event["pair"]] = event
    return {(each["pair"], each["are_friends"], each["region"], each["event_id"]) for each in newest.values()}


def test_regions_tell_of_the_same_pairs_at_the_same_times() -> None:
    us, eu = ({(e["pair"], e["happened_at"]) for e in friendship_events(name, 400, 1)} for name in NAMES)
    assert us & eu


def test_a_seed_gives_the_same_events_and_another_others() -> None:
    first, again, other = (list(friendship_events("us", 20, seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert not {each["event_id"] for each in first} & {each["event_id"] for each in other}


def build(spark: SparkSession, regions: Regions, name: str) -> pa.Table:
    run = Run(spark, regions.settings(name), JOB)
    friends.build(run)
    await_all(spark, run.start(continuous=False))
    run.settle()
    return DeltaTable(regions.table(name)).to_pyarrow_table()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_regions_whose_link_was_cut_end_with_the_same_rows(spark: SparkSession, tmp_path: Path) -> None:
    sent: list[Event] = []

    def publish(name: str, count: int, seed: int) -> None:
        publish_friendships(regions.settings(name), count, seed, Interrupt()).require_complete()
        sent.extend(friendship_events(name, count, seed))

    with Regions(tmp_path) as regions:
        for name in NAMES:
            publish(name, 60, seed=1)
        regions.wait_copied()
        us, eu = (build(spark, regions, name) for name in NAMES)
        assert compare.compare(us, eu) == compare.Comparison(len(latest(sent)), ([], []))

        regions.link.kill()
        for name in random.Random(7).sample(NAMES, 2):
            publish(name, 40, seed=2)
        us, eu = (build(spark, regions, name) for name in NAMES)
        apart = compare.compare(us, eu)
        assert apart.only[0]
        assert apart.only[1]

        regions.link.start()
        regions.wait_copied()
        us, eu = (build(spark, regions, name) for name in NAMES)
        assert compare.compare(us, eu).same
        rows = us.select(["pair", "are_friends", "region", "event_id"]).to_pylist()
        assert {tuple(row.values()) for row in rows} == latest(sent)
