"""Which jars and options a driver gets for tables and checkpoints on s3a://."""

import re
import tomllib
from pathlib import Path

import pytest

from conf import ROOT
from conf.errors import TidemarkError
from conf.settings import Settings, load
from local import jars, object_store, submit

STORE = {"AWS_ENDPOINT_URL": "https://store.example", "AWS_REGION": "eu-west-1", "AWS_SECRET_ACCESS_KEY": "hush"}


def settings(**roots: str) -> Settings:
    return load("local", [f"paths.{name}={root}" for name, root in roots.items()])


def test_local_folders_need_neither_jars_nor_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "fetch", lambda jar_set: pytest.fail(f"{jar_set} is fetched"))
    assert object_store.jar_sets(settings()) == ("spark",)
    assert object_store.spark_options(settings(), STORE) == {}


@pytest.mark.parametrize("root", ["tables", "checkpoints"])
def test_a_path_in_an_object_store_brings_the_jars_behind_sparks(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(jars, "problems", lambda jar_set: {jar_set: "is missing"})
    monkeypatch.setattr(jars, "fetch", fetched.append)
    assert object_store.jar_sets(settings(**{root: "s3a://bucket/there"})) == ("spark", "s3")
    assert fetched == ["s3"]


def test_spark_is_told_where_the_store_is_and_not_the_keys() -> None:
    options = object_store.spark_options(settings(tables="s3a://bucket/t", checkpoints="s3a://bucket/c"), STORE)
    assert options == {
        "spark.hadoop.fs.s3a.endpoint": "https://store.example",
        "spark.hadoop.fs.s3a.endpoint.region": "eu-west-1",
        "spark.hadoop.fs.s3a.path.style.access": "true",
        object_store.CHECKPOINT_MANAGER: object_store.ABORTABLE,
    }


def test_spark_submit_gets_jars_and_place_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "fetch", lambda jar_set: None)
    for name, value in STORE.items():
        monkeypatch.setenv(name, value)
    there = ["paths.tables=s3a://bucket/t", f"paths.logs={tmp_path}", "spark.master=spark://h:1"]
    words = submit.command("ingest", load("local", there), [])
    assert "/hadoop-aws-3.5.0.jar" in words[words.index("--jars") + 1]
    assert "spark.hadoop.fs.s3a.endpoint=https://store.example" in words
    assert "hush" not in " ".join(words)


def test_a_store_of_amazons_needs_no_address_and_checkpoints_on_a_disk_keep_sparks_manager() -> None:
    assert object_store.spark_options(settings(tables="s3a://bucket/t"), {"AWS_DEFAULT_REGION": "eu-west-1"}) == {
        "spark.hadoop.fs.s3a.endpoint.region": "eu-west-1"
    }


def test_an_address_without_tls_is_refused_where_it_is_not_allowed() -> None:
    plain = STORE | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}
    with pytest.raises(TidemarkError, match=r"BAD_SETTING: AWS_ENDPOINT_URL is http://127.0.0.1:9000.*AWS_ALLOW_HTTP"):
        object_store.spark_options(settings(tables="s3a://bucket/t"), plain)
    allowed = object_store.spark_options(settings(tables="s3a://bucket/t"), plain | {"AWS_ALLOW_HTTP": "true"})
    assert allowed["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:9000"


def test_an_address_with_a_login_is_refused_and_not_shown() -> None:
    environ = STORE | {"AWS_ENDPOINT_URL": "https://u:hunter2@127.0.0.1:9000"}
    with pytest.raises(TidemarkError, match="BAD_SETTING: AWS_ENDPOINT_URL must hold no user and password") as refused:
        object_store.spark_options(settings(tables="s3a://bucket/t"), environ)
    assert "hunter2" not in str(refused.value)


def test_the_example_of_a_cluster_holds_once_its_lines_are_no_comments() -> None:
    commented = re.compile(r"^# (?=\[paths]|tables =|checkpoints =)", re.MULTILINE)
    text = commented.sub("", (ROOT / "conf" / "cluster.toml").read_text())
    roots = tomllib.loads(text)["paths"]
    given = load("cluster", [f"paths.{name}={root}" for name, root in roots.items()])
    assert set(roots) == {"tables", "checkpoints"}
    assert object_store.is_used(given) and object_store.CHECKPOINT_MANAGER in object_store.spark_options(given, STORE)
