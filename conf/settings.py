"""Settings: `base.toml`, an environment's overlay, environment variables and `--set`, merged into one frozen object."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from conf import ROOT, sources, state_dir
from conf.durations import Duration, milliseconds
from conf.errors import TidemarkError, nearest
from conf.rules import Quarantine

ENVIRONMENTS = ("local", "cluster")
SAFE_KEEP = "7 days"  # Delta's own default
StateStore = Literal["heap", "rocksdb"]
Delivery = Literal["exactly-once", "at-least-once", "at-most-once"]
CompatibilityLevel = Literal[
    "none", "backward", "backward_transitive", "forward", "forward_transitive", "full", "full_transitive"
]


def _listed(value: Any) -> Any:
    """A list, or its texts with commas between them, as a variable or --set gives it."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Kafka(Section):
    bootstrap_servers: str
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    sasl_username: str
    sasl_password: SecretStr
    ssl_ca_location: str
    replication_factor: int = Field(ge=1)

    @model_validator(mode="after")
    def _require_credentials(self) -> "Kafka":
        if self.security_protocol.startswith("SASL") and not (self.sasl_mechanism and self.sasl_username):
            raise ValueError(f"{self.security_protocol} needs sasl_mechanism, sasl_username and sasl_password")
        return self

    def require_bootstrap_servers(self) -> str:
        """The configured or embedded broker's address.

        Raises:
            TidemarkError: NO_BROKER, where neither is there.
        """
        if not self.bootstrap_servers:
            remedy = (
                "run `local/tidemark broker start`, or set kafka.bootstrap_servers (TIDEMARK_KAFKA__BOOTSTRAP_SERVERS)"
            )
            raise TidemarkError(
                "NO_BROKER", "no Kafka broker is configured and the embedded one is not running", remedy
            )
        return self.bootstrap_servers

    def client_config(self) -> dict[str, str]:
        """librdkafka properties of the connection, secrets included: never to be printed."""
        config = {"bootstrap.servers": self.require_bootstrap_servers(), "security.protocol": self.security_protocol}
        if self.security_protocol.startswith("SASL"):
            config |= {"sasl.mechanism": self.sasl_mechanism, "sasl.username": self.sasl_username}
            config["sasl.password"] = self.sasl_password.get_secret_value()
        if self.ssl_ca_location:
            config["ssl.ca.location"] = self.ssl_ca_location
        return config


class Registry(Section):
    path: Path
    url: str
    username: str
    password: SecretStr
    ca_location: str
    compatibility: CompatibilityLevel

    @model_validator(mode="after")
    def _check_url(self) -> "Registry":
        # The client splits the text at commas: addresses of one registry, tried in turn.
        for url in filter(None, self.url.split(",")):
            parts = urlsplit(url.strip())
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError("url must be http://HOST… or https://HOST…")
            if "@" in parts.netloc:
                raise ValueError("url must hold no user and password: set registry.username and registry.password")
        if self.username and not self.password.get_secret_value():
            raise ValueError("username needs a password: set TIDEMARK_REGISTRY__PASSWORD")
        return self


class Paths(Section):
    tables: str
    checkpoints: str
    logs: str


class Broker(Section):
    nodes: Annotated[Literal[1, 3], BeforeValidator(int)]  # a variable gives a text, which Literal would refuse
    port: int = Field(ge=0, le=65535)
    heap_mb: int = Field(ge=128)


class Batching(Section):
    linger_ms: int = Field(ge=0)
    batch_bytes: int = Field(ge=1)
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"]

    def client_config(self) -> dict[str, str | int]:
        """librdkafka properties of a producer that batches so."""
        return {
            "linger.ms": self.linger_ms,
            "batch.size": self.batch_bytes,
            "compression.type": self.compression,
        }


class Sink(Batching):
    delivery: Delivery


class Ledger(Section):
    """Of the sink that writes exactly once."""

    application: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    shards: int = Field(ge=1)
    max_shards: int = Field(ge=1)
    transaction_timeout_ms: int = Field(ge=1000)


class Source(Section):
    starting_offsets: str
    max_offsets_per_trigger: int = Field(ge=1)
    max_poll_records: int = Field(ge=1)
    receive_buffer_bytes: int
    fetch_min_bytes: int
    fetch_max_wait_ms: int
    max_partition_fetch_bytes: int


class Spark(Section):
    master: str
    shuffle_partitions: int = Field(ge=1)
    driver_memory: str
    driver_java_options: str
    state_store: StateStore
    trigger: str


class PersonalData(Section):
    """Fields that a schema marks with `pii`."""

    hash_key: SecretStr


class Ingest(Section):
    topics: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]


class Replaying(Section):
    slice_records: int = Field(ge=1)


