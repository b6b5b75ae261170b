"""CAs of the predecessors and of operators, made by openssl as they make them: leaves verify against the old ca.crt."""

import contextlib
import datetime as dt
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from regproxy.engine.authority import Authority, AuthorityError, load_or_create
from regproxy.engine.certificates import issue_leaf

NOBODY = 65534
FOOBAR = "foobar"
SUBJECT = "/C=NL/ST=Noord Holland/L=Amsterdam/O=ME/OU=IT/CN=DockerMirrorBox CA Root box 2023.05.01 10:00"
PREDECESSORS_EXTENSIONS = """
basicConstraints = critical,CA:TRUE
keyUsage = critical, digitalSignature, cRLSign, keyCertSign
subjectKeyIdentifier = hash
"""
FOREIGN_IDENTIFIER = """
basicConstraints = critical,CA:TRUE
subjectKeyIdentifier = 0102030405060708
"""

RSA = ("genrsa", "2048")
RSA_FOOBAR = ("genrsa", "-des3", "-passout", "pass:foobar", "4096")
RSA_FOOBAR_OLD_FORM = ("genrsa", "-traditional", "-des3", "-passout", "pass:foobar", "2048")
RSA_PASSWORD = ("genrsa", "-aes256", "-passout", "pass:s3cret", "2048")
EC = ("ecparam", "-name", "prime256v1", "-genkey")
EC_FOOBAR = ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-des3", "-pass", "pass:foobar")
EC_PASSWORD = ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes256", "-pass", "pass:s3cret")


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def openssl(*arguments: str) -> str:
    """Run openssl and return what it prints; CalledProcessError shows in the report why it failed."""
    completed = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def make_ca(
    directory: Path,
    key: tuple[str, ...],
    made_with: str = FOOBAR,
    extensions: str = PREDECESSORS_EXTENSIONS,
    days: int = 1300,
) -> None:
    """Make ca.key and ca.crt as the predecessor's create_ca_cert.sh does: the same openssl commands."""
    key_file, configuration = directory / "ca.key", directory.parent / "openssl.cnf"
    key_file.write_text(openssl(*key))
    configuration.write_text(f"[req]\ndistinguished_name = dn\n[dn]\n[IA]\n{extensions}\n")
    with_extensions = ("-extensions", "IA") if extensions else ()
    openssl(
        *("req", "-new", "-x509", "-days", str(days), "-sha256", "-key", str(key_file), "-passin", f"pass:{made_with}"),
        *("-out", str(directory / "ca.crt"), "-subj", SUBJECT, "-config", str(configuration), *with_extensions),
    )


def load(directory: Path, password: str | None = None) -> Authority:
    return load_or_create(directory / "ca.crt", directory / "ca.key", password, now())


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """Return an empty directory for a CA."""
    directory = tmp_path / "ca"
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    ("key", "made_with", "given"),
    [
        pytest.param(RSA_FOOBAR, "foobar", None, id="the predecessor's"),
        pytest.param(RSA_FOOBAR_OLD_FORM, "foobar", None, id="the predecessor's, by OpenSSL 1.1"),
        pytest.param(RSA_FOOBAR, "foobar", "s3cret", id="the predecessor's, with a password that it did not need"),
        pytest.param(RSA, "", None, id="RSA in clear"),
        pytest.param(RSA_PASSWORD, "s3cret", "s3cret", id="RSA with CERT_PASSWORD"),
        pytest.param(EC, "", None, id="EC in clear, after its parameters"),
        pytest.param(EC_FOOBAR, "foobar", None, id="EC with foobar"),
        pytest.param(EC_PASSWORD, "s3cret", "s3cret", id="EC with CERT_PASSWORD"),
    ],
)
@pytest.mark.parametrize("extensions", [PREDECESSORS_EXTENSIONS, FOREIGN_IDENTIFIER], ids=["as made", "foreign SKI"])
def test_a_leaf_of_an_old_ca_verifies_against_its_certificate(
    ca: Path, key: tuple[str, ...], made_with: str, given: str | None, extensions: str
) -> None:
    """So clients that trust the old ca.crt go on to do so; its bytes are what `/ca.crt` serves."""
    make_ca(ca, key, made_with, extensions)
    before = {path.name: path.read_bytes() for path in ca.iterdir()}

    authority = load(ca, given)
    leaf = issue_leaf(authority, ec.generate_private_key(ec.SECP256R1()), "registry-1.docker.io", now())
    leaf_file = ca.parent / "leaf.crt"
    leaf_file.write_bytes(leaf.public_bytes(Encoding.PEM))

    purpose = ("-purpose", "sslserver", "-x509_strict", "-verify_hostname", "registry-1.docker.io")
    strict = purpose if extensions == PREDECESSORS_EXTENSIONS else purpose[:2]
    assert "OK" in openssl("verify", "-CAfile", str(ca / "ca.crt"), *strict, str(leaf_file))
    assert authority.chain_pem == before["ca.crt"]
    assert {path.name: path.read_bytes() for path in ca.iterdir()} == before


