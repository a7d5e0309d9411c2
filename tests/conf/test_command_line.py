"""What may not stand on a command line, whichever command it is of."""

import argparse
import ast
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from conf import ROOT, setting_sources
from conf.command_line import check, positive_count, positive_number, split_words, whole_number
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
# They hand their arguments on, to be judged by other programs.
OF_OTHERS = {"test", "notebook"}
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
        check(words)
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
        "jobs.session_tokens.trigger=5 seconds",
        "ingest.topics=password_resets",
        "kafka.oauth_token_url=https://idp/token",
        "paths.tables=abfss://box@account.dfs.core.windows.net/t",
        "paths.tables=s3a://bucket/users/ann@example.org",
        "registry.url=https://host:8081/@scope",
    ],
)
def test_what_is_no_secret_passes(word: str) -> None:
    check(["--set", word])


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("value", ["secretKeyRef", "x.secretKeyRef.y=a:b"])
def test_a_secret_that_speaks_of_a_reference_is_none(key: str, value: str) -> None:
    assert SECRETS[key] in refusal(["--set", f"{key}={value}"])


def test_fields_topics_and_positions_with_the_names_of_secrets_pass() -> None:
    check(["file", "in.csv", "--topic", "password-resets", "--key", "token", "--header", "idempotency-key=1"])
    check(["plan", "ingest", "--from", '{"session_tokens": {"0": 42}}', '--to={"secrets":{"0":42}}'])
    check(["/data/token=5/rows.parquet", "--principal", "User:token", "--record", "secrets/0/42"])


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
        ("--conf", "spark.hadoop.fs.azure.sas.fixed.token.box.dfs.core.windows.net=x"),
        ("--conf", "spark.hadoop.fs.azure.sas.box.account.blob.core.windows.net=x"),
        ("--conf", "spark.hadoop.fs.s3a.encryption.key=x"),
        ("--conf", "spark.hadoop.fs.s3a.server-side-encryption.key=x"),
        ("--conf", "spark.hadoop.google.cloud.auth.service.account.private.key=x"),
        ("--conf", "spark.executorEnv.DB_PASSWD=x"),
        ("--conf", "spark.executorEnv.PGPASSWORD=x"),
        ("--conf", "spark.yarn.appMasterEnv.API_KEY=x"),
        ("--conf", "spark.sql.catalog.lake.credential=id:x"),
        ("--conf", "spark.kubernetes.driver.secretKeyRef.PASSWORD=x"),
        ("--conf", "'spark.ssl.keyPassword'=x"),
        ("--conf", 'spark.invented={"password": "x"}'),
        ("--CONF", "spark.ssl.keyPassword=x"),
    ],
)
def test_secrets_of_other_systems_may_not_stand_behind_the_dashes(options: tuple[str, ...]) -> None:
    says = r"BAD_ARGUMENTS: \S+ would show in the list of processes; give it where"
    with pytest.raises(TidemarkError, match=says):
        submit.split(["ingest", "--", *options])
    with pytest.raises(TidemarkError, match=says):
        check(["show", *options])


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("--repositories", f"https://ci:{SECRET}@nexus/repo"), "--repositories"),
        (("--jars", f"https://host/a.jar,https://u:{SECRET}@host/b.jar"), "--jars"),
        (("--conf", f"spark.jars.repositories=https://u:{SECRET}@host"), "spark.jars.repositories"),
        (("--jars", f"https://{SECRET}@host/a.jar"), "--jars"),
        (("--tables", f"s3a://AKIA:1/{SECRET}@bucket/t"), "--tables"),
        (("--set", f"metrics.pushgateway=http://u:{SECRET}@push:9091"), "metrics.pushgateway"),
        ((f"s3a://AKIA%3A{SECRET}@bucket/t",), "a URL"),
    ],
)
def test_a_login_in_a_url_is_refused_wherever_it_stands_and_not_shown(words: tuple[str, ...], place: str) -> None:
    said = refusal(["show", *words])
    assert said.startswith(f"BAD_ARGUMENTS: the user and password in {place} would show")
    assert SECRET not in said


@pytest.mark.parametrize(
    "words",
    [
        (f"--sasl-password={SECRET}",),
        (f"--sasl-password:{SECRET}",),
        ("--token", SECRET),
        ("--set", f"kafka_sasl_password:{SECRET}"),
        ("--set", f"kafka_sasl_password={SECRET}"),
        ("--set", f"spark.driver_java_options=-Dx.password={SECRET}"),
    ],
)
def test_what_looks_like_a_secret_does_not_come_back_in_the_error(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TidemarkError) as refused:
        cli.main(["config", "show", *words])
    assert SECRET not in str(refused.value) + "".join(capsys.readouterr())


