"""Declares the settings of what is outside: how records go to the brokers and come, and the schema registry."""

import logging
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from conf.certificates import require_certificates
from conf.client_properties import INT, LONG
from conf.durations import Duration, milliseconds
from conf.text_kinds import Line, StartingOffsets, StoreFolder
from conf.urls import require_url

LONGEST_LINGER_MS = 900_000  # that librdkafka takes
CLIENT_LOG = logging.getLogger("tidemark.kafka")
# Without a handler Python prints warnings to the terminal, where our one line should stand alone.
CLIENT_LOG.addHandler(logging.NullHandler())
Delivery = Literal["exactly-once", "at-least-once", "at-most-once", "real-time"]
CompatibilityLevel = Literal[
    "none", "backward", "backward_transitive", "forward", "forward_transitive", "full", "full_transitive"
]


class Section(BaseModel):
    """A table of the settings; frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


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
        """Return librdkafka properties of a producer that batches so."""
        return {
            "linger.ms": self.linger_ms,
            "batch.size": self.batch_bytes,
            "compression.type": self.compression,
        }


# Spark's real-time trigger takes no shorter batch.
LEAST_REAL_TIME_MS = 5_000


def _long_enough(text: str) -> str:
    if milliseconds(text) < LEAST_REAL_TIME_MS:
        raise ValueError(f"a batch of delivery real-time lasts {LEAST_REAL_TIME_MS // 1000} seconds or longer")
    return text


RealTimeBatch = Annotated[Duration, AfterValidator(_long_enough)]


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
