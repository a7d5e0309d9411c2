"""Declares the settings: a class for each table of `base.toml`, and one for a single job; `conf.kafka` has Kafka's."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from conf.credentials import require_certificates
from conf.names import TOPIC_RULE, is_topic, require_url
from conf.setting_types import (
    INT,
    LONG,
    Clock,
    Duration,
    Folder,
    Interval,
    JavaOptions,
    Line,
    ListeningHost,
    Master,
    Memory,
    Place,
    Region,
    Section,
    StartingOffsets,
    StoreFolder,
    milliseconds,
)

SAFE_KEEP = "7 days"  # Delta's own default
# Only holders of the secret can talk to a driver and its executors; what they send, and what they spill, is encrypted.
SPARK_SECRET = "spark.authenticate.secret"
ENCRYPTION = ("spark.authenticate", "spark.network.crypto.enabled", "spark.io.encryption.enabled")
StateStore = Literal["heap", "rocksdb"]
OnFailure = Literal["stop-all", "isolate", "restart"]
Delivery = Literal["exactly-once", "at-least-once", "at-most-once", "real-time"]
CompatibilityLevel = Literal[
    "none", "backward", "backward_transitive", "forward", "forward_transitive", "full", "full_transitive"
]
LONGEST_LINGER_MS = 900_000  # that librdkafka takes
LEAST_REAL_TIME_MS = 5_000  # Spark's real-time trigger takes no shorter batch
LIMITS = ("max_offsets_per_trigger", "min_offsets_per_trigger", "max_trigger_delay", "min_partitions")


class Registry(Section):
    path: StoreFolder
    url: str
    username: Line
    password: SecretStr
    ca_location: str
    compatibility: CompatibilityLevel

    @model_validator(mode="after")
    def _check_url(self) -> "Registry":
        # The client splits the text at commas: addresses of one registry, tried in turn.
        _check_service(self, "registry", self.url.split(",") if self.url else [])
        return self


class Search(Section):
    """An OpenSearch that keeps the index of logs; `url` is empty where there is none."""

    url: str
    username: Line
    password: SecretStr
    ca_location: str
    keep: Duration

    @model_validator(mode="after")
    def _check_url(self) -> "Search":
        _check_service(self, "search", [self.url] if self.url else [])
        return self


def _check_service(section: Registry | Search, name: str, urls: Iterable[str]) -> None:
    """Check where a service over HTTP is, and how to log in there; raises ValueError."""
    for url in urls:
        require_url("url", url.strip(), f"set {name}.username and {name}.password")
    if section.username and not section.password.get_secret_value():
        variable = f"TIDEMARK_{name.upper()}__PASSWORD"
        raise ValueError(f"username needs a password: set {variable}, or ..._FILE to its file")
    if section.ca_location:
        require_certificates(section.ca_location, "ca_location")


class Broker(Section):
    # A variable gives a text, which Literal would refuse.
    nodes: Annotated[Literal[1, 3], BeforeValidator(lambda value: int(value) if value in ("1", "3") else value)]
    port: int = Field(ge=0, le=65535)
    heap_mb: int = Field(ge=128, le=INT)


class Batching(Section):
    linger_ms: int = Field(ge=0, le=LONGEST_LINGER_MS)
    batch_bytes: int = Field(ge=1, le=INT)
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"]

    def client_config(self) -> dict[str, str | int]:
        return {"linger.ms": self.linger_ms, "batch.size": self.batch_bytes, "compression.type": self.compression}


def _require_real_time(text: str) -> str:
    if milliseconds(text) < LEAST_REAL_TIME_MS:
        raise ValueError(f"a batch of delivery real-time lasts {LEAST_REAL_TIME_MS // 1000} seconds or longer")
    return text


RealTimeBatch = Annotated[Duration, AfterValidator(_require_real_time)]


class Sink(Batching):
    delivery: Delivery
    real_time_batch: RealTimeBatch


class Ledger(Section):
    """The sink that writes exactly once."""

    application: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    shards: int = Field(ge=1, le=INT)
    max_shards: int = Field(ge=1, le=INT)
    small_batch_records: int = Field(ge=0, le=LONG)
    transaction_timeout_ms: int = Field(ge=1000, le=INT)


class Source(Section):
    starting_offsets: StartingOffsets
    max_offsets_per_trigger: int = Field(ge=1, le=LONG)
    min_offsets_per_trigger: int = Field(ge=0, le=LONG)
    max_trigger_delay: Duration
    min_partitions: int = Field(ge=0, le=INT)
    max_poll_records: int = Field(ge=1, le=INT)
    receive_buffer_bytes: int = Field(ge=-1, le=INT)
    fetch_min_bytes: int = Field(ge=0, le=INT)
    fetch_max_wait_ms: int = Field(ge=0, le=INT)
    max_partition_fetch_bytes: int = Field(ge=0, le=INT)
    commit_to_group: bool


class Paths(Section):
    tables: Place
    checkpoints: Place
    logs: Folder


class Spark(Section):
    master: Master
    shuffle_partitions: int = Field(ge=1, le=INT)
    queries_at_once: int = Field(ge=1, le=INT)
    driver_memory: Memory
    driver_java_options: JavaOptions
    state_store: StateStore
    trigger: Interval
    ui: bool
    encryption: bool
    encryption_secret: SecretStr

    def properties(self) -> dict[str, str]:
        """Return Spark's properties that say who sees its pages and what is encrypted;
        never to be printed: a secret is among them."""
        properties = {} if self.ui else {"spark.ui.enabled": "false"}
        if self.encryption:
            properties |= dict.fromkeys(ENCRYPTION, "true")
            if secret := self.encryption_secret.get_secret_value():
                properties[SPARK_SECRET] = secret
        return properties


class PersonalData(Section):
    """The treatment of fields that a schema marks with `pii`."""

    hash_key: SecretStr


class Metrics(Section):
    """Where a driver serves its metrics in Prometheus' text format; see docs/operate.md."""

    port: int = Field(ge=0, le=65535)
    host: ListeningHost
    pushgateway: str

    @field_validator("pushgateway")
    @classmethod
    def _require_address(cls, address: str) -> str:
        if address:
            url = address if "://" in address else f"http://{address}"
            form = "HOST:PORT, http://HOST… or https://HOST…"
            require_url("the address", url, "the metrics are pushed without", form)
        return address


