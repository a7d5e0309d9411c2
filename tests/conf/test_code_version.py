"""The code's version: the same for the same sources, wherever they lie, and another for any change."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

from conf import ROOT, code_version
from local.submit import zipped_packages

SOURCE = '''"""A module's docstring."""
LIMIT = 3  # why three


def double(number: int) -> int:
    """Twice the number."""
    return 2 * number
'''


def version_in(place: Path) -> str:
    """What a new process says whose packages come from `place`, a folder or a zip, and that cannot write there."""
    program = f"import sys; sys.path.insert(0, {str(place)!r}); from conf.code_version import version; print(version())"
    command = [sys.executable, "-I", "-B", "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for package in code_version.PACKAGES:
        copytree(ROOT / package, tmp_path / package, ignore=ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def few_sources(tmp_path: Path) -> Path:
    """Packages of one module each, beside what says their version."""
    for package in code_version.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    for name in ("__init__.py", "code_version.py"):
        copy(ROOT / "conf" / name, tmp_path / "conf" / name)
    (tmp_path / "jobs" / "added.py").write_text(SOURCE)
    return tmp_path


def test_it_is_the_packages_version_and_twelve_digits_of_a_hash() -> None:
    version, _, digest = code_version.version().partition("+")
    assert version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.fullmatch("[0-9a-f]{12}", digest)


def test_it_is_the_same_from_a_copy_and_from_the_zip_that_executors_get(checkout: Path, tmp_path: Path) -> None:
    assert version_in(checkout) == version_in(ROOT) == version_in(zipped_packages(tmp_path / "run"))


def test_it_is_the_same_where_python_has_left_byte_code_and_where_other_files_change(checkout: Path) -> None:
    before = version_in(checkout)
    (checkout / "jobs" / "__pycache__").mkdir()
    (checkout / "jobs" / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"left over")
    (checkout / "conf" / "base.toml").write_text("")
    assert version_in(checkout) == before


def test_it_is_read_from_a_folder_that_cannot_be_written(checkout: Path) -> None:
    before = version_in(checkout)
    folders = [checkout, *(path for path in checkout.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert version_in(checkout) == before
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.parametrize("change", ["content", "name", "added"])
def test_any_change_of_a_source_is_another_version(change: str, few_sources: Path) -> None:
    before = version_in(few_sources)
    source = few_sources / "jobs" / "added.py"
    if change == "content":
        source.write_text(source.read_text() + "CHANGED = True\n")
    elif change == "name":
        source.rename(source.with_name("late.py"))
    else:
        (few_sources / "jobs" / "own").mkdir()
        (few_sources / "jobs" / "own" / "job.py").write_text("")
    assert version_in(few_sources) != before


@pytest.mark.parametrize(
    ("old", "new", "is_same"),
    [
        ("# why three", "# why it is three", True),
        ("A module's docstring", "Another docstring", True),
        ("Twice the number", "Two times the number", True),
        ('    """Twice the number."""\n', "", True),
        ("LIMIT = 3  #", "LIMIT = (\n    3\n)  #", True),
        ("2 * number", "number * 2", False),
        ("LIMIT = 3", "LIMIT = 4", False),
        ("LIMIT = 3", 'LIMIT = "3"', False),
        ("def double(", "def twice(", False),
        ("(number: int)", "(number)", False),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(old: str, new: str, is_same: bool, few_sources: Path) -> None:
    before = version_in(few_sources)
    assert old in SOURCE
    (few_sources / "jobs" / "added.py").write_text(SOURCE.replace(old, new))
    assert (version_in(few_sources) == before) == is_same


def test_it_is_computed_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_version.version()
    monkeypatch.setattr(code_version, "PACKAGES", ("conf",))
    assert code_version.version() == before
    code_version.version.cache_clear()
    try:
        assert code_version.version() != before
    finally:
        monkeypatch.undo()
        code_version.version.cache_clear()


def test_what_came_of_the_same_sources_is_kept_in_the_state_folder_and_of_others_is_not_believed(
    few_sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path / "state"))
    found = version_in(few_sources)
    assert not (tmp_path / "state").exists()
    (tmp_path / "state").mkdir()
    assert version_in(few_sources) == found
    kept = tmp_path / "state" / code_version.CACHE
    sources, _, version = kept.read_text().strip().partition(" ")
    assert version == found
    assert [path.name for path in kept.parent.iterdir()] == [code_version.CACHE]
    kept.write_text(f"{sources} kept")
    assert version_in(few_sources) == "kept"
    for damaged in (f"{sources[:-1]} kept", sources, "", "\n \n"):
        kept.write_text(damaged)
        assert version_in(few_sources) == found
    kept.write_text(f"{sources} kept")
    (few_sources / "jobs" / "added.py").write_text("changed = 1\n")
    assert version_in(few_sources) not in ("kept", found)
