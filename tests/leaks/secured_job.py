"""A job on a secured broker that knows every secret of the settings, and all that can be seen of it while it runs."""

import io
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka.admin import AclOperation, ResourceType
from fastavro import parse_schema, schemaless_writer

from conf import ROOT, setting_sources, state_dir
from conf.credentials import key_for_java
from conf.settings import Settings
from local.processes import HOST, end_group, wait_for
from schemas.codec import frame
from schemas.contracts import contract
from schemas.registry import FileRegistry
from tests.jvm import SERVER_OPTIONS
from tests.leaks.search import command_line, environment, listening, of_folder
from tests.schemas.served_registry import served
from tests.secured import LOGIN, SecuredCluster
from tests.sent import T0, Record, send
from tests.standalone import free_port
from tests.tokens import SCOPE, token_endpoint

SCRIPT = Path(__file__).resolve().parent / "job.py"
JOB, TOPIC, ALERTS = "flights.delay_alerts", "departures", "delay_alerts"
QUERIES = {JOB, f"ingest.{TOPIC}"}
FIRST_BATCH = re.compile(r"^\S+Z (\S+) +batch 0 ", re.MULTILINE)
DECOY = "LEAKS_DECOY"
FOLDERS = ("tables", "checkpoints", "logs", "events")
SECONDS = 300
# As spark-submit.sh does, but for the script that it gives to spark-submit.
START = 'source "$0/local/bootstrap.sh"; exec "$1" -P -c "$2" "${@:3}"'
BECOME = f"from pathlib import Path; from local import submit; submit.SCRIPT = Path({str(SCRIPT)!r}); submit.main()"
VIEWS = ("jobs/", "stages/", "storage/", "environment/", "executors/", "SQL/", "StreamingQuery/")
# Of Spark's REST API, behind the application.
ANSWERS = ("environment", "jobs", "stages?details=true", "allexecutors", "executors/driver/threads", "storage/rdd")
PLANS = "sql?details=true&planDescription=true&length=1000"


def make_secrets() -> dict[str, str]:
    """A canary for every secret of the settings, by its key."""
    return {key: f"Canary{secrets.token_hex(12)}" for key in setting_sources.secret_keys(Settings)}


@dataclass(frozen=True)
class Way:
    """A way to bring secrets to a job: by variables, or by files that they name; a login by password, or by token."""

    by_files: bool = False
    by_token: bool = False
    encrypted: bool = False

    def __str__(self) -> str:
        return f"{'files' if self.by_files else 'variables'}, {'token' if self.by_token else 'password'}"


@dataclass
class Seen:
    """What could be seen of a job.

    Attributes:
        decoy: no secret, and in each place, so that a search which misses it there is seen to be blind.
        places: contents by where they were found.
        addresses: on which the job's processes listened; `expected`: ports that must be among them.
        core_limits: the bytes that each process may leave when it crashes.
        children: command lines of the processes that need not know a secret.
        code: by which the job ended.
        for_others: the rights of other accounts on folders that only their owner may read.
    """

    decoy: str
    places: dict[str, list[bytes]] = field(default_factory=dict)
    addresses: set[tuple[str, int]] = field(default_factory=set)
    expected: set[int] = field(default_factory=set)
    core_limits: set[int] = field(default_factory=set)
    children: list[bytes] = field(default_factory=list)
    code: int | None = None
    for_others: dict[Path, int] = field(default_factory=dict)


