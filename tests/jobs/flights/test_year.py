"""Six weeks, or the year, through a real broker and every job on flights, against duckdb's reading of the CSV files.

The topics hold one record in a hundred twice, and the jobs read them in several micro-batches.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from confluent_kafka import Consumer, TopicPartition
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql.streaming.listener import StreamingQueryProgress

from conf.settings import Settings, load
from conf.topics import load_topics
from jobs.connectors.kafka.access import connect
from jobs.flights import everything, overdue
from jobs.pipeline.run import Run
from jobs.pipeline.supervision import await_all
from local.broker import Cluster
from local.topics import bring_in_step
from producers import cli
from schemas.codec import Decoder
from schemas.open_registry import open_registry
from tests.flight_files import flight_files
from tests.kinds import of_a_kind

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("generated_code")]
Files = duckdb.DuckDBPyConnection
TABLES = (
    "unique_departures",
    "hourly_delays",
    "rolling_delays",
    "weather_impact",
    "disruptions",
    "busiest_routes",
    "overdue",
)


@dataclass(frozen=True)
class Days:
    """From the first of January up to, without, `end`; so many records a micro-batch that there are several."""

    end: date
    batch: int


# The weeks have each thing that is odd in the year: a wind that cannot be, a tail number that is not American. At
# the end of either no delayed run is open, and no flight waited for that comes too late.
WEEKS, YEAR = Days(date(2013, 2, 17), 25_000), Days(date(2014, 1, 1), 100_000)


@pytest.fixture(scope="module", params=of_a_kind([WEEKS, YEAR], proven_by=[WEEKS]), ids=["six weeks", "the year"])
def days(request: pytest.FixtureRequest) -> Days:
    chosen: Days = request.param
    return chosen


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, days: Days) -> Iterator[Settings]:
    """A broker of this module's own that holds these days, and empty folders for tables and checkpoints."""
    folder = tmp_path_factory.mktemp("year")
    with Cluster(folder / "broker", folder / "logs", attached=True) as broker:
        places = [f"paths.{name}={folder / name}" for name in ("tables", "checkpoints")]
        batches = [f"jobs.{job}.max_offsets_per_trigger={days.batch}" for job in everything.JOBS if job != "ingest"]
        servers = f"kafka.bootstrap_servers={broker.bootstrap_servers}"
        year = load("local", [servers, *places, *batches])
        bring_in_step(connect(year.kafka), list(load_topics().values()), 1)
        publication = ["flights", "--to", str(days.end), "--duplicates", "0.01", "--seed", "1", "--set", servers]
        assert cli.main(publication) == 0
        yield year


@pytest.fixture(scope="module")
def progress(spark: SparkSession, settings: Settings) -> dict[str, list[StreamingQueryProgress]]:
    """Every job's micro-batches by query, after all of them have caught up in one application."""
    return caught_up(spark, settings)


def caught_up(spark: SparkSession, settings: Settings) -> dict[str, list[StreamingQueryProgress]]:
    run = Run(spark, settings, "flights.everything")
    everything.build(run)
    queries = run.start(continuous=False)
    await_all(spark, queries)
    return {query.name: list(query.recentProgress) for query in queries}


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory,
    settings: Settings,
    days: Days,
    progress: dict[str, list[StreamingQueryProgress]],
) -> Iterator[Files]:
    """duckdb over the CSV files (see year.sql), and over the jobs' tables under their names in the schema `jobs`."""
    with flight_files(tmp_path_factory.mktemp("flights"), "weather", "airlines") as connection:
        for table in ("flights", "weather"):
            connection.execute(f"delete from {table} where make_date(year, month, day) >= date '{days.end}'")
        connection.execute((Path(__file__).parent / "year.sql").read_text())
        connection.execute("create schema jobs")
        for job in TABLES:
            add_table(connection, f"{settings.paths.tables}/{job}", job)
        add_table(connection, f"{settings.paths.tables}/silver/departures", "read_departures")
        yield connection


def add_table(files: Files, path: str, name: str) -> None:
    files.register("incoming", DeltaTable(path).to_pyarrow_table())
    files.execute(f"create or replace table jobs.{name} as from incoming")
    files.unregister("incoming")


