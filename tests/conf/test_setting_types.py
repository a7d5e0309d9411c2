"""Every setting refuses, when it is loaded, what Spark, Java or a client would fail on later in words of its own."""

import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from conf import setting_sources, setting_types
from conf.errors import TidemarkError
from conf.kafka import VALUES
from conf.settings import Settings, load
from jobs.connectors.delta.reading import find_table
from jobs.connectors.files import table_uri

KEYS = [key.replace("NAME", "ingest") for key in setting_sources.known_keys(Settings) if not key.endswith("_file")]
SECRETS = setting_sources.secret_keys(Settings)
DURATION = (["8 days", "1 week"], ["soon", "5", "1 month", "0 seconds", "1.5 days", "5  seconds"])
INTERVAL = (
    ["5 seconds", "0 seconds", "100 milliseconds", "1 minute", "2 weeks"],
    ["soon", "5", "-1 second", "1 month", "5 seconds ", "interval 5 seconds", "99999999999999 weeks", "5\nseconds"],
)
COUNT = (["1000"], ["many", "1.5", "-2", "9" * 30])
FLAG = (["true", "false"], ["perhaps"])
HOST = (["127.0.0.1", "0.0.0.0", "::1", "localhost"], ["a b", "http://h", "h/x", "x" * 300, "1.2.3.4.5/8", "999.1.1.1"])
PLACE = (
    ["t", "/srv/a b", "s3a://bucket/t", "file:/srv/t", "/srv/ü'\"x#"],
    [" ", "a%20b", "a[b]", "a\\b", "s3a://", "a:b", "s3a:///t", "a\nb"],
)
LINE = (["ann", 'o\'neill "x"'], ["a\nb", "a\x7f"])
NO_FILE: tuple[Sequence[str], Sequence[str]] = ([], ["/is/not/there"])
# What each setting takes, and what it does not, besides the empty text.
TABLE: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "kafka.bootstrap_servers": (
        ["h:9092", "a:1, b:2", "[::1]:9092", "PLAINTEXT://h:1", "a_b.c:9092"],
        ["h", "h:", "h:x", "h:0", "h:70000", ":1", "a b:1", "h:1;i:2", "http://h:1/x", "ä:1", "::1:9092", ","],
    ),
    "kafka.client_id": (["a.b-c_d"], ["a b", "x" * 201]),
    "kafka.security_protocol": (["PLAINTEXT"], ["TLS", "plaintext"]),
    "kafka.sasl_mechanism": (["PLAIN"], ["GSSAPI"]),
    "kafka.sasl_username": LINE,
    "kafka.oauth_token_url": (["https://h/t"], ["h", "http://h"]),
    "kafka.oauth_client_id": LINE,
    "kafka.oauth_scope": LINE,
    "kafka.oauth_ca_location": NO_FILE,
    "kafka.ssl_ca_location": NO_FILE,
    "kafka.ssl_certificate_location": NO_FILE,
    "kafka.ssl_key_location": NO_FILE,
    "kafka.replication_factor": COUNT,
    "kafka.client": (['{"client.rack": "a"}'], ["x", "[]", '{"socket.keepalive.enable": "perhaps"}']),
    "kafka.spark": (['{"request.timeout.ms": "5"}'], ["x", '{"request.timeout.ms": "soon"}']),
    "registry.path": (["r", "/srv/r"], [" ", "http://h", "a\nb"]),
    "registry.url": (["http://h:1", "http://h:1,https://i"], ["h:1", ",", "http://h:1,,"]),
    "registry.username": ([], ["a\nb"]),
    "registry.ca_location": NO_FILE,
    "registry.compatibility": (["none"], ["back"]),
    "paths.tables": PLACE,
    "paths.checkpoints": PLACE,
    "paths.logs": (["l", "/srv/a b"], [" ", "s3a://b/l", "file:/srv/l", "a\nb"]),
    "broker.nodes": (["1", "3"], ["2", "x"]),
    "broker.port": (["0", "9092"], ["x", "70000"]),
    "source.starting_offsets": (
        ["earliest", "latest", "2013-01-31", '{"t": {"0": 42}}'],
        ["soon", "[]", "{", "{" * 5000, "0001-01-01T00:00:00+14:00"],
    ),
    "source.receive_buffer_bytes": (["-1", "1"], ["x", "-2"]),
    "sink.real_time_batch": (["5 seconds"], ["4 seconds", "soon"]),
    "ledger.application": (["a"], ["a b"]),
    "spark.master": (
        [
            *("local", "local[*]", "local[2]", "local[2,4]", "local[*, 4]", "local-cluster[2,1,1024]", "yarn"),
            *("spark://h:7077", "spark://h:1,i:2", "k8s://https://h:443", "k8s://h:443"),
        ],
        [
            *("nonsense", "local[0]", "local[x]", "local[2,0]", "local [2]", "local[]", "local[99999999999]", "Local"),
            *("spark://h", "spark://", "spark://a_b:7077", "spark://h:x", "k8s://", "k8s://h:x", "mesos://h:1"),
        ],
    ),
    "spark.driver_memory": (
        ["512m", "2g", "2G", "1t"],
        ["lots", "2", "2048", "2gb", "1.5g", "0g", "100m", "-2g", "2 g", "99t", "9" * 20 + "g"],
    ),
    "spark.driver_java_options": (
        [
            "-Xss4m -Dx='a b'",
            '-Dx="a b"',
            "@/srv/options",
            "--add-opens java.base/java.lang=ALL-UNNAMED",
            "-XX:+UseZGC",
        ],
        ["soon", "-Dx=a b", '-Dx="a', "-Xmx2g", "-version", "-jar x.jar", "-cp x", "--add-opens", "-", "--help"],
    ),
    "spark.trigger": INTERVAL,
    "jobs.ingest.trigger": INTERVAL,
    "metrics.host": HOST,
    "page.host": HOST,
    "metrics.pushgateway": (["h:9091", "http://h"], ["h:x", "a b"]),
    "ingest.topics": (["a", "a, b"], ["a b", "..", "ä"]),
    "logging.format": (["ecs"], ["json"]),
    "search.url": (["http://h"], ["h", ","]),
    "search.username": ([], ["a\nb"]),
    "search.ca_location": NO_FILE,
    "regions.here": (["eu"], ["a b", "a/b"]),
    "regions.others": (["eu, us", "EU_2"], ["a/b", "ä", "x" * 300]),
    "quarantine.max_ratio": (["0.5", "1"], ["nan", "2", "x"]),
    "quarantine.as_of": (
        ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00+14:00"],
        ["5", "1950", "now", "2026-01-31", "2026-01-31T12:00:00", "0001-01-01T00:00:00+14:00"],
    ),
}
MAY_BE_EMPTY = {
    *("kafka.bootstrap_servers", "kafka.sasl_mechanism", "kafka.sasl_username", "kafka.oauth_token_url"),
    *("kafka.oauth_client_id", "kafka.oauth_scope", "kafka.oauth_ca_location", "kafka.ssl_ca_location"),
    *("kafka.ssl_certificate_location", "kafka.ssl_key_location"),
    *("registry.url", "registry.username", "registry.ca_location"),
    *("search.url", "search.username", "search.ca_location"),
    *("spark.driver_java_options", "metrics.pushgateway", "quarantine.as_of", "regions.others"),
    *SECRETS,
}


