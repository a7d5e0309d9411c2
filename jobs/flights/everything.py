"""What do all jobs on flights say, kept up to date by one application?

topics departures, arrivals, cancellations, weather, planes -> ingest, every job of this folder -> their tables, topics
    ./spark-submit.sh flights.everything --until-caught-up

Every query keeps the name, checkpoint and settings of its own job, so that it can be stopped here and started alone, or
the other way round, without reading anything twice.
"""

from collections.abc import Callable
from importlib import import_module

from jobs.ingest import job as ingest_job
from jobs.pipeline.run import Run

ORDER = """
    unique_departures hourly_delays rolling_delays weather_impact disruptions busiest_routes overdue delay_alerts
"""
JOBS: dict[str, Callable[[Run], None]] = {
    "ingest": ingest_job.build,
    **{f"flights.{name}": import_module(f"jobs.flights.{name}").build for name in ORDER.split()},
}


def build(run: Run) -> None:
    for job, declare in JOBS.items():
        run.under_name(job, declare)
