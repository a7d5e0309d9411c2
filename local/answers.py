"""What the demo shows: short answers read from the Delta tables and the topics, no JVM needed."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from deltalake import DeltaTable

from conf.settings import Settings
from jobs.connectors.positions import resolve

BATCH = 10_000
WIND_MPH = (0, 10, 20, 100)


def carriers(settings: Settings) -> str:
    """The carriers by mean departure delay, from the table hourly_delays."""
    hours = _read(settings, "hourly_delays")
    hours["minutes"] = hours["mean_delay_minutes"] * hours["departures"]
    sums = hours.groupby("carrier")[["departures", "delayed", "minutes"]].sum()
    sums["mean delay, min"] = (sums["minutes"] / sums["departures"]).round(1)
    sums["15 min late, %"] = (100 * sums["delayed"] / sums["departures"]).round(1)
    shown = ["departures", "15 min late, %", "mean delay, min"]
    return _table(sums.sort_values("mean delay, min", ascending=False)[shown].head(8).reset_index())


def weather(settings: Settings) -> str:
    """Mean delay by wind and rain at the airport, from the table weather_impact."""
    flights = _read(settings, "weather_impact", ["delay_minutes", "wind_speed_mph", "precipitation_inches"])
    labels = [f"{low} to {high} mph" for low, high in pairwise(WIND_MPH)]
    wind = pd.cut(flights["wind_speed_mph"], WIND_MPH, labels=labels, right=False)
    rain = flights["precipitation_inches"].astype(float).gt(0).map({True: "rain or snow", False: "dry"})
    delays = flights.groupby([wind.rename("wind"), rain.rename("mean delay, min")], observed=True)["delay_minutes"]
    return _table(delays.mean().round(1).unstack().reset_index())


def alerts(settings: Settings) -> str:
    """How many alerts are in the topic, and the worst runs of delays, from the table disruptions."""
    sessions = _read(settings, "disruptions")
    worst = sessions.sort_values(["departures", "began_at"], ascending=False).head(5)
    hours = {edge: worst[edge].dt.strftime("%Y-%m-%d %H:%M") for edge in ("began_at", "ended_at")}
    worst = worst.assign(**hours, mean_delay_minutes=worst["mean_delay_minutes"].round(1))
    count = committed_in(settings, "delay_alerts")
    return f"{count:,} alerts in the topic delay_alerts; the longest runs of delays (UTC):\n{_table(worst)}"


def accounts(settings: Settings) -> str:
    """Records in each topic against rows in bronze, silver and quarantine."""
    rejected = _rejected(settings)
    rows = []
    for topic in settings.ingest.topics:
        bronze, silver = (_rows(settings, f"{layer}/{topic}") for layer in ("bronze", "silver"))
        rows.append((topic, committed_in(settings, topic), bronze, silver, rejected[topic]))
    return _table(pd.DataFrame(rows, columns=["topic", "records in topic", "bronze", "silver", "quarantine"]))


def _rejected(settings: Settings) -> Counter[str]:
    """Rows in quarantine by topic."""
    return Counter(_read(settings, "quarantine", ["topic"])["topic"]) if _exists(settings, "quarantine") else Counter()


def committed_in(settings: Settings, topic: str) -> int:
    """Records of `topic` that a `read_committed` reader finds; counted, since transactions take offsets too."""
    own = {"group.id": "tidemark-answers", "enable.auto.commit": False, "isolation.level": "read_committed"}
    consumer = Consumer({**settings.kafka.client_config(), **own, "enable.partition.eof": True, "log_level": 0})
    left = {partition for partition, end in resolve(settings.kafka, topic, "latest")[topic].items() if end > 0}
    count = 0
    try:
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
        while left:
            for message in consumer.consume(BATCH, timeout=1):
                error = message.error()
                if error is None:
                    count += 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(int(message.partition() or 0))
        return count
    finally:
        consumer.close()


def records_in(settings: Settings, topic: str) -> int:
    """Offsets between the start and the end of `topic`, over all partitions."""
    start = resolve(settings.kafka, topic, "earliest")[topic]
    end = resolve(settings.kafka, topic, "latest")[topic]
    return sum(end[partition] - first for partition, first in start.items())


def _path(settings: Settings, table: str) -> str:
    return f"{settings.paths.tables}/{table}"


def _exists(settings: Settings, table: str) -> bool:
    return Path(_path(settings, table), "_delta_log").is_dir()


def _read(settings: Settings, table: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    return DeltaTable(_path(settings, table)).to_pandas(columns=list(columns) if columns else None)


def _rows(settings: Settings, table: str) -> int:
    return int(DeltaTable(_path(settings, table)).count()) if _exists(settings, table) else 0


def _table(frame: pd.DataFrame) -> str:
    whole = list(frame.select_dtypes("integer").columns)
    text = frame.to_string(index=False, formatters=dict.fromkeys(whole, "{:,}".format))
    return "\n".join(f"  {line}" for line in text.splitlines())
