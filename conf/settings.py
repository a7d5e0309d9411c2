"""Loads the settings: `base.toml`, an environment's overlay, variables and `--set`, merged into one frozen object."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from conf import ROOT, setting_sources, state_dir
from conf.brokers import Kafka
from conf.certificates import require_certificates
from conf.connections import (
    CLIENT_LOG,
    Batching,
    Broker,
    CompatibilityLevel,
    Delivery,
    Ledger,
    Registry,
    Search,
    Section,
    Sink,
    Source,
)
from conf.durations import Duration, milliseconds
from conf.errors import TidemarkError, nearest
from conf.names import TOPIC_RULE, is_topic

__all__ = [
    "CLIENT_LOG",
    "ENVIRONMENTS",
    "SAFE_KEEP",
    "SPARK_SECRET",
    "Batching",
    "Broker",
    "CompatibilityLevel",
    "Delivery",
    "Ingest",
    "Job",
    "Kafka",
    "Ledger",
    "Logging",
    "Maintenance",
    "OnFailure",
    "Paths",
    "PersonalData",
    "Quarantine",
    "Registry",
    "Replaying",
    "Running",
    "Search",
    "Section",
    "Settings",
    "Sink",
    "Source",
    "Spark",
    "StateStore",
    "embedded_bootstrap_servers",
    "load",
    "require_certificates",
    "secret_variables",
    "show",
    "without_secrets",
]

ENVIRONMENTS = ("local", "cluster")
SAFE_KEEP = "7 days"  # Delta's own default
# Who has the secret alone speaks to a driver and its executors; what they send, and what they spill, is encrypted.
SPARK_SECRET = "spark.authenticate.secret"
ENCRYPTION = ("spark.authenticate", "spark.network.crypto.enabled", "spark.io.encryption.enabled")
StateStore = Literal["heap", "rocksdb"]
OnFailure = Literal["stop-all", "isolate", "restart"]
LIMITS = ("max_offsets_per_trigger", "min_offsets_per_trigger", "max_trigger_delay", "min_partitions")


def _listed(value: Any) -> Any:
    """Return a list, or its texts with commas between them, as a variable or --set gives it."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _topic(name: str) -> str:
    if not is_topic(name):
        raise ValueError(f"{name!r} is no name of a topic: it has {TOPIC_RULE}")
    return name


class Paths(Section):
    tables: str
    checkpoints: str
    logs: str

    @model_validator(mode="after")
    def _hold_no_password(self) -> "Paths":
        for name, value in self:
            if urlsplit(value).password:
                raise ValueError(f"{name} must hold no password: give it where that file system looks for it")
        return self


class Spark(Section):
    master: str
    shuffle_partitions: int = Field(ge=1)
    queries_at_once: int = Field(ge=1)
    driver_memory: str
    driver_java_options: str
    state_store: StateStore
    trigger: str
    ui: bool
    encryption: bool
    encryption_secret: SecretStr

    def properties(self) -> dict[str, str]:
        """Spark's properties that say who sees its pages and what is encrypted; a secret is among them: never to be
        printed."""
        found = {} if self.ui else {"spark.ui.enabled": "false"}
        if self.encryption:
            found |= dict.fromkeys(ENCRYPTION, "true")
            if secret := self.encryption_secret.get_secret_value():
                found[SPARK_SECRET] = secret
        return found


class PersonalData(Section):
    """The treatment of fields that a schema marks with `pii`."""

    hash_key: SecretStr


class Metrics(Section):
    """Where a driver serves its metrics in Prometheus' text format; see docs/operate.md."""

    port: int = Field(ge=0, le=65535)
    host: str
    pushgateway: str


class Page(Section):
    """Where `local/tidemark page` listens, and what it asks for; see docs/operate.md."""

    port: int = Field(ge=0, le=65535)
    host: str
    token: SecretStr


class History(Section):
    """The table of micro-batches that drivers keep of themselves."""

    keep: Duration


class Running(Section):
    """How the queries of a run end: one that fails, and all of them at SIGTERM."""

    on_failure: OnFailure
    restart_limit: int = Field(ge=1)
    restart_after: Duration
    restart_after_most: Duration
    stop_within: Duration


class Ingest(Section):
    topics: Annotated[tuple[Annotated[str, AfterValidator(_topic)], ...], NoDecode, BeforeValidator(_listed)]


class Logging(Section):
    """How drivers write their logs: for people, or as JSON lines for a shipper."""

    format: Literal["plain", "ecs"]

    @property
    def suffix(self) -> str:
        """What the names of log files end with: a file has lines of one format."""
        return "log" if self.format == "plain" else "ecs.json"


class Regions(Section):
    """This cluster's region, and those whose topics MirrorMaker copies here, as REGION.TOPIC."""

    here: str = Field(pattern=r"^[a-z0-9-]+$")
    others: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]


class Quarantine(Section):
    """Which event times are rejected, and where rejecting ends and the job stops."""

    max_ratio: float = Field(ge=0, le=1)
    min_records: int = Field(ge=1)
    max_consecutive: int = Field(ge=0)
    max_ahead: Duration
    as_of: Annotated[AwareDatetime | None, BeforeValidator(lambda text: text or None)]


