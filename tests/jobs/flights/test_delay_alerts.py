"""delay_alerts: which departures are alerted, and as what record."""

from datetime import UTC, datetime
from pathlib import Path

from chispa import assert_df_equality

from jobs.flights.delay_alerts import as_records, delay_alerts
from schemas.codec import Decoder
from schemas.contracts import contract
from schemas.registry import FileRegistry
from tests.jobs.feed import Feed, Row

DEPARTURES = (
    "flight_id string, carrier string, origin string, destination string, departed_at timestamp, delay_minutes int"
)
ALERTS = f"{DEPARTURES}, severity string"


def departure(flight_id: str, delay_minutes: int) -> Row:
    return (flight_id, "UA", "EWR", "IAH", "2013-01-01 10:17", delay_minutes)


def test_the_first_minute_of_each_severity(feed: Feed) -> None:
    minutes = {"a": 59, "b": 60, "c": 179, "d": 180, "e": 359, "f": 360, "g": -5}
    severities = {"b": "late", "c": "late", "d": "very_late", "e": "very_late", "f": "extreme"}
    departures = [departure(flight_id, delay) for flight_id, delay in minutes.items()]
    alerts = [(*departure(flight_id, minutes[flight_id]), severity) for flight_id, severity in severities.items()]
    actual = feed.table(delay_alerts(feed.rows(DEPARTURES, departures[:3], departures[3:])))
    assert_df_equality(actual, feed.batch(ALERTS, alerts), ignore_row_order=True, ignore_nullable=True)


def test_a_repeated_departure_is_alerted_again(feed: Feed) -> None:
    again = departure("a", 75)
    alerts = feed.table(delay_alerts(feed.rows(DEPARTURES, [again], [again])))
    assert [row.flight_id for row in alerts.collect()] == ["a", "a"]


def test_an_alert_is_keyed_by_its_flight_and_says_its_severity_in_a_header(feed: Feed, tmp_path: Path) -> None:
    registry = FileRegistry(tmp_path / "registry")
    registry.register("delay_alerts-value", contract("delay_alert"))
    alerts = delay_alerts(feed.rows(DEPARTURES, [departure("a", 200)]))
    [record] = feed.table(alerts.transform(as_records(registry.latest("delay_alerts-value")))).collect()
    assert record.key == "a"
    assert record.timestamp == datetime(2013, 1, 1, 10, 17)
    assert {header.key: bytes(header.value) for header in record.headers} == {
        "severity": b"very_late",
        "content-type": b"application/vnd.confluent.avro",
    }
    assert Decoder(registry)(bytes(record.value)) == {
        "flight_id": "a",
        "carrier": "UA",
        "origin": "EWR",
        "destination": "IAH",
        "departed_at": datetime(2013, 1, 1, 10, 17, tzinfo=UTC),
        "delay_minutes": 200,
        "severity": "very_late",
    }
