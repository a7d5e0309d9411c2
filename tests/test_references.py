"""What texts refer to is there: files of the checkout, pages that links lead to, headings, names in the code."""

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from conf import ROOT

TREE = "bench|conf|deploy|docs|jobs|local|notebooks|producers|schemas|tests"
SUFFIXES = (".py", ".md", ".toml", ".sh", ".conf", ".properties", ".yaml", ".ipynb")
FILE = re.compile(rf"(?<![\w./-])(?:{TREE})/[\w./-]+\.(?:py|md|toml|sh|lock|conf|properties|yaml|ipynb|avsc|csv)\b")
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")
SYMBOL = re.compile(r"`((?:bench|conf|jobs|local|producers|schemas)(?:\.\w+)+)`")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
# Files that a reader of the page makes, or whose name is a pattern's.
MADE = {
    "jobs/sensors/__init__.py",
    "jobs/sensors/warmth.py",
    "schemas/TOPIC.avsc",
    "schemas/order_paid.avsc",
    "schemas/sensors.avsc",
}


def texts() -> Iterator[Path]:
    tops = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in SUFFIXES]
    inner = (path for top in TREE.split("|") for path in (ROOT / top).rglob("*") if path.suffix in SUFFIXES)
    yield from tops
    # Tests speak of files that they make.
    yield from (path for path in inner if "tests" not in path.parts and ".ipynb_checkpoints" not in path.parts)


PAGES = sorted(path for path in texts() if path.suffix == ".md")


def test_every_file_that_a_text_names_is_there() -> None:
    named = {(found, path) for path in texts() for found in FILE.findall(path.read_text())}
    assert len(named) > 50
    dead = {f"{path.relative_to(ROOT)}: {found}" for found, path in named if not (ROOT / found).exists()}
    assert {line for line in dead if line.partition(": ")[2] not in MADE} == set()


def test_every_module_and_name_in_it_that_a_page_names_is_there() -> None:
    named = {name for page in PAGES if page.name != "CHANGELOG.md" for name in SYMBOL.findall(page.read_text())}
    assert named
    assert {name for name in named if not is_there(name)} == set()


def is_there(name: str) -> bool:
    """Whether the dotted `name` is a module, or a name in one."""
    outer, _, last = name.rpartition(".")
    try:
        return hasattr(import_module(outer), last) or find_spec(name) is not None
    except ModuleNotFoundError:
        return False


HOP = re.compile(r"^\| \d+ \| `([\w/]+\.py)` \| (`[\w.`, ]+`) \|", re.MULTILINE)


@pytest.mark.parametrize(("heading", "most"), [("From a topic to silver", 12), ("From a topic to an output topic", 15)])
def test_the_way_of_a_record_enters_no_module_twice_and_has_the_functions_that_it_names(
    heading: str, most: int
) -> None:
    way = (ROOT / "docs" / "architecture.md").read_text().split("## The way of a record")[1].split("\n## ")[0]
    hops = HOP.findall(way.split(heading)[1].split("\nFrom ")[0])
    files = [file for file, _ in hops]
    assert 5 < len(hops) <= most
    assert len(files) == len(set(files))
    for file, names in hops:
        text = (ROOT / file).read_text()
        for name in re.findall(r"\w+", names):
            assert re.search(rf"^ *(def|class) {name}\b", text, re.MULTILINE), f"{file}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = HEADING.findall(page.read_text())
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
