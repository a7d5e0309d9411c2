"""A pytest plug-in, the table of results of the fault suite: what was done to a query, what became of its records.

Rows are a test's `user_properties`, which reach the end of a run from its workers, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.oracle import Verdict

if TYPE_CHECKING:
    from tests.faults.scene import Scene

HEAD = ("fault", "stop", *Verdict().counters)
PROPERTY = "fault"


@dataclass
class Row:
    fault: str
    stop: str = ""
    verdict: Verdict | None = None

    def cells(self) -> list[str]:
        counters = Verdict().counters if self.verdict is None else self.verdict.counters
        return [self.fault, self.stop, *("-" if self.verdict is None else str(n) for n in counters.values())]


@dataclass
class Report:
    """The rows of one test; a scene has one row, or one for each of its labels."""

    rows: dict[tuple[int, str], Row] = field(default_factory=dict)

    def of(self, test: str) -> Callable[["Scene", Verdict | str], None]:
        """What the scenes of a test tell their results to: a verdict, or the line with which a driver stopped."""
        name = test.removeprefix("test_").replace("_", " ")

        def add(scene: "Scene", result: Verdict | str) -> None:
            fault = f"{name}: {scene.label}" if scene.label else name
            row = self.rows.setdefault((id(scene), fault), Row(fault))
            if isinstance(result, Verdict):
                row.verdict = result
            else:
                code = named(result)
                row.stop = ", ".join(dict.fromkeys([*filter(None, row.stop.split(", ")), code]))

        return add

    def properties(self) -> list[tuple[str, object]]:
        return [(PROPERTY, row.cells()) for row in self.rows.values()]


def lines(table: Sequence[Sequence[str]]) -> list[str]:
    """As plain text, in columns."""
    cells = [HEAD, *table]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def markdown(table: Sequence[Sequence[str]]) -> str:
    head = [" | ".join(HEAD), " | ".join("---" for _ in HEAD)]
    return "".join(f"| {line} |\n" for line in [*head, *(" | ".join(row) for row in table)])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-report", metavar="FILE", help="write the fault suite's results there, as a table")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Table(config))


class Table:
    """Collects the rows of all tests, in the order in which they end."""

    def __init__(self, config: pytest.Config) -> None:
        self._rows: list[Sequence[str]] = []
        self._file = config.getoption("--fault-report", None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self._rows += [row for name, row in report.user_properties if name == PROPERTY]  # type: ignore[misc]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self._rows:
            return
        terminalreporter.section("what became of the records")
        for line in lines(self._rows):
            terminalreporter.write_line(line)
        if self._file:
            Path(self._file).write_text(markdown(self._rows))


def named(line: str) -> str:
    """The innermost stop that an error line names."""
    words = [word.rstrip(":") for word in line.split() if word.endswith(":")]
    # SQLSTATE stands before a number in every error of Spark's, and names nothing.
    return next(
        (word for word in reversed(words) if word.isupper() and len(word) > 4 and word != "SQLSTATE"), line[:60]
    )
