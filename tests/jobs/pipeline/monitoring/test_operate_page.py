"""docs/operate.md, the alerts and the metrics speak of the same things."""

import re

import yaml

from conf import ROOT
from jobs.pipeline.monitoring.exporter import METRICS
from tests.jobs.pipeline.monitoring.serving import series

PAGE = (ROOT / "docs" / "operate.md").read_text()
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]


def test_the_page_has_every_metric_as_it_is_defined() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `tidemark_")]
    expected = []
    for metric in METRICS:
        name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        expected.append(f"| `{name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.meaning} |")
    assert rows == expected


def test_the_page_has_every_alert() -> None:
    assert [line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| Tidemark")] == [
        alert["alert"] for alert in ALERTS
    ]


def test_alerts_ask_for_metrics_that_there_are() -> None:
    for alert in ALERTS:
        asked = set(re.findall(r"tidemark_\w+", alert["expr"]))
        assert asked <= series(), alert["alert"]
