"""Certificates for tests on loopback: of servers, signed by themselves, and of clients, signed by an authority."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
PEM = serialization.Encoding.PEM
DAY = dt.timedelta(days=1)


def certify(folder: Path) -> None:
    """Write `ca.pem`, the certificate, and `server.pem`, its key and the certificate, for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    builder = _builder(_name(HOST), _name(HOST), key).add_extension(address, critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    (folder / "ca.pem").write_bytes(certificate.public_bytes(PEM))
    (folder / "server.pem").write_bytes(_text(key) + certificate.public_bytes(PEM))


class Authority:
    """Signs certificates of clients; `certificate` is its own, as PEM."""

    def __init__(self) -> None:
        self._key, self._name = ec.generate_private_key(ec.SECP256R1()), _name("clients")
        authority = x509.BasicConstraints(ca=True, path_length=None)
        builder = _builder(self._name, self._name, self._key).add_extension(authority, critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(PEM)

    def issue(
        self, folder: Path, user: str, password: str = "", *, since: dt.timedelta = -DAY, until: dt.timedelta = DAY
    ) -> tuple[str, str]:
        """Write the certificate and the key of CN=`user`, for a day or the time from now that is given; their paths.

        Args:
            password: that the key is encrypted by; empty: it is not.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(user), self._name, key, since, until)
        folder.mkdir(parents=True, exist_ok=True)
        certificate, private = folder / "tls.crt", folder / "tls.key"
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(PEM))
        private.write_bytes(_text(key, password))
        return str(certificate), str(private)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    since: dt.timedelta = -DAY,
    until: dt.timedelta = DAY,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now + since).not_valid_after(now + until)


def _text(key: ec.EllipticCurvePrivateKey, password: str = "") -> bytes:
    how: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        how = serialization.BestAvailableEncryption(password.encode())
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, how)
