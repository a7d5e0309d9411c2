"""The table of compatibility cases."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from conf.sections import CompatibilityLevel
from schemas.registry import RegisteredSchema

TABLE = Path(__file__).with_name("compatibility_cases.toml")


@dataclass(frozen=True)
class Case:
    """One row; `earlier` and `new` are whole schema texts."""

    name: str
    level: CompatibilityLevel
    earlier: tuple[str, ...]
    new: str
    compatible: bool
    stricter: str = ""

    @property
    def versions(self) -> list[RegisteredSchema]:
        return [RegisteredSchema(number, "s-value", number, text) for number, text in enumerate(self.earlier, 1)]


def load() -> list[Case]:
    """Every case, in the table's order."""
    return [
        Case(**row | {"earlier": tuple(map(_whole, row["earlier"])), "new": _whole(row["new"])})
        for row in tomllib.loads(TABLE.read_text())["case"]
    ]


def _whole(text: str) -> str:
    given = json.loads(text)
    return json.dumps({"type": "record", "name": "Event", "fields": given}) if isinstance(given, list) else text


CASES = load()
