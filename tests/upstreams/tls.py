"""Certificates made on the spot: a small authority, and the ways in which a certificate is wrong."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Authority:
    """A certificate authority that lives as long as this object and is trusted by nobody but `trust()`."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = name("Tests' own authority")
        self._certificate = self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))

    def trust(self) -> ssl.SSLContext:
        """Return a client context that trusts this authority and nothing else."""
        return ssl.create_default_context(cadata=self._certificate.public_bytes(PEM).decode())

    def server(self, kind: str) -> ssl.SSLContext:
        """Return a server context; `kind` is "good", "self-signed", "expired" or "wrong-host"."""
        key = ec.generate_private_key(ec.SECP256R1())
        local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        elsewhere = x509.SubjectAlternativeName([x509.DNSName("elsewhere.example")])
        match kind:
            case "good":
                certificate = self._sign(name("127.0.0.1"), key, local)
            case "expired":
                certificate = self._sign(name("127.0.0.1"), key, local, until=-DAY)
            case "wrong-host":
                certificate = self._sign(name("elsewhere.example"), key, elsewhere)
            case "self-signed":
                certificate = self._sign(name("127.0.0.1"), key, local, issuer=name("127.0.0.1"), issuer_key=key)
            case _:
                raise ValueError(f"no such certificate: {kind}")
        return context_of(certificate, key)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extension: x509.ExtensionType,
        until: datetime.timedelta = DAY,
        issuer: x509.Name | None = None,
        issuer_key: ec.EllipticCurvePrivateKey | None = None,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + until)
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        )
        return builder.sign(issuer_key or self._key, hashes.SHA256())


def context_of(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    """Return a server context with this certificate; `ssl` takes the pair from files only."""
    unencrypted = serialization.NoEncryption()
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder, "pair.pem")
        pair.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, unencrypted))
        with pair.open("ab") as file:
            file.write(certificate.public_bytes(PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
    return context
