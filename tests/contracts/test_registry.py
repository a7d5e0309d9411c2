"""What every registry does, wherever it is kept: the folder, and a real server that speaks Confluent's REST API."""

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference

from conf.errors import TidemarkError
from conf.sections import CompatibilityLevel
from conf.settings import load
from schemas.cli import main
from schemas.contracts import contract
from schemas.open_registry import open_registry
from schemas.registry import Registry
from tests.contracts.apicurio import Apicurio
from tests.leaks.search import LOOPBACK, listening

Opener = Callable[[CompatibilityLevel], Registry]


def record(*fields: str, doc: str = "") -> str:
    described = [{"name": name, "type": "long", "doc": doc} for name in fields]
    return json.dumps({"type": "record", "name": "R", "fields": described})


def price(scale: int) -> str:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": scale}
    return json.dumps({"type": "record", "name": "R", "fields": [{"name": "price", "type": decimal}]})


@pytest.fixture(params=["file", pytest.param("http", marks=pytest.mark.registry)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the registry under a level, as producers and jobs do; each call gives an object of its own."""
    url = request.getfixturevalue("apicurio").url if request.param == "http" else ""

    def open_under(level: CompatibilityLevel) -> Registry:
        sets = [f"registry.path={tmp_path / 'registry'}", f"registry.url={url}", f"registry.compatibility={level}"]
        return open_registry(load("local", sets).registry)

    return open_under


@pytest.fixture
def registry(opened: Opener) -> Registry:
    return opened("none")


@pytest.fixture
def subject() -> str:
    """A new one: the server is shared."""
    return f"{uuid.uuid4().hex[:12]}-value"


@pytest.mark.registry
def test_the_server_listens_on_loopback_alone(apicurio: Apicurio) -> None:
    addresses = listening(psutil.Process().children(recursive=True))
    assert urlsplit(apicurio.url).port in {port for _, port in addresses}
    assert {address for address, _ in addresses} <= LOOPBACK


def test_registering_twice_gives_the_same_id_and_one_version(registry: Registry, subject: str) -> None:
    assert registry.register(subject, record("x")) == registry.register(subject, record("x"))
    assert len(registry.versions(subject)) == 1


def test_white_space_and_attribute_order_make_no_new_schema(registry: Registry, subject: str) -> None:
    reordered = '{"fields": [{"doc": "",\n "type": "long", "name": "x"}], "name": "R", "type": "record"}'
    assert registry.register(subject, record("x")) == registry.register(subject, reordered)
    assert len(registry.versions(subject)) == 1


@pytest.mark.parametrize("other", [record("x", doc="metres"), record("x", "y"), record("y", "x")])
def test_docs_and_fields_and_their_order_make_a_new_version(registry: Registry, subject: str, other: str) -> None:
    ids = [registry.register(subject, record("x")), registry.register(subject, other)]
    found = registry.versions(subject)
    assert [(schema.id, schema.subject, schema.version) for schema in found] == [
        (ids[0], subject, 1),
        (ids[1], subject, 2),
    ]
    assert [json.loads(schema.text) for schema in found] == [json.loads(record("x")), json.loads(other)]


def test_decimals_of_different_scale_are_different_schemas(registry: Registry, subject: str) -> None:
    assert registry.register(subject, price(2)) != registry.register(subject, price(3))


def test_one_schema_under_two_subjects_has_one_id(registry: Registry, subject: str) -> None:
    assert registry.register(subject, record("x")) == registry.register(f"b-{subject}", record("x"))
    assert {subject, f"b-{subject}"} <= set(registry.subjects())


def test_an_id_stands_for_its_text_and_latest_is_the_newest_version(registry: Registry, subject: str) -> None:
    registry.register(subject, record("x"))
    newest = registry.register(subject, record("x", "y"))
    latest = registry.latest(subject)
    assert (latest.id, latest.version) == (newest, 2)
    assert json.loads(registry.schema(newest)) == json.loads(latest.text) == json.loads(record("x", "y"))


def test_a_version_that_another_registers_is_there_at_once(opened: Opener, subject: str) -> None:
    reader, writer = opened("none"), opened("none")
    writer.register(subject, record("x"))
    assert len(reader.versions(subject)) == 1
    newest = writer.register(subject, record("x", "y"))
    assert [schema.id for schema in reader.versions(subject)][1:] == [newest]


def test_what_is_not_there_is_named(registry: Registry, subject: str) -> None:
    registry.register(subject, record("x"))
    with pytest.raises(TidemarkError, match=r"UNKNOWN_SCHEMA_ID: no schema has id 77777 in "):
        registry.schema(77777)
    for ask in (registry.latest, registry.versions):
        with pytest.raises(TidemarkError, match=f"UNKNOWN_SUBJECT.*did you mean `{subject}`"):
            ask(subject[1:])


@pytest.mark.parametrize("text", ["{", '{"type": "recrod"}', '{"type": "record", "name": "R"}'])
def test_what_is_no_avro_schema_is_refused(registry: Registry, subject: str, text: str) -> None:
    with pytest.raises(TidemarkError, match="INVALID_SCHEMA"):
        registry.register(subject, text)
    assert subject not in registry.subjects()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [(record("x"), record("x", "y"), "version 1: y: .* give it a default"), (price(2), price(3), "version 1: price: ")],
)
def test_an_incompatible_schema_is_refused_with_its_field_and_not_registered(
    opened: Opener, subject: str, old: str, new: str, named: str
) -> None:
    registry = opened("backward_transitive")
    registry.register(subject, old)
    with pytest.raises(TidemarkError, match=f"INCOMPATIBLE_SCHEMA: {subject} {named}"):
        registry.register(subject, new)
    assert len(registry.versions(subject)) == 1


def test_an_earlier_version_is_found_again_though_it_may_not_follow_the_newest(opened: Opener, subject: str) -> None:
    free, gated = opened("none"), opened("full_transitive")
    first = free.register(subject, record("x"))
    free.register(subject, record("y"))
    assert gated.register(subject, record("x")) == first


def test_two_that_register_at_once_get_one_id_and_one_version(opened: Opener, subject: str) -> None:
    registries = [opened("none"), opened("none")]
    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(lambda registry: registry.register(subject, record("x")), registries))
    assert ids[0] == ids[1]
    assert len(registries[0].versions(subject)) == 1


@pytest.mark.registry
def test_a_servers_own_check_stands_behind_ours(subject: str, apicurio: Apicurio) -> None:
    registry = open_registry(load("local", [f"registry.url={apicurio.url}", "registry.compatibility=none"]).registry)
    registry.register(subject, record("x"))
    apicurio.set_level("full_transitive", subject)
    with pytest.raises(TidemarkError, match=f"INCOMPATIBLE_SCHEMA: {apicurio.url} refuses .*{subject}.*y at /fields/1"):
        registry.register(subject, record("x", "y"))


@pytest.mark.registry
def test_the_commands_speak_to_a_server_too(apicurio: Apicurio, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*argv: str) -> str:
        capsys.readouterr()
        assert main(["--set", f"registry.url={apicurio.url}", *argv]) == 0
        return capsys.readouterr().out

    ids = {line.split()[1]: line.split()[0] for line in printed("register").splitlines()}
    listed = [line.split() for line in printed("list").splitlines()]
    assert [ids["planes-value"], "planes-value", "1"] in listed
    assert json.loads(printed("show", "planes-value")) == json.loads(contract("plane"))
    assert printed("show", ids["planes-value"]) == printed("show", "planes-value")


@pytest.mark.registry
def test_types_of_other_subjects_and_versions_of_other_types_are_read_as_a_real_server_keeps_them(
    subject: str, apicurio: Apicurio
) -> None:
    registry = open_registry(load("local", [f"registry.url={apicurio.url}"]).registry)
    client, names = apicurio.client(), [f"{name}-{subject}" for name in ("point", "addr")]
    point = {"type": "record", "name": "Point", "namespace": "x", "fields": [{"name": "n", "type": "int"}]}
    addr = {"type": "record", "name": "Addr", "namespace": "x", "fields": [{"name": "at", "type": "Point"}]}
    event = {
        "type": "record",
        "name": "E",
        "fields": [{"name": "a", "type": "x.Addr"}, {"name": "p", "type": "x.Point"}],
    }
    to_point, to_addr = (SchemaReference(name, names[at], 1) for at, name in enumerate(("x.Point", "x.Addr")))
    client.register_schema(names[0], Schema(json.dumps(point), "AVRO"))
    client.register_schema(names[1], Schema(json.dumps(addr), "AVRO", [to_point]))
    proto = Schema('syntax = "proto3"; message E { int32 a = 1; }', "PROTOBUF")
    client.register_schema(subject, proto)
    id = client.register_schema(subject, Schema(json.dumps(event), "AVRO", [to_addr, to_point]))

    [version] = registry.versions(subject)
    whole = {**addr, "fields": [{"name": "at", "type": point}]}
    assert (version.id, version.version, version.problem) == (id, 2, None)
    assert [field["type"] for field in json.loads(version.text)["fields"]] == [whole, "x.Point"]
    assert registry.schema(id) == version.text
    assert registry.register(subject, version.text) == id
    assert [each.is_avro for each in registry.all_versions(subject)] == [False, True]
    # In a subject that began with Avro this server says of all that they are.
    other = f"other-{subject}"
    id = registry.register(other, record("x"))
    client.register_schema(other, proto)
    assert [(each.id, each.version) for each in registry.versions(other)] == [(id, 1)]
    assert [each.is_avro for each in registry.all_versions(other)] == [True, False]
