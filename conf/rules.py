"""Loads the data rules that `rules.toml` declares: what each asks of a topic's events, not how it is checked."""

import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError, field_validator, model_validator

from conf import ROOT
from conf.errors import TidemarkError, nearest
from conf.regex_growth import LONGEST_TEXT, growth
from conf.setting_sources import read_toml
from conf.setting_types import Duration, Section

LARGEST = sys.float_info.max
HEADER = re.compile(r"""\s*\[\[\s*("[^"]+"|'[^']+'|[\w-]+)\s*\]\]""")
Action = Literal["warn", "quarantine", "stop"]
# A dot leads into a record: `position.latitude`.
FieldPath = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]


class _Rule(Section):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    on_failure: Action


class Required(_Rule):
    """`field` is not null."""

    kind: Literal["required"] = "required"
    field: FieldPath

    def __str__(self) -> str:
        return f"{self.field} is null"


class Range(_Rule):
    """The number `field` is not below `min` and not above `max`."""

    kind: Literal["range"] = "range"
    field: FieldPath
    min: int | FiniteFloat | None = None
    max: int | FiniteFloat | None = None

    @model_validator(mode="after")
    def _require_bounds(self) -> "Range":
        if self.min is None and self.max is None:
            raise ValueError("a range needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        for bound in (self.min, self.max):
            if bound is not None and abs(bound) > LARGEST:
                raise ValueError("a bound is greater than any number of a double")
        return self

    def __str__(self) -> str:
        # NaN fails too, and is not below anything.
        if self.max is None:
            return f"{self.field} is not {self.min} or more"
        return f"{self.field} is " + (f"above {self.max}" if self.min is None else f"not {self.min} to {self.max}")


class Pattern(_Rule):
    """The whole text of `field` matches `pattern`, a regular expression of Java, which compiles it at a job's start."""

    kind: Literal["pattern"] = "pattern"
    field: FieldPath
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _require_bounded(cls, pattern: str) -> str:
        kind = growth(pattern)
        if kind in ("exponential", "polynomial"):
            how = "each character doubles" if kind == "exponential" else "the cube of its length measures"
            what = f"{pattern!r} runs away: a text can be read in ever more ways, and {how} the time that it takes"
            raise ValueError(f"{what}; let its repeated parts begin, or be parted, by what they do not hold")
        return pattern

    @property
    def longest(self) -> int | None:
        """Return how many characters a text may have that is matched at all; None: any number."""
        return LONGEST_TEXT if growth(self.pattern) == "bounded" else None

    def __str__(self) -> str:
        return f"{self.field} does not match {self.pattern}"


class Freshness(_Rule):
    """The time `field` is at most `max_age` before the record's timestamp."""

    kind: Literal["freshness"] = "freshness"
    field: FieldPath
    max_age: Duration

    def __str__(self) -> str:
        return f"{self.field} is more than {self.max_age} before the record's timestamp"


class Reference(_Rule):
    """The value of `field` is in `column` of `table`."""

    kind: Literal["reference"] = "reference"
    field: FieldPath
    table: str = Field(pattern=r"^[\w.-]+(/[\w.-]+)*$")
    column: FieldPath

    def __str__(self) -> str:
        return f"{self.field} is not in {self.column} of table {self.table}"


class Unique(_Rule):
    """No earlier record has the same `fields` and an event time less than or just `within` away."""

    kind: Literal["unique"] = "unique"
    fields: Annotated[tuple[FieldPath, ...], Field(min_length=1)]
    within: Duration

    def __str__(self) -> str:
        return f"an earlier record within {self.within} has the same {', '.join(self.fields)}"


# What these ask depends on the event alone: silver keeps them as CHECK constraints, too.
OnEvent = Required | Range | Pattern
Stateless = OnEvent | Freshness
Rule = Annotated[Stateless | Reference | Unique, Field(discriminator="kind")]
KINDS = {get_args(rule.model_fields["kind"].annotation)[0]: rule for rule in _Rule.__subclasses__()}
_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)


def fields_of(rule: Rule) -> tuple[str, ...]:
    """Return the fields of the event that `rule` looks at."""
    return rule.fields if isinstance(rule, Unique) else (rule.field,)


def load_rules(topics: Collection[str], path: Path | None = None) -> dict[str, tuple[Rule, ...]]:
    """Return the rules of each of `topics` that has some, in the file's order; raises TidemarkError BAD_RULES, with the
    file, the line, the topic, the rule and the key."""
    path = path or ROOT / "conf" / "rules.toml"
    declared, text = read_toml(path, "BAD_RULES")
    lines = _lines_of_rules(text)
    for topic in declared.keys() - set(topics):
        what = f"{path}: `{topic}` is neither in conf/topics.toml nor in ingest.topics"
        raise TidemarkError("BAD_RULES", what, f"declare it in conf/topics.toml; {nearest(topic, sorted(topics))}")
    return {topic: _rules(path, topic, tables, lines.get(topic, [])) for topic, tables in declared.items()}


def _lines_of_rules(text: str) -> dict[str, list[int]]:
    """Find the lines on which the rules of each topic begin, in order; tomllib does not tell."""
    lines: dict[str, list[int]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if header := HEADER.match(line):
            lines.setdefault(header[1].strip("\"'"), []).append(number)
    return lines


def _rules(path: Path, topic: str, tables: Any, lines: list[int]) -> tuple[Rule, ...]:
    where = f"{path}: topic `{topic}`"
    if not isinstance(tables, list):
        remedy = "write each as [[topic]] with its keys below"
        raise TidemarkError("BAD_RULES", f"{where} is not a list of rules", remedy)
    places = [f"{path}, line {line}: topic `{topic}`" for line in lines] if len(lines) == len(tables) else []
    if not all(isinstance(table, dict) for table in tables):
        raise TidemarkError("BAD_RULES", f"{where} has a rule that is no table", "write each as [[topic]]")
    rules = tuple(_rule(place, table) for place, table in zip(places or repeat(where), tables, strict=False))
    for name, count in Counter(rule.name for rule in rules).items():
        if count > 1:
            raise TidemarkError("BAD_RULES", f"{where} has two rules `{name}`", "give each a name of its own")
    return rules


def _rule(where: str, table: Mapping[str, Any]) -> Rule:
    where, kind = f"{where}, rule `{table.get('name', '?')}`", table.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise TidemarkError("BAD_RULES", f"{where} is of kind {kind!r}", nearest(str(kind), [*KINDS]))
    try:
        return _RULE.validate_python(table)
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in problem["loc"][1:])
    if problem["type"] == "extra_forbidden":
        raise TidemarkError("BAD_RULES", f"{where} has no key `{key}`", nearest(key, [*KINDS[kind].model_fields]))
    raise TidemarkError("BAD_RULES", f"{where}: {key} {problem['msg']}".replace("  ", " "), "see docs/quarantine.md")
