"""Patterns that run away are told from those that do not, before Java runs them."""

import re
import time

import pytest

from conf.regex_growth import LONGEST_TEXT, Growth, growth
from conf.rules import load_rules
from conf.topics import load_topics

# Java 17 remembers where some of them failed before; not all, and nothing promises it of another version.
EXPONENTIAL = [
    *(r"(a+)+", r"(a|a)*", r"(a*)*b", r"(\d+,?)*", r"(\w+\s*)+", r"([a-z]+-?)+", r"(?:a|ab|b)*c", r"(x+x+)+y"),
    *(r"(a|a){1,30}", r"(a?b?)*", r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(?i)(a|A)*", r"(a{1,100}){1,100}", r"(?=(a+)+b)a"),
    *(r"(\p{L}|[a-f])+", r"([a-z&&[^x]]|b)*", r"(\x61|\u0061)*", r"(?:[^,]*|,)*"),
]
CASES: list[tuple[str, Growth]] = [
    *((pattern, "exponential") for pattern in EXPONENTIAL),
    *((pattern, "polynomial") for pattern in (r".*a.*b.*", r"\s*\s*\s*x", r"(?s).*.*.*")),
    # By the square of the length, groups that Java's matcher calls itself for, and what is not judged.
    *((pattern, "bounded") for pattern in (r".*@.*", r"[^@\s]+@[^@\s]+\.[^@\s]+", r"(?:ab|c)*", r"(?:ab|c){1,2000}")),
    *((pattern, "bounded") for pattern in (r"(\w)\1*", r"(?x)a+ # b", "(", "a)|(b", r"(a++)+b", r"(?>a+)+")),
    *((pattern, "linear") for pattern in (r"N[0-9A-Z]{1,5}", r"https?://.*", r"'|north", r"\p{L}+-\p{N}", "")),
    *((pattern, "linear") for pattern in (r"x?a-[^'\\]\s?", r"[]a]+", r"[[b]c]+", r"(?=.*foo).*", r"[a-f]*[^a-f]*")),
    *((pattern, "linear") for pattern in (r"(\d{3}-){0,3}\d{4}", r"\d{1,64}\d{1,64}", r"\x{1F600}+\u0041*")),
]


@pytest.mark.parametrize(("pattern", "expected"), CASES)
def test_a_pattern_is_judged_by_what_a_text_can_do_to_it(pattern: str, expected: Growth) -> None:
    assert growth(pattern) == expected


@pytest.mark.parametrize(
    "pattern", [r"(?:" + "|".join(f"{n:04}" for n in range(200)) + ")*", "(" * 5_000, "a?" * 5_000]
)
def test_to_judge_takes_a_moment_only(pattern: str) -> None:
    began = time.process_time()
    assert growth(pattern) == "bounded"
    assert time.process_time() - began < 5


def test_python_s_matcher_agrees_on_what_doubles() -> None:
    """It tries one way after the other, too: each character more doubles the time of such a pattern."""
    pattern = re.compile(r"(?:a|a)*b")

    def seconds(length: int) -> float:
        began = time.process_time()
        assert not pattern.fullmatch("a" * length)
        return time.process_time() - began

    assert seconds(20) > 8 * seconds(14)
    assert growth(pattern.pattern) == "exponential"


def test_the_rules_of_this_project_have_no_bound() -> None:
    patterns = [rule for rules in load_rules(load_topics()).values() for rule in rules if rule.kind == "pattern"]
    assert len(patterns) > 3
    assert [rule.longest for rule in patterns] == [None] * len(patterns)
    assert LONGEST_TEXT == 1_000
