"""The views of quarantine, late rows, topics and replays over small tables, and what they say where nothing is."""

import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.operations.replay.record import Replay, ReplayPaths, Slice
from local.page.charts import bucket_seconds, counts_over_time
from local.page.replays import ReplayRow
from schemas.registry import FileRegistry
from tests.local.page.browser import Browser
from tests.producers.quarantine.ward import COMMON, SCHEMA

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PERSON = {
    "type": "record",
    "name": "Person",
    "fields": [{"name": "email", "type": "string", "pii": "hash"}, {"name": "age", "type": "int"}],
}


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path, sets=[f"registry.path={tmp_path / 'registry'}"])


def reject(browser: Browser, *rows: dict[str, Any]) -> None:
    filled = [{**COMMON, "topic": "orders", "offset": number, **row} for number, row in enumerate(rows)]
    write_deltalake(f"{browser.folder}/tables/quarantine", pa.Table.from_pylist(filled, SCHEMA), mode="append")


def charts(text: str) -> list[dict[str, Any]]:
    return [json.loads(unescape(found)) for found in re.findall(r'data-chart="([^"]+)"', text)]


def test_rejects_are_counted_by_code_and_rule_and_over_time(browser: Browser) -> None:
    later = NOW + timedelta(minutes=2)
    reject(browser, {}, {}, {"error": "RULE", "rule": "total_is_known", "quarantined_at": later})
    text = browser.text("/quarantine")
    assert "3 rejected records are open" in text
    assert "NO_BROKER" in text  # so nobody knows what was redriven
    [chart] = charts(text)
    assert dict(zip(chart["series"], chart["data"][1:], strict=True)) == {
        "BAD_FRAMING": [2, 0, 0],
        "RULE total_is_known": [0, 0, 1],
    }
    command = "local/tidemark quarantine redrive --topic orders --error RULE --rule total_is_known --dry-run"
    assert f"<code>{command}</code>" in text


def test_samples_are_escaped(browser: Browser) -> None:
    reject(browser, *({"value": b"<script>alert(1)</script>"} for _ in range(7)))
    text = browser.text("/quarantine/samples?topic=orders&error=BAD_FRAMING&rule=")
    assert text.count("for a test") == 5
    assert "&lt;script&gt;" in text
    assert "<script>alert" not in text
    assert "<code>local/tidemark quarantine redrive --topic orders --error BAD_FRAMING</code>" in text


def test_personal_data_is_hidden_in_samples(browser: Browser) -> None:
    id = FileRegistry(browser.folder / "registry").register("orders-value", json.dumps(PERSON))
    reject(browser, {"value": b"\0" + id.to_bytes(4, "big") + b"\x1eann@example.com\x54", "key": b"ann@example.com"})
    text = browser.text("/quarantine/samples?topic=orders&error=BAD_FRAMING&rule=")
    assert "(personal data)" in text
    assert "age = 42" in text
    assert "ann@" not in text


def test_personal_data_of_an_earlier_version_is_hidden_in_samples(browser: Browser) -> None:
    registry = FileRegistry(browser.folder / "registry")
    unmarked = {**PERSON, "fields": [{"name": "email", "type": "string"}, {"name": "age", "type": "int"}]}
    id = registry.register("orders-value", json.dumps(unmarked))
    registry.register("orders-value", json.dumps(PERSON))
    reject(browser, {"value": b"\0" + id.to_bytes(4, "big") + b"\x1eann@example.com\x54"})
    text = browser.text("/quarantine/samples?topic=orders&error=BAD_FRAMING&rule=")
    assert "age = 42" in text
    assert "ann@" not in text


@pytest.mark.parametrize(("view", "table"), [("/quarantine", "quarantine"), ("/late", "late")])
def test_a_damaged_table_is_named_with_its_code(view: str, table: str, browser: Browser) -> None:
    reject(browser, {})
    quarantine = browser.folder / "tables" / "quarantine"
    quarantine.rename(quarantine.with_name(table))
    (browser.folder / "tables" / table / "_delta_log" / f"{0:020}.json").write_text("{")
    assert "TABLE_LOG_DAMAGED" in browser.text(view)


def test_a_number_that_no_batch_has_is_an_unknown_batch(browser: Browser) -> None:
    assert "UNKNOWN_BATCH" in browser.text("/history/q/99999999999999999999")


def test_where_ingest_has_not_run_that_is_said(browser: Browser) -> None:
    text = browser.text("/quarantine")
    assert "none that `ingest` has filled" in text
    assert "./spark-submit.sh ingest" in text


