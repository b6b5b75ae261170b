"""The keys and certificates of one run of the lab: a CA, one server certificate for every name, the token signer.

Strict enough for OpenSSL's VERIFY_X509_STRICT, which Python 3.13 turns on: key identifiers and usages are all there.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

type _Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Pki:
    """Files of one run's keys. Keys are not encrypted and live in the test's temporary directory."""

    ca_file: Path
    certificate_file: Path
    """Server certificate followed by the CA's."""
    key_file: Path
    token_certificate_file: Path
    """Self-signed; `rootcertbundle` of registries that want bearer tokens."""
    token_key_file: Path


def create_pki(directory: Path, dns_names: Sequence[str], hosts: Sequence[str]) -> Pki:
    """Write new keys to `directory`; the server certificate is good for all `dns_names` and IP addresses `hosts`."""
    directory.mkdir(parents=True)
    pki = Pki(
        ca_file=directory / "ca.crt",
        certificate_file=directory / "server.crt",
        key_file=directory / "server.key",
        token_certificate_file=directory / "token.crt",
        token_key_file=directory / "token.key",
    )
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _ca_certificate(ca_key, "Lab Upstream CA")
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = _server_certificate(server_key, ca, ca_key, dns_names, hosts)
    token_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pki.ca_file.write_bytes(_pem(ca))
    pki.certificate_file.write_bytes(_pem(server) + _pem(ca))
    pki.token_certificate_file.write_bytes(_pem(_ca_certificate(token_key, "Lab token issuer")))
    _write_key(pki.key_file, server_key)
    _write_key(pki.token_key_file, token_key)
    return pki


def _builder(
    subject: str, issuer: x509.Name | None, public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _ca_certificate(key: _Key, subject: str) -> x509.Certificate:
    return (
        _builder(subject, None, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _server_certificate(
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    dns_names: Sequence[str],
    hosts: Sequence[str],
) -> x509.Certificate:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
    names.extend(x509.IPAddress(ipaddress.ip_address(host)) for host in hosts)
    return (
        _builder("lab.test", ca.subject, key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, key: _Key) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
