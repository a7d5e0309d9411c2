"""What a check found: a line each, with what to do."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

SHOWN = 20  # lines of one kind in one partition; past that, only how many more there are


@dataclass(frozen=True)
class Finding:
    """One line.

    Args:
        code: names the kind for programs.
        where: the table, or the sink of an output topic.
        topic, partition, start, end: the offsets that it is about, from `start` to before `end`, as far as it is.
        is_problem: False for what is only told.
    """

    code: str
    where: str
    text: str
    remedy: str
    topic: str = ""
    partition: int | None = None
    start: int | None = None
    end: int | None = None
    is_problem: bool = True

    def line(self) -> str:
        """For people."""
        told = f"{self.code}: {self.text}" if self.is_problem else f"note: {self.text}"
        return f"{told}; {self.remedy}" if self.remedy else told

    def to_json(self) -> dict[str, Any]:
        """By the names above; `from` and `to` for start and end."""
        said = asdict(self)
        said["from"], said["to"] = said.pop("start"), said.pop("end")
        return said


def of_offsets(
    code: str, where: str, at: tuple[str, int, int, int], text: str, remedy: str, is_problem: bool = True
) -> Finding:
    """One about offsets `at`: topic, partition, first, and before which; `text` goes on after their names."""
    topic, partition, start, end = at
    named = f"{topic} partition {partition}: {offsets(start, end)}"
    return Finding(code, where, f"{named} {text}", remedy, topic, partition, start, end, is_problem)


def offsets(start: int, end: int) -> str:
    """Offsets from `start` to before `end`, by the first and the last."""
    return f"offset {start}" if end - start == 1 else f"offsets {start} to {end - 1}"


def shortened(findings: Iterable[Finding]) -> list[Finding]:
    """With SHOWN of each code, place and partition, and one that says how many more there are."""
    kept: list[Finding] = []
    counts: dict[tuple[str, str, str, int | None], list[Finding]] = {}
    for each in findings:
        same = counts.setdefault((each.code, each.where, each.topic, each.partition), [])
        same.append(each)
        if len(same) <= SHOWN:
            kept.append(each)
    for same in counts.values():
        if len(same) > SHOWN:
            first, text = same[0], f"{len(same) - SHOWN:,} more like these; --json shows them all"
            named = f"{first.where}: {first.topic} partition {first.partition}: {text}"
            kept.append(Finding(first.code, first.where, named, "", first.topic, first.partition))
    return kept
