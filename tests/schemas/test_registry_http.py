"""A registry that is down, busy, guarded, or none at all."""

import json
import ssl
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from conf import ROOT
from conf.errors import TidemarkError
from conf.settings import load
from local.processes import wait_for
from schemas import registry as registry_module
from schemas import registry_http
from schemas.open_registry import open_registry
from schemas.registry import Registry, RetryPolicy
from tests.certificates import certify
from tests.schemas.fake_registry import answering

SUBJECTS = (200, ["a-value"])
LACKS = (404, {"error_code": 40401, "message": "no subject"})
BUSY = (503, {"error_code": 50301, "message": "no leader"})
PASSWORD = "hunter2"


def registry(url: str, *sets: str, retry: RetryPolicy | None = None) -> Registry:
    return open_registry(load("local", [f"registry.url={url}", *sets]).registry, retry or RetryPolicy(0))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits longer than it must."""
    monkeypatch.setattr(registry_module, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(registry_module, "LONGEST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def closed_url() -> str:
    """An address where nothing listens any more."""
    with answering(SUBJECTS) as server:
        return server.url


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_registry_that_is_busy_is_asked_again_with_one_line(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with answering((status, BUSY[1]), (status, "<html>busy</html>"), SUBJECTS) as server:
        assert registry(server.url, retry=RetryPolicy(60)).subjects() == ["a-value"]
        told = capsys.readouterr().err.splitlines()
    assert told[0] == f"registry {server.url} does not answer (HTTP {status}): waiting for the subjects, 0 s so far"
    assert [line.rpartition(" after ")[0] for line in told[1:]] == [f"registry {server.url} answers again"]


def test_the_line_comes_again_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(registry_module, "LINE_SECONDS", 0.0)
    with answering(BUSY, BUSY, BUSY, SUBJECTS) as server:
        registry(server.url, retry=RetryPolicy(60)).subjects()
    assert capsys.readouterr().err.count("does not answer (HTTP 503)") == 3


def test_a_command_gives_up_in_time_and_says_what_to_do(closed_url: str) -> None:
    message = (
        rf"REGISTRY_UNAVAILABLE: registry {closed_url} did not answer .*refused.*, asked for the subjects; start it"
    )
    with pytest.raises(TidemarkError, match=message):
        registry(closed_url, retry=RetryPolicy(0.05)).subjects()


def test_a_registry_that_never_answers_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_http, "REQUEST_SECONDS", 0.1)
    with answering(SUBJECTS) as server:
        server.hold.clear()
        with pytest.raises(TidemarkError, match=r"REGISTRY_UNAVAILABLE.*timed out"):
            registry(server.url).subjects()


def test_a_job_waits_for_a_registry_that_has_answered_before_for_as_long_as_it_takes() -> None:
    with answering(SUBJECTS) as first:
        asked = registry(first.url, retry=RetryPolicy(0, once_answered=True))
        assert asked.subjects() == ["a-value"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(asked.subjects)
        with answering((200, ["b-value"]), port=first.server_port):
            assert waiting.result(30) == ["b-value"]


def test_a_job_does_not_wait_for_an_address_that_never_answered(closed_url: str) -> None:
    with pytest.raises(TidemarkError, match="REGISTRY_UNAVAILABLE"):
        registry(closed_url, retry=RetryPolicy(0, once_answered=True)).subjects()


def test_a_wait_ends_when_the_job_does(capsys: pytest.CaptureFixture[str]) -> None:
    ending = Event()
    with answering(SUBJECTS) as server:
        asked = registry(server.url, retry=RetryPolicy(0, once_answered=True, ending=ending))
        asked.subjects()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(asked.subjects)
        wait_for(lambda: "does not answer" in capsys.readouterr().err, 30, lambda: AssertionError("it does not wait"))
        ending.set()
        with pytest.raises(TidemarkError, match="REGISTRY_UNAVAILABLE"):
            waiting.result(30)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_final_and_shows_no_password(
    status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDEMARK_REGISTRY__PASSWORD", PASSWORD)
    with answering((status, {"error_code": 40101, "message": "no"})) as server:
        with pytest.raises(
            TidemarkError, match=f"REGISTRY_REFUSED: {server.url} answers {status}.*username"
        ) as refused:
            registry(server.url, "registry.username=ann", retry=RetryPolicy(60)).subjects()
        assert server.requests == ["/subjects?deleted=false&deleted_only=false&offset=0&limit=-1"]
    assert PASSWORD not in f"{refused.value!r} {refused.getrepr(showlocals=True)} {capsys.readouterr().err}"


def test_user_and_password_are_sent_as_basic_authentication(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_REGISTRY__PASSWORD", PASSWORD)
    with answering(SUBJECTS) as server:
        registry(server.url, "registry.username=ann").subjects()
    assert server.authorization == "Basic YW5uOmh1bnRlcjI="


@pytest.mark.parametrize("answer", [SUBJECTS, (500, ["x" * 1000])])
def test_an_answer_is_no_longer_than_its_bound(answer: tuple[int, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_http, "ANSWER_BYTES", 10)
    with answering(answer) as server, pytest.raises(TidemarkError, match=r"NOT_A_REGISTRY: .*longer than 10 bytes"):
        registry(server.url).subjects()


def test_an_answer_without_end_takes_no_more_memory_than_its_bound() -> None:
    with answering((200, "x" * (4 * registry_http.ANSWER_BYTES))) as server:
        asked = registry(server.url)
        tracemalloc.start()
        with pytest.raises(TidemarkError, match=r"NOT_A_REGISTRY: .*longer than 16,777,216 bytes"):
            asked.subjects()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # The server's own copy of the text is in it.
    assert most < 6 * registry_http.ANSWER_BYTES


def test_an_answer_that_comes_a_byte_at_a_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_http, "ANSWER_SECONDS", 0.2)
    with answering((200, ["a" * 100])) as server:
        asked = registry(server.url)
        server.drip = 0.05
        with pytest.raises(TidemarkError, match=r"REGISTRY_UNAVAILABLE.*no whole answer within 0 s"):
            asked.subjects()
        server.drip = 0.0
        assert asked.subjects() == ["a" * 100]


def test_a_compressed_answer_is_not_unpacked() -> None:
    with answering(SUBJECTS) as server:
        server.headers = {"Content-Encoding": "gzip"}
        with pytest.raises(TidemarkError, match=r"NOT_A_REGISTRY: .*compressed \(gzip\)"):
            registry(server.url).subjects()


def test_json_that_lies_too_deep_is_no_answer() -> None:
    with answering((200, "[" * 100_000)) as server, pytest.raises(TidemarkError, match=r"NOT_A_REGISTRY: .*no JSON"):
        registry(server.url).subjects()


def test_a_subject_has_no_more_versions_than_can_be_asked_for() -> None:
    with answering((200, list(range(10_001)))) as server:
        with pytest.raises(TidemarkError, match=r"NOT_A_REGISTRY: .*more than 10,000 versions"):
            registry(server.url).versions("a-value")
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_no_other_host_sees_the_login(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_REGISTRY__PASSWORD", PASSWORD)
    with answering(SUBJECTS) as other, answering((status, "<html>moved</html>")) as server:
        server.headers = {"Location": f"{other.url}/subjects"}
        with pytest.raises(TidemarkError, match=f"NOT_A_REGISTRY: .*HTTP {status}, a redirect, which is not followed"):
            registry(server.url, "registry.username=ann").subjects()
        assert server.authorization
        assert (other.requests, other.authorization) == ([], "")


NEW = '{"type": "record", "name": "New", "fields": []}'


@pytest.mark.parametrize(
    ("status", "code", "named"),
    [
        (409, 409, "INCOMPATIBLE_SCHEMA: .* refuses the registration of a-value: it says why .*compare the registry"),
        (409, 40901, "INCOMPATIBLE_SCHEMA: "),
        (422, 42201, "INVALID_SCHEMA: .*; mend the schema"),
        (422, 42202, "REGISTRY_REFUSED: .*it says why .42202.; ask whoever"),
        (422, 42203, "REGISTRY_REFUSED: .*; ask whoever"),
        (422, 42204, "REGISTRY_REFUSED: .*; ask whoever"),
        (422, 42205, "REGISTRY_NOT_WRITABLE: .*it says why .*READWRITE"),
        (422, 42206, "REGISTRY_REFUSED: .*; ask whoever"),
        (422, 42207, "REGISTRY_REFUSED: .*; ask whoever"),
        (422, 42208, "REGISTRY_REFUSED: .*; take a topic"),
        (422, 42209, "REGISTRY_REFUSED: .*; make the schema shorter"),
        (404, 40408, "REGISTRY_REFUSED: .*; ask whoever"),
        (401, 40101, "REGISTRY_REFUSED: .* answers 401 .*; check registry.username"),
        (403, 40301, "REGISTRY_REFUSED: .* answers 403 .*; let the user registry.username"),
        (500, 50001, "REGISTRY_UNAVAILABLE: .*HTTP 500, its store fails"),
        (500, 50002, "REGISTRY_UNAVAILABLE: .*HTTP 500, its store takes too long"),
        (500, 50003, "REGISTRY_UNAVAILABLE: .*HTTP 500, it does not reach its leader"),
        (500, 50004, "REGISTRY_UNAVAILABLE: .*HTTP 500, it has no leader"),
        (422, 422, "REGISTRY_UNAVAILABLE: .*HTTP 422 without an error code"),
        (409, None, "REGISTRY_UNAVAILABLE: .*HTTP 409 without an error code"),
    ],
)
def test_a_refused_registration_is_named_for_what_it_is(status: int, code: int | None, named: str) -> None:
    with answering(LACKS, (status, {"error_code": code, "message": "it says\nwhy"})) as server:
        with pytest.raises(TidemarkError, match=named) as refused:
            registry(server.url).register("a-value", NEW)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("code", [40401, 40402, 40403, 40404, 40406])
def test_what_is_not_there_or_was_deleted_is_registered_anew(code: int) -> None:
    with answering((404, {"error_code": code, "message": "no"}), (200, {"id": 7})) as server:
        assert registry(server.url).register("a-value", NEW) == 7


STRANGERS = [
    (404, "<html>no such page</html>"),
    (404, {"error_code": 404, "message": "not found"}),
    (404, {"status": 404}),
    (200, "<html>welcome</html>"),
    (200, {"status": "ok"}),
    (302, "<html>moved</html>"),
]


@pytest.mark.parametrize("answer", STRANGERS)
def test_what_is_no_registry_is_not_taken_for_one_that_lacks_the_subject(answer: tuple[int, object]) -> None:
    with answering(answer) as server:
        message = f"NOT_A_REGISTRY: {server.url} answers, but.*correct registry.url"
        with pytest.raises(TidemarkError, match=message):
            registry(server.url).versions("a-value")
        with pytest.raises(TidemarkError, match=message):
            registry(server.url).schema(1)


@pytest.mark.parametrize("answer", STRANGERS)
def test_a_proxy_that_answers_while_the_registry_is_down_is_waited_for(answer: tuple[int, object]) -> None:
    with answering(SUBJECTS, answer, answer, (200, ["b-value"])) as server:
        asked = registry(server.url, retry=RetryPolicy(60))
        assert [asked.subjects(), asked.subjects()] == [["a-value"], ["b-value"]]


def test_an_address_that_knows_what_it_lacks_has_proved_right() -> None:
    lacks = (404, {"error_code": 40403, "message": "no schema"})
    with answering(lacks, STRANGERS[0], SUBJECTS) as server:
        asked = registry(server.url, retry=RetryPolicy(60))
        with pytest.raises(TidemarkError, match="UNKNOWN_SCHEMA_ID: no schema has id 7"):
            asked.schema(7)
        assert asked.subjects() == ["a-value"]


PROTO = 'syntax = "proto3"; message A { int32 a = 1; }'
ADDR = {"type": "record", "name": "Addr", "namespace": "x", "fields": [{"name": "at", "type": "x.Point"}]}
POINT = {"type": "record", "name": "Point", "namespace": "x", "fields": [{"name": "n", "type": "int"}]}
EVENT = '{"type": "record", "name": "E", "fields": [{"name": "a", "type": "x.Addr"}, {"name": "b", "type": "x.Point"}]}'


def refers(name: str, subject: str, version: int = 1) -> dict[str, object]:
    return {"references": [{"name": name, "subject": subject, "version": version}]}


def test_types_of_other_subjects_are_there_as_if_the_schema_had_them_itself() -> None:
    with answering(LACKS, (200, {"id": 9})) as server:
        server.keep("point", 1, 1, json.dumps(POINT))
        server.keep("addr", 1, 2, json.dumps(ADDR), **refers("x.Point", "point"))
        server.keep("a-value", 1, 3, EVENT, **refers("x.Addr", "addr"))
        asked = registry(server.url)
        [version] = asked.versions("a-value")
        whole = json.loads(version.text)
        addr = {**ADDR, "fields": [{"name": "at", "type": POINT}]}
        assert [field["type"] for field in whole["fields"]] == [addr, "x.Point"]
        assert asked.schema(3) == asked.latest("a-value").text == version.text
        # A producer's own text is compared with it, and is the version that it equals.
        assert asked.register("a-value", json.dumps(whole)) == 3
        changed = json.loads(version.text)
        changed["fields"][0]["type"]["fields"][0]["type"]["fields"][0]["type"] = "string"
        with pytest.raises(TidemarkError, match=r"INCOMPATIBLE_SCHEMA: a-value version 1: a\.at\.n: "):
            asked.register("a-value", json.dumps(changed))
        before = len(server.requests)
        asked.versions("a-value")
        assert len(server.requests) == before + 1


def test_a_type_of_a_subject_that_is_gone_is_named_with_the_version_that_asks_for_it() -> None:
    with answering(LACKS) as server:
        server.keep("a-value", 1, 3, EVENT, **refers("x.Addr", "addr", 4))
        asked = registry(server.url)
        [version] = asked.versions("a-value")
        assert version.problem is not None
        assert (
            version.problem[0]
            == "it refers to version 4 of subject addr, as `x.Addr`, which the registry does not have"
        )
        with pytest.raises(TidemarkError, match=f"BAD_SCHEMA: schema id 3 in {server.url}: it refers to version 4"):
            asked.schema(3)


def test_versions_that_are_no_avro_are_left_out_and_others_go_on() -> None:
    with answering(LACKS, (200, {"id": 9})) as server:
        server.keep("a-value", 1, 1, PROTO, schemaType="PROTOBUF")
        server.keep("a-value", 2, 2, '"long"')
        server.keep("a-value", 3, 3, "{}", schemaType="JSON")
        asked = registry(server.url)
        assert [version.id for version in asked.versions("a-value")] == [2]
        assert (asked.latest("a-value").id, asked.register("a-value", '"long"')) == (2, 2)
        assert [(version.id, version.kind) for version in asked.all_versions("a-value")] == [
            (1, "PROTOBUF"),
            (2, "AVRO"),
            (3, "JSON"),
        ]
        assert asked.all_versions("b-value") == []
        with pytest.raises(TidemarkError, match=f"UNSUPPORTED_SCHEMA: schema id 1 in {server.url} is of type PROTOBUF"):
            asked.schema(1)


def test_a_subject_without_avro_is_named_with_its_newest_version_until_it_has_some() -> None:
    with answering(LACKS) as server:
        server.keep("a-value", 1, 1, "{}", schemaType="JSON")
        server.keep("a-value", 2, 5, PROTO, schemaType="PROTOBUF")
        asked = registry(server.url)
        says = r"UNSUPPORTED_SCHEMA: subject a-value has no Avro schema: version 2 \(schema id 5\) is of type PROTOBUF"
        with pytest.raises(TidemarkError, match=rf"{says}.*; let its producers write Avro, and register that"):
            asked.versions("a-value")
        server.keep("a-value", 3, 6, '"long"')
        assert [version.id for version in asked.versions("a-value")] == [6]


def test_texts_are_asked_for_once_and_the_list_of_versions_each_time() -> None:
    version = {"subject": "a-value", "version": 1, "id": 7, "schema": '"long"'}
    with answering((200, [1]), (200, version), (200, [1])) as server:
        asked = registry(server.url)
        assert [asked.versions("a-value")[0].id for _ in range(3)] == [7, 7, 7]
        paths = [path.partition("?")[0] for path in server.requests]
    assert paths == ["/subjects/a-value/versions", "/subjects/a-value/versions/1", *["/subjects/a-value/versions"] * 2]


def test_a_certificate_is_trusted_only_by_its_authority(tmp_path: Path) -> None:
    context = certified(tmp_path)
    with answering(SUBJECTS, context=context) as server:
        assert registry(server.url, f"registry.ca_location={tmp_path / 'ca.pem'}").subjects() == ["a-value"]
        with pytest.raises(TidemarkError, match=r"REGISTRY_REFUSED: the certificate .*registry\.ca_location"):
            registry(server.url, retry=RetryPolicy(60)).subjects()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TidemarkError, match=rf"BAD_SETTING: setting `registry`: ca_location {path} cannot be read"):
        registry("https://localhost", f"registry.ca_location={path}")


def test_a_program_without_a_registry_url_does_not_import_the_client() -> None:
    program = """
import sys
from conf.settings import load
from schemas.open_registry import open_registry
open_registry(load("local").registry).subjects()
print([name for name in ("httpx2", "authlib", "confluent_kafka.schema_registry") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def certified(folder: Path) -> ssl.SSLContext:
    """A server's context for loopback; its certificate is in `ca.pem`."""
    certify(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context
