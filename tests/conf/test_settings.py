"""Which value of a setting wins, and what a wrong one is answered with."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from conf import ROOT, setting_sources, settings
from conf.errors import TidemarkError
from conf.sections import Job
from conf.settings import Settings, load, show

SERVERS = "TIDEMARK_KAFKA__BOOTSTRAP_SERVERS"


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the real settings files in its conf/, to be changed; the state folder is empty."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("TIDEMARK_ENV", raising=False)
    return tmp_path


def change(checkout: Path, name: str, old: str, new: str) -> None:
    path = checkout / "conf" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def add(checkout: Path, name: str, text: str) -> None:
    path = checkout / "conf" / name
    path.write_text(f"{path.read_text()}\n{text}\n")


def refusal(environment: str | None = None, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(TidemarkError) as refused:
        load(environment, overrides)
    return str(refused.value)


def test_override_beats_variable_beats_overlay_beats_base(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def partitions(*overrides: str) -> int:
        return load("cluster", overrides).spark.shuffle_partitions

    assert load("local").spark.shuffle_partitions == 2
    assert partitions() == 16
    monkeypatch.setenv("TIDEMARK_SPARK__SHUFFLE_PARTITIONS", "32")
    assert partitions() == 32
    assert partitions("spark.shuffle_partitions=64") == 64
    assert partitions("spark.shuffle_partitions=64", "spark.shuffle_partitions=128") == 128


def test_an_overlay_changes_its_keys_and_leaves_the_others_of_the_section() -> None:
    assert load("cluster").spark.state_store == "rocksdb"
    assert load("cluster").spark.trigger == load("local").spark.trigger


def test_the_environment_comes_from_a_variable_where_the_caller_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_ENV", "cluster")
    assert load().kafka.replication_factor == 3
    assert load("local").kafka.replication_factor == 1


def test_texts_become_the_types_of_their_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_BROKER__NODES", "3")
    monkeypatch.setenv("TIDEMARK_INGEST__TOPICS", "departures, weather")
    loaded = load(overrides=["source.max_poll_records=7"])
    assert loaded.broker.nodes == 3
    assert loaded.ingest.topics == ("departures", "weather")
    assert loaded.source.max_poll_records == 7


def test_a_jobs_settings_merge_key_by_key_from_files_variables_and_overrides(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(checkout, "base.toml", '[jobs."flights.invented"]\nshuffle_partitions = 3\ntrigger = "9 seconds"')
    add(checkout, "local.toml", '[jobs.flights.invented]\nmax_offsets_per_trigger = 5\ntrigger = "8 seconds"')
    monkeypatch.setenv("TIDEMARK_JOBS__FLIGHTS__INVENTED__STATE_STORE", "rocksdb")
    job = load(overrides=["jobs.flights.invented.trigger=1 minute"]).jobs["flights.invented"]
    expected = settings.Job(state_store="rocksdb", shuffle_partitions=3, max_offsets_per_trigger=5, trigger="1 minute")
    assert job == expected


def test_a_job_has_the_limits_of_its_own_on_the_general_ones_and_a_run_that_catches_up_waits_for_none() -> None:
    own = ["jobs.probe.min_offsets_per_trigger=7", "jobs.probe.max_trigger_delay=2 minutes"]
    loaded = load(overrides=["source.min_offsets_per_trigger=5", "source.min_partitions=3", *own])
    probe, other = loaded.source_of("probe"), loaded.source_of("other")
    assert (probe.min_offsets_per_trigger, probe.max_trigger_delay, probe.min_partitions) == (7, "2 minutes", 3)
    assert (other.min_offsets_per_trigger, other.max_trigger_delay, other.min_partitions) == (5, "1 minute", 3)
    caught_up = loaded.without_waiting()
    assert [caught_up.source_of(job).min_offsets_per_trigger for job in ("probe", "other")] == [0, 0]
    assert caught_up.source_of("probe").min_partitions == 3


def test_settings_cannot_be_changed() -> None:
    loaded = load()
    with pytest.raises(ValidationError, match="frozen"):
        loaded.kafka = loaded.kafka
    with pytest.raises(ValidationError, match="frozen"):
        loaded.kafka.bootstrap_servers = "elsewhere:1"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("kafka.bootstrap_server", "kafka.bootstrap_servers"),
        ("kafak.sasl_username", "kafka.sasl_username"),
        ("jobs.flights.hourly_delays.triger", "jobs.flights.hourly_delays.trigger"),
        ("jobs.trigger", "jobs.NAME.trigger"),
    ],
)
def test_an_unknown_key_is_named_with_its_origin_and_the_nearest_name(
    key: str, nearest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = f"names no setting: `{key}`; did you mean `{nearest}`?"
    assert refusal(overrides=(f"{key}=1",)) == f"UNKNOWN_SETTING: --set {expected}"
    variable = f"TIDEMARK_{key.upper().replace('.', '__')}"
    monkeypatch.setenv(variable, "1")
    assert refusal() == f"UNKNOWN_SETTING: variable {variable} {expected}"


def test_an_unknown_key_in_a_file_is_named_with_the_file_and_the_nearest_name(checkout: Path) -> None:
    change(checkout, "cluster.toml", "[spark]", "[spark]\nshuffle_partition = 5")
    load("local")
    path = checkout / "conf" / "cluster.toml"
    expected = "names no setting: `spark.shuffle_partition`; did you mean `spark.shuffle_partitions`?"
    assert refusal("cluster") == f"UNKNOWN_SETTING: {path} {expected}"


def test_a_section_that_does_not_exist_is_refused_though_it_is_empty(checkout: Path) -> None:
    add(checkout, "local.toml", "[kafak]")
    assert refusal().startswith("UNKNOWN_SETTING: no setting `kafak`")


def test_a_missing_key_is_named(checkout: Path) -> None:
    change(checkout, "base.toml", 'driver_memory = "2g"', "")
    assert refusal() == "MISSING_SETTING: setting `spark.driver_memory` is missing; conf/base.toml must hold every key"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        ("folder", "Is a directory"),
        (b"x = '\xff'", "it is no text in UTF-8 (byte 5)"),
        (b"x = " + b"[" * 100_000, "its tables or lists lie too deep in one another"),
        (b"x = " + b"9" * 5000, "Exceeds the limit"),
    ],
)
def test_a_file_of_settings_that_cannot_be_read_is_named(checkout: Path, content: object, reason: str) -> None:
    path = checkout / "conf" / "base.toml"
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    assert refusal().startswith(f"BAD_SETTING: {path}: {reason}")


def test_a_file_of_settings_may_begin_with_a_byte_order_mark(checkout: Path) -> None:
    path = checkout / "conf" / "base.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load().spark.shuffle_partitions == 2


@pytest.mark.parametrize("value", ["5", '["x"]', '"a\\u0000b"', "{x = 1}"])
def test_the_file_of_a_secret_is_named_by_a_text(checkout: Path, value: str) -> None:
    add(checkout, "local.toml", f"[kafka]\nsasl_password_file = {value}")
    assert "kafka.sasl_password_file" in refusal()


@pytest.mark.parametrize("secret", ["hunter2", "hun/ter2", "hunter2" * 60])
def test_a_secret_in_the_place_of_its_file_is_not_shown(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_KAFKA__SASL_PASSWORD_FILE", secret)
    assert refusal().startswith("BAD_SETTING: kafka.sasl_password_file cannot be read: ")
    assert secret not in refusal()


@pytest.mark.parametrize("name", ["KAFKA__SSL_CA_LOCATION", "KAFKA__SASL_PASSWORD", "PATHS__TABLES"])
def test_a_variable_that_is_no_utf_8_is_named_and_not_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TIDEMARK_{name}", "hunter2\udcff")
    assert refusal().startswith(f"BAD_SETTING: variable TIDEMARK_{name} is no text in UTF-8")
    assert "hunter2" not in refusal()


@pytest.mark.parametrize("table", ["client", "spark"])
@pytest.mark.parametrize("text", ["x", "{bad", "[]", "5", "[" * 100_000])
def test_a_table_of_client_properties_is_json(table: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TIDEMARK_KAFKA__{table.upper()}", text)
    assert refusal().startswith(f"BAD_SETTING: kafka.{table} is no table in JSON; ")


def test_a_file_that_is_no_toml_is_named_with_the_place(checkout: Path) -> None:
    change(checkout, "base.toml", "[registry]", "[registry")
    text = refusal()
    assert text.startswith(f"BAD_SETTING: {checkout / 'conf' / 'base.toml'}: ")
    assert "line" in text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("broker.port=many", "`broker.port`: Input should be a valid integer"),
        ("broker.port=70000", "`broker.port`: Input should be less than or equal to 65535"),
        ("broker.nodes=2", "`broker.nodes`: Input should be 1 or 3"),
        ("kafka.security_protocol=TLS", "`kafka.security_protocol`: Input should be 'PLAINTEXT', 'SSL'"),
        ("kafka.sasl_mechanism=GSSAPI", "`kafka.sasl_mechanism`: Input should be '', 'PLAIN'"),
        ("kafka.security_protocol=SASL_SSL", "SASL_SSL needs sasl_mechanism, sasl_username and sasl_password"),
        ("registry.compatibility=backwards", "`registry.compatibility`: Input should be 'none', 'backward'"),
        ("registry.url=localhost:8081", "`registry`: url must be http://HOST"),
        ("registry.url=http://a:8081,ftp://b", "`registry`: url must be http://HOST"),
        ("registry.url=http://127.0.0.1:abc", "`registry`: url must be http://HOST"),
        ("metrics.pushgateway=http://127.0.0.1:abc", "`metrics.pushgateway`: the address must be HOST:PORT"),
        ("metrics.pushgateway=http://[::1", "`metrics.pushgateway`: the address must be HOST:PORT"),
        ("paths.tables=s3a://[", "`paths.tables`: this is neither a folder nor a URI"),
        ("metrics.pushgateway=host:9091/a b", "`metrics.pushgateway`: the address must be HOST:PORT"),
        ("history.keep=99999999999999 weeks", "`history.keep`: '99999999999999 weeks' is longer than 365,000 days"),
        (
            "registry.username=ann",
            "`registry`: username needs a password: set TIDEMARK_REGISTRY__PASSWORD, or ..._FILE",
        ),
        ("source.min_offsets_per_trigger=-1", "`source.min_offsets_per_trigger`: Input should be greater than"),
        ("source.max_trigger_delay=soon", "`source.max_trigger_delay`: 'soon' is no duration"),
        ("jobs.ingest.min_partitions=many", "`jobs.ingest.min_partitions`: Input should be a valid integer"),
        (
            "source.min_offsets_per_trigger=2000001",
            "setting source.min_offsets_per_trigger is 2,000,001, above max_offsets_per_trigger = 2,000,000",
        ),
        (
            "jobs.flights.overdue.min_offsets_per_trigger=500001",
            "setting jobs.flights.overdue.min_offsets_per_trigger is 500,001, above",
        ),
        ("jobs.ingest.state_store=disk", "`jobs.ingest.state_store`: Input should be 'heap' or 'rocksdb'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(override: str, expected: str) -> None:
    text = refusal(overrides=(override,))
    assert text.startswith("BAD_SETTING: ")
    assert expected in text


def test_an_override_without_a_value_is_refused_and_shows_its_name_alone() -> None:
    assert "--set broker.port has no `=`" in refusal(overrides=("broker.port",))
    assert "hunter2" not in refusal(overrides=("kafka_sasl_password:hunter2",))


ANYTHING = st.one_of(
    st.text(max_size=30),
    st.binary(max_size=20).map(os.fsdecode),
    st.sampled_from(["{bad", "[]", '{"a": {"b": 1}}', "[" * 50_000, "http://[::1", "http://h:x", "9" * 5000, "inf"]),
    st.sampled_from(
        ["a\0b", "99999999999999 weeks", "s3a://a:b/c@d", "/", "s3a://[", "-Dx.password=y", "\udcff", "x,,y"]
    ),
)
IN_TOML = st.one_of(
    ANYTHING.map(json.dumps),
    st.sampled_from(["[]", "5", "inf", "nan", '["x"]', "{a = 1}", "1979-05-27", "true", "9" * 5000, "[" * 50_000]),
)
KEYS = st.sampled_from([key.replace("NAME", "ingest") for key in setting_sources.known_keys(Settings)])


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=KEYS, more=st.sampled_from(["", "", "", ".x"]), text=ANYTHING, value=IN_TOML, place=st.integers(0, 2))
def test_any_text_in_any_setting_gives_settings_or_one_line(
    checkout: Path, key: str, more: str, text: str, value: str, place: int
) -> None:
    # Not monkeypatch, which would undo only after the last example.
    variable = setting_sources.variable_of(f"{key}{more}")
    overlay = checkout / "conf" / "local.toml"
    section, _, name = f"{key}{more}".partition(".")
    try:
        if place == 0:
            os.environ[variable] = (
                text.replace("\0", "").encode(errors="surrogatepass").decode(errors="surrogateescape")
            )
        elif place == 1:
            overlay.write_text(f"[{section}]\n{name} = {value}\n")
        load("local", [f"{key}{more}={text}"] if place == 2 else ())
    except TidemarkError as refused:
        assert refused.code in ("BAD_SETTING", "UNKNOWN_SETTING", "BAD_ARGUMENTS")
    finally:
        os.environ.pop(variable, None)
        overlay.write_text("")


def test_an_unknown_environment_is_refused_with_the_nearest() -> None:
    assert refusal("clutser") == "UNKNOWN_SETTING: no environment `clutser`; did you mean `cluster`?"


LOGIN = ("kafka.security_protocol=SASL_SSL", "kafka.sasl_mechanism=PLAIN", "kafka.sasl_username=reader")


def test_a_password_shows_nowhere_but_in_what_clients_get(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA__SASL_PASSWORD", "REGISTRY__PASSWORD"):
        monkeypatch.setenv(f"TIDEMARK_{name}", "hunter2")
    registry = ["registry.url=https://host", "registry.username=reader"]
    loaded = load(overrides=[*LOGIN, *registry, "kafka.bootstrap_servers=host:9092"])
    for text in (
        show(loaded),
        repr(loaded),
        str(loaded),
        repr(loaded.kafka),
        repr(loaded.registry),
        loaded.model_dump_json(),
    ):
        assert "hunter2" not in text
        assert "reader" in text
    assert loaded.kafka.client_config()["sasl.password"] == "hunter2"


def test_a_password_of_the_wrong_kind_does_not_show_in_the_error(checkout: Path) -> None:
    change(checkout, "base.toml", 'sasl_password = ""', "sasl_password = 31337")
    with pytest.raises(TidemarkError, match=r"kafka\.sasl_password") as refused:
        load()
    assert "31337" not in f"{refused.value} {refused.value.__cause__}"


def test_a_file_of_settings_may_name_a_file_with_a_secret_and_a_variable_wins(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / "password").write_text("hunter2\n")
    add(checkout, "local.toml", f'[registry]\npassword_file = "{checkout / "password"}"')
    assert load().registry.password.get_secret_value() == "hunter2"
    monkeypatch.setenv("TIDEMARK_REGISTRY__PASSWORD", "stronger")
    assert load().registry.password.get_secret_value() == "stronger"
    add(checkout, "local.toml", 'password = "too"')
    assert "registry.password and registry.password_file are both set" in refusal()


@pytest.mark.parametrize("url", ["https://ann:hunter2@host", "http://host:8081, https://hunter2@host"])
def test_a_registry_url_with_a_user_and_password_is_refused_and_not_shown(url: str) -> None:
    text = refusal(overrides=(f"registry.url={url}",))
    assert "url must hold no user and password: set registry.username" in text
    assert "hunter2" not in text


def test_a_login_without_its_password_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_KAFKA__SASL_PASSWORD", "")
    assert "empty: sasl_password (set TIDEMARK_KAFKA__SASL_PASSWORD, or ..._FILE to its file)" in refusal(
        overrides=LOGIN
    )
    text = refusal(overrides=LOGIN[:2])
    assert "empty: sasl_username and sasl_password (set TIDEMARK_KAFKA__SASL_PASSWORD, " in text
    monkeypatch.setenv("TIDEMARK_KAFKA__SASL_PASSWORD", "hunter2")
    assert load(overrides=LOGIN).kafka.sasl_username == "reader"


@pytest.mark.parametrize("setting", ["kafka.ssl_ca_location", "registry.ca_location"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        ("folder", "Is a directory"),
        ("", "it holds no PEM certificates"),
        ("no certificate", "it holds no PEM certificates"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "it holds no PEM certificates"),
    ],
)
def test_an_authority_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, setting: str, content: str | None, reason: str
) -> None:
    path = tmp_path / "ca.pem"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    section, _, name = setting.partition(".")
    expected = f"BAD_SETTING: setting `{section}`: {name} {path} cannot be read: {reason}; "
    assert refusal(overrides=(f"{setting}={path}",)).startswith(expected)


@pytest.mark.parametrize(
    "override",
    [
        "kafka.bootstrap_servers=ann:hunter2@host:9092",
        "paths.tables=s3a://key:hunter2@bucket/t",
        "paths.checkpoints=s3a://AKIA:1/hunter2@bucket/t",
        "metrics.pushgateway=http://u:hunter2@push:9091",
        "metrics.pushgateway=u:hunter2@push:9091",
        "search.url=https://u:hun/hunter2@host",
        "spark.master=spark://u:hunter2@host:7077",
        "jobs.ingest.trigger=https://u:hunter2@host",
        "spark.driver_java_options=-Xmx1g -Djavax.net.ssl.keyStorePassword=hunter2",
        "spark.driver_java_options=-Dproxy=http://u:hunter2@host",
    ],
)
def test_an_address_that_holds_a_password_is_refused_and_not_shown(override: str) -> None:
    text = refusal(overrides=(override,))
    assert text.startswith("BAD_SETTING: ")
    assert "hunter2" not in text
    assert load(overrides=["paths.tables=abfss://box@account.dfs.core.windows.net/t"])


def test_show_prints_every_section_and_the_merged_values() -> None:
    lines = show(load(overrides=["spark.trigger=3 seconds", "jobs.ingest.trigger=4 seconds"])).splitlines()
    assert [line for line in lines if line.startswith("[")] == [f"[{name}]" for name in Settings.model_fields]
    assert "trigger = '3 seconds'" in lines
    assert any(line.startswith("ingest = ") and "4 seconds" in line for line in lines)


def test_relative_folders_lie_in_the_state_folder_and_uris_stay(checkout: Path) -> None:
    loaded = load(overrides=["paths.tables=out", "paths.checkpoints=s3a://bucket/checkpoints"])
    assert loaded.paths.tables == str(checkout / "state" / "out")
    assert loaded.paths.checkpoints == "s3a://bucket/checkpoints"
    assert load(overrides=["paths.tables=file:/srv/tables"]).paths.tables == "file:/srv/tables"
    assert load(overrides=["paths.tables=/srv/tables"]).paths.tables == "/srv/tables"


def test_without_servers_the_embedded_brokers_are_used_and_without_any_the_error_names_both_ways(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TidemarkError, match=f"NO_BROKER.*local/tidemark broker start.*{SERVERS}"):
        load().kafka.client_config()
    record = checkout / "state" / "broker" / "bootstrap.servers"
    record.parent.mkdir(parents=True)
    record.write_text("127.0.0.1:4242\n")
    assert load().kafka.bootstrap_servers == "127.0.0.1:4242"
    monkeypatch.setenv(SERVERS, "host:9092")
    assert load().kafka.bootstrap_servers == "host:9092"


@pytest.mark.parametrize("text", ["", "junk", "127.0.0.1:", "127.0.0.1:1,x", "\udcff"])
def test_a_damaged_record_of_the_embedded_brokers_counts_for_none(checkout: Path, text: str) -> None:
    record = checkout / "state" / "broker" / "bootstrap.servers"
    record.parent.mkdir(parents=True)
    record.write_text(text, errors="surrogateescape")
    assert load().kafka.bootstrap_servers == ""
    record.unlink()
    record.mkdir()
    assert load().kafka.bootstrap_servers == ""
    record.rmdir()
    record.write_text("127.0.0.1:1,127.0.0.1:2\n")
    assert load().kafka.bootstrap_servers == "127.0.0.1:1,127.0.0.1:2"


def test_every_key_of_the_model_stands_in_base_toml(checkout: Path) -> None:
    (checkout / "conf" / "local.toml").unlink()
    assert load().model_fields_set == set(Settings.model_fields)


def test_a_variable_of_the_tests_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_SEED", "7")
    assert load("local").spark.master.startswith("local")


def whole_numbers() -> list[str]:
    """Every setting that is a whole number."""
    return [
        f"{name}.{key}"
        for name, section in Settings.model_fields.items()
        for key, field in getattr(section.annotation, "model_fields", {}).items()
        if field.annotation is int
    ] + [f"jobs.ingest.{key}" for key, field in Job.model_fields.items() if field.annotation == (int | None)]


@pytest.mark.parametrize("key", whole_numbers())
def test_a_whole_number_is_one_that_kafka_and_spark_have_room_for(key: str) -> None:
    for number in (10**30, 2**63, -2, "9" * 5000):
        told = refusal(overrides=(f"{key}={number}",))
        assert told.startswith(f"BAD_SETTING: setting `{key}`: ")
        assert "\n" not in told and len(told) < 300


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_a_file_of_settings_may_end_its_lines_as_any_system_does(checkout: Path, end: str) -> None:
    path = checkout / "conf" / "local.toml"
    path.write_bytes(f'[spark]{end}trigger = "9 seconds"{end}'.encode())
    assert load("local").spark.trigger == "9 seconds"


@pytest.mark.parametrize("twice", ["[spark]\nui = true\nui = false", "[spark]\nui = true\n[spark]\nui = false"])
def test_a_key_or_a_table_that_stands_twice_is_named_with_its_line(checkout: Path, twice: str) -> None:
    add(checkout, "local.toml", twice)
    told = refusal("local")
    assert told.startswith(f"BAD_SETTING: {checkout / 'conf' / 'local.toml'}: Cannot ") and "line" in told
