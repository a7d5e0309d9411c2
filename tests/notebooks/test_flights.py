"""flights.ipynb, from top to bottom, over the first half of January."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError
from pyspark.sql import SparkSession

from conf import ROOT
from conf.settings import load
from jobs.flights.everything import JOBS
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from local import topics
from local.broker import Cluster
from producers import cli
from tests.jvm import OPTIONS
from tests.leaks.search import LOOPBACK
from tests.notebooks.execution import NOTEBOOKS, Execution, code_cells, pictures, read

FLIGHTS = NOTEBOOKS / "flights.ipynb"
NEEDED = (
    "ingest",
    "flights.unique_departures",
    "flights.hourly_delays",
    "flights.weather_impact",
    "flights.disruptions",
)

pytestmark = [pytest.mark.notebook, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Iterator[dict[str, str]]:
    """Variables that lead to a broker with two weeks of flights, and to the tables that the jobs made of them."""
    folder = tmp_path_factory.mktemp("flights")
    with Cluster(folder / "broker", folder / "logs", attached=True) as cluster:
        found = {"kafka.bootstrap_servers": cluster.bootstrap_servers, "ingest.topics": "departures"}
        found |= {f"paths.{name}": str(folder / name) for name in ("tables", "checkpoints", "logs")}
        found["spark.driver_java_options"] = OPTIONS
        options = [text for key, value in found.items() for text in ("--set", f"{key}={value}")]
        assert topics.main(["apply", *options]) == 0
        assert cli.main(["flights", "--from", "2013-01-01", "--to", "2013-01-16", *options]) == 0
        run = Run(spark, load(overrides=[f"{key}={value}" for key, value in found.items()]), "notebook")
        for job in NEEDED:
            run.under_name(job, JOBS[job])
        await_all(spark, run.start(continuous=False))
        yield {f"TIDEMARK_{key.upper().replace('.', '__')}": value for key, value in found.items()}


def test_it_runs_from_top_to_bottom(kernel: AsyncKernelManager, environment: dict[str, str]) -> None:
    notebook = read(FLIGHTS)
    execution = Execution(notebook, kernel, start_in=NOTEBOOKS)
    execution.execute(env=os.environ | environment)
    assert len(execution.addresses) > 5  # the kernel's own, and those of its JVM
    assert {address for address, _ in execution.addresses} <= LOOPBACK
    cells = {cell.id: cell for cell in code_cells(notebook)}
    assert [cell.execution_count for cell in cells.values()] == list(range(1, len(cells) + 1))
    assert {name: len(pictures(cell)) for name, cell in cells.items() if "with sheet(" in cell.source} == {
        "hour": 1,
        "carrier": 1,
        "weather": 1,
        "runs": 1,
        "live": 1,
    }
    assert ", 0 of those here are not in the table" in cells["same"].outputs[0].text
    assert len(set(execution.replacements)) > 3
    assert pictures(cells["live"]) == execution.replacements[-1:]
    assert "stopped: True" in cells["live"].outputs[-1].text


@pytest.mark.exhaustive
def test_without_tables_the_first_cell_says_what_to_do(kernel: AsyncKernelManager, tmp_path: Path) -> None:
    notebook = read(FLIGHTS)
    first = code_cells(notebook)[0]
    notebook.cells = [first]
    with pytest.raises(CellExecutionError):
        Execution(notebook, kernel, start_in=ROOT).execute(env=os.environ | {"TIDEMARK_PATHS__TABLES": str(tmp_path)})
    [shown] = first.outputs
    [line] = shown.traceback
    assert line.startswith(f"error: NO_TABLES: {tmp_path} lacks the tables silver/departures, unique_departures, ")
    assert line.endswith("; run `local/tidemark demo` first")
