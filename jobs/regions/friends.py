"""Who are friends, in the same words in every region?

topics friendships and REGION.friendships of each other region -> decode -> friends -> Delta table friends
    ./spark-submit.sh regions.friends --until-caught-up

The events say what happened ("ann and bob became friends"), so every region builds the same state out of all logs, in
whatever order they come there: for a pair the latest event counts, at equal times the one with the greatest id.
Update mode: a pair's row is replaced by a later event's. A pair that is no longer friends keeps its row, or an older
event that comes late would bring it back.
"""

from functools import reduce

from pyspark.sql import DataFrame

from jobs.pipeline.run import Run

TOPIC = "friendships"
LATEST = ("happened_at", "event_id")


def friends(friendships: DataFrame) -> DataFrame:
    """A row an event: pair, person, friend, are_friends, happened_at, event_id, region."""
    return friendships.select("pair", "person", "friend", "are_friends", *LATEST, "region")


def build(run: Run) -> None:
    topics = [TOPIC, *(f"{region}.{TOPIC}" for region in run.settings.regions.others)]
    events = reduce(DataFrame.unionByName, [friends(run.read(topic)) for topic in topics])
    run.upsert(events, table="friends", keys=("pair",), newest_by=LATEST, event_time="happened_at")
