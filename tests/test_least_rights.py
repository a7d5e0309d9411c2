"""Users who may do what `acls apply --least` grants and nothing else: a way of records, from a file to their coverage.

Each logs in in another way: the one who publishes by a certificate, the job that publishes by a token, all others by
passwords from files; the registry asks for a password, over TLS.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.connectors.kafka.acls import Acls, single
from jobs.ingest import job as ingest
from jobs.operations.coverage import cli as coverage
from jobs.operations.replay.replay_lock import ReplayLock
from jobs.pipeline.run import DeclaredRun, Run
from local import acls
from local.command_rights import CommandLine, command_rights
from producers import cli as producers
from producers.quarantine import cli as quarantine
from tests.faults.oracle import judge, read_all
from tests.jobs.operations.replay.past import JOB, Past
from tests.jobs.scratch import Scratch
from tests.schemas.served_registry import served
from tests.secured import LOGIN, MTLS, SecuredCluster
from tests.sent import Record
from tests.tokens import SCOPE, token_endpoint

pytestmark = pytest.mark.slow

SECRET = "hunter2-canary"


class World:
    """A secured cluster and registry with an application of the test's own.

    Args:
        sets: settings by which each user logs in.
    """

    def __init__(self, secured: SecuredCluster, scratch: Scratch, sets: dict[str, list[str]]) -> None:
        self.secured, self.scratch, self._sets = secured, scratch, sets
        self.application = scratch.application

    def settings(self, user: str) -> list[str]:
        """What `user` sets beside the scratch's own."""
        return self._sets[user]

    def grant(self, user: str, command: str) -> None:
        """Let a user do what a command needs, as an administrator does."""
        assert "added: " in self.command(acls.main, "administrator", "apply", command, "--least", "--principal", user)

    def grant_job(self, user: str, job: str, build: Callable[[Run], None], *sets: str, replay: bool = False) -> None:
        """Let a user do what a job needs, and with `replay` a replay of it: `acls` knows the catalog's alone."""
        settings = self.scratch.settings(*sets)
        run = DeclaredRun(self.scratch.spark, settings, job)
        run.topics |= self.scratch.declared
        build(run)
        rights = run.rights()
        rights += command_rights(settings, CommandLine("replay", "replay", job)) if replay else []
        Acls(settings.kafka).add(user, [right for right in single(rights) if not right.without])

    def command(self, main: Callable[[list[str]], int], user: str, *words: str) -> str:
        """Run a command as `user`, which succeeds; what it prints."""
        said, folder = StringIO(), self.scratch.folder
        own = {f"paths.{name}": str(folder / name) for name in ("tables", "checkpoints", "logs")}
        own["ledger.application"] = self.application
        sets = [*(f"{key}={value}" for key, value in own.items()), *self.settings(user)]
        with redirect_stdout(said), redirect_stderr(said):
            code = main([*words, *(part for each in sets for part in ("--set", each))])
        assert code == 0, said.getvalue()
        assert SECRET not in said.getvalue()
        return said.getvalue()


@pytest.fixture
def world(spark: SparkSession, secured: SecuredCluster, tmp_path: Path) -> Iterator[World]:
    scratch = Scratch(spark, secured, lambda partitions: secured.topic(f"in-{uuid.uuid4().hex[:8]}"), tmp_path)
    scratch.application = f"app-{uuid.uuid4().hex[:8]}"
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    secret = f"_file={tmp_path / 'secret'}"
    certificate, key = secured.clients.issue(tmp_path / "publisher", "publisher")
    with (
        token_endpoint(secured.certificate, secured.token_key) as tokens,
        served(scratch.registry, secured.certificate, "schemas", SECRET) as url,
    ):
        registry = [f"registry.url={url}", "registry.username=schemas", f"registry.password{secret}"]
        registry += [f"registry.ca_location={secured.ca}", f"kafka.ssl_ca_location={secured.ca}"]
        login = [*registry, f"kafka.bootstrap_servers={secured.address(LOGIN)}", "kafka.security_protocol=SASL_SSL"]
        by_certificate = [f"kafka.bootstrap_servers={secured.address(MTLS)}", "kafka.security_protocol=SSL"]
        by_certificate += [f"kafka.ssl_certificate_location={certificate}", f"kafka.ssl_key_location={key}"]
        tokens.secrets["streams"] = SECRET
        by_token = ["kafka.sasl_mechanism=OAUTHBEARER", f"kafka.oauth_token_url={tokens.url}"]
        by_token += ["kafka.oauth_client_id=streams", f"kafka.oauth_client_secret{secret}"]
        by_token += [f"kafka.oauth_scope={SCOPE}", f"kafka.oauth_ca_location={secured.ca}"]
        sets = {"publisher": [*registry, *by_certificate], "streams": [*login, *by_token]}
        sets["administrator"] = [f"kafka.bootstrap_servers={secured.bootstrap_servers}"]
        for user in ("ingester", "replayer", "redriver", "auditor"):
            secured.set_password(SECRET, user)
            by_password = ["kafka.sasl_mechanism=SCRAM-SHA-512", f"kafka.sasl_username={user}"]
            sets[user] = [*login, *by_password, f"kafka.sasl_password{secret}"]
        yield World(secured, scratch, sets)


