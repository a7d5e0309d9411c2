"""The committed dashboard is what its script makes, of metrics that there are."""

import json
import re

from conf import ROOT
from deploy.grafana import dashboard
from tests.jobs.pipeline.monitoring.serving import series

BOARD = json.loads(dashboard.PATH.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def test_the_committed_dashboard_is_what_the_script_makes() -> None:
    assert dashboard.PATH.read_text() == dashboard.text(), "run: python -m deploy.grafana.dashboard"


def test_panels_ask_for_metrics_that_there_are_and_leave_none_out() -> None:
    asked = set(re.findall(r"tidemark_\w+", " ".join(expression for expression in dashboard.expressions())))
    assert asked <= series()
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    # An offset says nothing without the one before it, and a start is over when it is drawn.
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in series()} - shown == {
        "tidemark_position_offset",
        "tidemark_query_start_timestamp_seconds",
    }


def test_panels_lie_side_by_side_and_say_what_they_show() -> None:
    assert all(panel["description"] and panel["targets"] for panel in PANELS)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in BOARD["panels"]]
    assert len(set(places)) == len(places)


def test_the_page_says_how_to_import_it() -> None:
    assert "deploy/grafana/tidemark.json" in (ROOT / "docs" / "operate.md").read_text()