def differences(files: Files, expected: str, job: str, *keys: str) -> list[Any]:
    """Rows that are on one side only, or differ in a column; doubles may differ by a billionth."""
    files.execute(f"create or replace temp table expected as {expected}")
    kinds = {name: kind for name, kind, *_ in files.execute("describe expected").fetchall()}
    assert sorted(kinds) == sorted(name for name, *_ in files.execute(f"describe jobs.{job}").fetchall())
    differing = " or ".join(_differ(name, kind) for name, kind in kinds.items())
    same_key = " and ".join(f"e.{key} = j.{key}" for key in keys)
    found = files.execute(f"select * from expected e full join jobs.{job} j on {same_key} where {differing} limit 20")
    rows = found.fetchall()
    # Equal in number as well, or a key that is there twice would pass.
    assert rows or one(files, "select count(*) from expected") == one(files, f"select count(*) from jobs.{job}")
    return rows


def _differ(name: str, kind: str) -> str:
    if kind == "DOUBLE":
        return f"not coalesce(abs(e.{name} - j.{name}) <= 1e-9, e.{name} is null and j.{name} is null)"
    return f"e.{name} is distinct from j.{name}"


def one(files: Files, query: str) -> Any:
    [row] = files.execute(query).fetchall()
    return row[0] if len(row) == 1 else row


MEASURES = """
    count(*) as departures, count(*) filter (delay_minutes >= 15) as delayed,
    avg(delay_minutes) as mean_delay_minutes, max(delay_minutes) as max_delay_minutes"""


def test_no_record_came_too_late_in_any_job(progress: dict[str, list[StreamingQueryProgress]]) -> None:
    late = {
        name: sum(operator.numRowsDroppedByWatermark for batch in batches for operator in batch.stateOperators)
        for name, batches in progress.items()
    }
    assert {"flights.hourly_delays", "flights.overdue", "flights.weather_impact"} <= late.keys()
    assert set(late.values()) == {0}
    assert min(len(progress[job]) for job in everything.JOBS if job in progress and progress[job][0].stateOperators) > 2


def test_hourly_delays(files: Files) -> None:
    expected = (
        f"select date_trunc('hour', departed_at) as hour, origin, carrier, {MEASURES} from departures group by all"
    )
    assert differences(files, expected, "hourly_delays", "hour", "origin", "carrier") == []


def test_rolling_delays(files: Files) -> None:
    expected = f"""
        select time_bucket(interval 30 minutes, departed_at) - to_minutes(30 * slide) as window_start,
            window_start + interval 3 hours as window_end, origin, {MEASURES}
        from departures, range(6) as slides(slide) group by all"""
    assert differences(files, expected, "rolling_delays", "window_start", "origin") == []


def test_unique_departures(files: Files) -> None:
    assert one(files, "select count(*) from jobs.read_departures") > one(files, "select count(*) from departures")
    expected = "select * exclude (arr_delay, arr_time, tzone) from departures"
    assert differences(files, expected, "unique_departures", "flight_id") == []


def test_weather_impact(files: Files) -> None:
    expected = """
        select flight_id, carrier, name as airline, d.origin, destination, departed_at, delay_minutes,
            time_hour as observed_at, temp::decimal(5, 2) as temperature_f, dewp::decimal(5, 2) as dew_point_f,
            humid::decimal(5, 2) as humidity_percent, wind_dir as wind_direction_degrees, wind_speed as wind_speed_mph,
            wind_gust as wind_gust_mph, precip::decimal(6, 2) as precipitation_inches,
            pressure::decimal(6, 1) as pressure_millibars, visib::decimal(5, 2) as visibility_miles
        from departures d left join airlines using (carrier) join weather w on w.origin = d.origin
            and time_hour <= departed_at and time_hour > departed_at - interval 1 hour"""
    assert differences(files, expected, "weather_impact", "flight_id") == []


def test_disruptions_none_of_which_is_still_open(files: Files) -> None:
    watermark = "(select max(departed_at) - interval 1 hour from departures)"
    still_open = f"select count(*) from sessions where ended_at + interval 30 minutes > {watermark}"
    assert one(files, still_open) == 0
    assert differences(files, "from sessions", "disruptions", "airport", "began_at") == []


def test_busiest_routes_of_all_days_but_those_still_open(files: Files, days: Days) -> None:
    watermark = "(select max(departed_at) - interval 3 hours from departures)"
    is_closed = f"(day + 1)::timestamp at time zone 'America/New_York' <= {watermark}"
    still_open = files.execute(f"select distinct day from ranked where not {is_closed} order by day").fetchall()
    assert still_open[-1] == (days.end,)
    assert still_open[0] >= (days.end - timedelta(days=1),)
    assert differences(files, f"select * from ranked where {is_closed}", "busiest_routes", "day", "rank") == []


