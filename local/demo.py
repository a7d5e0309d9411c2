"""Runs `local/tidemark demo`, from nothing to answers: a broker, the flights of 2013, every job."""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import pandas as pd

from conf import ROOT, command_line, state_dir
from conf.settings import Settings, load
from conf.topics import load_topics
from jobs.connectors.delta.reading import StoredTable
from jobs.connectors.kafka.offsets import count_committed, resolve_offsets
from jobs.pipeline import paths
from jobs.pipeline.paths import find_stored
from local import broker, doctor, driver, regions, topics
from local.processes import run_module
from producers.cli import require_flights

WIND_MPH = (0, 10, 20, 100)
FIRST_JOB = "flights.hourly_delays"
WHOLE_DOMAIN = "flights.everything"
# Each run is over in a minute: compiling its code a second time, thoroughly, would cost more than it saves. Without the
# second compiler Java reserves 48 MB for compiled code, a fifth of what it does with it, and thirteen queries fill it.
ONE_COMPILER = ("-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=240m")
SECOND_COMPILER = "-XX:Tier4"  # what begins so speaks of it


def main(argv: Sequence[str]) -> int:
    """Run the steps; each skips what an earlier run has done. Exit code: that of the first step that failed."""
    if argv[:1] == ["regions"]:
        return regions.main(argv[1:])
    regions_help = "`local/tidemark demo regions` shows two clusters that build one state; it has its own --help."
    parser = argparse.ArgumentParser(prog="local/tidemark demo", description=__doc__, epilog=regions_help)
    parser.add_argument("--from", dest="start", default="2013-01-01", metavar="DAY", help="first day of flights")
    parser.add_argument("--to", dest="end", default="2014-01-01", metavar="DAY", help="the day after the last")
    options = command_line.parse(parser, argv)
    require_flights(options.start, options.end)
    began = time.monotonic()

    def step(title: str) -> None:
        print(f"\n[{time.monotonic() - began:3.0f} s] {title}", flush=True)

    for title, action in _steps(options):
        step(title)
        if code := action():
            return code
    step("done")
    print(_next_steps())
    return 0


def _steps(options: argparse.Namespace) -> list[tuple[str, Callable[[], int]]]:
    return [
        ("check this machine", lambda: doctor.main([])),
        ("Kafka broker", lambda: broker.main(["start"])),
        ("topics, as conf/topics.toml declares them", lambda: topics.main(["apply"])),
        ("publish the flights out of New York", lambda: _publish(options)),
        (f"./spark-submit.sh {FIRST_JOB} --until-caught-up", lambda: _submit(FIRST_JOB)),
        ("which carriers leave late?", lambda: _show(carriers(load()))),
        (f"./spark-submit.sh {WHOLE_DOMAIN} --until-caught-up", lambda: _submit(WHOLE_DOMAIN)),
        ("does the weather explain it?", lambda: _show(weather(load()))),
        ("who should have been alerted?", lambda: _show(alerts(load()))),
        ("is every record accounted for?", lambda: _show(accounts(load()))),
        ("make the next starts faster", lambda: _show(driver.make_archive())),
    ]


def _publish(options: argparse.Namespace) -> int:
    if present := records_in(load(), "departures"):
        print(f"there already: {present:,} departures (`local/tidemark clean` starts over)")
        return 0
    return run_module("producers.cli", "flights", "--from", options.start, "--to", options.end)


def _submit(job: str) -> int:
    options = [word for word in load().spark.driver_java_options.split() if not word.startswith(SECOND_COMPILER)]
    java = " ".join([*options, *ONE_COMPILER])
    return run_module("local.submit", job, "--until-caught-up", "--set", f"spark.driver_java_options={java}")


def _show(text: str) -> int:
    print(text)
    return 0


