"""The bill of materials: what the locks name is in it, with hash and licence, and it is valid CycloneDX."""

import json
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from local import jars, sbom
from local.doctor import locked_packages


@pytest.mark.slow
def test_it_is_valid_and_holds_every_locked_package_and_jar_and_those_of_pyspark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sbom.json"
    assert sbom.main(["--output", str(path)]) == 0
    assert "components" in capsys.readouterr().err
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text()) is None
    held = {each["bom-ref"]: each for each in json.loads(path.read_text())["components"]}
    packages = locked_packages()
    locked = [jar for jar_set in jars.SETS for jar in jars.read_lock(jar_set)]
    assert len(held) == len(packages) + len(locked) + len(list(jars.spark_jars().glob("*.jar")))
    assert f"packages:pkg:pypi/pyspark@{packages['pyspark']}" in held
    [kafka] = (jar for jar in locked if jar.file.startswith("kafka-clients-3"))
    component = held["spark:pkg:maven/" + kafka.coordinate.replace(":", "/", 1).replace(":", "@")]
    assert component["hashes"] == [{"alg": "SHA-256", "content": kafka.sha256}]
    assert component["licenses"] == [{"license": {"id": "Apache-2.0", "acknowledgement": "declared"}}]


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("Apache License, Version 2.0", "Apache-2.0"),
        ("http://www.apache.org/licenses/LICENSE-2.0.txt", "Apache-2.0"),
        ("The MIT License", "MIT"),
        ("3-Clause BSD License", "BSD-3-Clause"),
        ("Permit of Ours", "Permit of Ours"),
    ],
)
def test_names_of_licences_become_identifiers_and_others_are_kept(text: str, identifier: str) -> None:
    assert sbom.spdx(text) == identifier


@pytest.mark.parametrize(
    ("name", "text", "licence"),
    [
        ("META-INF/MANIFEST.MF", "Bundle-License: https://www.apache.org/licenses/LICE\r\n NSE-2.0\r\n", "Apache-2.0"),
        ("META-INF/maven/g/a/pom.xml", "<licenses><license><name>MIT</name></license></licenses>", "MIT"),
        ("META-INF/LICENSE", "   Apache License\n   Version 2.0", "Apache-2.0"),
        ("LICENSE", "Do what you like", ""),
    ],
)
def test_a_jar_says_its_licence_in_one_of_three_places(tmp_path: Path, name: str, text: str, licence: str) -> None:
    path = tmp_path / "a-1.jar"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, text)
    assert sbom._of_jar(path) == licence
