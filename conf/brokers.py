"""Declares the connection to the brokers, the same for librdkafka and for Spark's client in Java."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from conf import setting_sources
from conf.certificates import require_certificates, require_key_pair
from conf.client_properties import CLIENT, SPARK, allowed
from conf.connections import CLIENT_LOG, Section
from conf.errors import TidemarkError
from conf.setting_sources import SecretFile
from conf.text_kinds import Line, Servers
from conf.topics import MOST
from conf.urls import require_url

OAUTHBEARER = "OAUTHBEARER"
# A secret may go to these hosts without TLS: it does not leave the machine.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Kafka(Section):
    """The connection block; docs/security.md has which mechanism needs which settings."""

    bootstrap_servers: Servers
    client_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
    sasl_username: Line
    sasl_password: SecretStr
    oauth_token_url: str
    oauth_client_id: Line
    oauth_client_secret: SecretStr
    oauth_scope: Line
    oauth_ca_location: str
    ssl_ca_location: str
    ssl_certificate_location: str
    ssl_key_location: str
    ssl_key_password: SecretStr
    replication_factor: int = Field(ge=1, le=MOST["replication_factor"])
    client: Annotated[Mapping[str, str], BeforeValidator(allowed("client", CLIENT))]
    spark: Annotated[Mapping[str, str], BeforeValidator(allowed("spark", SPARK))]

    @model_validator(mode="after")
    def _require_credentials(self) -> "Kafka":
        if not self.security_protocol.startswith("SASL"):
            return self
        if self.uses_oauth:
            names, secret = ("oauth_token_url", "oauth_client_id"), "oauth_client_secret"
        else:
            names, secret = ("sasl_mechanism", "sasl_username"), "sasl_password"
        variable = setting_sources.variable_of(f"kafka.{secret}")
        needed = {name: getattr(self, name) for name in names}
        needed[f"{secret} (set {variable}, or ..._FILE to its file)"] = getattr(self, secret).get_secret_value()
        if missing := " and ".join(name for name, value in needed.items() if not value):
            what = f"{self.security_protocol} with {OAUTHBEARER}" if self.uses_oauth else self.security_protocol
            raise ValueError(f"{what} needs {names[0]}, {names[1]} and {secret}; empty: {missing}")
        return self

    @model_validator(mode="after")
    def _check_places(self) -> "Kafka":
        for setting in ("ssl_ca_location", "oauth_ca_location"):
            if path := getattr(self, setting):
                require_certificates(path, setting)
        if self.oauth_token_url:
            login, form = "set oauth_client_id and its secret", "https://HOST…"
            url = require_url("oauth_token_url", self.oauth_token_url, login, form)
            if url.scheme != "https" and url.hostname not in LOOPBACK:
                raise ValueError(f"oauth_token_url must be {form}: the client's secret goes there")
        return self

    @model_validator(mode="after")
    def _check_key_pair(self) -> "Kafka":
        password = self.ssl_key_password.get_secret_value()
        if not self.ssl_certificate_location:
            if self.ssl_key_location:
                raise ValueError("ssl_key_location, a private key, needs its certificate: set ssl_certificate_location")
            return self
        if self.security_protocol not in ("SSL", "SASL_SSL"):
            raise ValueError(f"ssl_certificate_location is of no use with security_protocol {self.security_protocol}")
        for setting in ("ssl_certificate_location", "ssl_key_location"):
            path = getattr(self, setting)
            # Java's client takes the file's name from a text with these between its parts. What is no path may be the
            # key itself: it is not shown.
            if path and (not path.startswith("/") or set(path) & set(",:{}")):
                raise ValueError(f"{setting} must be a whole path, from / on, without `,`, `:`, `{{` and `}}`")
        require_key_pair(self.ssl_certificate_location, self.ssl_key_location, password)
        return self

    @model_validator(mode="after")
    def _check_properties(self) -> "Kafka":
        if self.client:
            from confluent_kafka import KafkaException  # here: most settings have none, and it takes long to load
            from confluent_kafka.admin import AdminClient

            # Without it the client would not look at what it has of TLS.
            secured = {"security.protocol": "ssl"} if self.security_protocol.endswith("SSL") else {}
            try:
                AdminClient({"log_level": 0, **secured, **self.client})
            except KafkaException as exc:
                raise ValueError(f"kafka.client: {exc.args[0].str()}") from None
        return self

    @property
    def uses_oauth(self) -> bool:
        """Return whether clients log in by a token."""
        return self.security_protocol.startswith("SASL") and self.sasl_mechanism == OAUTHBEARER

    @property
    def rotates(self) -> bool:
        """Return whether what clients log in by may change while they run: it lies in files."""
        secrets = (self.sasl_password, self.oauth_client_secret, self.ssl_key_password)
        return bool(self.ssl_certificate_location) or any(isinstance(each, SecretFile) for each in secrets)

    def credentials(self) -> str:
        """Return a digest of what clients log in by, as its files are now."""
        secrets = (self.sasl_password, self.oauth_client_secret, self.ssl_key_password)
        digest = hashlib.sha256(repr([secret.get_secret_value() for secret in secrets]).encode())
        for path in (self.ssl_certificate_location, self.ssl_key_location, self.ssl_ca_location):
            digest.update(Path(path).read_bytes() if path and Path(path).is_file() else b"\0")
        return digest.hexdigest()

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
        """Return librdkafka properties of the connection, secrets as they are now:
        never to be printed, never to be kept.

        A client's messages go to Python's log: by itself it would write to the terminal, whatever its log level.
        """
        config: dict[str, Any] = {
            **self.client,
            "bootstrap.servers": self.require_bootstrap_servers(),
            "client.id": f"{self.client_id}.python",
            "security.protocol": self.security_protocol,
            "logger": CLIENT_LOG,
        }
        if self.uses_oauth:
            config |= self._oauth_config()
        elif self.security_protocol.startswith("SASL"):
            config |= {"sasl.mechanism": self.sasl_mechanism, "sasl.username": self.sasl_username}
            config["sasl.password"] = self.sasl_password.get_secret_value()
        if self.ssl_ca_location:
            config["ssl.ca.location"] = self.ssl_ca_location
        if self.ssl_certificate_location:
            config["ssl.certificate.location"] = self.ssl_certificate_location
            config["ssl.key.location"] = self.ssl_key_location or self.ssl_certificate_location
            if password := self.ssl_key_password.get_secret_value():
                config["ssl.key.password"] = password
        return config

    def _oauth_config(self) -> dict[str, str]:
        config = {
            "sasl.mechanism": OAUTHBEARER,
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": self.oauth_token_url,
            "sasl.oauthbearer.client.id": self.oauth_client_id,
            "sasl.oauthbearer.client.secret": self.oauth_client_secret.get_secret_value(),
        }
        config |= {"sasl.oauthbearer.scope": self.oauth_scope} if self.oauth_scope else {}
        return config | ({"https.ca.location": self.oauth_ca_location} if self.oauth_ca_location else {})