def table_of(key: str) -> tuple[Sequence[str], Sequence[str]]:
    """Return what `key` takes, and what not: of TABLE, or by the kind that its name or its values show."""
    if key in TABLE:
        return TABLE[key]
    value = plain(key)
    if isinstance(value, bool):
        return FLAG
    if isinstance(value, int) or key.rpartition(".")[2] in INTS:
        return COUNT
    choices = choices_of(key)
    return (choices, ["nonsense"]) if choices else DURATION


INTS = {"shuffle_partitions", "max_offsets_per_trigger", "min_offsets_per_trigger", "min_partitions"}


def field(key: str) -> object:
    section, _, name = key.rpartition(".")
    kind = Settings.model_fields[section.partition(".")[0]].annotation
    model = get_args(kind)[1] if get_args(kind) else kind
    return model.model_fields[name].annotation  # type: ignore[union-attr]


def plain(key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(load("local"), section), name, None)


def choices_of(key: str) -> list[str]:
    kinds = [field(key), *get_args(field(key))]
    return [text for kind in kinds for text in get_args(kind) if isinstance(text, str)] or [
        text for text in get_args(field(key)) if isinstance(text, str)
    ]


def refusal(key: str, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the error for a text that a variable gives: `--set` would strip its blanks."""
    monkeypatch.setenv(setting_sources.variable_of(key), text)
    with pytest.raises(TidemarkError) as refused:
        load("local")
    return str(refused.value)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in SECRETS])
def test_a_text_that_fails_later_is_refused_by_name_and_one_that_does_not_is_taken(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, refused = table_of(key)
    for text in refused:
        told = refusal(key, text, monkeypatch)
        section, _, name = key.rpartition(".")
        assert told.startswith("BAD_SETTING: ")
        assert section in told and (name in told or "url must be" in told)
        assert "\n" not in told and len(told) < 400
    for text in taken:
        if key == "kafka.sasl_mechanism" or not text:
            continue
        monkeypatch.setenv(setting_sources.variable_of(key), text)
        load("local")


@pytest.mark.parametrize("key", KEYS)
def test_an_empty_text_as_a_variable_that_is_not_set_gives_it_is_refused_where_one_is_needed(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key not in MAY_BE_EMPTY:
        told = refusal(key, "", monkeypatch)
        assert told.startswith((f"BAD_SETTING: setting `{key}`: ", f"BAD_SETTING: {key} is no table in JSON; "))
        return
    monkeypatch.setenv(setting_sources.variable_of(key), "")
    load("local")


def test_the_value_is_told_and_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal("spark.trigger", "soon", monkeypatch) == (
        "BAD_SETTING: setting `spark.trigger`: 'soon' is no interval between batches: write for example "
        '"5 seconds", "100 milliseconds", or "0 seconds" for one batch after the other; '
        "see conf/base.toml for what it takes"
    )
    monkeypatch.delenv("TIDEMARK_SPARK__TRIGGER")
    assert "'70000'" in refusal("broker.port", "70000", monkeypatch)


@pytest.mark.parametrize("key", ["spark.trigger", "broker.port", "history.keep", "spark.driver_memory"])
def test_a_value_that_may_be_a_secret_is_not_told(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hunter2" not in refusal(key, "https://ann:hunter2@host", monkeypatch)


JUDGES = [
    *(setting_types.require_memory, setting_types.require_master, setting_types.require_java_options),
    *(setting_types.require_place, setting_types.require_servers, setting_types.require_listening_host),
    *(setting_types.require_folder, setting_types.require_region, setting_types.require_line),
    *(setting_types.require_position, setting_types.read_clock),
]
PARTS = [*"019:/,[]*.-_ '\"\\@\n\x00é", "local", "spark", "://", "g", "-X", "::1"]
PIECES = st.lists(st.sampled_from(PARTS), max_size=8)


@given(st.one_of(st.text(), PIECES.map("".join)), st.sampled_from(JUDGES))
def test_any_text_is_taken_or_refused_in_one_line(text: str, judge: object) -> None:
    try:
        judge(text)  # type: ignore[operator]
    except ValueError as exc:
        assert "\n" not in str(exc) and len(str(exc)) < 400


@given(PIECES.map("".join))
def test_a_heap_that_is_taken_is_one_that_java_reads(text: str) -> None:
    try:
        setting_types.require_memory(text)
    except ValueError:
        return
    assert re.fullmatch(r"[0-9]+[mMgGtT]", text, re.ASCII)


@pytest.mark.parametrize("name", VALUES)
def test_a_property_of_kafkas_client_in_java_is_judged(name: str) -> None:
    for text in ("no\nsuch", "\u00e9"):
        with pytest.raises(TidemarkError, match=f"BAD_SETTING: .*{re.escape(name)}"):
            load("local", [f"kafka.spark.{name}={text}"])
    takes = VALUES[name]
    for number in takes if isinstance(takes, tuple) else ():
        load("local", [f"kafka.spark.{name}={number}", *needed(name)])


def needed(name: str) -> list[str]:
    """Return what else must be set for the least and the greatest of a property."""
    return ["kafka.spark.request.timeout.ms=0"] if name == "default.api.timeout.ms" else []


def test_the_timeouts_of_kafkas_client_in_java_fit_together() -> None:
    with pytest.raises(TidemarkError, match=r"default\.api.timeout.ms is 20000, below request\.timeout\.ms = 30000"):
        load("local", ["kafka.spark.default.api.timeout.ms=20000"])


def test_what_a_client_has_of_tls_is_judged_where_tls_is_used(tmp_path: Path) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_SETTING: .*ssl\.crl\.location"):
        load("local", ["kafka.security_protocol=SSL", f"kafka.client.ssl.crl.location={tmp_path / 'none'}"])


@pytest.mark.parametrize("name", ["a[b]", "a%41b", "a|b"])
def test_a_state_folder_in_which_tables_are_not_found_again_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path / name))
    with pytest.raises(TidemarkError, match=r"BAD_SETTING: setting `paths\.tables`: .*set TIDEMARK_STATE to another"):
        load("local")


@pytest.mark.parametrize("mark", [mark for mark in string.punctuation if mark != "/"])
def test_a_folder_that_is_taken_is_one_in_which_tables_are_found_again(mark: str, tmp_path: Path) -> None:
    path = str(tmp_path / f"a{mark}41b" / "t")
    try:
        setting_types.require_place(path)
    except ValueError:
        return
    Path(path).mkdir(parents=True)
    write_deltalake(table_uri(path), pa.table({"x": [1]}))
    table = find_table(path, None, "")
    assert table is not None and table.count() == 1
