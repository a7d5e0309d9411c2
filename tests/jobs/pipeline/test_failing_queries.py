"""Real queries that fail beside others: who goes on, who starts again, and what is in the tables then."""

from itertools import count
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from conf.errors import TidemarkError
from jobs.pipeline.monitoring.monitor import Monitor
from jobs.pipeline.outputs import Batch
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import Failures, make_restart, supervise
from local.processes import HOST
from tests.jobs.pipeline.monitoring.serving import free_port
from tests.jobs.scratch import Scratch


def fetch(port: int, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://{HOST}:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except HTTPError as exc:
        return exc.code, exc.read().decode()


@pytest.mark.slow
def test_one_is_restarted_one_isolated_and_the_third_goes_on_each_row_once(
    scratch: Scratch, capfd: pytest.CaptureFixture[str]
) -> None:
    topic, port, attempts = scratch.topic(), free_port(), count(1)
    scratch.send(topic, *(scratch.reading(topic, str(number), number) for number in range(4)))

    def build(run: Run) -> None:
        run.append(run.read(topic), "shaky")
        to_table = run.outputs.pop()

        def write(batch: Batch) -> None:
            to_table.write(batch)
            # Once its rows are there, and before Spark knows.
            if next(attempts) in (2, 4):
                raise OSError("power cut")

        def refuse(batch: Batch) -> None:
            raise TidemarkError("TYPE_CHANGED", "level is text now", "change it back")

        run.write(run.read(topic), "shaky", write)
        run.write(run.read(topic), "broken", refuse)
        run.append(run.read(topic), "well")

    run = scratch.run(
        "source.max_offsets_per_trigger=1",
        "run.on_failure=restart",
        "run.restart_after=1 second",
        f"metrics.port={port}",
        f"paths.logs={scratch.folder}/logs",
    )
    build(run)
    failures = Failures(run.settings.run)
    with Monitor(run) as monitor:
        again = make_restart(run, build, continuous=False)
        supervise(run.spark, run.starts(continuous=False), failures.decide, again, at_once=2, on_stop=monitor.stopped)
        metrics, ready, alive = (fetch(port, path) for path in ("/metrics", "/readyz", "/healthz"))
    run.settle(failures.isolated)

    everything = [(str(number), number) for number in range(4)]
    assert scratch.rows("shaky") == scratch.rows("well") == everything
    assert next(attempts) == 7  # four batches, of which two were written twice
    assert str(failures.error()) == (
        "QUERY_FAILED: query probe.broken stopped: TYPE_CHANGED: level is text now; change it back"
    )
    for query, starts in (("shaky", 3), ("broken", 1), ("well", 1)):
        assert f'tidemark_query_starts_total{{job_name="probe",query="probe.{query}"}} {starts}.0' in metrics[1]
    assert ready == (503, "stopped: probe.broken (TYPE_CHANGED)\n")
    assert alive[0] == 200
    told = capfd.readouterr().err
    assert "query probe.shaky starts again in 1 s: OSError: power cut" in told
    assert "query probe.shaky starts again in 2 s: OSError: power cut" in told
    assert "not started again: TYPE_CHANGED does not pass by itself; the other queries go on" in told
