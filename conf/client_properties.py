"""Lists the properties of Kafka's clients that may be set beside the connection block, and refuses all others.

Properties that decide on delivery, login and trust are not among them: `acks`, `isolation.level`, groups,
transactional ids, host name verification, classes to load. Neither is what a setting has, or a file to be written.
"""

from collections.abc import Callable, Mapping
from typing import Any

from conf.errors import nearest

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
# Properties of the client in Java.
SPARK = frozenset(
    {
        *("client.dns.lookup", "client.rack", "connections.max.idle.ms", "default.api.timeout.ms"),
        *("enable.metrics.push", "metadata.max.age.ms", "metadata.recovery.strategy", "reconnect.backoff.max.ms"),
        *("reconnect.backoff.ms", "request.timeout.ms", "retry.backoff.max.ms", "retry.backoff.ms"),
        *("sasl.login.connect.timeout.ms", "sasl.login.read.timeout.ms", "sasl.login.refresh.buffer.seconds"),
        *("sasl.login.refresh.min.period.seconds", "sasl.login.refresh.window.factor"),
        *("sasl.login.retry.backoff.max.ms", "sasl.login.retry.backoff.ms", "send.buffer.bytes"),
        *("socket.connection.setup.timeout.max.ms", "socket.connection.setup.timeout.ms", "ssl.cipher.suites"),
        *("ssl.enabled.protocols", "ssl.protocol"),
    }
)


def allowed(setting: str, names: frozenset[str]) -> Callable[[Any], Any]:
    """Return a function that turns the tables of kafka.`setting` into texts by the properties' names.

    A name's dots have made tables within tables; a variable writes them as `_`. It raises ValueError, with the nearest
    name, where one is not among `names`.
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
        return found

    return texts


def _flat(tables: Mapping[str, Any], within: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for part, value in tables.items():
        name = f"{within}{part}".replace("_", ".")
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        else:
            found[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return found