class Maintenance(Section):
    """What `local/tidemark maintain` removes, and what it makes of small files."""

    keep: Duration
    allow_short_keep: bool
    small_file_mb: int = Field(ge=1)
    small_files: int = Field(ge=2)
    target_file_mb: int = Field(ge=1)

    @model_validator(mode="after")
    def _keep_what_readers_need(self) -> "Maintenance":
        if milliseconds(self.keep) < milliseconds(SAFE_KEEP) and not self.allow_short_keep:
            raise ValueError(
                f"keep is {self.keep}, less than {SAFE_KEEP}: readers and replays of that age would lose files; "
                "allow_short_keep = true takes it all the same"
            )
        return self


class Job(Section):
    """What one job sets apart from the rest; None leaves the general setting in force."""

    state_store: StateStore | None = None
    shuffle_partitions: int | None = Field(default=None, ge=1)
    max_offsets_per_trigger: int | None = Field(default=None, ge=1)
    trigger: str | None = None
    delivery: Delivery | None = None


def _by_name(jobs: Mapping[str, Any], within: str = "") -> dict[str, dict[str, Any]]:
    """Tables of jobs by the job's whole name: a dot in a name has made tables within tables."""
    named: dict[str, dict[str, Any]] = {}
    for part, value in jobs.items():
        if isinstance(value, dict):
            for name, table in _by_name(value, f"{within}{part}.").items():
                named[name] = named.get(name, {}) | table
        else:
            named.setdefault(within.removesuffix("."), {})[part] = value
    return named


class Settings(BaseSettings):
    """Everything that can be set; frozen."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    kafka: Kafka
    registry: Registry
    paths: Paths
    broker: Broker
    producer: Batching
    source: Source
    sink: Sink
    ledger: Ledger
    spark: Spark
    ingest: Ingest
    personal_data: PersonalData
    quarantine: Quarantine
    replay: Replaying
    maintenance: Maintenance
    jobs: Annotated[Mapping[str, Job], BeforeValidator(_by_name)]


def load(environment: str | None = None, overrides: Sequence[str] = ()) -> Settings:
    """The merged settings of `environment` ("local" where neither it nor `$TIDEMARK_ENV` says otherwise).

    Args:
        overrides: `section.key=value`, each stronger than files and environment variables.

    Raises:
        TidemarkError: UNKNOWN_SETTING, MISSING_SETTING or BAD_SETTING, with where it was set and the nearest name.
    """
    environment = environment or os.environ.get("TIDEMARK_ENV") or "local"
    if environment not in ENVIRONMENTS:
        raise TidemarkError(
            "UNKNOWN_SETTING", f"no environment `{environment}`", nearest(environment, list(ENVIRONMENTS))
        )
    folder = ROOT / "conf"
    texts = dict([*sources.variables(Settings, os.environ), *sources.overrides(Settings, overrides)])
    files = [sources.file(Settings, folder / f"{name}.toml") for name in (environment, "base")]
    # The strongest first. This argument of pydantic-settings is no field, so mypy must not see it by name.
    built: dict[str, Any] = {"_build_sources": ((sources.texts(Settings, texts), *files), {})}
    try:
        settings = Settings(**built)
    except ValidationError as exc:
        raise _explain(exc) from exc
    return _resolved(settings)


def show(settings: Settings) -> str:
    """The merged settings as TOML-like lines, secrets masked."""
    lines = []
    for section, values in settings.model_dump(mode="json").items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {value!r}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines).rstrip()


def _explain(exc: ValidationError) -> TidemarkError:
    problem = exc.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return TidemarkError("UNKNOWN_SETTING", f"no setting `{key}`", nearest(key, sources.known_keys(Settings)))
    if problem["type"] == "missing":
        return TidemarkError("MISSING_SETTING", f"setting `{key}` is missing", "conf/base.toml must hold every key")
    return TidemarkError("BAD_SETTING", f"setting `{key}`: {problem['msg']}", "see conf/base.toml for what it takes")


def _resolved(settings: Settings) -> Settings:
    kafka, paths = settings.kafka, settings.paths
    if not kafka.bootstrap_servers:
        kafka = kafka.model_copy(update={"bootstrap_servers": embedded_bootstrap_servers()})
    folders = {name: _under(state_dir(), value) for name, value in paths.model_dump().items()}
    registry = settings.registry.model_copy(update={"path": ROOT / settings.registry.path})
    return settings.model_copy(update={"kafka": kafka, "paths": Paths(**folders), "registry": registry})


def embedded_bootstrap_servers() -> str:
    """Where the embedded broker of this checkout listens; empty while none runs."""
    record = state_dir() / "broker" / "bootstrap.servers"
    return record.read_text().strip() if record.exists() else ""


def _under(folder: Path, value: str) -> str:
    return value if urlsplit(value).scheme else str(folder / value)