@pytest.mark.parametrize("word", [f"--password={SECRET}", f"https://ann:{SECRET}@host"])
@pytest.mark.parametrize("command", sorted({*cli.COMMANDS} - OF_OTHERS))
def test_no_command_shows_a_secret_among_arguments_that_it_does_not_know(
    command: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([command, word], [command, "invented", word], [word, command]):
        if words[:2] == ["kafka", "invented"]:
            continue  # there is no such tool; what stands behind one is the tool's
        with pytest.raises(TidemarkError) as refused:
            cli.main(words)
        assert SECRET not in str(refused.value) + "".join(capsys.readouterr())


@pytest.mark.parametrize("who", ["publish file t --password={}", "invented --password={}", "publish --token={} '"])
def test_no_secret_of_a_command_line_within_a_word_is_shown(who: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_ARGUMENTS: \w+ would show") as refused:
        cli.main(["acls", "plan", who.format(SECRET)])
    assert SECRET not in str(refused.value) + "".join(capsys.readouterr())


def test_every_command_line_is_looked_through_before_argparse_reads_it() -> None:
    for package in ("bench", "jobs", "local", "producers", "schemas"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
                calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
                named = [call.func.attr for call in calls if isinstance(call.func, ast.Attribute)]
                reads = [
                    call
                    for call in calls
                    if isinstance(call.func, ast.Attribute)
                    and call.func.attr in ("parse_args", "parse_known_args")
                    and not (call.args and isinstance(call.args[0], ast.List))  # words of ours
                ]
                assert not reads or {"check", "refuse_secrets"} & {*named}, f"{path}: {function.name}"


def test_words_that_are_no_utf_8_are_refused_by_every_command() -> None:
    for command in COMMANDS:
        with pytest.raises(TidemarkError, match=r"BAD_ARGUMENTS: '\\udcff' is no text in UTF-8"):
            cli.main([*command.split(), "\udcff"])


@pytest.mark.parametrize(("kind", "least"), [(whole_number, 0), (positive_count, 1)])
def test_a_whole_number_has_room_in_what_it_is_for(kind: Callable[[str], int], least: int) -> None:
    assert (kind(str(least)), kind(str(2**63 - 1))) == (least, 2**63 - 1)
    for text in (str(least - 1), str(2**63), "9" * 5000, "x"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no whole number from"):
            kind(text)


@pytest.mark.parametrize("text", ["0", "nan", "inf", "1e-300", "1e300", "9" * 5000])
def test_a_number_of_seconds_is_one_that_a_clock_can_wait_for(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no number above 0"):
        positive_number(text)


def test_a_command_line_within_a_word_may_not_be_left_open() -> None:
    assert split_words("publish file 'a b'") == ["publish", "file", "a b"]
    with pytest.raises(TidemarkError, match='BAD_ARGUMENTS: `publish file "` is no command line: No closing quotation'):
        split_words('publish file "')


def test_options_that_only_speak_of_secrets_pass() -> None:
    check(
        [
            *("--conf", "spark.hadoop.fs.s3a.aws.credentials.provider=some.Provider"),
            *("--conf", "spark.authenticate.secret.file=/run/secrets/spark"),
            *("--conf", "spark.kubernetes.driver.secretKeyRef.AWS_SECRET_ACCESS_KEY=aws:key"),
            *("--conf", "spark.security.credentials.kafka.enabled=false", "--master", "local[2]"),
            *("--conf", "spark.kubernetes.driver.secrets.spark-token=/etc/secrets"),
            *("--conf", "spark.kubernetes.authenticate.driver.oauthTokenFile=/run/token"),
            *("--conf", "spark.hadoop.fs.azure.sas.token.provider.type.box.dfs.core.windows.net=some.Provider"),
            *("--conf", "spark.hadoop.fs.s3a.encryption.key=arn:aws:kms:eu-west-1:1:key/2"),
            *("--conf", "spark.hadoop.dfs.block.access.token.enable=true"),
            *("--conf", "spark.executorEnv.GOOGLE_APPLICATION_CREDENTIALS=/etc/key.json"),
            *("--conf", "spark.redaction.regex=(?i)secret|password|token|access[.]?key"),
            *("--conf", "spark.sql.mapKeyDedupPolicy=LAST_WIN", "--jars", "https://host:8080/a.jar,file:/b@c.jar"),
            *("--packages", "com.amazonaws.secretsmanager:aws-secretsmanager-jdbc:1.0.8"),
        ]
    )
