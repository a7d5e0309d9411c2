"""No name from outside leads out of its folder, topics are named as Kafka names them, URLs as clients take them."""

from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import TidemarkError
from conf.names import require_topic, require_url, within
from conf.settings import load
from jobs.operations.replay.record import Replays
from jobs.pipeline import paths
from producers.files.publish import infer_only
from producers.files.request import FileRequest, Parts
from schemas.contracts import contract, contract_path
from schemas.registry import FileRegistry

OUTSIDE = ["..", "../x", "a/../../x", "a/..", "/etc/x", "a//b", "", ".", "a/./b", "a/", "..\\x", "a\0b", "_delta_log"]
SETTINGS = load("local", ["paths.tables=/t", "paths.checkpoints=/c"])
PLACES: dict[str, Callable[[str], object]] = {
    "table": lambda name: paths.table("/t", name),
    "bronze": lambda name: paths.table("/t", paths.bronze(name)),
    "silver": lambda name: paths.table("/t", paths.silver(name)),
    "event": lambda name: paths.table("/t", paths.silver(f"orders/{name}")),
    "outbox": lambda name: paths.outbox("s3a://bucket/t", name),
    "checkpoint": lambda name: paths.checkpoint(SETTINGS.paths, "job", name),
    "job": lambda name: paths.checkpoints_of(SETTINGS.paths, name),
    "replay": Replays(SETTINGS).find,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_its_folder(place: str, name: str) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_NAME: .* is no name of anything under .* would lead elsewhere"):
        PLACES[place](name)


@given(st.lists(st.sampled_from(["..", ".", "/", "a", "\\", "b.c", "_", " "]), min_size=1).map("".join))
def test_a_path_that_is_made_lies_under_its_root(name: str) -> None:
    try:
        made = within("/tables", name)
    except TidemarkError:
        return
    assert Path(made).resolve().is_relative_to("/tables")
    assert made == f"/tables/{name}"


def test_names_of_several_parts_are_kept() -> None:
    assert paths.table("s3a://b/t", "silver/orders/paid.v2") == "s3a://b/t/silver/orders/paid.v2"
    assert paths.replay("/t", "2026-01-01_ab") == "/t/replays/2026-01-01_ab"


@pytest.mark.parametrize("name", ["orders", "a.b-c_d", "...", "A" * 249, "0"])
def test_topics_are_named_by_kafkas_rule(name: str) -> None:
    assert require_topic(name) == name
    assert load("local", [f"ingest.topics={name}"]).ingest.topics == (name,)


@pytest.mark.parametrize("name", ["", ".", "..", "A" * 250, "a/b", "é", "a b", "a\n", "../x"])
def test_what_kafka_takes_for_no_topic_is_refused_wherever_it_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_NAME: .* is no name of a topic"):
        require_topic(name)
    with pytest.raises(TidemarkError, match="BAD_NAME"):
        infer_only(FileRequest(name, [tmp_path / "in.csv"], Parts(None)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_topics_to_ingest_are_checked_as_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_SETTING: .*ingest\.topics.*'\.\./x' is no name of a topic"):
        load("local", ["ingest.topics=orders,../x"])


def test_a_contract_lies_in_its_folder(tmp_path: Path) -> None:
    assert contract_path("order", tmp_path) == tmp_path / "order.avsc"
    (tmp_path / "secret.avsc").write_text('"long"')
    with pytest.raises(TidemarkError, match="BAD_NAME"):
        contract("../secret", tmp_path / "schemas")


def test_the_id_of_a_registered_schema_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('[{"id": "../x", "subject": "s", "version": 1, "sha256": ""}]')
    with pytest.raises(TidemarkError, match=r"REGISTRY_DAMAGED: .*an id is no number"):
        FileRegistry(tmp_path).latest("s")


@pytest.mark.parametrize(
    "url", ["http://host", "https://host:8081/a", "http://[::1]:8081", "http://127.0.0.1", "http://bücher.example"]
)
def test_a_url_that_is_taken_a_client_takes(url: str) -> None:
    assert require_url("url", url, "").hostname
    httpx2.URL(url)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "host:8081",
            "ftp://host",
            "http://",
            "http://host:abc",
            "http://host:99999",
            "http://[::1",
            "http://[x]",
        ),
        *(
            "http://999.1.1.1",
            "http://a..b",
            f"http://{'a' * 64}",
            "http://ho st",
            "http://host/a b",
            "http://☃.example",
        ),
    ],
)
def test_a_url_that_no_client_takes_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url must be http://HOST… or https://HOST…"):
        require_url("url", url, "")


@pytest.mark.parametrize("url", ["http://u:hunter2@host", "https://hunter2@host", "http://u:hun/hunter2@host"])
def test_a_login_in_a_url_is_refused_with_what_to_do_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url must hold no user and password: set it elsewhere$"):
        require_url("url", url, "set it elsewhere")