class Replaying(Section):
    slice_records: int = Field(ge=1)


class Maintenance(Section):
    """The upkeep: what `local/tidemark maintain` removes, and what it makes of small files."""

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
    """The settings of one job: what it sets apart from the rest; None leaves the general setting in force."""

    state_store: StateStore | None = None
    shuffle_partitions: int | None = Field(default=None, ge=1)
    max_offsets_per_trigger: int | None = Field(default=None, ge=1)
    min_offsets_per_trigger: int | None = Field(default=None, ge=0)
    max_trigger_delay: Duration | None = None
    min_partitions: int | None = Field(default=None, ge=0)
    trigger: str | None = None
    delivery: Delivery | None = None
    fresh_within: Duration | None = None

    def source(self, general: Source) -> Source:
        """The settings of the job's sources: `general`, and on it what the job sets apart."""
        own = {name: value for name in LIMITS if (value := getattr(self, name)) is not None}
        return general.model_copy(update=own)


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
    run: Running
    ingest: Ingest
    personal_data: PersonalData
    quarantine: Quarantine
    replay: Replaying
    maintenance: Maintenance
    metrics: Metrics
    page: Page
    history: History
    logging: Logging
    search: Search
    regions: Regions
    jobs: Annotated[Mapping[str, Job], BeforeValidator(_by_name)]

    @model_validator(mode="after")
    def _leave_room_between_limits(self) -> "Settings":
        for place, job in {"source": Job(), **{f"jobs.{name}": job for name, job in self.jobs.items()}}.items():
            source = job.source(self.source)
            least, most = source.min_offsets_per_trigger, source.max_offsets_per_trigger
            if least > most:
                message = f"{place}.min_offsets_per_trigger is {least:,}, above max_offsets_per_trigger = {most:,}"
                raise ValueError(f"{message}: no batch can have both")
        return self

    def source_of(self, job: str) -> Source:
        """The settings of the sources of `job`."""
        return self.jobs.get(job, Job()).source(self.source)

    def without_waiting(self) -> "Settings":
        """These settings with no `min_offsets_per_trigger`: a run that catches up reads what is less, too."""
        none = {"min_offsets_per_trigger": 0}
        jobs = {name: job.model_copy(update=none) for name, job in self.jobs.items()}
        return self.model_copy(update={"source": self.source.model_copy(update=none), "jobs": jobs})


def load(environment: str | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Return the merged settings of `environment` ("local" where neither it nor `$TIDEMARK_ENV` says otherwise).

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
    texts = dict([*setting_sources.variables(Settings, os.environ), *setting_sources.overrides(Settings, overrides)])
    files = [setting_sources.file(Settings, folder / f"{name}.toml") for name in (environment, "base")]
    # The strongest first. This argument of pydantic-settings is no field, so mypy must not see it by name.
    built: dict[str, Any] = {"_build_sources": ((*setting_sources.texts(Settings, texts), *files), {})}
    try:
        settings = Settings(**built)
    except ValidationError as exc:
        raise _explain(exc) from exc
    return _resolved(settings)


def secret_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the variables in `environ` that hold a secret of the settings."""
    names = [setting_sources.variable_of(key) for key in setting_sources.secret_keys(Settings)]
    return [name for name in environ if name.upper() in names]


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` for a program that need not know the secrets of the settings: without the variables that hold
    one."""
    secret = secret_variables(environ)
    return {name: value for name, value in environ.items() if name not in secret}


def show(settings: Settings) -> str:
    """Return the merged settings as TOML-like lines, secrets masked."""
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
        return TidemarkError(
            "UNKNOWN_SETTING", f"no setting `{key}`", nearest(key, setting_sources.known_keys(Settings))
        )
    if problem["type"] == "missing":
        return TidemarkError("MISSING_SETTING", f"setting `{key}` is missing", "conf/base.toml must hold every key")
    what = problem["msg"].removeprefix("Value error, ")
    # What is said of several sections at once has no key, and names them itself.
    place = f"setting `{key}`: " if key else "setting "
    return TidemarkError("BAD_SETTING", f"{place}{what}", "see conf/base.toml for what it takes")


def _resolved(settings: Settings) -> Settings:
    kafka, paths = settings.kafka, settings.paths
    if not kafka.bootstrap_servers:
        kafka = kafka.model_copy(update={"bootstrap_servers": embedded_bootstrap_servers()})
    folders = {name: _under(state_dir(), value) for name, value in paths.model_dump().items()}
    registry = settings.registry.model_copy(update={"path": ROOT / settings.registry.path})
    return settings.model_copy(update={"kafka": kafka, "paths": Paths(**folders), "registry": registry})


def embedded_bootstrap_servers() -> str:
    """Return where the embedded broker of this checkout listens; empty while none runs."""
    record = state_dir() / "broker" / "bootstrap.servers"
    return record.read_text().strip() if record.exists() else ""


def _under(folder: Path, value: str) -> str:
    return value if urlsplit(value).scheme else str(folder / value)