def _next_steps() -> str:
    return "\n".join(
        [
            f"tables: {load().paths.tables}",
            f"logs:   {state_dir() / 'logs'}",
            f"topics: {', '.join(load_topics())}",
            "go on:  ./spark-submit.sh                    the jobs and their questions",
            "        local/tidemark publish file --help   bring data of your own",
            "        local/tidemark notebook              look at the tables and a live topic",
            "        local/tidemark broker stop           end the broker;  local/tidemark clean  remove everything",
            f"        {ROOT.name}/README.md                where things are",
        ]
    )


def carriers(settings: Settings) -> str:
    """Return the carriers by mean departure delay, from the table hourly_delays."""
    hours = _read(settings, "hourly_delays")
    hours["minutes"] = hours["mean_delay_minutes"] * hours["departures"]
    sums = hours.groupby("carrier")[["departures", "delayed", "minutes"]].sum()
    sums["mean delay, min"] = (sums["minutes"] / sums["departures"]).round(1)
    sums["15 min late, %"] = (100 * sums["delayed"] / sums["departures"]).round(1)
    shown = ["departures", "15 min late, %", "mean delay, min"]
    return _table(sums.sort_values("mean delay, min", ascending=False)[shown].head(8).reset_index())


def weather(settings: Settings) -> str:
    """Return the mean delay by wind and rain at the airport, from the table weather_impact."""
    flights = _read(settings, "weather_impact", ["delay_minutes", "wind_speed_mph", "precipitation_inches"])
    labels = [f"{low} to {high} mph" for low, high in pairwise(WIND_MPH)]
    wind = pd.cut(flights["wind_speed_mph"], WIND_MPH, labels=labels, right=False)
    rain = flights["precipitation_inches"].astype(float).gt(0).map({True: "rain or snow", False: "dry"})
    delays = flights.groupby([wind.rename("wind"), rain.rename("mean delay, min")], observed=True)["delay_minutes"]
    return _table(delays.mean().round(1).unstack().reset_index())


def alerts(settings: Settings) -> str:
    """Return how many alerts are in the topic, and the worst runs of delays, from the table disruptions."""
    sessions = _read(settings, "disruptions")
    worst = sessions.sort_values(["departures", "began_at"], ascending=False).head(5)
    hours = {edge: worst[edge].dt.strftime("%Y-%m-%d %H:%M") for edge in ("began_at", "ended_at")}
    worst = worst.assign(**hours, mean_delay_minutes=worst["mean_delay_minutes"].round(1))
    count = count_committed(settings.kafka, "delay_alerts")
    return f"{count:,} alerts in the topic delay_alerts; the longest runs of delays (UTC):\n{_table(worst)}"


def accounts(settings: Settings) -> str:
    """Return the records in each topic against rows in bronze, silver and quarantine."""
    has_rejects = find_stored(settings, paths.QUARANTINE) is not None
    rejected = Counter(_read(settings, paths.QUARANTINE, ["topic"])["topic"] if has_rejects else ())
    rows = []
    for topic in settings.ingest.topics:
        tables = (find_stored(settings, name(topic)) for name in (paths.bronze, paths.silver))
        bronze, silver = (0 if table is None else table.count() for table in tables)
        rows.append((topic, count_committed(settings.kafka, topic), bronze, silver, rejected[topic]))
    return _table(pd.DataFrame(rows, columns=["topic", "records in topic", "bronze", "silver", "quarantine"]))


def records_in(settings: Settings, topic: str) -> int:
    """Count offsets between the start and the end of `topic`, over all partitions."""
    start = resolve_offsets(settings.kafka, topic, "earliest")[topic]
    end = resolve_offsets(settings.kafka, topic, "latest")[topic]
    return sum(end[partition] - first for partition, first in start.items())


def _read(settings: Settings, table: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    frame: pd.DataFrame = StoredTable(paths.table(settings.paths.tables, table)).rows(columns or None).to_pandas()
    return frame


def _table(frame: pd.DataFrame) -> str:
    whole = list(frame.select_dtypes("integer").columns)
    text = frame.to_string(index=False, formatters=dict.fromkeys(whole, "{:,}".format))
    return "\n".join(f"  {line}" for line in text.splitlines())
