"""Lists the properties of Kafka's clients that may be set beside the connection block, and refuses all others.

Properties that decide on delivery, login and trust are not among them: `acks`, `isolation.level`, groups,
transactional ids, host name verification, classes to load. Neither is what a setting has, or a file to be written.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from conf.errors import nearest
from conf.secret_words import shown

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
INT, LONG = 2**31 - 1, 2**63 - 1  # the largest numbers that Kafka, Spark and Java have room for
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


def allowed(setting: str, names: frozenset[str]) -> Callable[[Any], Any]:
    """Return a function that turns the tables of kafka.`setting` into texts by the properties' names.

    A name's dots have made tables within tables; a variable writes them as `_`. It raises ValueError, with the nearest
    name, where one is not among `names`, and where Kafka's client in Java would not take a value (`VALUES`).
    """

    def texts(tables: Any) -> Any:
        if not isinstance(tables, Mapping):
            return tables
        found = _flat(tables)
        for name in found:
            if name not in names:
                free = nearest(name, sorted(names))
                raise ValueError(
                    f"kafka.{setting} does not take `{name}`, which is a setting's or never changes: {free}"
                )
            if setting == "spark":
                _require_value(name, found[name])
        least, request = (found.get(f"{key}.timeout.ms") for key in ("default.api", "request"))
        if least and int(least) < int(request or REQUEST_MS):
            raise ValueError(f"default.api.timeout.ms is {least}, below request.timeout.ms = {request or REQUEST_MS}")
        return found

    return texts


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


def _flat(tables: Mapping[str, Any], within: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for part, value in tables.items():
        name = f"{within}{part}".replace("_", ".")
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        else:
            found[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return found
