"""What do all jobs on flights say, kept up to date by one application?

topics departures, arrivals, cancellations, weather, planes -> ingest, every job of this folder -> their tables, topics
    ./spark-submit.sh flights.everything --until-caught-up

Every query keeps the name, checkpoint and settings of its own job, so that it can be stopped here and started alone, or
the other way round, without reading anything twice.
"""

from jobs.flights import (
    busiest_routes,
    delay_alerts,
    disruptions,
    hourly_delays,
    overdue,
    rolling_delays,
    unique_departures,
    weather_impact,
)
from jobs.ingest import job as ingest_job
from jobs.pipeline.run import Run

JOBS = {
    "ingest": ingest_job.build,
    "flights.unique_departures": unique_departures.build,
    "flights.hourly_delays": hourly_delays.build,
    "flights.rolling_delays": rolling_delays.build,
    "flights.weather_impact": weather_impact.build,
    "flights.disruptions": disruptions.build,
    "flights.busiest_routes": busiest_routes.build,
    "flights.overdue": overdue.build,
    "flights.delay_alerts": delay_alerts.build,
}


def build(run: Run) -> None:
    for job, declare in JOBS.items():
        run.under_name(job, declare)
