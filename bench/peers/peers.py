"""The peers: how each is started, what it promises, and whose advice its tuning follows."""

import string
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from bench.peers import environments
from bench.peers.environments import PROGRAMS, prepared_versions
from bench.peers.question import BIDS, COUNTS, LATENESS_MS, WINDOW_MS, Question
from conf import ROOT
from local import jars
from local.processes import java

JOB = "auctions.bid_counts"
HEAP = "4g"  # of each peer on the JVM that is tuned
# Flink's own start scripts open these to its serializers.
FLINK_OPENS = ("java.lang", "java.util", "java.net", "java.nio", "java.time", "java.util.concurrent")
FLINK_PARALLELISM = 2


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


def _pyspark(how: str, options: Sequence[str], question: Question) -> Start:
    home = jars.spark_jars().parent
    kafka_and_avro = [
        str(jars.folder("spark") / jar.file) for jar in jars.read_lock("spark") if "delta" not in jar.coordinate
    ]
    program = (PROGRAMS / "pyspark_counts.py", question.as_file(), how)
    command: list[str | Path] = [home / "bin" / "spark-submit", *options, "--jars", ",".join(kafka_and_avro), *program]
    environment = {"SPARK_HOME": str(home), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    return Start(command, environment)


def _program(environment: str, program: str, question: Question) -> Start:
    return Start([environments.python(environment), PROGRAMS / program, question.as_file()])


def _kafka_streams(question: Question) -> Start:
    class_path = environments.class_path("kafka-streams")
    command = [java(), f"-Xmx{HEAP}", "-XX:+UseParallelGC", "-cp", class_path, "KafkaStreamsCounts"]
    return Start([*command, question.as_file()])


def _flink(delivery: Mapping[str, str], configuration: Mapping[str, str], question: Question) -> Start:
    class_path = environments.class_path("flink")
    statements = question.folder / "flink.sql"
    values = {
        "servers": question.servers,
        "topic": BIDS,
        "results": COUNTS,
        "name": question.name,
        "registry": question.registry_url,
        "window_s": WINDOW_MS // 1000,
        "lateness_s": LATENESS_MS // 1000,
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


def _flink_exactly_once(configuration: Mapping[str, str], question: Question) -> Start:
    delivery = {
        "sink.delivery-guarantee": "exactly-once",
        "sink.transactional-id-prefix": question.name,
        "properties.transaction.timeout.ms": "600000",
    }
    folder = f"file://{question.folder}/checkpoints"
    checkpoints = {"execution.checkpointing.interval": "5 s", "execution.checkpointing.dir": folder}
    return _flink(delivery, {**checkpoints, **configuration}, question)


TUNED = ["--master", "local[2]", "--driver-memory", HEAP, "--conf", "spark.sql.shuffle.partitions=2"]
TUNED += ["--driver-java-options", "-XX:+UseParallelGC"]
FLINK_ROCKSDB = {
    "state.backend.type": "rocksdb",
    "execution.checkpointing.incremental": "true",
    "taskmanager.memory.managed.size": "1g",  # its memory is managed memory, of which a mini cluster has little
}
FLINK_VERSIONS = partial(prepared_versions, "flink", "flink-table-runtime", "flink-sql-connector-kafka")


def _pyspark_version() -> str:
    return f"pyspark {version('pyspark')}"


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
            partial(ours, changed={"spark.state_store": "rocksdb"}),
            "checkpoint",
        ),
        Peer(
            "pyspark-tuned",
            "PySpark, tuned",
            "at least once",
            "Spark: SQL performance tuning (shuffle partitions), Avro guide (avroSchema), "
            "Kafka guide (kafka. options), tuning (collectors)",
            _pyspark_version,
            partial(_pyspark, "tuned", TUNED),
            "checkpoint",
        ),
        Peer(
            "pyspark-defaults",
            "PySpark, defaults",
            "at least once",
            "Spark: Structured Streaming and Kafka guide, first example",
            _pyspark_version,
            partial(_pyspark, "defaults", ["--master", "local[*]"]),
            "checkpoint",
            "JSON",
        ),
        Peer(
            "flink",
            "Flink SQL",
            "none",
            "Flink: Kafka SQL connector, Confluent Avro format, window aggregation, "
            "execution configuration (object reuse)",
            FLINK_VERSIONS,
            partial(_flink, {}, {}),
            "registry",
            "Avro",
        ),
        Peer(
            "flink-checkpoints",
            "Flink SQL, checkpoints",
            "exactly once",
            "the same; Kafka SQL connector (consistency guarantees), checkpointing",
            FLINK_VERSIONS,
            partial(_flink_exactly_once, {}),
            "registry",
            "Avro",
        ),
        Peer(
            "flink-rocksdb",
            "Flink SQL, RocksDB",
            "exactly once",
            "the same; state backends (RocksDB, incremental checkpoints, managed memory)",
            FLINK_VERSIONS,
            partial(_flink_exactly_once, FLINK_ROCKSDB),
            "registry",
            "Avro",
        ),
        Peer(
            "kafka-streams",
            "Kafka Streams",
            "at least once",
            "Kafka Streams: configuring an application, memory management, DSL (window final results)",
            partial(prepared_versions, "kafka-streams", "kafka-streams"),
            _kafka_streams,
            "line",
        ),
        Peer(
            "quix",
            "Quix Streams",
            "at least once",
            "Quix Streams: windowing (closing strategies), configuration",
            partial(prepared_versions, "quix", "quixstreams"),
            partial(_program, "quix", "quix_counts.py"),
            "line",
        ),
        Peer(
            "plain-loop",
            "plain loop",
            "none",
            "librdkafka: introduction (performance); fastavro: schemaless_reader",
            partial(prepared_versions, "plain-loop", "confluent-kafka", "fastavro"),
            partial(_program, "plain-loop", "plain_loop.py"),
            "line",
        ),
    )
}
