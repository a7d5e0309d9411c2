"""The job log_analytics, on a real broker and a real OpenSearch: every record in one place, and in the index once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conf.topics import Topic
from deploy.logging import dashboards
from jobs.operations import log_analytics
from jobs.operations.logs import index as log_index
from tests.jobs.operations.logs.ecs import ecs_line, record
from tests.jobs.operations.logs.server import OpenSearchServer
from tests.jobs.scratch import Scratch

JOB = "operations.log_analytics"
NOW = datetime.now(UTC)
TODAY, LONG_AGO = f"{NOW:%Y-%m-%dT%H:%M:%SZ}", f"{NOW - timedelta(days=20):%Y-%m-%dT%H:%M:%SZ}"
ALL = "app_logs-*"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSearchServer]:
    with OpenSearchServer(tmp_path_factory.mktemp("opensearch") / "opensearch.log") as started:
        yield started


class Logs:
    """A topic of log lines, and the job that reads it."""

    def __init__(self, scratch: Scratch, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scratch, self._url = scratch, url
        self.topic = scratch._new_topic(2)
        scratch.declared[self.topic] = Topic(self.topic, 2, "host.name", format="json")
        monkeypatch.setattr(log_analytics, "TOPIC", self.topic)

    def send(self, *values: str | None) -> None:
        self.scratch.send(self.topic, *(record(value, number % 2) for number, value in enumerate(values)))

    def run(self, only: str = "") -> None:
        """Run the job until it has caught up, or the one of its queries that writes the table `only`."""
        run = self.scratch.run(f"search.url={self._url}", job=JOB)
        log_analytics.build(run)
        run.outputs = [output for output in run.outputs if only in ("", output.name)]
        self.scratch.catch_up(run)


@pytest.fixture
def logs(scratch: Scratch, server: OpenSearchServer, monkeypatch: pytest.MonkeyPatch) -> Logs:
    monkeypatch.setattr(log_index, "AGAIN_SECONDS", 0.0)
    return Logs(scratch, server.url, monkeypatch)


def held(server: OpenSearchServer) -> dict[str, Any]:
    """The documents of the index, by id."""
    found = server.search(ALL, {"size": 1000, "version": True, "query": {"match_all": {}}})
    return {hit["_id"]: hit for hit in found["hits"]["hits"]}


@pytest.mark.slow
def test_the_index_is_filled_once_also_where_opensearch_was_down(
    logs: Logs, server: OpenSearchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ask("PUT", f"/{log_index.index_of(NOW - timedelta(days=30))}")
    logs.send(
        ecs_line(TODAY, "lost 3", "ERROR"), ecs_line(TODAY, "lost 4", "ERROR"), "no JSON", ecs_line(LONG_AGO, "x")
    )
    logs.run()
    first = {f"{logs.topic}-0-0", f"{logs.topic}-1-0"}
    assert held(server).keys() == first  # what would be deleted with its day is not indexed
    assert server.ask("GET", f"/_cat/indices/{ALL}?format=json&h=index") == [{"index": log_index.index_of(NOW)}]
    assert logs.scratch.rows("app_logs", "message") == [("lost 3",), ("lost 4",), ("x",)]
    assert logs.scratch.rows("quarantine", "error", "partition", "offset") == [("NOT_JSON", 0, 1)]
    (errors,) = logs.scratch.rows("app_log_errors", "logger", "errors")
    assert errors == ("a.B", 2)
    assert [row[0] for row in logs.scratch.rows("app_log_messages", "pattern")] == ["lost #", "x"]

    server.kill()
    logs.send(ecs_line(TODAY, "while it is down"), ecs_line(LONG_AGO, "late", "ERROR"))
    logs.run("app_logs")
    assert len(logs.scratch.rows("app_logs", "message")) == 5
    said = [line for line in capsys.readouterr().err.splitlines() if "index of logs" in line]
    assert len(said) == 1
    assert "tables go on" in said[0]

    logs.run("app_log_errors")
    assert logs.scratch.rows("late", "query", "partition", "offset") == [(f"{JOB}.app_log_errors", 1, 2)]

    server.start()
    logs.run("app_logs")  # nothing new: what is missing is indexed before the first batch
    assert held(server).keys() == first | {f"{logs.topic}-0-2"}
    # An index that has lost its position is sent everything again, and takes nothing twice.
    server.ask("DELETE", "/tidemark-positions")
    logs.run("app_logs")
    assert {hit["_version"] for hit in held(server).values()} == {1}
    # Without the template `log.level` would be a text, which no panel can group by.
    for panel in dashboards.PANELS:
        assert server.search(ALL, dashboards.search_body(panel))["_shards"]["failed"] == 0
    counts = server.search(ALL, dashboards.search_body(dashboards.PANELS[0]))
    (bucket,) = counts["aggregations"]["2"]["buckets"]
    assert [(each["key"], each["doc_count"]) for each in bucket["3"]["buckets"]] == [("a.B", 2)]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_port_that_nobody_listens_on_is_said_and_stops_nothing(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_index, "AGAIN_SECONDS", 0.0)
    logs = Logs(scratch, "http://127.0.0.1:1", monkeypatch)
    logs.send(ecs_line(TODAY, "fine"))
    logs.run("app_logs")
    assert scratch.rows("app_logs", "message") == [("fine",)]
    assert capsys.readouterr().err.count("the index of logs: OpenSearch http://127.0.0.1:1: ConnectError") == 1
