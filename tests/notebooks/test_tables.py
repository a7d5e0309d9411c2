"""Tables that are not there are named before any JVM starts."""

from pathlib import Path

import pytest
from deltalake import write_deltalake
from pandas import DataFrame, Series

from conf.errors import TidemarkError
from conf.settings import load
from notebooks.tables import require_tables


def test_missing_tables_are_named(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "silver" / "departures", DataFrame({"flight_id": ["UA1"]}))
    settings = load(overrides=[f"paths.tables={tmp_path}"])
    require_tables(settings, ["silver/departures"])
    message = f"NO_TABLES: {tmp_path} lacks the tables hourly_delays; run `local/tidemark demo` first"
    with pytest.raises(TidemarkError, match=message):
        require_tables(settings, ["silver/departures", "hourly_delays"])


def test_tables_that_an_interrupted_run_left_empty_are_named(tmp_path: Path) -> None:
    for name, rows in (("silver/departures", ["UA1"]), ("hourly_delays", []), ("disruptions", [])):
        write_deltalake(tmp_path / name, DataFrame({"flight_id": Series(rows, dtype="string")}))
    message = f"EMPTY_TABLES: {tmp_path} has no rows in the tables hourly_delays, disruptions; .*demo` to its end"
    with pytest.raises(TidemarkError, match=message):
        require_tables(
            load(overrides=[f"paths.tables={tmp_path}"]), ["silver/departures", "hourly_delays", "disruptions"]
        )
