"""The decoder and the checks are expressions: they are tested as production runs them, as generated code."""

import pytest


@pytest.fixture(autouse=True)
def as_in_production(request: pytest.FixtureRequest) -> None:
    """Lets each test that has a session run generated code."""
    if "spark" in request.fixturenames:
        request.getfixturevalue("generated_code")