def test_every_step_of_a_records_way_needs_the_rights_that_are_listed_and_no_other(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    scratch, secured = world.scratch, world.secured
    past = Past(scratch, *world.settings("replayer"))
    topic, alerts = past.topic, secured.topic(f"out-{uuid.uuid4().hex[:8]}")
    folder = scratch.folder

    # publish file --exactly-once
    world.grant("User:CN=publisher", f"publish file {topic} --exactly-once load")
    (folder / "in.csv").write_text("id,level,at\n" + "".join(f"s{n},{n},2013-01-01T0{n}:00:00Z\n" for n in range(5)))
    (folder / "in.avsc").write_text(scratch.registry.latest(f"{topic}-value").text)
    words = ("--topic", topic, "--key", "id", "--event-time", "at", "--schema", str(folder / "in.avsc"))
    publish = ("file", str(folder / "in.csv"), *words, "--exactly-once", "load")
    world.command(producers.main, "publisher", *publish)
    world.command(producers.main, "publisher", *publish)
    assert len(read_all(secured.bootstrap_servers, topic, committed=True)[0]) == 5
    scratch.send(topic, Record(b"bad", b"k"))

    # ingest
    of_ingest = (f"ingest.topics={topic}", "quarantine.max_ratio=1")
    world.grant_job("User:ingester", "ingest", ingest.build, *of_ingest)
    run = scratch.run(*of_ingest, *world.settings("ingester"), job="ingest")
    ingest.build(run)
    scratch.catch_up(run)
    assert len(scratch.rows(f"silver/{topic}")) == 5
    assert len(scratch.rows("quarantine")) == 1

    # a job that publishes exactly once
    def publish_levels(run: Run) -> None:
        run.publish(run.read(topic).selectExpr("id AS key", "cast(level AS string) AS value"), alerts)

    world.grant_job("User:streams", "alerts", publish_levels)
    run = scratch.run(*world.settings("streams"), job="alerts")
    publish_levels(run)
    scratch.catch_up(run)
    ledger = f"__{world.application}.alerts.{alerts}.ledger"
    assert judge(secured.bootstrap_servers, alerts, range(5), ledger).clean

    # a job on a table, and its replay
    world.grant_job("User:replayer", JOB, past.build, replay=True)
    past.live()
    before = past.rows()
    with ReplayLock(past.settings(), JOB) as lock:
        steps = past.steps(lock.require)
        replay = past.replayed()
        steps.cut_over(replay, accept=False)
    assert past.rows() == before != []

    # redrive
    world.grant("User:redriver", f"quarantine redrive {topic}")
    world.command(quarantine.main, "redriver", "redrive", "--all")
    assert len(read_all(secured.bootstrap_servers, topic, committed=True)[0]) == 7

    # coverage
    for name in (topic, alerts):
        world.grant("User:auditor", f"coverage {name}")
    said = world.command(coverage.main, "auditor", "check", f"bronze/{topic}", alerts)
    assert "all well" in said
    assert SECRET not in "".join(capfd.readouterr())
