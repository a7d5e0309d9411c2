"""The view of accounts over small tables: sums, coverage, gaps, and what is shown where something is missing."""

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from conf.errors import TidemarkError
from jobs.connectors.kafka.offsets import Edges
from jobs.operations.coverage.check import CoverageReport
from jobs.operations.coverage.query_offsets import Finding, Span
from local.page.accounts import Accounts, Place, _places, read_accounts
from local.page.background import Brokers
from tests.jobs.operations.coverage.holdings import Holdings
from tests.local.page.browser import DOWN, Browser


@pytest.fixture
def kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Holdings:
    """Ten records of a topic in bronze, nine of them in silver."""
    holdings = Holdings(tmp_path, "", capsys)
    holdings.batches("departures", {0: 4, 1: 3}, {0: 6, 1: 4})
    holdings.batches("departures", {0: 4, 1: 3}, {0: 6, 1: 4}, table="silver/departures", without=[(1, 2)])
    return holdings


def accounts(holdings: Holdings, checked: CoverageReport | None = None) -> Accounts:
    return read_accounts(Browser(holdings.folder).settings(), Brokers(), checked)


def test_rows_that_do_not_add_up_are_said(kept: Holdings) -> None:
    [account] = accounts(kept).topics
    assert (account.bronze, account.silver, account.quarantine) == (10, 9, 0)
    assert (account.sum, account.difference) == ("differs", 1)
    text = Browser(kept.folder).text("/accounts")
    assert "Rows of departures do not add up yet" in text
    assert "1 rows more in bronze" in text


def test_rejects_count(kept: Holdings) -> None:
    write_deltalake(kept.path("quarantine"), pa.table({"topic": ["departures"]}))
    [account] = accounts(kept).topics
    assert (account.quarantine, account.sum) == (1, "whole")
    assert "Rows add up in every topic" in Browser(kept.folder).text("/accounts")


def test_how_far_each_output_is(kept: Holdings) -> None:
    kept.batches("departures", {0: 5, 1: 4}, table="hours", statement="rows")
    [account] = accounts(kept).topics
    assert {output.name: output.places for output in account.outputs}["hours"] == (
        Place(0, 0, 5, 0, 5),
        Place(1, 0, 4, 0, 4),
    )


def test_ranges_are_no_accounts(kept: Holdings) -> None:
    kept.batches("weather", {0: 5}, table="range-1/bronze/weather", query="range-1")
    assert [account.topic for account in accounts(kept).topics] == ["departures"]


def test_gaps_that_the_check_found_are_shown(kept: Holdings) -> None:
    finding = Finding("MISSING", "bronze/departures", "offset 2 is missing", "look", "departures", 0, 2, 3)
    [account] = accounts(kept, CoverageReport([finding])).topics
    [bronze] = [output for output in account.outputs if output.name == "bronze/departures"]
    assert bronze.places[0].gaps == ((2, 3),)
    assert bronze.has_gaps


def test_offsets_between_two_queries_are_a_gap_in_red(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    holdings = Holdings(tmp_path, "", capsys)
    holdings.batches("departures", {0: 4})
    holdings.batches("departures", {0: 9}, query="q2", start={0: 6})
    text = Browser(tmp_path).text("/accounts")
    assert text.count('class="gap"') == 1
    assert "0: 4 to 5" in text


def test_a_place_is_behind_by_what_the_topic_has_more() -> None:
    ends = {0: Edges(2, 10), 1: Edges(0, 4)}
    spans = [Span("t", 0, 0, 5), Span("t", 0, 7, 8)]
    first, second = _places(spans, ends, [])
    assert (first.behind, first.gaps, first.first, first.last) == (2, ((5, 7),), 0, 10)
    assert (second.behind, second.end) == (4, 0)
    [whole] = _places(spans, {}, [])
    assert whole.behind == 0


def test_a_broker_that_is_down_is_said_and_the_tables_are_shown(kept: Holdings) -> None:
    text = Browser(kept.folder, DOWN).text("/accounts")
    assert "BROKER_UNREACHABLE" in text
    assert "The brokers cannot be asked" in text
    assert "bronze/departures" in text


def test_where_nothing_was_written_the_job_that_writes_is_named(tmp_path: Path) -> None:
    text = Browser(tmp_path).text("/accounts")
    assert "No table and no output topic holds anything yet" in text
    assert "./spark-submit.sh ingest" in text


def test_a_log_that_is_damaged_is_said_by_its_code(kept: Holdings) -> None:
    log = Path(kept.path("bronze/departures")) / "_delta_log" / f"{1:020}.json"
    log.write_text("{")
    with pytest.raises(TidemarkError, match="TABLE_LOG_DAMAGED"):
        accounts(kept)
    assert "<strong>TABLE_LOG_DAMAGED</strong>" in Browser(kept.folder).text("/accounts")


def test_what_comes_from_data_is_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Holdings(tmp_path, "", capsys).batches("<b>topic", {0: 1}, table="hours", statement="rows")
    text = Browser(tmp_path).text("/accounts")
    assert "&lt;b&gt;topic" in text
    assert "<b>topic" not in text
