"""The views of queries and history over journals: states, charts, failed micro-batches with their cause."""

import json
import re
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from jobs.connectors.exactly_once.authors import this_process
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.journal import ENDED, Journal
from local.page.queries import charts, rate
from tests.local.page.browser import Browser

NOW = datetime.now(UTC)
DONE = {
    **{"job": "flights.hours", "query": "flights.hours", "run_id": "r", "outcome": "done", "host": "gone", "pid": 1},
    **{"rows_in": 100, "rejected": 1, "late": 0, "lag": 7, "phases": {"triggerExecution": 500, "addBatch": 400}},
    "offsets": [{"topic": "departures", "partition": 0, "start": 0, "end": 100}],
}


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path)


def note(browser: Browser, *rows: Mapping[str, Any]) -> None:
    with closing(Journal(micro_batch_table.journal_folder(browser.settings()), "j")) as writer:
        for number, row in enumerate(rows):
            began = NOW - timedelta(minutes=10 - number)
            writer.append(ENDED, {**DONE, "batch": number, "began_at": began, "ended_at": began, **row})


def states(browser: Browser) -> dict[str, str]:
    text = browser.text("/queries")
    return dict(re.findall(r'href="/queries/([^"]+)".*?<td[^>]*><span[^>]*>(\w+)</span>', text, re.DOTALL))


def test_the_state_of_each_query(browser: Browser) -> None:
    here = micro_batch_table.process_columns(this_process())
    note(
        browser,
        here | {"query": "runs", "began_at": NOW},
        here | {"query": "ended", "pid": 2**22 + 1},
        here | {"query": "far", "boot": "another"},
        {"query": "older"},  # of a version that did not say more of its process than host and number
        {"query": "lost", "outcome": "killed", "error": "the process was gone"},
        {"query": "broken"},
        {"query": "broken", "outcome": "failed", "error": "DISK_FULL: <no> room", "phases": None, "rows_in": None},
    )
    # Another process with the same number.
    note(browser, here | {"query": "later", "pid_started": "1", "began_at": NOW - timedelta(days=6)})
    assert states(browser) == {
        **{"broken": "failed", "lost": "killed", "runs": "running", "ended": "ended", "later": "ended"},
        **{"far": "elsewhere", "older": "elsewhere"},
    }
    text = browser.text("/queries")
    assert "broken, lost ended badly" in text
    assert "DISK_FULL: &lt;no&gt; room" in text
    assert "NO_BROKER" in text


def test_a_rate_needs_the_seconds() -> None:
    assert rate(DONE) == 200.0
    assert rate({"rows_in": 5, "phases": None}) is None
    assert rate({"rows_in": 5, "phases": {"triggerExecution": 0}}) is None


def test_charts_of_a_query(browser: Browser) -> None:
    note(browser, {}, {"rows_in": 50, "state_rows": 9, "watermark": NOW, "max_event_time": NOW + timedelta(hours=3)})
    drawn = [
        json.loads(unescape(found))
        for found in re.findall(r'data-chart="([^"]+)"', browser.text("/queries/flights.hours"))
    ]
    by_series = {tuple(chart["series"]): chart["data"][1:] for chart in drawn}
    assert by_series["records",] == [[100, 50]]
    assert by_series["records a second",] == [[200.0, 100.0]]
    assert by_series["addBatch",] == [[0.4, 0.4]]
    assert by_series["hours",] == [[None, 3.0]]
    assert ("megabytes",) not in by_series  # it has none


def test_there_are_nine_charts_of_a_query_with_state() -> None:
    row = DONE | {"began_at": NOW, "state_rows": 1, "state_bytes": 1, "watermark": NOW, "max_event_time": NOW}
    row |= {"write_phases": {}}
    assert len([chart for chart in charts([row]) if chart.has_values]) == 9


def test_a_query_that_nobody_knows_is_said(browser: Browser) -> None:
    assert "UNKNOWN_QUERY" in browser.text("/queries/nonsense")


def test_where_no_job_has_run_that_is_said(browser: Browser) -> None:
    assert "No micro-batch is known" in browser.text("/queries")
    assert "No micro-batch is known there" in browser.text("/history")


def test_history_shows_the_newest_first_and_why_one_failed(browser: Browser) -> None:
    note(browser, {}, {"outcome": "failed", "error": "DISK_FULL: no room"}, {"query": "other", "job": "other"})
    assert re.findall(r'href="/history/([\w./]+)"', browser.text("/history")) == [
        *("other/2", "flights.hours/1", "flights.hours/0")
    ]
    text = browser.text("/history?failed=1&name=flights.hours")
    assert re.findall(r'href="/history/([\w./]+)"', text) == ["flights.hours/1"]
    assert "DISK_FULL: no room" in text
    assert "<code>local/tidemark history flights.hours --failed</code>" in text
    assert "BAD_ARGUMENTS" in browser.text("/history?since=yesterday")


def test_one_micro_batch_is_explained_with_the_command_that_repeats_it(browser: Browser) -> None:
    note(browser, {})
    text = unescape(browser.text("/history/flights.hours/0"))
    assert (
        """./spark-submit.sh flights.hours --from '{"departures": {"0": 0}}' --to '{"departures": {"0": 100}}'"""
        in text
    )
    assert "<code>local/tidemark history explain flights.hours 0</code>" in text
    assert "UNKNOWN_BATCH" in browser.text("/history/flights.hours/9")


def test_a_name_is_no_command(browser: Browser) -> None:
    assert "history 'a;b'" in unescape(browser.text("/history?name=a%3Bb"))
