"""Declares the settings of what is outside: the brokers, how records go there and come, and the schema registry."""

import logging
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from conf import setting_sources
from conf.errors import TidemarkError

CLIENT_LOG = logging.getLogger("tidemark.kafka")
# Without a handler Python prints warnings to the terminal, where our one line should stand alone.
CLIENT_LOG.addHandler(logging.NullHandler())
Delivery = Literal["exactly-once", "at-least-once", "at-most-once"]
CompatibilityLevel = Literal[
    "none", "backward", "backward_transitive", "forward", "forward_transitive", "full", "full_transitive"
]


class Section(BaseModel):
    """A table of the settings; frozen."""

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
        password = self.sasl_password.get_secret_value()
        if self.security_protocol.startswith("SASL") and not (self.sasl_mechanism and self.sasl_username and password):
            credentials = {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_username": self.sasl_username,
                f"sasl_password (set {setting_sources.variable_of('kafka.sasl_password')})": password,
            }
            missing = " and ".join(name for name, value in credentials.items() if not value)
            needs = f"{self.security_protocol} needs sasl_mechanism, sasl_username and sasl_password"
            raise ValueError(f"{needs}; empty: {missing}")
        return self

    @model_validator(mode="after")
    def _check_places(self) -> "Kafka":
        if "@" in self.bootstrap_servers:
            raise ValueError("bootstrap_servers must be HOST:PORT,…, with no user and password: see sasl_username")
        if self.ssl_ca_location:
            require_certificates(self.ssl_ca_location, "ssl_ca_location")
        return self

    def require_bootstrap_servers(self) -> str:
        """Return the configured or embedded broker's address.

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

    def client_config(self) -> dict[str, Any]:
        """librdkafka properties of the connection, secrets included: never to be printed.

        What a client has to say goes to Python's log: by itself it would write to the terminal, whatever its log level.
        """
        config: dict[str, Any] = {
            "bootstrap.servers": self.require_bootstrap_servers(),
            "security.protocol": self.security_protocol,
            "logger": CLIENT_LOG,
        }
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
        if self.ca_location:
            require_certificates(self.ca_location, "ca_location")
        return self


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
    """The sink that writes exactly once."""

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
    commit_to_group: bool


def require_certificates(path: str, setting: str) -> None:
    """Raise ValueError where `path`, the value of `setting`, is no file of PEM certificates that can be read."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except OSError as exc:  # of TLS too, where the file holds something else
        reason = "it holds no PEM certificates" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise ValueError(f"{setting} {path} cannot be read: {reason}") from None
