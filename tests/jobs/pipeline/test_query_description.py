"""The files that describe a query: those of older versions are read, and older versions read those of today."""

import json
from dataclasses import replace
from datetime import timedelta

from jobs.pipeline.outputs import RowSelector
from jobs.pipeline.plan_analysis import EventTimeSpan
from jobs.pipeline.query_description import QueryDescription, Step

ROWS = RowSelector("hourly_delays", ("hour", "origin"), "hour")
STEPS = (Step("state", "Aggregate", "window, origin"), Step("window", "Project", "(x % 3600000000L)"))
DESCRIPTION = QueryDescription(
    mode="update",
    code="0.1.0+abc",
    job="flights.hourly_delays",
    query="flights.hourly_delays",
    name="hourly_delays",
    topics=("departures",),
    tables=(ROWS,),
    reach=EventTimeSpan(timedelta(hours=1), timedelta(0), timedelta(hours=4)),
    table="hourly_delays",
    keys=("hour", "origin"),
    sources=(("departures",),),
    steps=STEPS,
    columns=(("hour", "timestamp"), ("origin", "string")),
)
# What version 0.1.0 wrote into tidemark/query.json and into tidemark/plan.json.
STARTED_0_1_0 = (
    '{"job": "flights.hourly_delays", "query": "flights.hourly_delays", "name": "hourly_delays", "mode": "update", '
    '"topics": ["departures"], "tables": [{"table": "hourly_delays", "keys": ["hour", "origin"], "event_time": "hour", '
    '"coordinates": null, "stamps": []}], "topic": null, "reach": {"back": 3600.0, "ahead": 0.0, "context": 14400.0}, '
    '"code": "0.1.0+abc"}'
)
WRITTEN_0_1_0 = (
    '{"mode": "update", "table": "hourly_delays", "keys": ["hour", "origin"], "sources": [["departures"]], '
    '"steps": [{"kind": "state", "node": "Aggregate", "text": "window, origin"}, {"kind": "window", "node": "Project", '
    '"text": "(x % 3600000000L)"}], "columns": [["hour", "timestamp"], ["origin", "string"]], "code": "0.1.0+abc"}'
)


def test_what_older_versions_wrote_is_read() -> None:
    started = QueryDescription.from_json(STARTED_0_1_0)
    assert started == replace(DESCRIPTION, table="", keys=(), sources=(), steps=(), columns=())
    written = QueryDescription.from_json(WRITTEN_0_1_0)
    assert (written.table, written.keys, written.sources) == ("hourly_delays", ("hour", "origin"), (("departures",),))
    assert (written.steps, written.columns, written.reach) == (STEPS, DESCRIPTION.columns, EventTimeSpan())


def test_older_versions_read_what_is_written() -> None:
    # They refuse any field of the one file that they do not know, and look for theirs in the other.
    assert DESCRIPTION.started_json() == STARTED_0_1_0
    written = json.loads(DESCRIPTION.written_json())
    assert json.loads(WRITTEN_0_1_0).items() <= written.items()


def test_the_file_of_a_written_batch_holds_everything_and_fields_of_newer_versions_are_left_out() -> None:
    text = json.dumps(json.loads(DESCRIPTION.written_json()) | {"of_tomorrow": 1})
    assert QueryDescription.from_json(text) == DESCRIPTION