def test_overdue_none_of_which_is_still_waited_for(files: Files) -> None:
    watermark = "(select max(departed_at) - interval 30 minutes from departures)"
    still_open = f"""
        select flight_id from late_or_missing left join arrivals using (flight_id)
        where arrived_at is null and overdue_at > {watermark}"""
    assert files.execute(still_open).fetchall() == []
    assert differences(files, "from late_or_missing", "overdue", "flight_id") == []


def test_overdue_does_not_depend_on_the_micro_batches(
    spark: SparkSession, settings: Settings, files: Files, tmp_path: Path
) -> None:
    places = [f"paths.{name}={tmp_path / name}" for name in ("tables", "checkpoints")]
    servers = f"kafka.bootstrap_servers={settings.kafka.bootstrap_servers}"
    in_one = load("local", [servers, *places, "jobs.flights.overdue.max_offsets_per_trigger=1000000"])
    run = Run(spark, in_one, "flights.overdue")
    overdue.build(run)
    await_all(spark, run.start(continuous=False))
    add_table(files, f"{in_one.paths.tables}/overdue", "overdue")
    assert differences(files, "from late_or_missing", "overdue", "flight_id") == []


def test_delay_alerts(settings: Settings, files: Files) -> None:
    decode = Decoder(open_registry(settings.registry))
    records = consumed(settings, "delay_alerts")
    alerts = {decode(message.value())["flight_id"]: decode(message.value()) for message in records}
    assert [message.key().decode() for message in records] == [
        decode(message.value())["flight_id"] for message in records
    ]
    departed = [decode(message.value())["departed_at"].timestamp() * 1000 for message in records]
    assert [message.timestamp()[1] for message in records] == departed
    severities = Counter(dict(message.headers())["severity"].decode() for message in records)
    assert severities == Counter(decode(message.value())["severity"] for message in records)
    expected = """
        select flight_id, carrier, origin, destination, departed_at, delay_minutes,
            case when delay_minutes >= 360 then 'extreme' when delay_minutes >= 180 then 'very_late' else 'late' end
        from departures where delay_minutes >= 60"""
    assert sorted(tuple(alert.values()) for alert in alerts.values()) == sorted(files.execute(expected).fetchall())
    repeated = "select count(*) from jobs.read_departures where delay_minutes >= 60"
    assert len(records) == one(files, repeated) > len(alerts)


def consumed(settings: Settings, topic: str) -> list[Any]:
    """Every committed record of a topic; its last offsets may be those of transaction markers."""
    own = {"group.id": "test", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer({**settings.kafka.client_config(), **own})
    left = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, number, 0) for number in left])
    records: list[Any] = []
    while left:
        messages = consumer.consume(10_000, timeout=30)
        assert messages
        records += [message for message in messages if message.error() is None]
        left -= {message.partition() for message in messages if message.error() is not None}
    consumer.close()
    return records


def test_every_record_passes_the_rules_and_what_is_odd_in_it_is_counted(settings: Settings, files: Files) -> None:
    assert not Path(settings.paths.tables, "quarantine").exists()
    for topic in ("arrivals", "weather"):
        add_table(files, f"{settings.paths.tables}/silver/{topic}", f"read_{topic}")
    add_table(files, f"{settings.paths.tables}/rule_counts", "rule_counts")
    counted = files.execute("select topic, rule, sum(failed)::int from jobs.rule_counts group by all order by all")
    american = "regexp_full_match(tail_number, 'N[0-9A-Z]{1,5}')"
    repeated = "select count(*) - count(distinct (station, observed_at)) from jobs.read_weather"
    expected = {
        ("arrivals", "delay_is_known"): "select count(*) from jobs.read_arrivals where delay_minutes is null",
        ("departures", "tail_number_is_american"): f"select count(*) from jobs.read_departures where not {american}",
        ("weather", "one_observation_an_hour"): repeated,
        ("weather", "wind_is_plausible"): "select count(*) from jobs.read_weather where wind_speed_mph > 254",
    }
    assert counted.fetchall() == [(*rule, one(files, query)) for rule, query in expected.items()]
    assert one(files, "select count(*) from jobs.rule_counts where failed = 0 or failed > records") == 0
