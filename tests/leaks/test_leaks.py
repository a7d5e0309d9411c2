"""No secret is anywhere that a job leaves or shows: one is planted as every secret of the settings, and searched."""

import base64
import gzip
import io
import os
import socket
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf import setting_sources
from conf.errors import TidemarkError
from conf.settings import Settings, load, show, without_secrets
from jobs.pipeline.pii import INNER
from local.page.server import VIEWS
from local.processes import HOST
from tests.faults.oracle import read_all
from tests.leaks.search import LOOPBACK, LZ4_BLOCK, LZ4_MAGIC, command_line, environment, listening, of_folder, told
from tests.leaks.secured_job import ALERTS, TOPIC, SecuredJob, Way, make_secrets
from tests.local.page.browser import Browser
from tests.secured import LOGIN, SecuredCluster

# Elsewhere the topic's name has to be found: Spark's pages get their values by way of REST, and ours hides the bytes
# of topics with personal data.
WITH_DECOY = {"command lines", "environments", "temporary files", "REST", "events", "tables", "topic"}
SECRET = "Canary0123456789abcdef"
TEXT = b'{"before": "' + SECRET.encode() + b'"}'


@pytest.fixture(scope="module")
def secured_topics(secured: SecuredCluster) -> SecuredCluster:
    for topic in (TOPIC, ALERTS):
        secured.topic(topic)
    return secured


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize(
    "way",
    [
        Way(),
        pytest.param(Way(by_files=True, encrypted=True), marks=pytest.mark.exhaustive),
        pytest.param(Way(by_token=True), marks=pytest.mark.exhaustive),
        pytest.param(Way(by_token=True, by_files=True, encrypted=True), marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_no_secret_is_told_by_a_job_that_knows_all_of_them_and_it_listens_on_loopback_alone(
    secured_topics: SecuredCluster, tmp_path: Path, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = make_secrets()
    job = SecuredJob(secured_topics, tmp_path / "run", tmp_path / "hidden", planted)
    with job.surroundings(way) as variables:
        seen = job.run(way, variables)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        servers = secured_topics.address(LOGIN)
        browser = Browser(job.folder, servers, sets=[f"{key}={value}" for key, value in job.sets.items()])
        pages = [*VIEWS, f"/quarantine/samples?topic={TOPIC}&error=BAD_FRAMING&rule="]
        seen.places["page"] = [browser.text(path).encode() for path in pages]
    published, _ = read_all(secured_topics.bootstrap_servers, ALERTS, committed=True)
    seen.places["topic"] = [part for key, value, _ in published for part in (key, value)]

    assert seen.code == 0, seen.places["output"]
    assert {place: names for place, contents in seen.places.items() if (names := told(job.sought, contents))} == {}
    known = {"decoy": seen.decoy, "topic": TOPIC}
    found = {place: told(known, contents) for place, contents in seen.places.items()}
    assert [place for place, names in found.items() if not names] == []
    assert {place for place, names in found.items() if "decoy" in names} >= WITH_DECOY
    assert any(b"pyspark" in child and b"daemon" in child for child in seen.children)
    assert any(b"grep" in child for child in seen.children)

    assert seen.core_limits == {0}
    assert any(b"-XX:-CreateCoredumpOnCrash" in line for line in seen.places["command lines"])
    assert set(seen.for_others.values()) == {0}, seen.for_others
    assert {address for address, _ in seen.addresses} <= LOOPBACK
    assert {port for _, port in seen.addresses} >= seen.expected


def test_every_secret_of_the_settings_is_planted() -> None:
    assert make_secrets().keys() == set(setting_sources.secret_keys(Settings))
    assert {
        "kafka.sasl_password",
        "personal_data.hash_key",
        "spark.encryption_secret",
        "page.token",
    } <= make_secrets().keys()


PACKED: dict[str, Callable[[Path], object]] = {
    "plain": lambda path: path.write_bytes(TEXT),
    "UTF-16": lambda path: path.write_bytes(TEXT.decode().encode("utf-16")),
    "base64": lambda path: path.write_bytes(base64.b64encode(TEXT)),
    "basic authentication": lambda path: path.write_bytes(base64.b64encode(f"ab:{SECRET}".encode())),
    "hexadecimal": lambda path: path.write_bytes(TEXT.hex().encode()),
    "block of an HMAC": lambda path: path.write_bytes(bytes(byte ^ INNER for byte in TEXT)),
    "gzip": lambda path: path.write_bytes(gzip.compress(TEXT)),
    "zstd": lambda path: path.write_bytes(pa.compress(TEXT, "zstd", asbytes=True)),
    "LZ4 of Java": lambda path: path.write_bytes(lz4_of_java(TEXT)),
    "zip in gzip": lambda path: path.write_bytes(gzip.compress(zipped(TEXT))),
    "parquet": lambda path: pq.write_table(pa.table({"rows": [[{"bytes": TEXT}]]}), path, compression="snappy"),
    "a file's name": lambda path: (path / SECRET).mkdir(parents=True),
}


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", content)
    return packed.getvalue()


def lz4_of_java(content: bytes) -> bytes:
    """A block that is packed, one that is not, and the end."""
    packed = pa.Codec("lz4_raw").compress(content * 2, asbytes=True)
    blocks = [LZ4_BLOCK.pack(LZ4_MAGIC, 0x20, len(packed), 2 * len(content), 0) + packed]
    blocks += [LZ4_BLOCK.pack(LZ4_MAGIC, 0x10, 1, 1, 0) + b"x", LZ4_BLOCK.pack(LZ4_MAGIC, 0x10, 0, 0, 0)]
    return b"".join(blocks)


@pytest.mark.parametrize("packing", PACKED)
def test_a_secret_that_is_planted_is_found(packing: str, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("nothing")
    assert told({"secret": SECRET}, of_folder(tmp_path)) == set()
    PACKED[packing](tmp_path / "planted")
    assert told({"secret": SECRET, "another": SECRET[::-1]}, of_folder(tmp_path)) == {"secret"}


def test_a_secret_in_a_process_is_found() -> None:
    with processes_child(SECRET) as child:
        assert told({"secret": SECRET}, [command_line(child)]) == {"secret"}
        assert told({"secret": SECRET[::-1]}, [environment(child)]) == {"secret"}


@contextmanager
def processes_child(secret: str) -> Iterator[psutil.Process]:
    """A process with the secret on its command line, and backwards in its environment."""
    command = [sys.executable, "-c", "print(flush=True); input()", secret]
    pipe, own = subprocess.PIPE, os.environ | {"SECRET": secret[::-1]}
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=own) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield psutil.Process(child.pid)
        child.communicate(b"\n")


@pytest.mark.parametrize("host", [HOST, "0.0.0.0"])
def test_what_listens_is_seen_with_its_address(host: str) -> None:
    with socket.create_server((host, 0)) as server:
        assert (host, server.getsockname()[1]) in listening([psutil.Process()])


def test_a_wrong_setting_beside_a_secret_leaves_it_out_of_the_error_and_of_the_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted = make_secrets()
    for key, secret in planted.items():
        monkeypatch.setenv(setting_sources.variable_of(key), secret)
    loaded = load("local")
    shown = [show(loaded), repr(loaded), str(loaded), loaded.model_dump_json(), repr(without_secrets(os.environ))]
    wrong = ["kafka.replication_factor=0", "registry.compatibility=x", "search.keep=x", "page.port=x", "spark.ui=x"]
    wrong += ["kafka.security_protocol=SASL_SSL", "search.url=x", "registry.url=x", "nothing=x"]
    for override in wrong:
        with pytest.raises(TidemarkError) as refused:
            load("local", [override])
        shown += traceback.format_exception(refused.value)
    assert told(planted, (text.encode() for text in shown)) == set()


def test_children_get_no_secret_from_variables() -> None:
    planted = make_secrets()
    variables = {setting_sources.variable_of(key): secret for key, secret in planted.items()}
    assert without_secrets(variables | {"PATH": "/bin"}) == {"PATH": "/bin"}
