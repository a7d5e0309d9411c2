"""The file registry: stable ids, no lost registration, no silent edit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conf import ROOT
from conf.errors import TidemarkError
from conf.settings import Registry as RegistrySettings
from schemas.file_registry import FileRegistry
from schemas.registry import open_registry


def record(*fields: str, doc: str = "") -> str:
    described = [{"name": name, "type": "long", "doc": doc} for name in fields]
    return json.dumps({"type": "record", "name": "R", "fields": described})


def price(scale: int) -> str:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": scale}
    return json.dumps({"type": "record", "name": "R", "fields": [{"name": "price", "type": decimal}]})


@pytest.fixture
def registry(tmp_path: Path) -> FileRegistry:
    return FileRegistry(tmp_path / "registry")


def test_registering_twice_gives_the_same_id_and_changes_no_file(registry: FileRegistry, tmp_path: Path) -> None:
    first = registry.register("a-value", record("x"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "registry").iterdir()}
    assert registry.register("a-value", record("x")) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "registry").iterdir()} == before


def test_white_space_and_attribute_order_make_no_new_schema(registry: FileRegistry) -> None:
    reordered = '{"fields": [{"doc": "",\n "type": "long", "name": "x"}], "name": "R", "type": "record"}'
    assert registry.register("a-value", record("x")) == registry.register("a-value", reordered)


@pytest.mark.parametrize("other", [record("x", doc="metres"), record("x", "y"), record("y", "x")])
def test_docs_and_fields_and_their_order_make_a_new_version(registry: FileRegistry, other: str) -> None:
    registry.register("a-value", record("x"))
    registry.register("a-value", other)
    assert [(schema.id, schema.version, schema.text) for schema in registry.versions("a-value")] == [
        (1, 1, record("x")),
        (2, 2, other),
    ]


def test_decimals_of_different_scale_are_different_schemas(registry: FileRegistry) -> None:
    assert registry.register("a-value", price(2)) != registry.register("a-value", price(3))


def test_one_schema_under_two_subjects_has_one_id(registry: FileRegistry) -> None:
    assert registry.register("a-value", record("x")) == registry.register("b-value", record("x"))
    assert registry.subjects() == ["a-value", "b-value"]


def test_latest_is_the_newest_version(registry: FileRegistry) -> None:
    registry.register("a-value", record("x"))
    newest = registry.register("a-value", record("x", "y"))
    assert (registry.latest("a-value").id, registry.latest("a-value").version) == (newest, 2)


def test_what_is_not_there_is_named(registry: FileRegistry) -> None:
    registry.register("departures-value", record("x"))
    with pytest.raises(TidemarkError, match=r"UNKNOWN_SCHEMA_ID: no schema has id 7 .*; known ids: 1"):
        registry.schema(7)
    with pytest.raises(TidemarkError, match=r"UNKNOWN_SUBJECT.*did you mean `departures-value`"):
        registry.latest("departure-value")


@pytest.mark.parametrize("text", ["{", "[]]", '{"type": "recrod"}', '{"type": "record", "name": "R"}', '"x"', "7"])
def test_what_is_no_avro_schema_is_refused(registry: FileRegistry, text: str) -> None:
    with pytest.raises(TidemarkError, match="INVALID_SCHEMA"):
        registry.register("a-value", text)
    assert registry.subjects() == []


def test_a_schema_edited_by_hand_is_noticed_and_its_file_named(registry: FileRegistry, tmp_path: Path) -> None:
    registry.register("a-value", record("x"))
    path = tmp_path / "registry" / "1.avsc"
    path.write_text(path.read_text().replace("long", "string"))
    for read in (lambda: registry.schema(1), lambda: registry.latest("a-value")):
        with pytest.raises(TidemarkError, match=r"REGISTRY_DAMAGED: .*1\.avsc was edited after .* id 1;"):
            read()


@pytest.mark.parametrize("text", ["", "{}", '[{"id": 1}]', "null"])
def test_a_broken_index_is_noticed(registry: FileRegistry, tmp_path: Path, text: str) -> None:
    registry.register("a-value", record("x"))
    (tmp_path / "registry" / "index.json").write_text(text)
    with pytest.raises(TidemarkError, match="REGISTRY_DAMAGED"):
        registry.schema(1)


def test_two_processes_that_register_at_once_lose_nothing(registry: FileRegistry, tmp_path: Path) -> None:
    program = """
import json, sys
from pathlib import Path
from schemas.file_registry import FileRegistry
registry = FileRegistry(Path(sys.argv[1]))
for number in range(30):
    text = json.dumps({"type": "record", "name": f"R{number}", "fields": []})
    print(registry.register(f"{sys.argv[2]}{number}-value", text))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "registry")]
    both = [subprocess.Popen([*command, who], stdout=subprocess.PIPE, text=True, cwd=ROOT) for who in "ab"]
    ids = [[int(line) for line in process.communicate(timeout=60)[0].split()] for process in both]
    assert ids[0] == ids[1]
    assert sorted(ids[0]) == list(range(1, 31))
    assert len(registry.subjects()) == 60


def test_a_registry_url_is_refused_until_there_is_a_client_for_it(tmp_path: Path) -> None:
    with pytest.raises(TidemarkError, match=r"UNSUPPORTED_REGISTRY.*http://localhost:8081"):
        open_registry(RegistrySettings(path=tmp_path, url="http://localhost:8081"))
