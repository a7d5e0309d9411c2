"""Loads the settings: `base.toml`, an environment's overlay, variables and `--set`, merged into one frozen object."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from conf import ROOT, credentials, setting_sources, state_dir
from conf.errors import TidemarkError, nearest
from conf.kafka import Kafka
from conf.sections import (
    Batching,
    Broker,
    History,
    Ingest,
    Job,
    Ledger,
    Logging,
    Maintenance,
    Metrics,
    Page,
    Paths,
    PersonalData,
    Quarantine,
    Regions,
    Registry,
    Replaying,
    Running,
    Search,
    Sink,
    Source,
    Spark,
)

ENVIRONMENTS = ("local", "cluster")


def _by_name(jobs: Mapping[str, Any], within: str = "") -> dict[str, dict[str, Any]]:
    """Return the tables of jobs by the job's whole name: a dot in a name has made tables within tables."""
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

    @model_validator(mode="after")
    def _hold_no_login(self) -> "Settings":
        for place, value in setting_sources.leaves(self.model_dump()):
            if isinstance(value, str) and credentials.holds_login(value):
                remedy = "give them where that system looks for them, such as a variable or a file of its own"
                raise ValueError(f"{place} must hold no user and password: {remedy}")
        return self

    def source_of(self, job: str) -> Source:
        return self.jobs.get(job, Job()).source(self.source)

    def real_time_batch(self, job: str) -> str:
        """Return how long a batch of `job` lasts that is delivered in real time."""
        return self.jobs.get(job, Job()).real_time_batch or self.sink.real_time_batch

    def without_waiting(self) -> "Settings":
        """Return these settings with no `min_offsets_per_trigger`: a run that catches up reads what is less, too."""
        none = {"min_offsets_per_trigger": 0}
        jobs = {name: job.model_copy(update=none) for name, job in self.jobs.items()}
        return self.model_copy(update={"source": self.source.model_copy(update=none), "jobs": jobs})


def load(environment: str | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Return the merged settings of `environment` ("local" where neither it nor `$TIDEMARK_ENV` says otherwise).

    `overrides` are `section.key=value`, each stronger than files and environment variables. Raises TidemarkError
    UNKNOWN_SETTING, MISSING_SETTING or BAD_SETTING, with where it was set and the nearest name.
    """
    environment = environment or os.environ.get("TIDEMARK_ENV") or "local"
    if environment not in ENVIRONMENTS:
        what = f"no environment `{environment}`"
        raise TidemarkError("UNKNOWN_SETTING", what, nearest(environment, [*ENVIRONMENTS]))
    folder = ROOT / "conf"
    texts = dict([*setting_sources.variables(Settings, os.environ), *setting_sources.overrides(Settings, overrides)])
    overlay, base = (folder / f"{name}.toml" for name in (environment, "base"))
    try:
        files = [setting_sources.file(Settings, path) for path in (overlay, base) if path == base or path.exists()]
        # The strongest first. This argument of pydantic-settings is no field, so mypy must not see it by name.
        built: dict[str, Any] = {"_build_sources": ((*setting_sources.texts(Settings, texts), *files), {})}
        settings = Settings(**built)
    except ValidationError as exc:
        raise _explain(exc) from exc
    except (SettingsError, RecursionError):
        what = "a table of the settings is none, or lies too deep in others"
        raise TidemarkError("BAD_SETTING", what, "see conf/base.toml for what it takes") from None
    return _resolved(settings)


def secret_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the variables in `environ` that hold a secret of the settings."""
    names = [setting_sources.variable_of(key) for key in setting_sources.secret_keys(Settings)]
    return [name for name in environ if name.upper() in names]


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` for a program that need not know the settings' secrets: without the variables that hold one."""
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
    problem = exc.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = setting_sources.known_keys(Settings)
        return TidemarkError("UNKNOWN_SETTING", f"no setting `{key}`", nearest(key, known))
    if problem["type"] == "missing":
        return TidemarkError("MISSING_SETTING", f"setting `{key}` is missing", "conf/base.toml must hold every key")
    what, value = problem["msg"].removeprefix("Value error, "), problem["input"]
    is_secret = key in setting_sources.secret_keys(Settings)
    if problem["type"] != "value_error" and isinstance(value, str | int | float) and not is_secret:
        what += f", not {credentials.shown(value) if isinstance(value, str) else value}"
    # Errors over several sections carry no key; their text names the sections.
    place = f"setting `{key}`: " if key else "setting "
    return TidemarkError("BAD_SETTING", f"{place}{what}", "see conf/base.toml for what it takes")


def _resolved(settings: Settings) -> Settings:
    kafka, paths = settings.kafka, settings.paths
    if not kafka.bootstrap_servers:
        kafka = kafka.model_copy(update={"bootstrap_servers": embedded_bootstrap_servers()})
    state, places = state_dir(), paths.model_dump()
    folders = {name: place if urlsplit(place).scheme else str(state / place) for name, place in places.items()}
    registry = settings.registry.model_copy(update={"path": ROOT / settings.registry.path})
    try:
        placed = Paths(**folders)
    except ValidationError as exc:  # the settings were sound: it is the state folder
        problem = exc.errors(include_url=False)[0]
        what = f"setting `paths.{problem['loc'][0]}`: {problem['msg'].removeprefix('Value error, ')}"
        remedy = "relative paths lie in the state folder: set TIDEMARK_STATE to another"
        raise TidemarkError("BAD_SETTING", what, remedy) from exc
    return settings.model_copy(update={"kafka": kafka, "paths": placed, "registry": registry})


def embedded_bootstrap_servers() -> str:
    """Return where the embedded broker of this checkout listens; empty while none runs. What is no list of addresses
    counts for nothing: `broker start` writes it anew."""
    try:
        record = (state_dir() / "broker" / "bootstrap.servers").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return record if re.fullmatch(r"127\.0\.0\.1:\d+(,127\.0\.0\.1:\d+)*", record) else ""
