"""Writes the Grafana dashboard of the drivers' metrics, `tidemark.json`, which is committed beside this file.

    .tidemark/venv/bin/python -m deploy.grafana.dashboard

docs/operate.md says how to import it. Each query is run against a real Prometheus in tests/deploy/test_prometheus.py.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import Dashboard as Model
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, VariableOption, VariableRefresh

PATH = Path(__file__).with_name("tidemark.json")
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
CHOSEN = '{job_name=~"$job", query=~"$query"}'
WIDTH, HEIGHT = 8, 8  # of 24 columns
STAT_WIDTH, STAT_HEIGHT = 4, 4


@dataclass(frozen=True)
class Query:
    """What is drawn: an expression of Prometheus, and the name of each series."""

    expression: str
    legend: str = "{{query}}"


@dataclass(frozen=True)
class Panel:
    """A graph over time, or, `is_number`, one number; `unit` is Grafana's name of it."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    is_number: bool = False


def number(title: str, description: str, unit: str, expression: str) -> Panel:
    return Panel(title, description, unit, [Query(expression, "")], is_number=True)


def rate(metric: str, by: str = "query") -> str:
    """The increase a second of a counter of the chosen queries."""
    return f"sum by ({by}) (rate({metric}{CHOSEN}[$__rate_interval]))"


ROWS: dict[str, Sequence[Panel]] = {
    "Is every record accounted for, and how late is it?": (
        number("Queries that run", "Of the chosen ones.", "short", f"sum(tidemark_query_running{CHOSEN}) or vector(0)"),
        number(
            "Queries that are down",
            "Stopped by an error, while their driver goes on: `local/tidemark history --failed`.",
            "short",
            f"count(tidemark_query_running{CHOSEN} == 0 and on (job_name, query) "
            f"sum by (job_name, query) (tidemark_query_stops_total{CHOSEN}) > 0) or vector(0)",
        ),
        number(
            "Promises that are not kept",
            "Queries whose output is older than `fresh_within` of their job.",
            "short",
            f"count(tidemark_freshness_seconds{CHOSEN} > on (job_name, query) tidemark_fresh_within_seconds) "
            "or vector(0)",
        ),
        number("Longest wait", "Age of the oldest unread record.", "s", f"max(tidemark_lag_seconds{CHOSEN})"),
        number("Records to come", "Unread ones, over all partitions.", "short", f"sum(tidemark_lag_records{CHOSEN})"),
        number(
            "Since the last success",
            "The longest time for which a query that runs has finished no micro-batch.",
            "s",
            f"time() - min(tidemark_last_success_timestamp_seconds{CHOSEN} "
            f"and on (job_name, query) tidemark_query_running == 1)",
        ),
    ),
    "Lag": (
        Panel(
            "Freshness by output",
            "How old the newest time is up to which a table or topic is complete.",
            "s",
            [Query(f"max by (output) (tidemark_output_freshness_seconds{CHOSEN})", "{{output}}")],
        ),
        Panel(
            "Lag in seconds",
            "Age of the first unread record, the oldest of a query's partitions.",
            "s",
            [Query(f"max by (query) (tidemark_lag_seconds{CHOSEN})")],
        ),
        Panel(
            "Lag in records, by partition",
            "One that grows while others fall stands still.",
            "short",
            [Query(f"tidemark_lag_records{CHOSEN}", "{{query}} {{topic}}/{{partition}}")],
        ),
    ),
    "Records": (
        Panel("Read", "Records a second.", "cps", [Query(rate("tidemark_records_read_total"))]),
        Panel("Read, bytes", "Of keys and values.", "Bps", [Query(rate("tidemark_bytes_read_total"))]),
        Panel(
            "Written",
            "Rows a second by table and topic.",
            "cps",
            [Query(rate("tidemark_rows_written_total", "place"), "{{place}}")],
        ),
        Panel(
            "Rejected, by code",
            "`local/tidemark quarantine list` shows the records.",
            "cps",
            [Query(rate("tidemark_records_rejected_total", "query, code"), "{{query}} {{code}}")],
        ),
        Panel(
            "Failures of rules",
            "Records a second that fail a data rule.",
            "cps",
            [Query(rate("tidemark_rule_failures_total", "query, rule"), "{{query}} {{rule}}")],
        ),
        Panel("Late", "Rows a second that came after the watermark.", "cps", [Query(rate("tidemark_late_rows_total"))]),
    ),
    "Micro-batches": (
        Panel(
            "Seconds a micro-batch",
            "Median, and what 19 of 20 stay below.",
            "s",
            [
                Query(
                    f"histogram_quantile({quantile}, sum by (query, le) (rate(tidemark_batch_phase_seconds_bucket"
                    f'{{job_name=~"$job", query=~"$query", phase="triggerExecution"}}[$__rate_interval])))',
                    f"{{{{query}}}} {name}",
                )
                for quantile, name in ((0.5, "p50"), (0.95, "p95"))
            ],
        ),
        Panel(
            "Share of each phase",
            "Seconds of each phase in a second; the phases of a write are parts of addBatch.",
            "s",
            [Query(rate("tidemark_batch_phase_seconds_sum", "query, phase"), "{{query}} {{phase}}")],
        ),
        Panel(
            "Ends",
            "Micro-batches by how they ended, and stops of queries by code, in an hour.",
            "short",
            [
                Query(
                    f"sum by (query, outcome) (increase(tidemark_batches_total{CHOSEN}[1h]))", "{{query}} {{outcome}}"
                ),
                Query(f"sum by (query, code) (increase(tidemark_query_stops_total{CHOSEN}[1h]))", "{{query}} {{code}}"),
            ],
        ),
    ),
    "State and watermark": (
        Panel(
            "Age of the watermark",
            "Now less the watermark: event time.",
            "s",
            [Query(f"time() - tidemark_watermark_timestamp_seconds{CHOSEN}")],
        ),
        Panel("State, rows", "Kept by the query.", "short", [Query(f"tidemark_state_rows{CHOSEN}")]),
        Panel("State, memory", "Of the state store.", "bytes", [Query(f"tidemark_state_bytes{CHOSEN}")]),
    ),
    "Around the queries": (
        Panel(
            "Held back by open transactions",
            "Offsets that readers of committed records wait for.",
            "short",
            [Query("tidemark_unstable_records", "{{topic}}/{{partition}}")],
        ),
        Panel("Free disk", "Of tables, checkpoints and logs.", "bytes", [Query("tidemark_free_bytes", "{{place}}")]),
        Panel(
            "Starts of queries", "In an hour.", "short", [Query(f"changes(tidemark_query_starts_total{CHOSEN}[1h])")]
        ),
    ),
}


