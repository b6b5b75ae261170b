"""Our certificate authority: loaded from its two files, or made when there is none (contract section 1.7).

A new one is ECDSA P-256, which mitmproxy's and every client's TLS verify and which makes a handshake about 1 ms
cheaper than RSA 2048. An existing one may be RSA or EC, and its key encrypted with the predecessor's passphrase.
"""

import datetime as dt
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PREDECESSOR_PASSPHRASE = b"foobar"
LIFETIME_DAYS = 825
"""The longest lifetime that Apple's and the CA/Browser Forum's rules accept from a private authority."""

NAME = "registry-proxy CA"
"""How the names of CAs begin that are made here."""

CLOCKS_DIFFER = dt.timedelta(days=1)
"""How far the clocks of clients may be behind ours; part of the lifetime, so that the whole is not longer."""

WARN_BEFORE = dt.timedelta(days=90)
"""A CA that ends sooner is told of at each start: every client has to be given the next one."""

_PEM_LABEL = re.compile(rb"-----BEGIN ([^-\r\n]+)-----")
_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

type SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class AuthorityError(ValueError):
    """The CA's files cannot be used; the text names the file and the remedy."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: SigningKey
    chain_pem: bytes
    """The certificate file's bytes, as `/ca.crt` serves them; never a private key, even if one is in that file."""

    @property
    def was_made_here(self) -> bool:
        """Whether `create` made it, for this proxy or another one of its kind."""
        certificate = self.certificate
        named = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return certificate.issuer == certificate.subject and any(str(each.value).startswith(NAME) for each in named)

    def end_is_near(self, certificate_file: Path, now: dt.datetime) -> tuple[str, ...]:
        """Return the line that warns of a CA that ends soon, none if there is time."""
        ends = self.certificate.not_valid_after_utc
        if ends - now > WARN_BEFORE:
            return ()
        words = f"the CA certificate {certificate_file} ends on {ends:%Y-%m-%d}, in {(ends - now).days} days: "
        return (words + "make the next one and let every client trust it before (docs/ca.md)",)

    def __repr__(self) -> str:
        """Show the subject only."""
        return f"Authority({self.certificate.subject.rfc4514_string()})"


def load_or_create(
    certificate_file: Path,
    key_file: Path,
    passphrase: str | None,
    now: dt.datetime,
    limits: x509.NameConstraints | None = None,
) -> Authority:
    """Return the authority in the two files; make one when neither file exists.

    `passphrase` is tried before the predecessor's when the key is encrypted. `limits` are the names that a new CA can
    sign for; one that exists stays as it is. Raises `AuthorityError`.
    """
    if certificate_file.exists():
        return load(certificate_file, key_file, passphrase, now)
    if key_file.exists():
        raise AuthorityError(
            f"{key_file} exists but its certificate {certificate_file} does not: restore the certificate, "
            "or remove the key to get a new CA"
        )
    return create(certificate_file, key_file, now, limits)


def load(certificate_file: Path, key_file: Path, passphrase: str | None, now: dt.datetime) -> Authority:
    """Return the authority in the two files. Raises `AuthorityError`."""
    try:
        chain_pem = _certificates_only(certificate_file.read_bytes())
        certificate = x509.load_pem_x509_certificate(chain_pem)
    except (OSError, ValueError) as error:
        raise AuthorityError(f"the CA certificate {certificate_file} cannot be read: {_reason(error)}") from None
    if certificate.not_valid_after_utc <= now:
        raise AuthorityError(
            f"the CA certificate {certificate_file} ended on {certificate.not_valid_after_utc:%Y-%m-%d}: "
            f"put a new one there, or remove it and {key_file.name} to get a new CA"
        )
    if not _may_sign(certificate):
        raise AuthorityError(
            f"the certificate {certificate_file} is not that of a CA (basicConstraints CA:TRUE, keyUsage keyCertSign), "
            "clients would refuse what it signs: put the CA's own certificate and key there"
        )
    try:
        key_pem = key_file.read_bytes()
    except FileNotFoundError:
        raise AuthorityError(
            f"the CA certificate {certificate_file} has no key: put it at {key_file}, "
            "or remove the certificate to get a new CA"
        ) from None
    except OSError as error:
        raise AuthorityError(f"the CA key {key_file} cannot be read: {_reason(error)}") from None
    key = _load_key(key_file, key_pem, passphrase)
    if key.public_key() != certificate.public_key():
        raise AuthorityError(
            f"the CA key {key_file} does not belong to the certificate {certificate_file}: "
            "put the key of that certificate there, or remove both to get a new CA"
        )
    return Authority(certificate, key, chain_pem)


def _certificates_only(pem: bytes) -> bytes:
    """Return a certificate file without what is no certificate: `CA_CRT_FILE` may name a file with the key in it."""
    if all(label == b"CERTIFICATE" for label in _PEM_LABEL.findall(pem)):
        return pem
    return b"".join(block + b"\n" for block in _PEM_CERTIFICATE.findall(pem))


def _may_sign(certificate: x509.Certificate) -> bool:
    """Whether clients accept it as an issuer (RFC 5280 section 6.1.4 k and n); an X.509 v1 root cannot say."""
    if certificate.version is x509.Version.v1:
        return True
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = next((each for each in certificate.extensions if isinstance(each.value, x509.KeyUsage)), None)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    return constraints.value.ca and (usage is None or usage.value.key_cert_sign)


def _load_key(key_file: Path, key_pem: bytes, passphrase: str | None) -> SigningKey:
    attempts = [None, *([passphrase.encode()] if passphrase else []), PREDECESSOR_PASSPHRASE]
    for attempt in attempts:
        try:
            key = serialization.load_pem_private_key(key_pem, password=attempt)
        except (TypeError, ValueError):
            continue  # TypeError: encrypted and no passphrase given, or the other way round
        if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            return key
        raise AuthorityError(f"the CA key {key_file} is neither an EC nor an RSA key")
    raise AuthorityError(
        f"the CA key {key_file} cannot be decrypted: it is damaged, or set CERT_PASSWORD to its passphrase"
    )


def create(
    certificate_file: Path, key_file: Path, now: dt.datetime, limits: x509.NameConstraints | None = None
) -> Authority:
    """Make an authority, write it to the two files and return it. Raises `AuthorityError`."""
    key = ec.generate_private_key(ec.SECP256R1())
    mark = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:8]  # two may be of one day
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{NAME} {now:%Y-%m-%d} {mark}")])
    begins = now - CLOCKS_DIFFER
    unsigned = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + dt.timedelta(days=LIFETIME_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if limits is not None:
        # Critical (RFC 5280 section 4.2.1.10): a client that does not know it must not trust the CA for everything.
        unsigned = unsigned.add_extension(limits, critical=True)
    certificate = unsigned.sign(key, hashes.SHA256())
    chain_pem = certificate.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        certificate_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(key_file, key_pem, 0o600)
        write_whole(certificate_file, chain_pem, 0o644)
    except OSError as error:
        raise AuthorityError(
            f"a new CA cannot be written to {certificate_file.parent}: {_reason(error)}; make it writable once, "
            "or put ca.crt and ca.key there"
        ) from None
    return Authority(certificate, key, chain_pem)


def _key_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def write_whole(path: Path, content: bytes, mode: int) -> None:
    """Write `path` whole or not at all, never readable by others in between. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # of a start that was killed: in a container every start has the same process id
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)  # the umask of the entry point would keep the certificate from those who are to trust it
        file.write(content)
        file.flush()
        os.fsync(fd)
    temporary.rename(path)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
