"""The real schema registry, one for all tests that want it."""

from collections.abc import Iterator

import pytest

from tests.contracts.apicurio import Apicurio


@pytest.fixture(scope="package")
def one_apicurio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    with Apicurio(tmp_path_factory.mktemp("apicurio")) as server:
        yield server


@pytest.fixture
def apicurio(one_apicurio: Apicurio) -> Apicurio:
    """It runs, though the test before may have killed it."""
    if not one_apicurio.runs:
        one_apicurio.start()
    return one_apicurio
