"""The peers: how each is started, what it promises, and whose advice its tuning follows."""

import json
import string
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from bench.peers import answers, bids, environments
from bench.peers.environments import PROGRAMS, locked_version
from conf import ROOT
from local import jars
from local.processes import java
from schemas.registry import FileRegistry

JOB = "auctions.bid_counts"
HEAP = "4g"  # of each peer on the JVM that is tuned
# Flink's own start scripts open these to its serializers.
FLINK_OPENS = ("java.lang", "java.util", "java.net", "java.nio", "java.time", "java.util.concurrent")
FLINK_PARALLELISM = 2


@dataclass(frozen=True)
class Question:
    """What a peer is told.

    Args:
        name: of this turn, unlike that of any other: for consumer groups and transactional ids.
        folder: empty, for whatever the peer keeps; gone after the turn.
        records: in the topic, the closing bids included.
        registry_url: of the same registry as the folder `registry`.
    """

    name: str
    folder: Path
    servers: str
    registry: Path
    registry_url: str
    records: int

    def as_file(self) -> Path:
        """Write the question as JSON for a program of the peer's own, and return where."""
        registry = FileRegistry(self.registry)
        asked, told = (registry.latest(f"{topic}-value") for topic in (bids.TOPIC, answers.TOPIC))
        texts = {"schema": asked.text, "result_schema": told.text, "result_id": told.id}
        topics = {"servers": self.servers, "topic": bids.TOPIC, "results": answers.TOPIC}
        times = {"window_ms": bids.WINDOW_MS, "lateness_ms": bids.LATENESS_MS}
        file = self.folder / "question.json"
        own = {"name": self.name, "folder": str(self.folder), "records": self.records}
        file.write_text(json.dumps({**own, **topics, **times, **texts}))
        return file


@dataclass(frozen=True)
class Start:
    """A command, and what its environment has beside the bench's."""

    command: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """One engine, set up in one way.

    Args:
        name: as `--peers` takes it.
        guarantee: what holds of the answer where a process is killed on the way.
        advice: the pages of its documentation that its settings follow.
        versions: text of what is run; may make the peer's environment first, and raise UnavailableError.
        start: the command that answers a question and ends.
        begins: where the moment is found at which it began to read: the first batch in a Spark checkpoint, the line
            `first-record SECONDS` of its output, the first request to the schema registry.
    """

    name: str
    title: str
    guarantee: str
    advice: str
    versions: Callable[[], str]
    start: Callable[[Question], Start]
    begins: Literal["checkpoint", "line", "registry"]
    writes: str = "framed Avro"