def build() -> Model:
    """The dashboard."""
    board = (
        Dashboard("Tidemark")
        .uid("tidemark")
        .description("Queries of Tidemark's drivers; docs/operate.md says what each metric means, and what to do.")
        .tags(["tidemark", "streaming"])
        .readonly()
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_choice("job", "Job", "label_values(tidemark_query_running, job_name)"))
        .with_variable(_choice("query", "Query", 'label_values(tidemark_query_running{job_name=~"$job"}, query)'))
    )
    for title, panels in ROWS.items():
        board = board.with_row(Row(title))
        for panel in panels:
            board = board.with_panel(_number(panel) if panel.is_number else _graph(panel))
    return board.build()


def expressions() -> list[str]:
    """What the panels ask of Prometheus, with Grafana's variables in it."""
    return [query.expression for panels in ROWS.values() for panel in panels for query in panel.queries]


def text() -> str:
    """The dashboard as the JSON that Grafana imports."""
    return json.dumps(build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _choice(name: str, label: str, values: str) -> QueryVariable:
    every = VariableOption(text="All", value="$__all", selected=True)
    choice = QueryVariable(name).label(label).datasource(SOURCE).query(values).current(every)
    return choice.include_all(True).all_value(".*").multi(True).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)


def _graph(panel: Panel) -> Any:
    graph = timeseries.Panel().title(panel.title).description(panel.description).datasource(SOURCE)
    return _with_queries(graph.unit(panel.unit).min(0).span(WIDTH).height(HEIGHT), panel)


def _number(panel: Panel) -> Any:
    value = stat.Panel().title(panel.title).description(panel.description).datasource(SOURCE)
    value = value.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    return _with_queries(value.unit(panel.unit).span(STAT_WIDTH).height(STAT_HEIGHT), panel)


def _with_queries(built: Any, panel: Panel) -> Any:
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id("ABC"[number])
        built = built.with_target(target)
    return built


if __name__ == "__main__":
    PATH.write_text(text())
