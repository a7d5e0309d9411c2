"""Defines what a check of coverage found: a line each, with what to do."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

SHOWN = 20  # lines of one kind in one partition; past that, only how many more there are


@dataclass(frozen=True)
class Finding:
    """One thing that a check found: a line.

    Args:
        code: names the kind for programs.
        where: the table, or the sink of an output topic.
        topic, partition, start, end: the offsets, from `start` to before `end`, where it is about some.
        is_problem: False for a note.
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
        """Return the finding as a line for people."""
        text = f"{self.code}: {self.text}" if self.is_problem else f"note: {self.text}"
        return f"{text}; {self.remedy}" if self.remedy else text

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON by the names above; `from` and `to` for start and end."""
        fields = asdict(self)
        fields["from"], fields["to"] = fields.pop("start"), fields.pop("end")
        return fields


def offsets_finding(code: str, where: str, at: tuple[str, int, int, int], text: str, remedy: str) -> Finding:
    """Make a finding about offsets `at`: topic, partition, first, and before which; `text` comes after them."""
    topic, partition, start, end = at
    named = f"{topic} partition {partition}: {offsets_text(start, end)}"
    return Finding(code, where, f"{named} {text}", remedy, topic, partition, start, end)


def offsets_text(start: int, end: int) -> str:
    """Name offsets from `start` to before `end`, by the first and the last."""
    return f"offset {start}" if end - start == 1 else f"offsets {start} to {end - 1}"


def shorten(findings: Iterable[Finding]) -> list[Finding]:
    """Keep SHOWN of each code, place and partition, and one that says how many more there are."""
    kept: list[Finding] = []
    counts: dict[tuple[str, str, str, int | None], list[Finding]] = {}
    for finding in findings:
        same = counts.setdefault((finding.code, finding.where, finding.topic, finding.partition), [])
        same.append(finding)
        if len(same) <= SHOWN:
            kept.append(finding)
    for same in counts.values():
        if len(same) > SHOWN:
            first, text = same[0], f"{len(same) - SHOWN:,} more like these; --json shows them all"
            named = f"{first.where}: {first.topic} partition {first.partition}: {text}"
            kept.append(Finding(first.code, first.where, named, "", first.topic, first.partition))
    return kept
