"""The year's events, against an independent reading of the same files by duckdb."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.compute as pc
import pytest

from conf.errors import TidemarkError
from conf.topics import load_topics
from producers.flights.data_set import Source, load_source
from producers.flights.events import TOPICS, Accounts, Events, flight_events
from schemas.codec import Decoder
from schemas.columnar import ColumnarEncoder
from schemas.contracts import contract
from schemas.registry import FileRegistry
from tests.flight_files import flight_files

Year = tuple[dict[str, Events], Accounts]


@pytest.fixture(scope="module")
def source() -> Source:
    return load_source()


@pytest.fixture(scope="module")
def year(source: Source) -> Year:
    return flight_events(source)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """duckdb over the package's files: views flights, weather, planes, zones."""
    with flight_files(tmp_path_factory.mktemp("flights"), "weather", "planes") as connection:
        yield connection


def one(files: duckdb.DuckDBPyConnection, query: str) -> Any:
    [row] = files.execute(query).fetchall()
    return row[0] if len(row) == 1 else row


def event(year: Year, topic: str, flight_id: str) -> dict[str, Any]:
    table = year[0][topic].table
    found = table.filter(pc.equal(table["flight_id"], flight_id)).to_pylist()
    assert len(found) == 1
    return dict(found[0])


def test_every_row_of_the_files_is_accounted_for(year: Year, files: duckdb.DuckDBPyConnection) -> None:
    accounts = year[1]
    assert accounts.rows == one(files, "select count(*) from flights")
    assert accounts.rows == accounts.departures + accounts.cancellations
    assert accounts.departures == one(files, "select count(dep_time) from flights")
    assert accounts.departures == accounts.arrivals + accounts.never_arrived
    assert accounts.arrivals == one(files, "select count(arr_time) from flights")
    assert accounts.arrivals - accounts.arrivals_without_delay == one(files, "select count(arr_delay) from flights")
    assert accounts.weather == one(files, "select count(*) from weather")
    assert accounts.planes == one(files, "select count(*) from planes")
    counted = {topic: len(events.table) for topic, events in year[0].items()}
    assert counted == {topic: getattr(accounts, topic) for topic in TOPICS}


def test_flight_ids_are_unique_and_shared_by_departure_and_arrival(year: Year) -> None:
    ids = {topic: set(year[0][topic].table["flight_id"].to_pylist()) for topic in ("departures", "arrivals")}
    cancelled = set(year[0]["cancellations"].table["flight_id"].to_pylist())
    assert len(ids["departures"]) == year[1].departures
    assert len(ids["departures"] | cancelled) == year[1].rows
    assert ids["arrivals"] < ids["departures"]


def test_the_departures_are_those_of_the_files(year: Year, files: duckdb.DuckDBPyConnection) -> None:
    files.register("departures", year[0]["departures"].table)
    expected = """
        select carrier, flight, tailnum, origin, dest, distance, dep_delay,
               time_hour::timestamptz + to_minutes(minute) as scheduled,
               scheduled + to_minutes(dep_delay) as departed
        from flights where dep_time is not null"""
    actual = """
        select carrier, flight, tail_number, origin, destination, distance_miles, delay_minutes,
               scheduled_departure_at, departed_at from departures"""
    assert one(files, f"select count(*) from ({expected} except all {actual})") == 0
    assert one(files, f"select count(*) from ({actual} except all {expected})") == 0


def test_departures_agree_with_the_clock_in_new_york(year: Year, files: duckdb.DuckDBPyConnection) -> None:
    files.register("departures", year[0]["departures"].table)
    disagree = """
        select count(*) from departures d join flights f
          on d.flight_id = f.carrier || f.flight || '-' || f.origin || '-'
             || strftime((f.time_hour::timestamptz + to_minutes(f.minute)) at time zone 'UTC', '%Y%m%dT%H%MZ')
        where strftime(d.departed_at at time zone 'America/New_York', '%H%M')::int <> f.dep_time % 2400"""
    assert one(files, disagree) == 0


def test_arrivals_agree_with_the_clock_at_the_destination_but_for_one_flight(
    year: Year, files: duckdb.DuckDBPyConnection
) -> None:
    files.register("arrivals", year[0]["arrivals"].table)
    disagree = """
        select a.flight_id from arrivals a join flights f
          on a.flight_id = f.carrier || f.flight || '-' || f.origin || '-'
             || strftime((f.time_hour::timestamptz + to_minutes(f.minute)) at time zone 'UTC', '%Y%m%dT%H%MZ')
        join zones z on z.faa = f.dest
        where strftime(a.arrived_at at time zone z.tzone, '%H%M')::int <> f.arr_time % 2400"""
    # In the night to 10 March the reported arrival, 02:03, is an hour that daylight saving left out.
    assert files.execute(disagree).fetchall() == [("B635-JFK-20130310T0245Z",)]


