"""The script that spark-submit is given in place of `jobs/main.py`: alerts of late departures, and `ingest` beside."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from conf.errors import exit_on_error  # noqa: E402
from jobs import main  # noqa: E402
from jobs.flights import delay_alerts  # noqa: E402
from jobs.ingest import job as ingest  # noqa: E402
from jobs.pipeline.run import Run  # noqa: E402

declare_alerts = delay_alerts.build


def build(run: Run) -> None:
    declare_alerts(run)
    run.under_name("ingest", ingest.build)


if __name__ == "__main__":
    delay_alerts.build = build
    exit_on_error(main.main)
