"""Lets one peer answer the question once: a process, watched from outside, whose answer is checked.

The file registry is served over HTTP, as Confluent's REST API, to peers that know no registry but that.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from bench.peers.peers import Peer
from bench.peers.question import COUNTS, Question, read_answer, require_right
from bench.workbench import recreate_topic
from conf import ROOT
from conf.errors import TidemarkError
from conf.settings import Settings
from conf.topics import load_topics
from local.processes import HOST, ending_with_us
from schemas.registry import FileRegistry

POLL_S = 0.05
FIRST_RECORD = re.compile(r"^first-record ([\d.]+)$", re.MULTILINE)
LAST_LINES = 15
BY_ID = "/schemas/ids/"


class FailedError(Exception):
    """A peer that ended with an error, or not in time; the message says so, and what it said last."""


@dataclass(frozen=True)
class Turn:
    """What a turn took; seconds are counted from the start of the peer's process.

    Args:
        records: read.
        first_record: until it began to read.
        first_answer: until the first answer could be read by a consumer of committed records.
        last_answer: until the last one could.
        cpu_seconds: of the peer's processes, from start to exit, of all cores together; without the broker's.
        peak_bytes: the most resident memory that its processes had at once.
    """

    peer: str
    records: int
    first_record: float
    first_answer: float
    last_answer: float
    exited: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def per_second(self) -> float:
        """Records a second from the start of the process to the last answer."""
        return self.records / self.last_answer

    @property
    def per_second_reading(self) -> float:
        """Records a second from the first batch or record to the last answer."""
        return self.records / (self.last_answer - self.first_record)

    @property
    def per_cpu_second(self) -> float:
        """Records a CPU-second of the peer."""
        return self.records / self.cpu_seconds


class Arena:
    """The broker, topic and registry that all peers share.

    Args:
        exact: the answer to the question.
        records: in the topic.
        limit_s: a turn may take so many seconds.
    """

    def __init__(
        self, settings: Settings, scratch: Path, served: "ServedRegistry", exact: pa.Table, records: int, limit_s: float
    ) -> None:
        self._settings, self._scratch, self._served = settings, scratch, served
        self._exact, self._records, self._limit_s = exact, records, limit_s
        self._admin = _admin(settings)

    def turn(self, peer: Peer) -> Turn:
        """Let `peer` answer, check the answer, and say what it took.

        Raises:
            FailedError, UnavailableError; WrongAnswerError of `bench.peers.question`.
        """
        name = f"{peer.name}-{uuid.uuid4().hex[:8]}"
        folder = self._scratch / name
        folder.mkdir()
        self._empty_topic()
        self._served.first_asked = None
        kafka, registry = self._settings.kafka, Path(self._settings.registry.path)
        question = Question(name, folder, kafka.bootstrap_servers, registry, self._served.url, self._records)
        start = peer.start(question)
        taken = folder / "taken.json"
        measured = [sys.executable, "-m", "bench.measured", str(taken), str(self._limit_s)]
        log = folder / "output.log"
        with log.open("w") as output:
            inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            environment = {**inherited, **start.environment}
            words = ending_with_us([*measured, *map(str, start.command)])
            measuring = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
            try:
                first_answer, last_answer = self._watch(measuring)
            finally:
                measuring.terminate()
                measuring.wait()
        if measuring.returncode:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
            raise FailedError(f"{peer.title} ended with {measuring.returncode}:\n{last}")
        require_right(read_answer(self._settings, peer.writes), self._exact)
        used = json.loads(taken.read_text())
        began = used["began"]
        first_record = self._began_reading(peer, folder, log.read_text(errors="replace")) - began
        shutil.rmtree(folder)
        return Turn(
            peer.name,
            self._records,
            first_record,
            first_answer - began,
            last_answer - began,
            used["exited"] - began,
            used["cpu_seconds"],
            used["peak_bytes"],
        )

    def _watch(self, process: "subprocess.Popen[bytes]") -> tuple[float, float]:
        """When the committed answers first and last became more, in seconds since 1970, once the process has ended."""
        first = last = 0.0
        seen, is_over = 0, False
        while not is_over:
            is_over = process.poll() is not None
            if (committed := self._committed() or 0) > seen:
                seen, last = committed, time.time()
                first = first or last
            time.sleep(POLL_S)
        return first, last

    def _committed(self) -> int | None:
        """How many records of the answer can be read; None where the broker cannot tell at this moment."""
        partitions = range(load_topics()[COUNTS].partitions)
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(COUNTS, partition): latest for partition in partitions}
        found = self._admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED)
        try:
            return sum(int(offset.result().offset) for offset in found.values())
        except KafkaException:
            return None

    def _empty_topic(self) -> None:
        recreate_topic(self._settings.kafka, COUNTS, load_topics()[COUNTS].partitions)
        # A client goes on asking the leaders that it knows of the topic that was: only a new one asks the new ones.
        while self._committed() != 0:
            time.sleep(POLL_S)
            self._admin = _admin(self._settings)

    def _began_reading(self, peer: Peer, folder: Path, output: str) -> float:
        if peer.begins == "registry" and self._served.first_asked:
            return self._served.first_asked
        if peer.begins == "line" and (found := FIRST_RECORD.search(output)):
            return float(found[1])
        if peer.begins == "checkpoint":
            # Spark's own log of batches: a line for the version, one for the batch, one for the offsets.
            [first] = folder.rglob("offsets/0")
            return float(json.loads(first.read_text().splitlines()[1])["batchTimestampMs"]) / 1000
        raise FailedError(f"{peer.title} does not say when it began to read")


def _admin(settings: Settings) -> AdminClient:
    return AdminClient({**settings.kafka.client_config(), "log_level": 0})


class ServedRegistry:
    """Where the registry is, and when somebody first asked it for a schema (seconds since 1970; None: never).

    A peer that knows no schema until it has read a record asks with the first of them.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.first_asked: float | None = None


@contextmanager
def serve_registry(registry: FileRegistry) -> Iterator[ServedRegistry]:
    """Answer `GET /schemas/ids/ID` on a free port of loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.first_asked = served.first_asked or time.time()
            try:
                id = int(self.path.partition("?")[0].removeprefix(BY_ID))
                status, body = 200, {"schema": registry.schema(id)}
            except (ValueError, TidemarkError) as refusal:
                status, body = 404, {"error_code": "40403", "message": str(refusal)}
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        served = ServedRegistry(f"http://{HOST}:{server.server_port}")
        Thread(target=server.serve_forever, daemon=True).start()
        yield served
        server.shutdown()
