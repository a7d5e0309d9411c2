"""Settings: `base.toml`, an environment's overlay, environment variables and `--set`, merged once into one frozen object."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from conf import ROOT, state_dir
from conf.errors import TidemarkError, nearest

PREFIX = "TIDEMARK_"
# Variables with our prefix that are not settings: they say where state lies, which overlay holds, and how setup runs.
NOT_SETTINGS = {"TIDEMARK_STATE", "TIDEMARK_ENV", "TIDEMARK_DEBUG", "TIDEMARK_IVY_SETTINGS"}
ENVIRONMENTS = ("local", "cluster")
StateStore = Literal["heap", "rocksdb"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(Section):
    bootstrap_servers: str
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    sasl_mechanism: str
    sasl_username: str
    sasl_password: SecretStr
    ssl_ca_location: str
    replication_factor: int = Field(ge=1)

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


class Paths(Section):
    tables: str
    checkpoints: str
    logs: str


class Broker(Section):
    nodes: Literal[1, 3]
    port: int = Field(ge=0, le=65535)
    heap_mb: int = Field(ge=128)


class Batching(Section):
    linger_ms: int = Field(ge=0)
    batch_bytes: int = Field(ge=1)
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"]


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
    state_store: StateStore
    trigger: str


class Ingest(Section):
    topics: tuple[str, ...]


class Job(Section):
    """What one job sets apart from the rest; None leaves the general setting in force."""

    state_store: StateStore | None = None
    shuffle_partitions: int | None = Field(default=None, ge=1)
    max_offsets_per_trigger: int | None = Field(default=None, ge=1)
    trigger: str | None = None


class Settings(BaseSettings):
    """Everything that can be set; frozen."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__")

    kafka: Kafka
    registry: Registry
    paths: Paths
    broker: Broker
    producer: Batching
    source: Source
    sink: Batching
    spark: Spark
    ingest: Ingest
    jobs: dict[str, Job]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The files arrive as init arguments with --set already on top of the environment: see load().
        return (init_settings,)


def load(environment: str | None = None, overrides: Sequence[str] = ()) -> Settings:
    """The merged settings of `environment` ("local" where neither it nor `$TIDEMARK_ENV` says otherwise).

    Args:
        overrides: `section.key=value`, each stronger than files and environment variables.

    Raises:
        TidemarkError: UNKNOWN_SETTING, MISSING_SETTING or BAD_SETTING, with the nearest name.
    """
    environment = environment or os.environ.get("TIDEMARK_ENV") or "local"
    if environment not in ENVIRONMENTS:
        raise TidemarkError(
            "UNKNOWN_SETTING", f"no environment `{environment}`", nearest(environment, list(ENVIRONMENTS))
        )
    merged = _merge(_read("base"), _read(environment))
    for origin, key, value in [*_from_environment(os.environ), *map(_parse_override, overrides)]:
        merged = _merge(merged, _placed(origin, key, value))
    try:
        settings = Settings(**merged)
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


def _read(name: str) -> dict[str, Any]:
    path = ROOT / "conf" / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as exc:
        raise TidemarkError("BAD_SETTING", f"{path}: {exc}", "mend the file") from exc


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


def _from_environment(environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    names = sorted(name for name in environ if name.startswith(PREFIX) and name not in NOT_SETTINGS)
    return [(f"variable {name}", name.removeprefix(PREFIX).lower().replace("__", "."), environ[name]) for name in names]


def _parse_override(text: str) -> tuple[str, str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise TidemarkError("BAD_SETTING", f"--set {text!r} has no `=`", "write --set section.key=value")
    return "--set", key.strip(), value.strip()


def _placed(origin: str, key: str, value: str) -> dict[str, Any]:
    known = known_keys()
    if key not in known and not key.startswith("jobs."):
        raise TidemarkError("UNKNOWN_SETTING", f"{origin} names no setting: `{key}`", nearest(key, known))
    placed: Any = _typed(key, value)
    # A job's own name has a dot in it (jobs.flights.hourly_delays.trigger): section, name, key.
    section, _, rest = key.partition(".")
    path = [section, *rest.rsplit(".", 1)] if section == "jobs" else [section, rest]
    for part in reversed(path):
        placed = {part: placed}
    return dict(placed)


def _typed(key: str, value: str) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if key == "ingest.topics" else value


def known_keys() -> list[str]:
    """Every `section.key` that can be set, the per-job ones aside."""
    sections = ((name, field.annotation) for name, field in Settings.model_fields.items())
    return [
        f"{name}.{key}"
        for name, kind in sections
        if isinstance(kind, type) and issubclass(kind, Section)
        for key in kind.model_fields
    ]


def _explain(exc: ValidationError) -> TidemarkError:
    problem = exc.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return TidemarkError("UNKNOWN_SETTING", f"no setting `{key}`", nearest(key, known_keys()))
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
    return value if "://" in value else str(folder / value)
