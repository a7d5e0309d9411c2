"""The locks say what is installed, on whichever machine: exact versions, checksums, no address."""

import re
import tomllib

import pytest

from conf import ROOT
from local import jars
from local.lock import DECLARED

PACKAGE_LOCKS = ["build", "requirements", "requirements-dev", "requirements-notebook"]
PIN = re.compile(r"^([\w.-]+)==(\S+) \\$", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / "conf" / f"{name}.lock").read_text()))


@pytest.mark.parametrize("name", PACKAGE_LOCKS)
def test_every_package_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / "conf" / f"{name}.lock").read_text()
    blocks = re.split(r"\n(?=[\w])", text)
    assert all("--hash=sha256:" in block for block in blocks if PIN.match(block))
    assert not re.search(r"https?:|--index|--find-links|--trusted|@ ", text)


def test_each_lock_holds_the_one_before_it_at_the_same_versions() -> None:
    runtime, dev, notebook = (pins(name) for name in PACKAGE_LOCKS[1:])
    assert runtime.items() <= dev.items() <= notebook.items()


def test_the_lock_holds_the_exact_versions_that_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    exact = dict(re.sub(r"\[.*]", "", wanted).split("==") for wanted in project["dependencies"] if "==" in wanted)
    assert exact.items() <= pins("requirements").items()


def test_every_root_jar_is_locked() -> None:
    for jar_set, wanted in tomllib.loads(DECLARED.read_text()).items():
        assert set(wanted["roots"]) <= {jar.coordinate for jar in jars.read_lock(jar_set)}


def test_a_file_that_is_no_plain_jar_is_locked_with_classifier_and_extension() -> None:
    [archive] = jars.read_lock("registry")
    assert archive.coordinate == "io.apicurio:apicurio-registry-app:3.0.9:all:tar.gz"
    assert archive.file == "apicurio-registry-app-3.0.9-all.tar.gz"


def test_the_broker_and_spark_have_their_own_kafka_clients() -> None:
    versions = {
        jar_set: [jar.coordinate for jar in jars.read_lock(jar_set) if ":kafka-clients:" in jar.coordinate]
        for jar_set in jars.SETS
    }
    assert versions == {
        "spark": ["org.apache.kafka:kafka-clients:3.9.2"],
        "broker": ["org.apache.kafka:kafka-clients:4.3.1"],
    }
