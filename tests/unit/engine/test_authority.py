"""The CA: made once with safe modes, loaded as it was left, and refused with the remedy when it cannot be used."""

import datetime as dt
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from regproxy.engine.authority import Authority, AuthorityError, SigningKey, load_or_create

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Old CA")])


def load(directory: Path, passphrase: str | None = None, now: dt.datetime = NOW) -> Authority:
    return load_or_create(directory / "ca.crt", directory / "ca.key", passphrase, now)


def write_certificate(directory: Path, key: SigningKey, days: int = 365) -> None:
    certificate = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - dt.timedelta(days=400))
        .not_valid_after(NOW + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def write_key(directory: Path, key: SigningKey | ed25519.Ed25519PrivateKey, passphrase: bytes | None = None) -> None:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    (directory / "ca.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, encryption)
        if not isinstance(key, ed25519.Ed25519PrivateKey)
        else key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )


@pytest.fixture(scope="module")
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_a_new_authority_is_an_ec_ca_that_signed_itself(tmp_path: Path) -> None:
    """It is P-256, may sign certificates but no further CA, and lives 825 days."""
    created = load(tmp_path / "ca")

    assert isinstance(created.key, ec.EllipticCurvePrivateKey)
    assert isinstance(created.key.curve, ec.SECP256R1)
    created.certificate.verify_directly_issued_by(created.certificate)
    constraints = created.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = created.certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign) == (True, True)
    lifetime = created.certificate.not_valid_after_utc - created.certificate.not_valid_before_utc
    assert lifetime == dt.timedelta(days=825)
    assert created.certificate.not_valid_before_utc == NOW - dt.timedelta(days=1)


def test_the_key_of_a_new_authority_is_for_its_owner_only(tmp_path: Path) -> None:
    """The directory is 0700 and the key 0600, whatever the umask; no temporary file is left."""
    before = os.umask(0)
    try:
        load(tmp_path / "ca")
    finally:
        os.umask(before)

    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in (tmp_path / "ca").iterdir()} == {"ca.crt", "ca.key"}


def test_everybody_may_read_the_certificate_of_a_new_authority(tmp_path: Path) -> None:
    """It is to be trusted by others; the entry point's umask of 077 is for the cache."""
    before = os.umask(0o077)
    try:
        load(tmp_path / "ca")
    finally:
        os.umask(before)

    assert (tmp_path / "ca" / "ca.crt").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600


def test_a_second_start_uses_the_same_authority(tmp_path: Path) -> None:
    """Clients that trust the CA go on trusting it, and `/ca.crt` is the file's bytes."""
    created, loaded = load(tmp_path), load(tmp_path)

    assert loaded.certificate == created.certificate
    assert loaded.chain_pem == created.chain_pem == (tmp_path / "ca.crt").read_bytes()
    assert loaded.key.public_key() == created.certificate.public_key()


def test_what_a_crash_left_behind_does_not_stop_the_next_start(tmp_path: Path) -> None:
    """In a container every start has the same process id, and so the same temporary name."""
    (tmp_path / f".ca.key.{os.getpid()}").write_bytes(b"half a key")

    load(tmp_path)

    assert b"half" not in (tmp_path / "ca.key").read_bytes()


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        (None, None),
        (None, "not needed"),
        (b"foobar", None),
        (b"foobar", "another"),
        (b"s3cret", "s3cret"),
        ("pässwörd".encode(), "pässwörd"),
    ],
)
@pytest.mark.parametrize("kind", ["ec_key", "rsa_key"])
def test_an_existing_authority_is_loaded(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, stored: bytes | None, given: str | None
) -> None:
    """RSA or EC, in clear, with the operator's passphrase, or with the predecessor's."""
    key: SigningKey = request.getfixturevalue(kind)
    write_certificate(tmp_path, key)
    write_key(tmp_path, key, stored)

    loaded = load(tmp_path, given)

    assert loaded.key.public_key() == key.public_key()
    assert loaded.certificate.subject == NAME


def key_without_certificate(directory: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_key(directory, key)


def certificate_without_key(directory: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_certificate(directory, key)


def certificate_of_garbage(directory: Path, key: ec.EllipticCurvePrivateKey) -> None:
    (directory / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
    write_key(directory, key)


def certificate_that_is_a_directory(directory: Path, key: ec.EllipticCurvePrivateKey) -> None:
    (directory / "ca.crt").mkdir()
    write_key(directory, key)


def key_that_is_a_directory(directory: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_certificate(directory, key)
    (directory / "ca.key").mkdir()


def key_of_garbage(directory: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_certificate(directory, key)
    (directory / "ca.key").write_text("nonsense")


def key_with_an_unknown_passphrase(directory: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_certificate(directory, key)
    write_key(directory, key, b"unknown")


def key_of_another_certificate(directory: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_certificate(directory, key)
    write_key(directory, ec.generate_private_key(ec.SECP256R1()))


def key_of_another_kind(directory: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_certificate(directory, key)
    write_key(directory, ed25519.Ed25519PrivateKey.generate())


def certificate_whose_time_is_over(directory: Path, key: ec.EllipticCurvePrivateKey) -> None:
    write_certificate(directory, key, days=-1)
    write_key(directory, key)


@pytest.mark.parametrize(
    ("arrange", "words"),
    [
        (key_without_certificate, ["ca.key exists", "ca.crt does not", "restore"]),
        (certificate_without_key, ["ca.crt has no key", "ca.key", "remove"]),
        (certificate_of_garbage, ["ca.crt cannot be read"]),
        (certificate_that_is_a_directory, ["ca.crt cannot be read", "Is a directory"]),
        (key_that_is_a_directory, ["ca.key cannot be read", "Is a directory"]),
        (key_of_garbage, ["ca.key cannot be decrypted", "CERT_PASSWORD"]),
        (key_with_an_unknown_passphrase, ["ca.key cannot be decrypted", "CERT_PASSWORD"]),
        (key_of_another_certificate, ["ca.key does not belong", "ca.crt"]),
        (key_of_another_kind, ["ca.key", "neither an EC nor an RSA key"]),
        (certificate_whose_time_is_over, ["ca.crt", "2026-11-20", "remove"]),
    ],
)
def test_files_that_cannot_be_used_are_named_with_the_remedy(
    tmp_path: Path,
    ec_key: ec.EllipticCurvePrivateKey,
    arrange: Callable[[Path, ec.EllipticCurvePrivateKey], None],
    words: list[str],
) -> None:
    """The error names the file and what to do, shows no passphrase, and changes no file."""
    arrange(tmp_path, ec_key)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(AuthorityError) as raised:
        load(tmp_path, "hunter2")

    assert all(word in str(raised.value) for word in words), str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The message says where and why, and that existing files would do as well."""
    (tmp_path / "file").write_text("")

    with pytest.raises(AuthorityError, match=r"cannot be written to .*/file/ca: .*put ca.crt and ca.key there"):
        load(tmp_path / "file" / "ca")


def test_an_authority_in_a_log_has_no_key(tmp_path: Path) -> None:
    """Its repr is the subject and nothing else."""
    assert re.fullmatch(r"Authority\(CN=registry-proxy CA 2026-11-21 [0-9a-f]{8}\)", repr(load(tmp_path)))
