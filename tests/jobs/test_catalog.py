"""Jobs are found by their files, and asked nothing but their questions."""

from pathlib import Path

import pytest

from conf.errors import TidemarkError
from jobs import catalog


def test_a_file_with_a_build_function_is_a_job_and_its_first_line_the_question(tmp_path: Path) -> None:
    (tmp_path / "lakes").mkdir()
    (tmp_path / "lakes" / "levels.py").write_text(
        '"""How high?\n\nMore.\n"""\nimport nowhere\n\ndef build(run):\n    ...\n'
    )
    (tmp_path / "lakes" / "measures.py").write_text('"""No job."""\n\ndef rebuild(run):\n    ...\n')
    assert catalog.questions(tmp_path) == {"lakes.levels": "How high?"}


def test_every_job_asks_a_question_and_can_be_loaded() -> None:
    found = catalog.questions()
    assert {"ingest", "flights.hourly_delays"} <= found.keys()
    assert {name: text for name, text in found.items() if "?" not in text} == {}
    for name in found:
        assert callable(catalog.load(name).build)


def test_an_unknown_job_is_answered_with_the_nearest() -> None:
    with pytest.raises(TidemarkError, match=r"UNKNOWN_JOB: there is no job `ingst`; did you mean `ingest`\?"):
        catalog.require("ingst")