def ours(question: Question, changed: Mapping[str, str] | None = None) -> Start:
    """Tidemark's own job, with its settings as they come but for those that are `changed`."""
    settings = {
        "kafka.bootstrap_servers": question.servers,
        "registry.path": question.registry,
        "paths.logs": question.folder / "logs",
        "paths.tables": question.folder / "tables",
        "paths.checkpoints": question.folder / "checkpoints",
        # The topic of answers is made anew for each turn, and so is the ledger of who wrote what into it.
        "ledger.application": question.name,
        **(changed or {}),
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return Start([ROOT / "spark-submit.sh", JOB, "--until-caught-up", *sets])


def _pyspark(question: Question, how: str, options: Sequence[str]) -> Start:
    home = jars.spark_jars().parent
    kafka_and_avro = [
        str(jars.folder("spark") / jar.file) for jar in jars.read_lock("spark") if "delta" not in jar.coordinate
    ]
    program = (PROGRAMS / "pyspark_counts.py", question.as_file(), how)
    command: list[str | Path] = [home / "bin" / "spark-submit", *options, "--jars", ",".join(kafka_and_avro), *program]
    environment = {"SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    return Start(command, environment)


def _pyspark_tuned(question: Question) -> Start:
    properties = ["--conf", "spark.sql.shuffle.partitions=2", "--driver-java-options", "-XX:+UseParallelGC"]
    return _pyspark(question, "tuned", ["--master", "local[2]", "--driver-memory", HEAP, *properties])


def _pyspark_defaults(question: Question) -> Start:
    return _pyspark(question, "defaults", ["--master", "local[*]"])


def _plain_loop(question: Question) -> Start:
    return Start([environments.python("plain-loop"), PROGRAMS / "plain_loop.py", question.as_file()])


def _quix(question: Question) -> Start:
    return Start([environments.python("quix"), PROGRAMS / "quix_counts.py", question.as_file()])


def _kafka_streams(question: Question) -> Start:
    class_path = environments.class_path("kafka-streams", "KafkaStreamsCounts.java")
    command = [java(), f"-Xmx{HEAP}", "-XX:+UseParallelGC", "-cp", class_path, "KafkaStreamsCounts"]
    return Start([*command, question.as_file()])


def _flink(question: Question, delivery: Mapping[str, str], configuration: Mapping[str, str]) -> Start:
    class_path = environments.class_path("flink", "FlinkSql.java")
    statements = question.folder / "flink.sql"
    values = {
        "servers": question.servers,
        "topic": bids.TOPIC,
        "results": answers.TOPIC,
        "name": question.name,
        "registry": question.registry_url,
        "window_s": bids.WINDOW_MS // 1000,
        "lateness_s": bids.LATENESS_MS // 1000,
        "delivery": "".join(f",\n  '{key}' = '{value}'" for key, value in delivery.items()),
    }
    statements.write_text(string.Template((PROGRAMS / "flink.sql").read_text()).substitute(values))
    opens = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in FLINK_OPENS]
    settings = {
        "parallelism.default": str(FLINK_PARALLELISM),
        "pipeline.object-reuse": "true",
        "table.local-time-zone": "UTC",
        **configuration,
    }
    options = [f"{key}={value}" for key, value in settings.items()]
    return Start([java(), f"-Xmx{HEAP}", *opens, "-cp", class_path, "FlinkSql", statements, *options])


def _flink_without(question: Question) -> Start:
    return _flink(question, {}, {})


def _flink_with(question: Question, configuration: Mapping[str, str] | None = None) -> Start:
    delivery = {
        "sink.delivery-guarantee": "exactly-once",
        "sink.transactional-id-prefix": question.name,
        "properties.transaction.timeout.ms": "600000",
    }
    folder = f"file://{question.folder}/checkpoints"
    checkpoints = {"execution.checkpointing.interval": "5 s", "execution.checkpointing.dir": folder}
    return _flink(question, delivery, checkpoints | dict(configuration or {}))


def _flink_rocksdb(question: Question) -> Start:
    # Its memory is managed memory, of which a mini cluster has little.
    store = {"state.backend.type": "rocksdb", "execution.checkpointing.incremental": "true"}
    return _flink_with(question, store | {"taskmanager.memory.managed.size": "1g"})


def _ours_rocksdb(question: Question) -> Start:
    return ours(question, {"spark.state_store": "rocksdb"})


def _pyspark_version() -> str:
    return f"pyspark {version('pyspark')}"


def _quix_version() -> str:
    environments.python("quix")
    return f"quixstreams {locked_version('quix.txt', 'quixstreams')}"


def _plain_loop_versions() -> str:
    environments.python("plain-loop")
    return ", ".join(f"{name} {locked_version('plain-loop.txt', name)}" for name in ("confluent-kafka", "fastavro"))


def _kafka_streams_version() -> str:
    environments.class_path("kafka-streams", "KafkaStreamsCounts.java")
    return f"kafka-streams {locked_version('kafka-streams.jars', 'kafka-streams')}"


def _flink_version() -> str:
    environments.class_path("flink", "FlinkSql.java")
    names = ("flink-table-runtime", "flink-sql-connector-kafka")
    return ", ".join(f"{name} {locked_version('flink.jars', name)}" for name in names)


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "tidemark",
            "Tidemark",
            "exactly once",
            "its settings as they come",
            _pyspark_version,
            ours,
            "checkpoint",
        ),
        Peer(
            "tidemark-rocksdb",
            "Tidemark, RocksDB",
            "exactly once",
            "its settings as they come, but for the state store",
            _pyspark_version,
            _ours_rocksdb,
            "checkpoint",
        ),
        Peer(
            "pyspark-tuned",
            "PySpark, tuned",
            "at least once",
            "Spark: SQL performance tuning (shuffle partitions), Avro guide (avroSchema), "
            "Kafka guide (kafka. options), tuning (collectors)",
            _pyspark_version,
            _pyspark_tuned,
            "checkpoint",
        ),
        Peer(
            "pyspark-defaults",
            "PySpark, defaults",
            "at least once",
            "Spark: Structured Streaming and Kafka guide, first example",
            _pyspark_version,
            _pyspark_defaults,
            "checkpoint",
            "JSON",
        ),
        Peer(
            "flink",
            "Flink SQL",
            "none",
            "Flink: Kafka SQL connector, Confluent Avro format, window aggregation, "
            "execution configuration (object reuse)",
            _flink_version,
            _flink_without,
            "registry",
            "Avro",
        ),
        Peer(
            "flink-checkpoints",
            "Flink SQL, checkpoints",
            "exactly once",
            "the same; Kafka SQL connector (consistency guarantees), checkpointing",
            _flink_version,
            _flink_with,
            "registry",
            "Avro",
        ),
        Peer(
            "flink-rocksdb",
            "Flink SQL, RocksDB",
            "exactly once",
            "the same; state backends (RocksDB, incremental checkpoints, managed memory)",
            _flink_version,
            _flink_rocksdb,
            "registry",
            "Avro",
        ),
        Peer(
            "kafka-streams",
            "Kafka Streams",
            "at least once",
            "Kafka Streams: configuring an application, memory management, DSL (window final results)",
            _kafka_streams_version,
            _kafka_streams,
            "line",
        ),
        Peer(
            "quix",
            "Quix Streams",
            "at least once",
            "Quix Streams: windowing (closing strategies), configuration",
            _quix_version,
            _quix,
            "line",
        ),
        Peer(
            "plain-loop",
            "plain loop",
            "none",
            "librdkafka: introduction (performance); fastavro: schemaless_reader",
            _plain_loop_versions,
            _plain_loop,
            "line",
        ),
    )
}
