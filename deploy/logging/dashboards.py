"""Writes the dashboard of logs, saved objects of OpenSearch Dashboards, to `dashboards.ndjson`, which is committed.

    .tidemark/venv/bin/python -m deploy.logging.dashboards

docs/operate.md says how to import it. The aggregations of each panel are run against a real OpenSearch in
tests/jobs/operations/test_log_analytics.py.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.operations.log_index import NAME

PATH = Path(__file__).with_name("dashboards.ndjson")
PATTERN = f"{NAME}-*"
PATTERN_ID, BOARD_ID = "tidemark-app-logs", "tidemark-logs"
SOURCE = "kibanaSavedObjectMeta.searchSourceJSON.index"
VERSION = "2.19.6"
# The versions that these kinds of objects have had since OpenSearch Dashboards 1.0.
MIGRATION = {"index-pattern": "7.6.0", "visualization": "7.10.0", "dashboard": "7.9.3"}
WIDTH, HEIGHT = 24, 15  # of 48 columns


@dataclass(frozen=True)
class Metric:
    """A number of each bucket: an aggregation of OpenSearch, and the field that it is of."""

    kind: str
    field: str = ""


@dataclass(frozen=True)
class Terms:
    """A bucket for each of the `size` values of a field that come first by the metric."""

    field: str
    size: int = 10


@dataclass(frozen=True)
class Panel:
    """What is counted, of which lines (a query in Lucene's language), by what; `over_time`: as bars along the time."""

    id: str
    title: str
    query: str
    metric: Metric
    by: Sequence[Terms] = field(default_factory=tuple)
    over_time: bool = False


PANELS = (
    Panel("errors", "Errors by logger", "log.level:(ERROR OR FATAL)", Metric("count"), (Terms("log.logger"),), True),
    Panel("levels", "Lines by level", "*", Metric("count"), (Terms("log.level"),), True),
    Panel(
        "slow",
        "The slowest batches, milliseconds",
        "_exists_:event.duration_ms AND _exists_:labels.batch",
        Metric("max", "event.duration_ms"),
        (Terms("labels.query"), Terms("labels.batch", 20)),
    ),
    Panel(
        "new",
        "Messages by when they were first said, the newest first",
        "log.level:(WARN OR ERROR OR FATAL)",
        Metric("min", "@timestamp"),
        (Terms("message_pattern", 50), Terms("log.logger", 1)),
    ),
    Panel("jobs", "Errors by job", "log.level:(ERROR OR FATAL)", Metric("count"), (Terms("labels.job", 20),)),
)


def search_body(panel: Panel) -> dict[str, Any]:
    """The search that OpenSearch Dashboards makes of a panel."""
    metric = {} if panel.metric.kind == "count" else {"1": {panel.metric.kind: {"field": panel.metric.field}}}
    inner: dict[str, Any] = metric
    for number, terms in reversed(list(enumerate(panel.by, start=3))):
        order = {"_count" if panel.metric.kind == "count" else "1": "desc"}
        bucket = {"terms": {"field": terms.field, "size": terms.size, "order": order}, "aggs": {**metric, **inner}}
        inner = {str(number): bucket}
    if panel.over_time:
        inner = {"2": {"date_histogram": {"field": "@timestamp", "fixed_interval": "5m"}, "aggs": inner}}
    return {"size": 0, "query": {"query_string": {"query": panel.query}}, "aggs": inner}


def saved_objects() -> list[dict[str, Any]]:
    """The pattern of the indices, a visualization a panel, and the dashboard that shows them."""
    pattern = _saved("index-pattern", PATTERN_ID, {"title": PATTERN, "timeFieldName": "@timestamp"})
    return [pattern, *map(_visualization, PANELS), _dashboard()]


def text() -> str:
    """The file, an object a line."""
    return "".join(json.dumps(saved, sort_keys=True) + "\n" for saved in saved_objects())


def _saved(kind: str, id: str, attributes: Mapping[str, Any], references: Sequence[Mapping[str, str]] = ()) -> Any:
    return {
        **{"type": kind, "id": id, "attributes": attributes, "references": list(references)},
        "migrationVersion": {kind: MIGRATION[kind]},
    }


def _visualization(panel: Panel) -> Any:
    source = {"query": {"query": panel.query, "language": "lucene"}, "filter": [], "indexRefName": SOURCE}
    state: dict[str, Any] = {
        "title": panel.title,
        "type": "histogram" if panel.over_time else "table",
        "aggs": _aggregations(panel),
    }
    state["params"] = {"addLegend": True, "addTimeMarker": False} if panel.over_time else {"perPage": 20}
    attributes = {
        **{"title": panel.title, "description": "", "version": 1, "uiStateJSON": "{}"},
        "visState": json.dumps(state, sort_keys=True),
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source, sort_keys=True)},
    }
    reference = {"name": SOURCE, "type": "index-pattern", "id": PATTERN_ID}
    return _saved("visualization", f"{BOARD_ID}-{panel.id}", attributes, [reference])


def _aggregations(panel: Panel) -> list[dict[str, Any]]:
    of = {"field": panel.metric.field} if panel.metric.field else {}
    listed = [_aggregation(1, panel.metric.kind, "metric", of)]
    if panel.over_time:
        time = {"field": "@timestamp", "interval": "5m", "min_doc_count": 1, "drop_partials": False}
        listed.append(_aggregation(2, "date_histogram", "segment", time))
    for number, terms in enumerate(panel.by, start=3):
        how = {"field": terms.field, "size": terms.size, "order": "desc", "orderBy": "1"}
        listed.append(_aggregation(number, "terms", "group" if panel.over_time else "bucket", how))
    return listed


def _aggregation(number: int, kind: str, schema: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": str(number), "enabled": True, "type": kind, "schema": schema, "params": params}


def _dashboard() -> Any:
    panels, references = [], []
    for number, panel in enumerate(PANELS):
        name = f"panel_{number}"
        place = {"x": number % 2 * WIDTH, "y": number // 2 * HEIGHT, "w": WIDTH, "h": HEIGHT, "i": str(number)}
        shown = {"version": VERSION, "gridData": place, "panelIndex": str(number), "panelRefName": name}
        panels.append(shown | {"embeddableConfig": {}})
        references.append({"name": name, "type": "visualization", "id": f"{BOARD_ID}-{panel.id}"})
    source = {"query": {"query": "", "language": "lucene"}, "filter": []}
    attributes = {
        **{"title": "Tidemark: logs", "description": "", "hits": 0, "version": 1, "timeRestore": False},
        "panelsJSON": json.dumps(panels, sort_keys=True),
        "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}, sort_keys=True),
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source, sort_keys=True)},
    }
    return _saved("dashboard", BOARD_ID, attributes, references)


if __name__ == "__main__":
    PATH.write_text(text())