def test_no_flight_is_shorter_than_its_time_in_the_air_nor_four_hours_longer(
    year: Year, files: duckdb.DuckDBPyConnection
) -> None:
    files.register("departures", year[0]["departures"].table)
    files.register("arrivals", year[0]["arrivals"].table)
    shortest, longest = one(
        files,
        "select min(ground), max(ground) from (select date_diff('minute', departed_at, arrived_at) - air_time_minutes "
        "as ground from departures join arrivals using (flight_id))",
    )
    assert 0 < shortest < longest < 240


def test_a_flight_to_hawaii_arrives_by_the_clock_of_honolulu(year: Year) -> None:
    # 2013-01-01: HA 51 left JFK at 09:00, due 15:30 in Honolulu, and came 14 minutes early (from 08:56, at 15:16).
    arrival = event(year, "arrivals", "HA51-JFK-20130101T1400Z")
    assert arrival["scheduled_arrival_at"] == datetime(2013, 1, 2, 1, 30, tzinfo=UTC)
    assert arrival["arrived_at"] == datetime(2013, 1, 2, 1, 16, tzinfo=UTC)


def test_a_diverted_flight_has_a_time_of_arrival_and_no_delay(year: Year) -> None:
    table = year[0]["arrivals"].table
    diverted = table.filter(pc.is_null(table["delay_minutes"]))
    assert diverted["arrived_at"].null_count == 0
    assert diverted["air_time_minutes"].null_count == len(diverted) == year[1].arrivals_without_delay


def test_dirty_data_stays_dirty(year: Year, files: duckdb.DuckDBPyConnection) -> None:
    cancelled = year[0]["cancellations"].table["tail_number"].null_count
    assert cancelled == one(files, "select count(*) from flights where dep_time is null and tailnum is null")
    weather = year[0]["weather"].table
    assert weather["wind_gust_mph"].null_count == one(files, "select count(*) - count(wind_gust) from weather")
    assert pc.max(weather["wind_speed_mph"]).as_py() > 1000


@pytest.mark.parametrize("column", ["temperature_f:temp", "pressure_millibars:pressure", "visibility_miles:visib"])
def test_weather_measures_are_exact(year: Year, files: duckdb.DuckDBPyConnection, column: str) -> None:
    files.register("observations", year[0]["weather"].table)
    ours, theirs = column.split(":")
    differ = f"""
        select count(*) from observations o join weather w on o.station = w.origin and o.observed_at = w.time_hour
        where o.{ours}::double is distinct from w.{theirs}"""
    assert one(files, differ) == 0


@pytest.mark.parametrize("topic", TOPICS)
def test_events_are_ordered_by_event_time(year: Year, topic: str) -> None:
    events = year[0][topic]
    assert (np.diff(events.event_time) >= 0).all()
    column = load_topics()[topic].event_time
    if column:
        assert events.event_time.tolist() == events.table[column].cast("int64").to_pylist()


def test_planes_come_at_the_time_of_the_first_other_event(year: Year) -> None:
    first = min(int(year[0][topic].event_time[0]) for topic in TOPICS if topic != "planes")
    assert set(year[0]["planes"].event_time.tolist()) == {first}


@pytest.mark.parametrize("topic", TOPICS)
def test_events_fit_their_contracts(year: Year, topic: str, tmp_path: Path) -> None:
    registry = FileRegistry(tmp_path)
    text = contract(load_topics()[topic].schema)
    sample = year[0][topic].table.slice(0, 500)
    encoded = ColumnarEncoder(registry.register(f"{topic}-value", text), text)(sample)
    assert [Decoder(registry)(value) for value in encoded] == sample.to_pylist()


def test_a_range_of_days_takes_in_its_first_and_leaves_out_its_last(
    source: Source, files: duckdb.DuckDBPyConnection
) -> None:
    _, accounts = flight_events(source, date(2013, 3, 9), date(2013, 3, 11))
    days = "month = 3 and day in (9, 10)"
    assert accounts.rows == one(files, f"select count(*) from flights where {days}")
    assert accounts.weather == one(files, f"select count(*) from weather where {days}")


def test_a_range_without_flights_is_refused_with_the_days_that_have_some(source: Source) -> None:
    with pytest.raises(TidemarkError, match=r"NO_EVENTS.*covers 2013-01-01"):
        flight_events(source, date(2014, 1, 2), date(2015, 1, 1))


def test_a_missing_file_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TidemarkError, match=r"NO_DATA_SET: .*airports\.csv cannot be read"):
        load_source(tmp_path)
