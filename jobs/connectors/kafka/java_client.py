"""Gives the connection as options of Kafka's Java client, for Spark's source and sink and the JVM's admin client.

Options stand in plans and go to executors with each task. A password is there as an option that Spark hides
(`spark.redaction.regex`), and so is a key that the client cannot read by itself. Certificate and any other key are not:
each client reads their files when it is made.
"""

from pathlib import PurePosixPath

from conf.certificates import key_for_java
from conf.settings import Kafka

SECURITY = "org.apache.kafka.common.security"
LOGIN_MODULES = {"PLAIN": "plain.PlainLoginModule", "OAUTHBEARER": "oauthbearer.OAuthBearerLoginModule"}
SCRAM = "scram.ScramLoginModule"
DIRECTORY = "org.apache.kafka.common.config.provider.DirectoryConfigProvider"


def connection_options(kafka: Kafka) -> dict[str, str]:
    """Return the options by name, each with `kafka.` before the client's own."""
    properties = {
        **kafka.spark,
        "bootstrap.servers": kafka.require_bootstrap_servers(),
        "client.id": f"{kafka.client_id}.spark",
        "security.protocol": kafka.security_protocol,
    }
    if kafka.uses_oauth:
        properties["sasl.login.callback.handler.class"] = f"{SECURITY}.oauthbearer.OAuthBearerLoginCallbackHandler"
        properties["sasl.oauthbearer.token.endpoint.url"] = kafka.oauth_token_url
    if kafka.security_protocol.startswith("SASL"):
        properties |= {"sasl.mechanism": kafka.sasl_mechanism, "sasl.jaas.config": _jaas(kafka)}
    if kafka.ssl_ca_location:
        properties |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": kafka.ssl_ca_location}
    if kafka.ssl_certificate_location:
        properties |= _key_store(kafka)
    return {f"kafka.{name}": value for name, value in properties.items()}


def _key_store(kafka: Kafka) -> dict[str, str]:
    """Return the key store: certificate and key by the files that hold them, which only the client itself opens."""
    certificate = PurePosixPath(kafka.ssl_certificate_location)
    key = PurePosixPath(kafka.ssl_key_location or certificate)
    properties = {
        "config.providers": "directory",
        "config.providers.directory.class": DIRECTORY,
        "config.providers.directory.param.allowed.paths": ",".join(sorted({str(certificate.parent), str(key.parent)})),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": f"${{directory:{certificate.parent}:{certificate.name}}}",
        "ssl.keystore.key": f"${{directory:{key.parent}:{key.name}}}",
    }
    if own_key := key_for_java(str(key), kafka.ssl_key_password.get_secret_value()):
        properties["ssl.keystore.key"] = own_key
    return properties


def _jaas(kafka: Kafka) -> str:
    if kafka.uses_oauth:
        words = {
            "clientId": kafka.oauth_client_id,
            "clientSecret": kafka.oauth_client_secret.get_secret_value(),
            "scope": kafka.oauth_scope,
        }
        if kafka.oauth_ca_location:
            words |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": kafka.oauth_ca_location}
    else:
        words = {"username": kafka.sasl_username, "password": kafka.sasl_password.get_secret_value()}
    module = LOGIN_MODULES.get(kafka.sasl_mechanism, SCRAM)
    given = " ".join(f'{name}="{_escaped(value)}"' for name, value in words.items() if value)
    return f"{SECURITY}.{module} required {given};"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
