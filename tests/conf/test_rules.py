"""What may stand in rules.toml, and how the rest is refused."""

from pathlib import Path

import pytest

from conf.errors import TidemarkError
from conf.rules import Pattern, Range, Unique, load_rules
from conf.topics import load_topics

HEAD = '[[readings]]\nname = "r"\non_failure = "warn"\n'


def declared(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text)
    return path


def test_the_rules_of_this_project_are_of_declared_topics() -> None:
    rules = load_rules(load_topics())
    assert {"departures", "weather"} <= rules.keys() <= load_topics().keys()


def test_rules_are_typed_and_keep_their_order(tmp_path: Path) -> None:
    text = f"""{HEAD}kind = "range"\nfield = "level"\nmax = 1.5
[[readings]]\nname = "u"\non_failure = "stop"\nkind = "unique"\nfields = ["id", "site.name"]\nwithin = "2 hours"
[[readings]]\nname = "p"\non_failure = "quarantine"\nkind = "pattern"\nfield = "id"\npattern = '\\d+'"""
    assert load_rules(["readings"], declared(tmp_path, text)) == {
        "readings": (
            Range(name="r", on_failure="warn", kind="range", field="level", max=1.5),
            Unique(name="u", on_failure="stop", kind="unique", fields=("id", "site.name"), within="2 hours"),
            Pattern(name="p", on_failure="quarantine", kind="pattern", field="id", pattern=r"\d+"),
        )
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{HEAD}kind = "rnge"', "rule `r` is of kind 'rnge'; did you mean `range`?"),
        (f'{HEAD}kind = "range"\nfield = "x"\nmni = 1', "rule `r` has no key `mni`; did you mean `min`?"),
        (f'{HEAD}kind = "range"\nfield = "x"', "rule `r`: Value error, a range needs min, max or both"),
        (f'{HEAD}kind = "range"\nfield = "x"\nmin = 2\nmax = 1', "rule `r`: Value error, min is above max"),
        (f'{HEAD}kind = "required"', "rule `r`: field Field required"),
        (f'{HEAD}kind = "required"\nfield = "a`b"', "rule `r`: field String should match pattern"),
        (f'{HEAD}kind = "pattern"\nfield = "x"\npattern = 1', "rule `r`: pattern Input should be a valid string"),
        (
            f'{HEAD}kind = "range"\nfield = "x"\nmax = 1{"0" * 400}',
            "rule `r`: Value error, a bound is greater than",
        ),
        (f'{HEAD}kind = "freshness"\nfield = "x"\nmax_age = "soon"', "'soon' is no duration: write for example"),
        (f'{HEAD}kind = "unique"\nfields = []\nwithin = "1 day"', "rule `r`: fields"),
        (
            f'{HEAD}kind = "required"\nfield = "x"\n'.replace("warn", "ignore"),
            "rule `r`: on_failure Input should be 'warn'",
        ),
        (f'{HEAD}kind = "required"\nfield = "x"\n' * 2, "topic `readings` has two rules `r`"),
        (
            '[reedings]\nname = "r"',
            "`reedings` is neither in conf/topics.toml nor in ingest.topics; declare it in conf/topics.toml; "
            "did you mean `readings`",
        ),
        ('[readings]\nname = "r"', "topic `readings` is not a list of rules; write each as [[topic]]"),
        ("[[readings", "rules.toml: "),
        ("readings = [1, 2]", "topic `readings` has a rule that is no table"),
        (f"{HEAD}kind = []", "rule `r` is of kind []"),
        (f'{HEAD}kind = "unique"\nfields = 5\nwithin = "1 day"', "rule `r`: fields Input should be a valid tuple"),
        ("readings = " + "[" * 100_000, "rules.toml: its tables or lists lie too deep in one another"),
        (
            f'\n# x\n{HEAD}kind = "pattern"\nfield = "x"\npattern = "(a+)+"',
            "rules.toml, line 3: topic `readings`, rule `r`",
        ),
        (f'{HEAD}kind = "pattern"\nfield = "x"\npattern = "(a+)+"', "'(a+)+' runs away: a text can be read"),
        (f'{HEAD}kind = "pattern"\nfield = "x"\npattern = ".*a.*b.*"', "the cube of its length measures the time"),
    ],
)
def test_what_is_no_rule_is_refused_with_file_topic_rule_and_key(tmp_path: Path, text: str, expected: str) -> None:
    path = declared(tmp_path, text)
    with pytest.raises(TidemarkError) as refused:
        load_rules(["readings"], path)
    assert refused.value.code == "BAD_RULES"
    assert str(path) in str(refused.value)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"min": 0}, "x is not 0 or more"),
        ({"max": 0.5}, "x is above 0.5"),
        ({"min": -1, "max": 2}, "x is not -1 to 2"),
    ],
)
def test_the_reason_of_a_range_is_true_of_nan_too(bounds: dict[str, float], reason: str) -> None:
    assert str(Range.model_validate({"name": "r", "on_failure": "warn", "field": "x", **bounds})) == reason
