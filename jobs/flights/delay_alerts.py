"""Which departures are so late that somebody should know now?

topic departures -> decode -> delay_alerts -> encode -> topic delay_alerts
    ./spark-submit.sh flights.delay_alerts

Append mode, stateless: an alert leaves with the micro-batch that brings its departure. No watermark, so nothing is too
late, and a departure that is reported again is alerted again, under the same key. Each alert is in the topic once, for
readers with isolation.level=read_committed.
"""

from collections.abc import Callable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.connectors.avro.encode import encode
from jobs.pipeline.run import Run
from schemas.registry import RegisteredSchema

LATE_MINUTES = 60
# Three hours for a domestic flight, six for an international one: from there the U.S. Department of Transportation
# calls a change significant, and passengers may have their money back.
VERY_LATE_MINUTES = 180
EXTREME_MINUTES = 360
CONTENT_TYPE = "application/vnd.confluent.avro"


def delay_alerts(departures: DataFrame) -> DataFrame:
    """One row per departure an hour late or more.

    Args:
        departures: `flight_id`, `carrier`, `origin`, `destination` string, `departed_at` timestamp, `delay_minutes`
            int.

    Returns:
        the fields of the contract delay_alert: those columns, and `severity`: late, very_late (from three hours on) or
        extreme (from six).
    """
    severity = (
        F.when(F.col("delay_minutes") >= EXTREME_MINUTES, "extreme")
        .when(F.col("delay_minutes") >= VERY_LATE_MINUTES, "very_late")
        .otherwise("late")
    )
    alerted = departures.where(F.col("delay_minutes") >= LATE_MINUTES)
    flight = ("flight_id", "carrier", "origin", "destination", "departed_at", "delay_minutes")
    return alerted.select(*flight, severity.alias("severity"))


def as_records(schema: RegisteredSchema) -> Callable[[DataFrame], DataFrame]:
    """Makes Kafka records of alerts: `key` string (the flight_id), `value` binary (framed Avro), `headers`, and the
    flight's departure as `timestamp`.
    """

    def records(alerts: DataFrame) -> DataFrame:
        value = encode(F.struct(*alerts.columns), schema)
        headers = F.array(_header("severity", F.col("severity")), _header("content-type", F.lit(CONTENT_TYPE)))
        record = F.col("flight_id").alias("key"), value.alias("value"), headers.alias("headers")
        return alerts.select(*record, F.col("departed_at").alias("timestamp"))

    return records


def _header(name: str, text: Column) -> Column:
    return F.struct(F.lit(name).alias("key"), F.encode(text, "UTF-8").alias("value"))


def build(run: Run) -> None:
    alerts = delay_alerts(run.read("departures"))
    run.publish(alerts.transform(as_records(run.latest_schema("delay_alerts"))), topic="delay_alerts")
