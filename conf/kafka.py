"""Declares the connection to the brokers, the same for librdkafka and for Spark's client in Java.

Beside the block's own settings it takes properties of the two clients, from a list. Properties that decide on delivery,
login and trust are not among them: `acks`, `isolation.level`, groups, transactional ids, host name verification,
classes to load. Neither is what a setting has, or a file to be written.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from conf.credentials import require_certificates, require_key_pair, shown
from conf.errors import TidemarkError, nearest
from conf.names import require_url
from conf.setting_sources import SecretFile, leaves, variable_of
from conf.setting_types import INT, LONG, Line, Section, Servers
from conf.topics import MOST

CLIENT_LOG = logging.getLogger("tidemark.kafka")
# Without a handler Python prints warnings to the terminal, where our one line should stand alone.
CLIENT_LOG.addHandler(logging.NullHandler())
OAUTHBEARER = "OAUTHBEARER"
# A secret may go to these hosts without TLS: it does not leave the machine.
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Properties of librdkafka.
CLIENT = frozenset(
    {
        *("api.version.request.timeout.ms", "broker.address.family", "broker.address.ttl", "client.dns.lookup"),
        *("client.rack", "connections.max.idle.ms", "enable.metrics.push"),
        *("metadata.max.age.ms", "metadata.recovery.strategy", "reconnect.backoff.max.ms", "retry.backoff.max.ms"),
        *("retry.backoff.ms", "sasl.oauthbearer.extensions", "socket.connection.setup.timeout.ms"),
        *("socket.keepalive.enable", "socket.max.fails", "socket.nagle.disable", "socket.receive.buffer.bytes"),
        *("socket.send.buffer.bytes", "ssl.cipher.suites", "ssl.crl.location", "ssl.curves.list"),
        *("ssl.sigalgs.list", "topic.metadata.refresh.interval.ms"),
    }
)
Numbers = tuple[float, float]  # from and to, whole where both are whole
# Properties of the client in Java, which are judged by none before a job runs: which numbers or which texts each takes.
VALUES: Mapping[str, Numbers | re.Pattern[str]] = {
    **dict.fromkeys(("default.api.timeout.ms", "request.timeout.ms", "sasl.login.connect.timeout.ms"), (0, INT)),
    **dict.fromkeys(("metadata.max.age.ms", "sasl.login.retry.backoff.ms"), (0, LONG)),
    **dict.fromkeys(("reconnect.backoff.ms", "reconnect.backoff.max.ms", "retry.backoff.ms"), (0, LONG)),
    **dict.fromkeys(("retry.backoff.max.ms", "sasl.login.retry.backoff.max.ms"), (0, LONG)),
    **dict.fromkeys(("socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.max.ms"), (0, LONG)),
    "sasl.login.read.timeout.ms": (0, INT),
    "sasl.login.refresh.buffer.seconds": (0, 3600),
    "sasl.login.refresh.min.period.seconds": (0, 900),
    "sasl.login.refresh.window.factor": (0.5, 1.0),
    "send.buffer.bytes": (-1, INT),
    "connections.max.idle.ms": (-1, LONG),
    "client.dns.lookup": re.compile("use_all_dns_ips|resolve_canonical_bootstrap_servers_only"),
    "client.rack": re.compile(r"[\x20-\x7e]*"),
    "enable.metrics.push": re.compile("true|false", re.IGNORECASE),
    "metadata.recovery.strategy": re.compile("none|rebootstrap", re.IGNORECASE),
    "ssl.cipher.suites": re.compile(r"(SSL|TLS)_[A-Z0-9_]+(\s*,\s*(SSL|TLS)_[A-Z0-9_]+)*"),
    "ssl.enabled.protocols": re.compile(r"TLSv1(\.[123])?(\s*,\s*TLSv1(\.[123])?)*"),
    "ssl.protocol": re.compile(r"TLS(v1(\.[123])?)?"),
}
SPARK = frozenset(VALUES)
REQUEST_MS = 30_000  # of request.timeout.ms by default


def _properties(setting: str, names: frozenset[str]) -> Callable[[Any], Any]:
    """Return a function that turns the tables of kafka.`setting` into texts by the properties' names.

    A name's dots have made tables within tables; a variable writes them as `_`. It raises ValueError, with the nearest
    name, where one is not among `names`, and where Kafka's client in Java would not take a value (`VALUES`).
    """

    def read(tables: Any) -> Any:
        if not isinstance(tables, Mapping):
            return tables
        properties = {
            name.replace("_", "."): str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in leaves(tables)
        }
        for name, value in properties.items():
            if name not in names:
                free = nearest(name, sorted(names))
                raise ValueError(
                    f"kafka.{setting} does not take `{name}`, which is a setting's or never changes: {free}"
                )
            if setting == "spark":
                _require_value(name, value)
        least, request = properties.get("default.api.timeout.ms"), properties.get("request.timeout.ms", REQUEST_MS)
        if least and int(least) < int(request):
            raise ValueError(f"default.api.timeout.ms is {least}, below request.timeout.ms = {request}")
        return properties

    return read


def _require_value(name: str, value: str) -> None:
    takes = VALUES[name]
    if isinstance(takes, re.Pattern):
        if not takes.fullmatch(value):
            raise ValueError(f"{name} is {shown(value)}: write what matches {takes.pattern}")
        return
    least, most = takes
    is_whole = isinstance(least, int)
    form = r"-?[0-9]{1,19}" if is_whole else r"[0-9](\.[0-9]{1,9})?"
    if not re.fullmatch(form, value) or not least <= (int(value) if is_whole else float(value)) <= most:
        raise ValueError(f"{name} is {shown(value)}: write a number from {least} to {most}")


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
    client: Annotated[Mapping[str, str], BeforeValidator(_properties("client", CLIENT))]
    spark: Annotated[Mapping[str, str], BeforeValidator(_properties("spark", SPARK))]

    @model_validator(mode="after")
    def _require_credentials(self) -> "Kafka":
        if not self.security_protocol.startswith("SASL"):
            return self
        if self.uses_oauth:
            names, secret = ("oauth_token_url", "oauth_client_id"), "oauth_client_secret"
        else:
            names, secret = ("sasl_mechanism", "sasl_username"), "sasl_password"
        variable = variable_of(f"kafka.{secret}")
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
        return self.security_protocol.startswith("SASL") and self.sasl_mechanism == OAUTHBEARER

    @property
    def rotates(self) -> bool:
        """Return whether what clients log in by may change while they run: it lies in files."""
        return bool(self.ssl_certificate_location) or any(isinstance(secret, SecretFile) for secret in self._secrets)

    @property
    def _secrets(self) -> tuple[SecretStr, ...]:
        return self.sasl_password, self.oauth_client_secret, self.ssl_key_password

    def credentials(self) -> str:
        """Return a digest of what clients log in by, as its files are now."""
        digest = hashlib.sha256(repr([secret.get_secret_value() for secret in self._secrets]).encode())
        for path in (self.ssl_certificate_location, self.ssl_key_location, self.ssl_ca_location):
            digest.update(Path(path).read_bytes() if path and Path(path).is_file() else b"\0")
        return digest.hexdigest()

    def require_bootstrap_servers(self) -> str:
        """Return the configured or embedded broker's address; raises TidemarkError NO_BROKER, where neither is
        there."""
        if not self.bootstrap_servers:
            what = "no Kafka broker is configured and the embedded one is not running"
            remedy = "run `local/tidemark broker start`, or set kafka.bootstrap_servers"
            raise TidemarkError("NO_BROKER", what, f"{remedy} (TIDEMARK_KAFKA__BOOTSTRAP_SERVERS)")
        return self.bootstrap_servers

    def client_config(self) -> dict[str, Any]:
        """Return librdkafka properties of the connection, secrets as they are now: never to be printed or kept.

        A client's messages go to Python's log: by itself it would write to the terminal, whatever its log level.
        """
        config = {
            "bootstrap.servers": self.require_bootstrap_servers(),
            "client.id": f"{self.client_id}.python",
            "security.protocol": self.security_protocol,
            "ssl.ca.location": self.ssl_ca_location,
        }
        if self.uses_oauth:
            config |= {
                "sasl.mechanism": OAUTHBEARER,
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": self.oauth_token_url,
                "sasl.oauthbearer.client.id": self.oauth_client_id,
                "sasl.oauthbearer.client.secret": self.oauth_client_secret.get_secret_value(),
                "sasl.oauthbearer.scope": self.oauth_scope,
                "https.ca.location": self.oauth_ca_location,
            }
        elif self.security_protocol.startswith("SASL"):
            config |= {"sasl.mechanism": self.sasl_mechanism, "sasl.username": self.sasl_username}
            config["sasl.password"] = self.sasl_password.get_secret_value()
        if self.ssl_certificate_location:
            config["ssl.certificate.location"] = self.ssl_certificate_location
            config["ssl.key.location"] = self.ssl_key_location or self.ssl_certificate_location
            config["ssl.key.password"] = self.ssl_key_password.get_secret_value()
        return {**self.client, **{name: value for name, value in config.items() if value}, "logger": CLIENT_LOG}
