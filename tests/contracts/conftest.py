"""The real schema registry, one for all tests that want it."""

from collections.abc import Iterator

import pytest

from tests.contracts.apicurio import Apicurio


@pytest.fixture(scope="session")
def apicurio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    with Apicurio(tmp_path_factory.mktemp("apicurio")) as server:
        yield server
