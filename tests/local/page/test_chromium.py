"""The page in the real Chromium beside a real broker: what it says, how it fits, by keyboard, renewed by itself.

With PICTURES=FOLDER in the environment the pictures of README and docs are made there:

    PICTURES=docs/pictures local/tidemark test 'tests/local/page/test_chromium.py::test_the_page'
"""

import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from deltalake import write_deltalake

from conf import ROOT
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.journal import ENDED, Journal
from local.broker import Cluster
from local.processes import end_group, output_of
from tests.jobs.operations.coverage.holdings import Holdings, send
from tests.local.page.browser import Browser
from tests.local.page.chromium import Tab, chromium, program
from tests.local.page.test_runs import DONE
from tests.producers.quarantine.ward import COMMON, SCHEMA

pytestmark = pytest.mark.slow

COUNTS = {"departures": (900, 700), "weather": (300, 260)}  # records, by partition
REJECTED = 12
TAB, ENTER = 9, 13


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker of the test's own: the page shows every topic that is there."""
    folder = tmp_path_factory.mktemp("broker")
    with Cluster(folder, folder / "logs", attached=True) as started:
        yield started


@pytest.fixture
def told(tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> Browser:
    """Topics, tables and a journal as jobs leave them."""
    servers = cluster.bootstrap_servers
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    for future in admin.create_topics([NewTopic(name, 2, 1) for name in COUNTS]).values():
        future.result(30)
    holdings = Holdings(tmp_path, servers, capsys)
    bad = [(0, offset) for offset in range(100, 100 + REJECTED)]
    for topic, (first, second) in COUNTS.items():
        for partition, count in enumerate((first, second)):
            send(servers, topic, count, partition)
        ends = ({0: first // 2, 1: second // 2}, {0: first, 1: second})
        holdings.batches(topic, *ends)
        without = bad if topic == "departures" else []
        holdings.batches(topic, *ends, table=f"silver/{topic}", statement="silver", without=without)
    read = ({0: 400, 1: 300}, {0: 700, 1: 650})
    holdings.batches("departures", *read, table="hourly_delays", statement="rows", sink="flights.hourly_delays")
    now = datetime.now(UTC)
    rows = [
        {**COMMON, "topic": "departures", "offset": offset, "quarantined_at": now - timedelta(minutes=offset - 80)}
        for _, offset in bad
    ]
    write_deltalake(holdings.path("quarantine"), pa.Table.from_pylist(rows, SCHEMA))
    browser = Browser(tmp_path, servers)
    note_batches(browser, now)
    return browser


def note_batches(browser: Browser, now: datetime) -> None:
    """An hour of micro-batches of a query with state, and one that failed."""
    with closing(Journal(micro_batch_table.journal_folder(browser.settings()), "j")) as writer:
        for number in range(60):
            began = now - timedelta(minutes=60 - number)
            wave = 1 + 0.3 * math.sin(number / 6)
            seconds = {"addBatch": 0.8 * wave, "queryPlanning": 0.12, "walCommit": 0.05, "latestOffset": 0.02}
            phases = {name: int(1000 * value) for name, value in seconds.items()}
            row = {"query": "flights.hourly_delays", "job": "flights.hourly_delays", "batch": number}
            row |= {"began_at": began, "ended_at": began + timedelta(seconds=wave), "rows_in": int(900 * wave)}
            row |= {
                "phases": phases | {"triggerExecution": sum(phases.values())},
                "lag": int(max(0, 4000 - 70 * number)),
            }
            row |= {"state_rows": int(3000 * wave), "state_bytes": int(2e6 * wave), "watermark": began}
            row |= {
                "max_event_time": began + timedelta(hours=3 * wave),
                "late": int(number % 9 == 0),
                "rejected": number % 4,
            }
            row |= {"offsets": [{"topic": "departures", "partition": 0, "start": 0, "end": 700}]}
            writer.append(ENDED, DONE | row)
        failed = {"query": "flights.delay_alerts", "job": "flights.delay_alerts", "batch": 7, "began_at": now}
        stop = {
            "outcome": "failed",
            "error": "DISK_FULL: no space is left for checkpoints; make room, start again",
        }
        writer.append(ENDED, DONE | failed | stop | {"ended_at": now})


@pytest.fixture
def address(told: Browser) -> Iterator[str]:
    """Where `local/tidemark page` shows them."""
    sets = [f"paths.{name}={told.folder / name}" for name in ("tables", "checkpoints", "logs")]
    sets += [f"kafka.bootstrap_servers={told.servers}", "page.port=0"]
    words = [word for value in sets for word in ("--set", value)]
    with output_of([sys.executable, "-P", "-m", "local.cli", "page", *words]) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+:\d+", process.stdout.readline())
        assert found
        yield found[0]
        end_group(process)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    folder = tmp_path_factory.mktemp("chromium")
    command, environment = program(folder)
    with chromium(command, environment, folder) as opened:
        yield opened


def shown(tab: Tab, address: str, path: str, width: int, scheme: str, picture: str = "") -> str:
    """What a view says in a window of that width, where it fits and draws all of its charts."""
    tab.look(width, 900 if width > 1000 else 800, scheme)
    tab.open(f"{address}{path}")
    assert tab.script("document.documentElement.scrollWidth") <= width, path
    assert tab.script("[...document.querySelectorAll('[data-chart]')].every((place) => place.querySelector('canvas'))")
    ground = tab.script("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 3 * 128) == (scheme == "dark")
    if picture and "PICTURES" in os.environ:
        (ROOT / os.environ["PICTURES"] / f"{picture}.webp").write_bytes(tab.picture())
    return tab.text()


def test_the_page(told: Browser, address: str, tab: Tab) -> None:
    tab.look(1600, 900, "light")
    tab.open(f"{address}/accounts")
    tab.wait("document.body.innerText.includes('all well')")
    text = shown(tab, address, "/accounts", 1600, "light", "page-accounts")
    assert "Every record is accounted for, 250 offsets are still to be read" in text
    assert re.search(r"1,600 offsets in the topic\s*→\s*1,600 bronze\s*=\s*1,588 silver\s*\+\s*12 quarantine", text)
    assert tab.script("document.querySelectorAll('rect.gap').length") == 0
    by_keyboard(tab, address)

    text = shown(tab, address, "/queries", 400, "dark")
    assert "flights.delay_alerts has ended badly" in text and "DISK_FULL" in text
    shown(tab, address, "/queries/flights.hourly_delays", 1600, "dark", "page-query")
    assert tab.script("document.querySelectorAll('canvas').length") == 9
    shown(tab, address, "/accounts", 400, "dark", "page-narrow")
    for path in ("/queries/flights.hourly_delays", "/quarantine", "/late", "/replays", "/topics", "/history"):
        shown(tab, address, path, 400, "light")
        shown(tab, address, path, 1600, "dark")
    assert "BAD_FRAMING" in shown(tab, address, "/quarantine", 1600, "light")
    assert "arrivals" in shown(tab, address, "/topics", 1600, "light")

    tab.open(f"{address}/accounts")
    send(told.servers, "weather", 5, 0)  # the page renews itself
    tab.wait("document.body.innerText.includes('260 offsets are still to be read')")
    assert tab.problems == []
    tab.call("Network.enable")
    tab.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    tab.wait("document.getElementById('status').textContent.includes('does not answer')")


def by_keyboard(tab: Tab, address: str) -> None:
    """The first key leads past the links, the third to the second view."""
    tab.press("Tab", TAB)
    assert tab.script("document.activeElement.className") == "skip"
    tab.press("Tab", TAB)
    tab.press("Tab", TAB)
    assert tab.script("document.activeElement.textContent") == "Queries"
    tab.press("Enter", ENTER, "\r")
    tab.wait("location.pathname === '/queries'")
