"""Checks the certificates and keys that settings name, before a client fails on them in words of its own."""

import datetime as dt
import ssl
from pathlib import Path

PLAIN, ANY_KEY = b"-----BEGIN PRIVATE KEY-----", b"PRIVATE KEY-----"
ENCRYPTED = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")


def require_certificates(path: str, setting: str) -> None:
    """Raise ValueError where `path`, the value of `setting`, is no file of PEM certificates that can be read, or holds
    none that is valid today."""
    _read(path, setting)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"{setting} {path} cannot be read: it holds no PEM certificates") from None
    _require_valid(path, setting)


def require_key_pair(certificate: str, key: str, password: str) -> None:
    """Raise ValueError where the client certificate and its private key are not PEM, not of each other, or the key is
    not encrypted by the password, if there is one.

    Args:
        key: empty, where it lies in the certificate's file.
    """
    where = f"ssl_key_location {key}" if key else f"ssl_certificate_location {certificate}"
    _read(certificate, "ssl_certificate_location")
    held = _read(key, "ssl_key_location") if key else _read(certificate, "ssl_certificate_location")
    if ANY_KEY not in held:
        raise ValueError(f"{where} holds no private key in PEM")
    if _is_encrypted(held) and not password:
        raise ValueError(f"{where} is encrypted: set ssl_key_password")
    if password and not _is_encrypted(held):
        raise ValueError(f"{where} is not encrypted, though ssl_key_password is set")
    from cryptography import x509  # here: it takes longer to load than all else, and most settings name no certificate
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        first = x509.load_pem_x509_certificates(Path(certificate).read_bytes())[0]
    except ValueError:
        raise ValueError(
            f"ssl_certificate_location {certificate} cannot be read: it holds no PEM certificates"
        ) from None
    try:
        private = serialization.load_pem_private_key(held, password.encode() if password else None)
    except UnsupportedAlgorithm as exc:
        raise ValueError(f"{where} has a key of a kind that clients do not know: {exc}") from None
    except (ValueError, TypeError):
        raise ValueError(f"{where} does not open{' by ssl_key_password' if password else ''}") from None
    try:
        public = first.public_key().public_bytes(*form)
    except (UnsupportedAlgorithm, ValueError) as exc:
        what = f"ssl_certificate_location {certificate} has a key of a kind that clients do not know"
        raise ValueError(f"{what}: {exc}") from None
    if public != private.public_key().public_bytes(*form):
        raise ValueError(f"{where} is not the key of the certificate in {certificate}")
    _require_valid(certificate, "ssl_certificate_location")


def key_for_java(path: str, password: str) -> str | None:
    """Return the private key as PEM in PKCS#8, without a password; None where the file has it like that already.

    Kafka's client in Java reads no other, and Java 17 none that is encrypted as OpenSSL does it (PBES2).
    """
    held = Path(path).read_bytes()
    if PLAIN in held:
        return None
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(held, password.encode() if password else None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


def subject(path: str) -> str:
    """Return the subject of the first certificate in the file, as brokers name the user who shows it:
    `CN=app,O=org`."""
    from cryptography import x509

    return x509.load_pem_x509_certificates(Path(path).read_bytes())[0].subject.rfc4514_string()


def _is_encrypted(held: bytes) -> bool:
    return any(mark in held for mark in ENCRYPTED)


def _read(path: str, setting: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise ValueError(f"{setting} {path} cannot be read: {exc.strerror}") from None


def _require_valid(path: str, setting: str) -> None:
    """Raise ValueError where every certificate of the file is expired, or begins later."""
    from cryptography import x509

    now = dt.datetime.now(dt.UTC)
    held = x509.load_pem_x509_certificates(Path(path).read_bytes())
    # In a client's chain only the first is its own; among authorities any one will do.
    judged = held[:1] if setting == "ssl_certificate_location" else held
    if not any(each.not_valid_before_utc <= now <= each.not_valid_after_utc for each in judged):
        first = judged[0]
        if first.not_valid_before_utc > now:
            raise ValueError(f"{setting} {path} is not valid before {first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
        raise ValueError(f"{setting} {path} expired at {first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
