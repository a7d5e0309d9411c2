"""Makes events of the flights: departures, arrivals, cancellations, hourly weather and planes. Pure: tables in, events
out. Values that the source lacks stay null, and every row of the source is accounted for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf.errors import TidemarkError
from producers.flights.data_set import MILLIS, Numbers, Source, milliseconds, with_times

# The topics that have an event time, and the column that holds it; planes have none.
EVENT_TIME = {
    "departures": "departed_at",
    "arrivals": "arrived_at",
    "cancellations": "cancelled_at",
    "weather": "observed_at",
}
TOPICS = ("planes", *EVENT_TIME)
FIRST_DAY = date(2013, 1, 1)
END_DAY = date(2014, 1, 1)
# Column of the contract -> column of the source, in the order of the contract.
IDENTITY = {
    "flight_id": "flight_id",
    "carrier": "carrier",
    "flight": "flight",
    "tail_number": "tailnum",
    "origin": "origin",
    "destination": "dest",
}
DEPARTURE = {
    **IDENTITY,
    "scheduled_departure_at": "scheduled_departure_at",
    "departed_at": "departed_at",
    "delay_minutes": "dep_delay",
    "scheduled_arrival_at": "scheduled_arrival_at",
    "distance_miles": "distance",
}
ARRIVAL = {
    **IDENTITY,
    "scheduled_arrival_at": "scheduled_arrival_at",
    "arrived_at": "arrived_at",
    "delay_minutes": "arr_delay",
    "air_time_minutes": "air_time",
}
CANCELLATION = {
    **IDENTITY,
    "scheduled_departure_at": "scheduled_departure_at",
    "cancelled_at": "scheduled_departure_at",
}
WEATHER = {
    "station": "origin",
    "observed_at": "time_hour",
    "temperature_f": "temp",
    "dew_point_f": "dewp",
    "humidity_percent": "humid",
    "wind_direction_degrees": "wind_dir",
    "wind_speed_mph": "wind_speed",
    "wind_gust_mph": "wind_gust",
    "precipitation_inches": "precip",
    "pressure_millibars": "pressure",
    "visibility_miles": "visib",
}
PLANE = {"tail_number": "tailnum", "year": "year", "type": "type", "manufacturer": "manufacturer", "model": "model"}
PLANE |= {"engines": "engines", "seats": "seats", "speed_mph": "speed", "engine": "engine"}
DECIMALS = {
    "temperature_f": pa.decimal128(5, 2),
    "dew_point_f": pa.decimal128(5, 2),
    "humidity_percent": pa.decimal128(5, 2),
    "precipitation_inches": pa.decimal128(6, 2),
    "pressure_millibars": pa.decimal128(6, 1),
    "visibility_miles": pa.decimal128(5, 2),
}


@dataclass(frozen=True)
class Events:
    """The events of one topic by event time: `table` has the contract's columns, `event_time` is in ms, UTC."""

    table: pa.Table
    event_time: Numbers


@dataclass(frozen=True)
class Accounts:
    """Where every row went: rows = departures + cancellations, departures = arrivals + never_arrived."""

    rows: int
    departures: int
    cancellations: int
    arrivals: int
    arrivals_without_delay: int
    never_arrived: int
    weather: int
    planes: int

    def __str__(self) -> str:
        return (
            f"{self.rows:,} flights = {self.departures:,} departures + {self.cancellations:,} cancellations; "
            f"{self.arrivals:,} arrivals ({self.arrivals_without_delay:,} diverted), {self.never_arrived:,} "
            f"never arrived; {self.weather:,} weather observations; {self.planes:,} planes"
        )


def flight_events(source: Source, first: date = FIRST_DAY, end: date = END_DAY) -> tuple[dict[str, Events], Accounts]:
    """Return topic -> events, of the flights scheduled and the weather observed from `first` up to, without, `end`.

    Days are New York's. Planes have no time: all of them come, at the time of the first other event.

    Raises:
        TidemarkError: NO_EVENTS, where nothing falls into the range.
    """
    flights = with_times(_on_days(source.flights, first, end), source.zones)
    departed, arrived = pc.is_valid(flights["departed_at"]), pc.is_valid(flights["arrived_at"])
    tables = {
        "departures": _select(flights.filter(departed), DEPARTURE),
        "arrivals": _select(flights.filter(arrived), ARRIVAL),
        "cancellations": _select(flights.filter(pc.invert(departed)), CANCELLATION),
        "weather": _select(_on_days(source.weather, first, end), WEATHER),
    }
    events = {topic: _by_event_time(table, topic) for topic, table in tables.items()}
    started = min((int(of_topic.event_time[0]) for of_topic in events.values() if len(of_topic.table)), default=None)
    if started is None:
        raise _no_events(first, end)
    planes = _select(source.planes, PLANE)
    planes_events = Events(planes, np.full(len(planes), started, dtype=np.int64))
    return {"planes": planes_events, **events}, _accounts(flights, tables, planes)


def require_days(first: date, end: date) -> None:
    """Refuse days of which the data set has none, before it is read; raises TidemarkError NO_EVENTS."""
    if first >= END_DAY or end <= FIRST_DAY:
        raise _no_events(first, end)


def _no_events(first: date, end: date) -> TidemarkError:
    what = f"nothing happened from {first} up to, without, {end}"
    return TidemarkError("NO_EVENTS", what, f"the data set covers {FIRST_DAY} up to, without, {END_DAY}")


def _accounts(flights: pa.Table, tables: Mapping[str, pa.Table], planes: pa.Table) -> Accounts:
    arrivals = tables["arrivals"]
    return Accounts(
        rows=len(flights),
        departures=len(tables["departures"]),
        cancellations=len(tables["cancellations"]),
        arrivals=len(arrivals),
        arrivals_without_delay=arrivals["delay_minutes"].null_count,
        never_arrived=len(tables["departures"]) - len(arrivals),
        weather=len(tables["weather"]),
        planes=len(planes),
    )


def _by_event_time(table: pa.Table, topic: str) -> Events:
    event_time = milliseconds(table[EVENT_TIME[topic]])
    order = np.argsort(event_time, kind="stable")
    return Events(table.take(order), event_time[order])


def _on_days(table: pa.Table, first: date, end: date) -> pa.Table:
    year, month, day = (table[name].to_numpy() for name in ("year", "month", "day"))
    yyyymmdd = year * 10_000 + month * 100 + day
    return table.filter(pa.array((yyyymmdd >= int(f"{first:%Y%m%d}")) & (yyyymmdd < int(f"{end:%Y%m%d}"))))


def _select(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    return pa.table({name: _typed(name, table[source]) for name, source in columns.items()})


def _typed(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if name in DECIMALS:
        return column.cast(DECIMALS[name])
    if pa.types.is_timestamp(column.type):
        return column.cast(MILLIS)
    return column.cast(pa.int32()) if pa.types.is_integer(column.type) else column
