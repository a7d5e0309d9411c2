"""The days that are not replayed yet, every morning: an Airflow DAG with a task for each job."""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

CHECKOUT = "/srv/tidemark"
JOBS = ("flights.hourly_delays", "flights.weather_impact")

with DAG(
    dag_id="tidemark_replay",
    schedule="0 4 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,  # `catch-up` knows what was missed, from what has been replayed
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
) as dag:
    for job in JOBS:
        BashOperator(
            task_id=job.replace(".", "_"),
            cwd=CHECKOUT,
            bash_command=f'local/tidemark replay catch-up {job} --every "1 day" --env cluster',
            skip_on_exit_code=4,  # another process replays the job
        )
