"""The views of queries, history and replays: states, charts, failed micro-batches with their cause, next steps."""

import json
import re
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from jobs.connectors.exactly_once.process import this_process
from jobs.operations.replay.record import Replay, ReplayPaths, Slice
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.journal import ENDED, Journal
from local.page.runs import ReplayRow
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


def test_a_number_that_no_batch_has_is_an_unknown_batch(browser: Browser) -> None:
    assert "UNKNOWN_BATCH" in browser.text("/history/q/99999999999999999999")


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
    path = Path(ReplayPaths(browser.settings(), "r1").record)
    path.parent.mkdir(parents=True)
    path.write_text(kept.to_json())
    text = Browser(browser.folder).text("/replays")
    assert "2013-01-01 to 2013-01-02" in text
    assert '<th scope="row">hours</th><td class="n">5</td>' in text
    path.write_text("{}")
    assert "BAD_REPLAY" in Browser(browser.folder).text("/replays")
