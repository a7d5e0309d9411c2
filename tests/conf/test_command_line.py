"""What may not stand on a command line, whichever command it is of."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from conf import setting_sources
from conf.command_line import refuse_secrets, refuse_spark_secrets
from conf.errors import TidemarkError
from conf.settings import Settings
from local import cli, submit

SECRET = "hunter2-canary"
# One command line of every command that takes settings.
COMMANDS = (
    "config show",
    "topics plan",
    "publish flights",
    "publish file FILE --topic t",
    "quarantine list",
    "quarantine redrive",
    "coverage check",
    "page",
    "schemas list",
    "broker status",
    "replay list",
    "replay run flights.hourly_delays --from earliest",
    "maintain tables",
    "checkpoint doctor ingest",
)
SECRETS = {
    "kafka.sasl_password": "TIDEMARK_KAFKA__SASL_PASSWORD",
    "kafka.oauth_client_secret": "TIDEMARK_KAFKA__OAUTH_CLIENT_SECRET",
    "kafka.ssl_key_password": "TIDEMARK_KAFKA__SSL_KEY_PASSWORD",
    "registry.password": "TIDEMARK_REGISTRY__PASSWORD",
    "personal_data.hash_key": "TIDEMARK_PERSONAL_DATA__HASH_KEY",
    "page.token": "TIDEMARK_PAGE__TOKEN",
    "spark.encryption_secret": "TIDEMARK_SPARK__ENCRYPTION_SECRET",
    "search.password": "TIDEMARK_SEARCH__PASSWORD",
}


def refusal(words: list[str]) -> str:
    with pytest.raises(TidemarkError) as refused:
        refuse_secrets(words)
    return str(refused.value)


def test_the_secrets_are_those_of_the_types() -> None:
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    typed = {
        f"{name}.{key}"
        for name, section in sections.items()
        for key, field in getattr(section, "model_fields", {}).items()
        if field.annotation is SecretStr
    }
    assert set(setting_sources.secret_keys(Settings)) == typed == set(SECRETS)


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_every_secret_with_its_variable_and_does_not_show_it(
    command: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *words = command.split()
    # Some take `--set` before a command of their own.
    for arguments in ([*words, "--set", f"{key}={SECRET}"], ["--set", f"{key}={SECRET}", *words]):
        with pytest.raises(TidemarkError, match=f"BAD_ARGUMENTS: {key} .*set the variable {SECRETS[key]} ") as refused:
            cli.main([name, *arguments])
        assert SECRET not in str(refused.value) + "".join(capsys.readouterr())


@pytest.mark.parametrize("key", SECRETS)
def test_a_job_refuses_every_secret_before_and_behind_the_dashes(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["--set", f"{key}={SECRET}"],
        ["--", "--conf", f"spark.executorEnv.{SECRETS[key]}={SECRET}"],
        ["--", f"--conf=spark.kubernetes.driverEnv.{SECRETS[key]}={SECRET}"],
    ):
        monkeypatch.setattr("sys.argv", ["spark-submit.sh", "ingest", *words])
        with pytest.raises(TidemarkError, match=f"BAD_ARGUMENTS: {key}") as refused:
            submit.main()
        assert SECRET not in str(refused.value) + "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "word",
    [
        "--set=kafka.sasl_password=x",
        "--se=kafka.sasl_password=x",
        "kafka.sasl_password=x",
        "kafka.sasl_password",
        " kafka.sasl_password = x",
        "KAFKA.SASL_PASSWORD=x",
        "kafka.sasl-password=x",
        "--kafka.sasl_password",
        "kafka__sasl_password=x",
        "TIDEMARK_KAFKA__SASL_PASSWORD=x",
        'kafka={"sasl_password":"x"}',
        'kafka={"sasl_username": "ann", "sasl_password": "x"}',
        "-Dkafka.sasl_password=x",
    ],
)
def test_a_secret_is_known_however_it_is_spelt(word: str) -> None:
    assert "set the variable TIDEMARK_KAFKA__SASL_PASSWORD instead" in refusal(["--set", word])


@settings(deadline=None)  # other tests run beside it
@given(st.sampled_from(sorted(SECRETS)), st.data(), st.text(max_size=20))
def test_no_spelling_and_no_value_lets_a_secret_through(key: str, data: st.DataObject, value: str) -> None:
    spelt = "".join(data.draw(st.sampled_from([letter, letter.upper()])) for letter in key)
    prefix = data.draw(st.sampled_from(["", "--set=", " ", "TIDEMARK_"]))
    assert SECRETS[key] in refusal([f"{prefix}{spelt}={value}"])


@pytest.mark.parametrize(
    "word",
    [
        "kafka.sasl_username=ann",
        "registry.url=https://host",
        "registry.password_file=x",
        "personal_data.hash_keys=x",
        "file:/kafka/sasl.csv",
        "spark.kubernetes.driver.secretKeyRef.TIDEMARK_KAFKA__SASL_PASSWORD=kafka:password",
    ],
)
def test_what_is_no_secret_passes(word: str) -> None:
    refuse_secrets(["--set", word])


@pytest.mark.parametrize(
    "options",
    [
        ("--conf", "spark.hadoop.fs.s3a.secret.key=x"),
        ("--conf=spark.hadoop.fs.s3a.access.key=x",),
        ("-c", "spark.hadoop.fs.s3a.session.token=x"),
        ("--conf", "spark.ssl.keyPassword=x"),
        ("--conf", "spark.authenticate.secret=x"),
        ("--conf", "spark.hadoop.fs.azure.account.key.box.dfs.core.windows.net=x"),
        ("--conf", "spark.kafka.sasl.jaas.config=x"),
        ("--driver-java-options", "-Xmx1g -Djavax.net.ssl.trustStorePassword=x"),
    ],
)
def test_secrets_of_other_systems_may_not_stand_behind_the_dashes(options: tuple[str, ...]) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_ARGUMENTS: \S+ would show in the list of processes; give it where"):
        submit.split(["ingest", "--", *options])


def test_options_that_only_speak_of_secrets_pass() -> None:
    refuse_spark_secrets(
        [
            *("--conf", "spark.hadoop.fs.s3a.aws.credentials.provider=some.Provider"),
            *("--conf", "spark.authenticate.secret.file=/run/secrets/spark"),
            *("--conf", "spark.kubernetes.driver.secretKeyRef.AWS_SECRET_ACCESS_KEY=aws:key"),
            *("--conf", "spark.security.credentials.kafka.enabled=false", "--master", "local[2]"),
        ]
    )
