"""The view of topics: declared or not, with a broker or without, and the versions of their schemas."""

import json
from pathlib import Path

import pytest

from schemas.registry import FileRegistry
from tests.local.page.browser import Browser
from tests.local.page.test_rejected_and_late import PERSON


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path, sets=[f"registry.path={tmp_path / 'registry'}"])


def test_topics_are_declared_whether_or_not_a_broker_answers(browser: Browser) -> None:
    text = browser.text("/topics")
    assert '<th scope="row">departures</th>' in text
    assert "NO_BROKER" in text
    assert "none registered" in text


def test_schema_versions_stand_beside_their_topic(browser: Browser) -> None:
    FileRegistry(browser.folder / "registry").register("departures-value", json.dumps(PERSON))
    assert "departures-value 1 (id 1)" in browser.text("/topics")