def test_where_nothing_was_rejected_that_is_said(browser: Browser) -> None:
    write_deltalake(f"{browser.folder}/tables/bronze/orders", pa.table({"offset": [0]}))
    assert "Nothing was rejected" in browser.text("/quarantine")


def test_late_rows_by_query_and_the_newest(browser: Browser) -> None:
    assert "No row came too late" in browser.text("/late")
    other = Browser(browser.folder)
    row = {"job": "j", "query": "j.q", "query_id": "i", "batch": 3, "operator": "Aggregate", "watermark": NOW}
    row |= {"event_time": NOW - timedelta(days=1), "topic": "orders", "partition": 0, "dropped": 1, "note": None}
    rows = [row | {"offset": n, "row": f'{{"n":{n}}}', "listed_at": NOW + timedelta(minutes=n)} for n in range(40)]
    write_deltalake(f"{browser.folder}/tables/late", pa.Table.from_pylist(rows))
    text = unescape(other.text("/late"))
    assert "40 rows came after the watermark" in text
    assert '{"n":39}' in text
    assert '{"n":9}' not in text  # thirty are shown
    assert "orders/0/39" in text


def test_topics_are_declared_whether_or_not_a_broker_answers(browser: Browser) -> None:
    text = browser.text("/topics")
    assert '<th scope="row">departures</th>' in text
    assert "NO_BROKER" in text
    assert "none registered" in text


def test_schema_versions_stand_beside_their_topic(browser: Browser) -> None:
    FileRegistry(browser.folder / "registry").register("departures-value", json.dumps(PERSON))
    assert "departures-value 1 (id 1)" in browser.text("/topics")


def replay(**changes: Any) -> Replay:
    asked = {"from": "2013-01-01", "to": "2013-01-02"}
    known: dict[str, Any] = {"id": "r1", "job": "j", "kind": "range", "request": asked, "starts": {}, "parts": ()}
    known |= {"slices": (Slice({"t": {0: 9}}),), "code": "c", "planned_at": NOW, "records": 9}
    return Replay(**(known | changes))


TABLE = {"rows": 5, "unlike_check": 0, "unlike_live": 2, "unexplained": 0, "version": 3}


@pytest.mark.parametrize(
    ("tables", "verdict"),
    [
        ({}, "not compared yet"),
        ({"t": TABLE}, "as recomputed; every difference from the live tables is explained"),
        ({"t": TABLE | {"unexplained": 2}}, "as recomputed; 2 rows differ from the live tables for no known reason"),
        ({"t": TABLE | {"unexplained": 2, "version": None}}, "as recomputed; every difference"),
        ({"t": TABLE | {"unlike_check": 1}}, "unlike its recomputation"),
    ],
)
def test_the_verdict_of_a_replay(tables: dict[str, dict[str, Any]], verdict: str) -> None:
    assert ReplayRow(replay(), tables).verdict.startswith(verdict)


@pytest.mark.parametrize(
    ("state", "kind", "step"),
    [
        ("planned", "range", "run"),
        ("verified", "range", "cutover"),
        ("done", "range", "undo"),
        ("done", "backfill", ""),
    ],
)
def test_the_next_step_of_a_replay(state: str, kind: str, step: str) -> None:
    expected = f"local/tidemark replay {step} r1" if step else ""
    assert ReplayRow(replay(state=state, kind=kind), {}).next == expected


def test_replays_are_listed_with_what_comparing_gave(browser: Browser) -> None:
    assert "No replay was planned" in browser.text("/replays")
    kept = replay(state="verified", findings={"tables": {"hours": TABLE}})
    path = Path(ReplayPaths.of(browser.settings(), "r1").record)
    path.parent.mkdir(parents=True)
    path.write_text(kept.to_json())
    text = Browser(browser.folder).text("/replays")
    assert "2013-01-01 to 2013-01-02" in text
    assert '<th scope="row">hours</th><td class="n">5</td>' in text
    path.write_text("{}")
    assert "BAD_REPLAY" in Browser(browser.folder).text("/replays")


@pytest.mark.parametrize(("span", "width"), [(0, 60), (7200, 60), (7201, 3600), (3 * 86_400, 3600), (10**7, 86_400)])
def test_a_bar_is_a_minute_an_hour_or_a_day(span: float, width: int) -> None:
    assert bucket_seconds(span) == width


def test_only_the_most_frequent_names_have_a_series() -> None:
    chart = counts_over_time("t", {(f"n{number}", NOW): number for number in range(1, 12)})
    assert chart.series == tuple(f"n{number}" for number in range(11, 3, -1))
    assert counts_over_time("t", {}).data == ((),)