class Page(Section):
    """Where `local/tidemark page` listens, and what it asks for; see docs/operate.md."""

    port: int = Field(ge=0, le=65535)
    host: ListeningHost
    token: SecretStr


class History(Section):
    """The table of micro-batches that drivers keep of themselves."""

    keep: Duration


class Running(Section):
    """How the queries of a run end: one that fails, and all of them at SIGTERM."""

    on_failure: OnFailure
    restart_limit: int = Field(ge=1, le=LONG)
    restart_after: Duration
    restart_after_most: Duration
    stop_within: Duration


def _split(value: Any) -> Any:
    """Return a list, or its texts with commas between them, as a variable or --set gives it."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _require_topic(name: str) -> str:
    if not is_topic(name):
        raise ValueError(f"{name!r} is no name of a topic: it has {TOPIC_RULE}")
    return name


def _require_any(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("'' names no topic: write their names, with commas between them")
    return names


class Ingest(Section):
    topics: Annotated[
        tuple[Annotated[str, AfterValidator(_require_topic)], ...],
        NoDecode,
        BeforeValidator(_split),
        AfterValidator(_require_any),
    ]


class Logging(Section):
    """How drivers write their logs: for people, or as JSON lines for a shipper."""

    format: Literal["plain", "ecs"]

    @property
    def suffix(self) -> str:
        """Return the end of the names of log files: a file has lines of one format."""
        return "log" if self.format == "plain" else "ecs.json"


class Regions(Section):
    """This cluster's region, and those whose topics MirrorMaker copies here, as REGION.TOPIC."""

    here: str = Field(pattern=r"^[a-z0-9-]+$")
    others: Annotated[tuple[Region, ...], NoDecode, BeforeValidator(_split)]


class Quarantine(Section):
    """Which event times are rejected, and where rejecting ends and the job stops."""

    max_ratio: float = Field(ge=0, le=1)
    min_records: int = Field(ge=1, le=LONG)
    max_consecutive: int = Field(ge=0, le=LONG)
    max_ahead: Duration
    as_of: Annotated[AwareDatetime | None, Clock]


class Replaying(Section):
    slice_records: int = Field(ge=1, le=LONG)


class Maintenance(Section):
    """The upkeep: what `local/tidemark maintain` removes, and what it makes of small files."""

    keep: Duration
    allow_short_keep: bool
    small_file_mb: int = Field(ge=1, le=INT)
    small_files: int = Field(ge=2, le=INT)
    target_file_mb: int = Field(ge=1, le=INT)

    @model_validator(mode="after")
    def _keep_what_readers_need(self) -> "Maintenance":
        if milliseconds(self.keep) < milliseconds(SAFE_KEEP) and not self.allow_short_keep:
            raise ValueError(
                f"keep is {self.keep}, less than {SAFE_KEEP}: readers and replays of that age would lose files; "
                "allow_short_keep = true takes it all the same"
            )
        return self


class Job(Section):
    """The settings of one job: what it sets apart from the rest; None leaves the general setting in force."""

    state_store: StateStore | None = None
    shuffle_partitions: int | None = Field(default=None, ge=1, le=INT)
    max_offsets_per_trigger: int | None = Field(default=None, ge=1, le=LONG)
    min_offsets_per_trigger: int | None = Field(default=None, ge=0, le=LONG)
    max_trigger_delay: Duration | None = None
    min_partitions: int | None = Field(default=None, ge=0, le=INT)
    trigger: Interval | None = None
    delivery: Delivery | None = None
    real_time_batch: RealTimeBatch | None = None
    fresh_within: Duration | None = None

    def source(self, general: Source) -> Source:
        """Return the settings of the job's sources: `general`, and on it what the job sets apart."""
        return general.model_copy(update={name: value for name in LIMITS if (value := getattr(self, name)) is not None})
