"""The views of quarantine and late rows over small tables, and what they say where nothing is."""

import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

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