@pytest.mark.parametrize(
    ("extensions", "told"),
    [
        pytest.param("basicConstraints = critical,CA:FALSE", "not that of a CA", id="says that it is none"),
        pytest.param("subjectKeyIdentifier = hash", "not that of a CA", id="does not say that it is one"),
        pytest.param(
            "basicConstraints = CA:TRUE\nkeyUsage = digitalSignature",
            "not that of a CA",
            id="may not sign certificates",
        ),
    ],
)
def test_a_certificate_that_is_no_ca_is_refused(ca: Path, extensions: str, told: str) -> None:
    """Clients would refuse every leaf; the line names the file."""
    make_ca(ca, EC, extensions=extensions)

    with pytest.raises(AuthorityError) as raised:
        load(ca)

    assert told in str(raised.value)
    assert str(ca / "ca.crt") in str(raised.value)


def without_key(ca: Path) -> None:
    (ca / "ca.key").unlink()


def with_another_key(ca: Path) -> None:
    (ca / "ca.key").write_text(openssl(*EC))


def with_an_unknown_passphrase(ca: Path) -> None:
    (ca / "ca.key").write_text(openssl(*RSA_PASSWORD))


@pytest.mark.parametrize(
    ("spoil", "file", "remedy"),
    [
        (without_key, "ca.crt", "put it at"),
        (with_another_key, "ca.key", "put the key of"),
        (with_an_unknown_passphrase, "ca.key", "CERT_PASSWORD"),
    ],
)
def test_half_a_ca_is_refused_in_one_line(ca: Path, spoil: Callable[[Path], None], file: str, remedy: str) -> None:
    """It names the file and the remedy."""
    make_ca(ca, RSA, "")
    spoil(ca)

    with pytest.raises(AuthorityError) as raised:
        load(ca)

    line = str(raised.value)
    assert "\n" not in line
    assert str(ca / file) in line
    assert remedy in line


def test_a_ca_that_has_ended_is_refused_and_one_that_ends_soon_is_told_of(ca: Path) -> None:
    """The predecessor's CA lives 1300 days and it never said so."""
    make_ca(ca, EC, days=30)
    certificate_file = ca / "ca.crt"
    authority = load(ca)

    (line,) = authority.end_is_near(certificate_file, now())
    assert str(certificate_file) in line
    assert "29 days" in line or "30 days" in line
    assert authority.end_is_near(certificate_file, now() - dt.timedelta(days=61)) == ()
    with pytest.raises(AuthorityError, match=r"ca\.crt ended on"):
        load_or_create(certificate_file, ca / "ca.key", None, now() + dt.timedelta(days=31))


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """Yield a directory with the predecessor's CA, and be a user without privileges while the test runs."""
    parent = Path(tempfile.mkdtemp(prefix="authority-"))
    parent.chmod(0o755)
    directory = parent / "ca"
    directory.mkdir()
    make_ca(directory, RSA_FOOBAR_OLD_FORM)
    is_root = os.geteuid() == 0
    directory.chmod(0o555)
    (directory / "ca.key").chmod(0o444)
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield directory
    finally:
        if is_root:
            os.seteuid(0)
        with contextlib.suppress(OSError):
            directory.chmod(0o755)
        shutil.rmtree(parent)


def test_a_ca_in_a_directory_that_cannot_be_written_is_used(as_nobody: Path) -> None:
    """A secret that is mounted read-only: nothing is written beside it."""
    with pytest.raises(PermissionError):
        (as_nobody / "probe").touch()

    assert load(as_nobody).chain_pem == (as_nobody / "ca.crt").read_bytes()


def test_a_key_that_may_not_be_read_is_told(as_nobody: Path) -> None:
    """The line names the key's file and the reason."""
    if os.getuid() == 0:
        os.seteuid(0)
    (as_nobody / "ca.key").chmod(0o000)
    if os.getuid() == 0:
        os.seteuid(NOBODY)

    with pytest.raises(AuthorityError, match=r"ca\.key cannot be read: Permission denied"):
        load(as_nobody)
