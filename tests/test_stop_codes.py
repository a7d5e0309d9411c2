"""Every code that an error can have stands in docs/stops.md, or in a page that it names."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from conf import ROOT

DOCS = ROOT / "docs"
CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
PACKAGES = ("conf", "jobs", "local", "notebooks", "producers", "schemas")
# It says by codes of its own what is wrong with the bytes of a record, which is UNDECODABLE then.
OF_BYTES = ROOT / "schemas" / "wire.py"


@cache
def trees() -> dict[Path, ast.Module]:
    paths = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py")} - {OF_BYTES}
    return {path: ast.parse(path.read_text()) for path in sorted(paths)}


def name_of(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


@cache
def makers() -> dict[str, int]:
    """What makes an error of a code: the class, its heirs, and functions and classes with a `code`; where that is."""
    found = {"TidemarkError": 0}
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                fields = [name_of(part.target) for part in node.body if isinstance(part, ast.AnnAssign)]
                if any(name_of(base).endswith("Error") for base in node.bases):
                    found[node.name] = 0
                elif "code" in fields:
                    found[node.name] = fields.index("code")
            elif isinstance(node, ast.FunctionDef):
                parameters = [each.arg for each in node.args.args if each.arg not in ("self", "cls")]
                if "code" in parameters:
                    found[node.name] = parameters.index("code")
    return found


@cache
def constants() -> dict[str, str]:
    """The texts of the modules' constants that are codes, by their names."""
    return {
        name_of(node.targets[0]): node.value.value
        for tree in trees().values()
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if CODE.fullmatch(node.value.value) and len(node.value.value) > 3
    }


def codes_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or name_of(node.func) not in makers():
            continue
        at = makers()[name_of(node.func)]
        given = [*node.args[at : at + 1], *(word.value for word in node.keywords if word.arg == "code")]
        for part in (each for value in given for each in ast.walk(value)):
            text = part.value if isinstance(part, ast.Constant) else constants().get(name_of(part), "")
            if isinstance(text, str) and CODE.fullmatch(text) and len(text) > 3:
                yield text


def documented() -> set[str]:
    stops = (DOCS / "stops.md").read_text()
    pages = {DOCS / name for name in re.findall(r"\]\(([\w-]+\.md)", stops)}
    text = "".join([stops, *(page.read_text() for page in sorted(pages))])
    return set(re.findall(r"`([A-Z][A-Z0-9_]+)[`:]", text))


def test_every_code_stands_in_the_docs() -> None:
    raised: dict[str, str] = {}
    for path, tree in trees().items():
        for code in codes_in(tree):
            raised.setdefault(code, str(path.relative_to(ROOT)))
    assert len(raised) > 150
    missing = {code: where for code, where in sorted(raised.items()) if code not in documented()}
    assert not missing, "\n".join(f"{code} ({where})" for code, where in missing.items())