class SecuredJob:
    """Runs the job and looks at it; `folder` gets all that it writes, `hidden` what only those who know a secret read.

    Args:
        planted: the secrets, by their keys.

    Attributes:
        sought: those, and a line of the private key that `kafka.ssl_key_password` opens.
    """

    def __init__(self, secured: SecuredCluster, folder: Path, hidden: Path, planted: Mapping[str, str]) -> None:
        self.secured, self.folder, self.hidden, self.planted = secured, folder, hidden, planted
        self.seen = Seen(f"Decoy{secrets.token_hex(12)}")
        self.user = f"leak-{uuid.uuid4().hex[:8]}"
        self.sets: dict[str, str] = {}
        self.sought = dict(planted)

    @contextmanager
    def surroundings(self, way: Way) -> Iterator[dict[str, str]]:
        """Topics, rights, a registry and a token endpoint while the block runs; gives the variables with secrets."""
        for kind in (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID):
            self.secured.allow(kind, "*", AclOperation.ALL, user=self.user)
        self.secured.set_password(self.planted["kafka.sasl_password"], self.user)
        certificate, key = self.secured.clients.issue(self.hidden, self.user, self.planted["kafka.ssl_key_password"])
        self.sought["private key"] = str(key_for_java(key, self.planted["kafka.ssl_key_password"])).splitlines()[1]
        registry = FileRegistry(self.hidden / "registry")
        departure = json.loads(contract("departure"))
        next(each for each in departure["fields"] if each["name"] == "tail_number")["pii"] = "hash"
        id = registry.register(f"{TOPIC}-value", json.dumps(departure))
        registry.register(f"{ALERTS}-value", contract("delay_alert"))
        send(self.secured, TOPIC, Record(self._departure(departure, id), b"k"), Record(self.seen.decoy.encode(), b"k"))
        with (
            token_endpoint(self.secured.certificate, self.secured.token_key) as tokens,
            served(registry, self.secured.certificate, "schemas", self.planted["registry.password"]) as url,
        ):
            tokens.secrets[self.user] = self.planted["kafka.oauth_client_secret"]
            self.sets = {
                "kafka.bootstrap_servers": self.secured.address(LOGIN),
                "kafka.security_protocol": LOGIN,
                "kafka.client_id": self.seen.decoy,
                "kafka.ssl_ca_location": str(self.secured.ca),
                "kafka.ssl_certificate_location": certificate,
                "kafka.ssl_key_location": key,
                "registry.url": url,
                "registry.username": "schemas",
                "registry.ca_location": str(self.secured.ca),
                **(self._by_token(tokens.url) if way.by_token else self._by_password()),
            }
            yield self._variables(way)

    def _departure(self, schema: dict[str, Any], id: int) -> bytes:
        buffer, decoy = io.BytesIO(), self.seen.decoy
        flight = {
            "flight_id": "UA1-EWR-20130101T0600Z",
            "carrier": decoy,
            "flight": 1,
            "tail_number": "N1",
            "origin": "EWR",
        }
        times = dict.fromkeys(("scheduled_departure_at", "departed_at", "scheduled_arrival_at"), T0)
        rest = {"destination": "IAH", "delay_minutes": 100, "distance_miles": 1400, **times}
        schemaless_writer(buffer, parse_schema(schema), flight | rest)
        return frame(id, buffer.getvalue())

    def _by_password(self) -> dict[str, str]:
        return {"kafka.sasl_mechanism": "SCRAM-SHA-512", "kafka.sasl_username": self.user}

    def _by_token(self, url: str) -> dict[str, str]:
        names = {"oauth_token_url": url, "oauth_client_id": self.user, "oauth_scope": SCOPE}
        names |= {"sasl_mechanism": "OAUTHBEARER", "oauth_ca_location": str(self.secured.ca)}
        return {f"kafka.{name}": value for name, value in names.items()}

    def _variables(self, way: Way) -> dict[str, str]:
        variables = {DECOY: self.seen.decoy}
        for key, secret in self.planted.items():
            if way.by_files:
                path = self.hidden / key
                path.write_text(secret)
                variables[setting_sources.variable_of(key + setting_sources.FILE)] = str(path)
            else:
                variables[setting_sources.variable_of(key)] = secret
        return variables

    def run(self, way: Way, variables: Mapping[str, str]) -> Seen:
        """Run the job until it has written what there is, look at it, end it, and look at what it left."""
        metrics, ui = free_port(), free_port()
        (self.folder / "events").mkdir(parents=True)
        printed = self.folder / "output"
        with printed.open("w") as output:
            process = subprocess.Popen(
                self._command(way, metrics, ui),
                env=os.environ | variables,
                stdout=output,
                stderr=output,
                text=True,
                process_group=0,
            )
            try:
                self._await_batches(process, printed)
                driver = psutil.Process(process.pid)
                family = [driver, *driver.children(recursive=True)]
                self._look_at_pages(metrics, ui)
                # What Java starts for a moment, such as chmod, has its environment, and is gone by now.
                self._look_at_processes(driver, [each for each in family if each.is_running()], way)
                self.seen.expected = {metrics, ui}
                os.kill(process.pid, signal.SIGTERM)
                self.seen.code = process.wait(SECONDS)
            finally:
                end_group(process)
        self.seen.places |= {name: list(of_folder(self.folder / name)) for name in FOLDERS}
        self.seen.places["output"] = [printed.read_bytes()]
        return self.seen

    def _command(self, way: Way, metrics: int, ui: int) -> list[str]:
        sets = self.sets | {
            **{f"paths.{name}": str(self.folder / name) for name in ("tables", "checkpoints", "logs")},
            "ledger.application": self.user,
            "ingest.topics": TOPIC,
            "quarantine.max_ratio": "1",
            "metrics.port": str(metrics),
            "spark.trigger": "1 second",
            "run.stop_within": "100 seconds",
            "spark.encryption": str(way.encrypted).lower(),
            "spark.driver_java_options": " ".join(SERVER_OPTIONS),
        }
        properties = {
            "spark.ui.port": str(ui),
            "spark.eventLog.enabled": "true",
            "spark.eventLog.compress": "false",
            "spark.eventLog.dir": (self.folder / "events").as_uri(),
            "spark.tidemark.decoy": self.seen.decoy,
        }
        words = [JOB, *(word for key, value in sets.items() for word in ("--set", f"{key}={value}")), "--"]
        words += [word for key, value in properties.items() for word in ("--conf", f"{key}={value}")]
        return ["bash", "-euc", START, str(ROOT), sys.executable, BECOME, *words]

    def _await_batches(self, process: "subprocess.Popen[str]", printed: Path) -> None:
        def is_done() -> bool:
            return process.poll() is not None or set(FIRST_BATCH.findall(printed.read_text())) == QUERIES

        wait_for(is_done, SECONDS, lambda: AssertionError(f"no batches: {printed.read_text()}"))
        assert process.poll() is None, printed.read_text()

    def _look_at_processes(self, driver: psutil.Process, family: Sequence[psutil.Process], way: Way) -> None:
        """The JVM, which spark-submit has become, and Python's driver know what variables say; no other does."""
        others = [
            each
            for each in family
            if way.by_files or (each != driver and str(SCRIPT).encode() not in command_line(each))
        ]
        self.seen.children = [command_line(each) for each in others]
        self.seen.places["command lines"] = [command_line(each) for each in family]
        self.seen.places["environments"] = [environment(each) for each in others]
        self.seen.addresses = listening(family)
        for each in family:
            with suppress(psutil.NoSuchProcess):
                self.seen.core_limits.add(each.rlimit(psutil.RLIMIT_CORE)[0])
        temporary = Path(driver.environ()["TMPDIR"])
        (temporary / "decoy").write_text(self.seen.decoy)
        self.seen.places["temporary files"] = list(of_folder(temporary))
        self.seen.for_others = {path: path.stat().st_mode & 0o077 for path in (state_dir(), temporary.resolve())}

    def _look_at_pages(self, metrics: int, ui: int) -> None:
        self.seen.places["metrics"] = [_get(metrics, "metrics"), _get(metrics, "healthz")]
        self.seen.places["UI"] = [_get(ui, view) for view in VIEWS]
        [application] = json.loads(_get(ui, "api/v1/applications"))
        rest = f"api/v1/applications/{application['id']}"
        self.seen.places["REST"] = [_get(ui, f"{rest}/{answer}") for answer in ANSWERS]
        plans = _get(ui, f"{rest}/{PLANS}")
        self.seen.places["plans"] = [
            plans,
            *(_get(ui, f"SQL/execution/?id={plan['id']}") for plan in json.loads(plans)),
        ]


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{HOST}:{port}/{path}", timeout=SECONDS) as answer:
        content: bytes = answer.read()
    return content
