"""The table of results: what was done to a query, and what became of its records."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.faults.oracle import Verdict

if TYPE_CHECKING:
    from tests.faults.scene import Scene

HEAD = ("fault", "stop", *Verdict().counters)


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
    """Rows in the order of the tests; a scene has one row, or one for each of its labels."""

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

    def lines(self) -> list[str]:
        """As plain text, in columns."""
        cells = [list(HEAD), *(row.cells() for row in self.rows.values())]
        widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]

    def markdown(self) -> str:
        head = [" | ".join(HEAD), " | ".join("---" for _ in HEAD)]
        return "".join(f"| {line} |\n" for line in [*head, *(" | ".join(row.cells()) for row in self.rows.values())])


def named(line: str) -> str:
    """The innermost stop that an error line names."""
    words = [word.rstrip(":") for word in line.split() if word.endswith(":")]
    # SQLSTATE stands before a number in every error of Spark's, and names nothing.
    return next(
        (word for word in reversed(words) if word.isupper() and len(word) > 4 and word != "SQLSTATE"), line[:60]
    )
