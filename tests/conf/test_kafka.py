"""What the connection block takes, and what it is answered with, before any client is made."""

import datetime as dt
import os
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from conf.kafka import CLIENT
from conf.setting_sources import known_keys, secret_keys
from conf.settings import Settings, load, show
from jobs.connectors.kafka.java_client import connection_options
from tests.certificates import Authority, certify

SECRET = "hunter2-canary"
PLACE = "kafka.bootstrap_servers=host:9093"
PASSWORD_FILE = "TIDEMARK_KAFKA__SASL_PASSWORD_FILE"
LOGIN = (PLACE, "kafka.security_protocol=SASL_SSL", "kafka.sasl_mechanism=SCRAM-SHA-512", "kafka.sasl_username=ann")
TOKEN = (
    *(PLACE, "kafka.security_protocol=SASL_SSL", "kafka.sasl_mechanism=OAUTHBEARER"),
    *("kafka.oauth_token_url=https://idp/token", "kafka.oauth_client_id=app"),
)
AUTHORITY = Authority()


def refusal(*overrides: str) -> str:
    with pytest.raises(TidemarkError) as refused:
        load("local", overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def by_certificate(certificate: str, key: str = "", *more: str) -> list[str]:
    own = {"security_protocol": "SSL", "ssl_certificate_location": certificate, "ssl_key_location": key}
    return [PLACE, *(f"kafka.{name}={value}" for name, value in own.items()), *more]


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_comes_from_a_file_without_its_line_break_and_is_read_again(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "password"
    path.write_bytes(f"{SECRET}{ending}".encode())
    monkeypatch.setenv(PASSWORD_FILE, str(path))
    settings = load("local", LOGIN)
    assert settings.kafka.client_config()["sasl.password"] == SECRET
    before = settings.kafka.credentials()
    assert SECRET not in f"{settings!r} {show(settings)} {settings.model_dump_json()}"

    path.write_text('other"\\\n')
    assert settings.kafka.client_config()["sasl.password"] == 'other"\\'
    assert 'password="other\\"\\\\";' in connection_options(settings.kafka)["kafka.sasl.jaas.config"]
    assert settings.kafka.credentials() != before
    assert settings.kafka.rotates
    for break_it in (lambda: path.write_text(""), path.unlink):
        break_it()
        assert settings.kafka.client_config()["sasl.password"] == 'other"\\'


def test_every_secret_may_come_from_a_file_by_variable_and_by_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    monkeypatch.setenv("TIDEMARK_REGISTRY__PASSWORD_FILE", str(path))
    settings = load("local", [f"page.token_file={path}", f"personal_data.hash_key_file={path}"])
    found = (settings.registry.password, settings.page.token, settings.personal_data.hash_key)
    assert [secret.get_secret_value() for secret in found] == [SECRET] * 3


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file or directory"), (b"", "is empty"), (b"\n", "is empty"), (b"\xff", "no text in UTF-8")],
)
def test_a_file_without_a_secret_is_refused_by_name(
    content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(PASSWORD_FILE, str(path))
    text = refusal(*LOGIN)
    assert text.startswith(f"BAD_SETTING: kafka.sasl_password_file {path} ")
    assert said in text


def test_a_key_of_a_kind_that_no_client_knows_is_refused(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.issue(tmp_path / "app", "app")
    other, other_key = str(tmp_path / "other.crt"), str(tmp_path / "other.key")
    subprocess.run(["openssl", "genpkey", "-algorithm", "SM2", "-out", other_key], check=True, capture_output=True)
    request = ["openssl", "req", "-x509", "-new", "-key", other_key, "-subj", "/CN=app", "-days", "1", "-out", other]
    subprocess.run(request, check=True, capture_output=True)
    says = "has a key of a kind that clients do not know"
    assert f"ssl_key_location {other_key} {says}" in refusal(*by_certificate(certificate, other_key))
    assert f"ssl_certificate_location {other} {says}" in refusal(*by_certificate(other, key))


def test_a_key_in_the_place_of_its_file_is_not_shown() -> None:
    assert SECRET not in refusal(*by_certificate("/app.crt", f"-----BEGIN PRIVATE KEY----- {SECRET}"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "password"
    path.write_text(SECRET)
    path.chmod(0)
    monkeypatch.setenv(PASSWORD_FILE, str(path))
    assert "Permission denied" in refusal(*LOGIN)


def test_a_secret_and_its_file_are_not_taken_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text(SECRET)
    monkeypatch.setenv(PASSWORD_FILE, str(tmp_path / "password"))
    monkeypatch.setenv("TIDEMARK_KAFKA__SASL_PASSWORD", "x")
    assert "kafka.sasl_password and kafka.sasl_password_file are both set" in refusal(*LOGIN)


@pytest.mark.parametrize("mechanism", ["PLAIN", "OAUTHBEARER"])
def test_a_login_names_what_it_lacks(mechanism: str) -> None:
    text = refusal(PLACE, "kafka.security_protocol=SASL_SSL", f"kafka.sasl_mechanism={mechanism}")
    names = {
        "PLAIN": "sasl_username and sasl_password (set TIDEMARK_KAFKA__SASL_PASSWORD,",
        "OAUTHBEARER": "oauth_token_url and oauth_client_id and oauth_client_secret (set TIDEMARK_KAFKA__OAUTH_CLIENT_",
    }
    assert f"empty: {names[mechanism]}" in text


def test_a_token_login_reaches_both_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_KAFKA__OAUTH_CLIENT_SECRET", SECRET)
    kafka = load("local", [*TOKEN, "kafka.oauth_scope=stream"]).kafka
    config, options = kafka.client_config(), connection_options(kafka)
    assert config["sasl.oauthbearer.method"] == "oidc"
    assert config["sasl.oauthbearer.client.secret"] == SECRET
    assert 'clientId="app" clientSecret="hunter2-canary" scope="stream";' in options["kafka.sasl.jaas.config"]
    assert options["kafka.sasl.oauthbearer.token.endpoint.url"] == "https://idp/token"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://idp/token", "must be https://HOST"),
        ("idp/token", "must be https://HOST"),
        (f"https://app:{SECRET}@idp/token", "must hold no user and password"),
    ],
)
def test_a_token_endpoint_that_would_show_the_secret_is_refused(
    url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_KAFKA__OAUTH_CLIENT_SECRET", "x")
    text = refusal(*TOKEN, f"kafka.oauth_token_url={url}")
    assert said in text
    assert SECRET not in text


def test_a_certificate_and_its_key_reach_both_clients_and_spark_gets_only_where_they_are(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.issue(tmp_path, "app")
    kafka = load("local", by_certificate(certificate, key)).kafka
    config, options = kafka.client_config(), connection_options(kafka)
    assert (config["ssl.certificate.location"], config["ssl.key.location"]) == (certificate, key)
    assert options["kafka.ssl.keystore.key"] == f"${{directory:{tmp_path}:tls.key}}"
    assert options["kafka.ssl.keystore.certificate.chain"] == f"${{directory:{tmp_path}:tls.crt}}"


def test_one_file_may_hold_both_and_the_key_may_be_of_any_form_of_pem(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.issue(tmp_path, "app")
    old = subprocess.run(["openssl", "ec", "-in", key], capture_output=True, text=True, check=True).stdout
    assert "BEGIN EC PRIVATE KEY" in old
    both = tmp_path / "both.pem"
    both.write_text(Path(certificate).read_text() + old)
    kafka = load("local", by_certificate(str(both))).kafka
    assert kafka.client_config()["ssl.key.location"] == str(both)
    assert connection_options(kafka)["kafka.ssl.keystore.key"].startswith("-----BEGIN PRIVATE KEY-----")


def test_a_certificate_that_is_not_what_clients_need_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = AUTHORITY.issue(tmp_path / "app", "app")
    other, other_key = AUTHORITY.issue(tmp_path / "other", "other")
    locked, locked_key = AUTHORITY.issue(tmp_path / "locked", "locked", SECRET)
    past, past_key = AUTHORITY.issue(tmp_path / "past", "past", until=-dt.timedelta(hours=1))
    early, early_key = AUTHORITY.issue(tmp_path / "early", "early", since=dt.timedelta(hours=1))
    for pair, said in (
        ((certificate, f"{key}x"), f"ssl_key_location {key}x cannot be read: No such file"),
        ((f"{certificate}x", key), f"ssl_certificate_location {certificate}x cannot be read: No such file"),
        ((certificate, certificate), "holds no private key in PEM"),
        ((certificate,), f"ssl_certificate_location {certificate} holds no private key in PEM"),
        ((key, key), f"ssl_certificate_location {key} cannot be read: it holds no PEM certificates"),
        ((certificate, other_key), f"ssl_key_location {other_key} is not the key of the certificate in {certificate}"),
        ((locked, locked_key), "is encrypted: set ssl_key_password"),
        ((past, past_key), f"ssl_certificate_location {past} expired at "),
        ((early, early_key), f"ssl_certificate_location {early} is not valid before "),
        ((), "ssl_key_location, a private key, needs its certificate"),
        (("app/tls.crt", key), "ssl_certificate_location must be a whole path"),
    ):
        text = refusal(*(by_certificate(*pair) if pair else by_certificate("", key)))
        assert text.startswith("BAD_SETTING: setting `kafka`: ")
        assert said in text
    monkeypatch.setenv("TIDEMARK_KAFKA__SSL_KEY_PASSWORD", "wrong")
    assert "does not open by ssl_key_password" in refusal(*by_certificate(locked, locked_key))
    assert "is not encrypted, though ssl_key_password is set" in refusal(*by_certificate(other, other_key))
    monkeypatch.setenv("TIDEMARK_KAFKA__SSL_KEY_PASSWORD", SECRET)
    assert load("local", by_certificate(locked, locked_key)).kafka.client_config()["ssl.key.password"] == SECRET


def test_an_authority_that_has_expired_is_refused_unless_its_file_has_another(tmp_path: Path) -> None:
    certify(tmp_path)
    expired, _ = AUTHORITY.issue(tmp_path / "past", "past", until=-dt.timedelta(hours=1))
    assert f"ssl_ca_location {expired} expired at " in refusal(f"kafka.ssl_ca_location={expired}")
    both = tmp_path / "both.pem"
    both.write_text(Path(expired).read_text() + (tmp_path / "ca.pem").read_text())
    assert load("local", [f"kafka.ssl_ca_location={both}"]).kafka.ssl_ca_location == str(both)


def test_properties_of_each_client_may_be_set_and_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_KAFKA__CLIENT__SOCKET_KEEPALIVE_ENABLE", "true")
    kafka = load("local", [PLACE, "kafka.client.client.rack=a", "kafka.spark.request.timeout.ms=1000"]).kafka
    config, options = kafka.client_config(), connection_options(kafka)
    assert (config["socket.keepalive.enable"], config["client.rack"]) == ("true", "a")
    assert options["kafka.request.timeout.ms"] == "1000"
    assert (config["client.id"], options["kafka.client.id"]) == ("tidemark.python", "tidemark.spark")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("kafka.client.isolation.level=read_uncommitted", "kafka.client does not take `isolation.level`"),
        ("kafka.client.enable.ssl.certificate.verification=false", "does not take `enable.ssl.certificate.ver"),
        ("kafka.client.sasl.password=x", "kafka.client does not take `sasl.password`"),
        ("kafka.spark.acks=1", "kafka.spark does not take `acks`"),
        ("kafka.spark.ssl.endpoint.identification.algorithm=", "does not take `ssl.endpoint.identification.algo"),
        ("kafka.spark.interceptor.classes=x.Y", "kafka.spark does not take `interceptor.classes`"),
        ("kafka.spark.request.timeout=1", "did you mean `request.timeout.ms`?"),
        ("kafka.client.socket.keepalive.enable=perhaps", "kafka.client: Expected bool value"),
    ],
)
def test_what_correctness_needs_and_what_is_unknown_may_not_be_set(override: str, said: str) -> None:
    assert said in refusal(PLACE, override)


def test_every_property_of_the_list_for_librdkafka_is_one_of_librdkafkas() -> None:
    for name in CLIENT:
        try:
            AdminClient({"log_level": 0, name: "\x01"})
        except KafkaException as exc:
            assert "No such configuration property" not in str(exc)


def test_every_secret_may_lie_in_a_file() -> None:
    assert {f"{key}_file" for key in secret_keys(Settings)} <= set(known_keys(Settings))
