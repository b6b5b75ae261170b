"""The command that makes a certificate for a server beside the proxy."""

import datetime as dt
import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from regproxy.stack.server_certificate import main

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
NAMES = ("registry.local", "registry", "192.0.2.7")


def run(directory: Path, *names: str, now: dt.datetime = NOW, out: str = "certs") -> int:
    return main([str(directory / out), *names], {"CA_DIRECTORY": str(directory / "ca")}, now)


def leaf(directory: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / "certs/registry.local.crt").read_bytes())


def test_the_pair_is_of_the_proxys_ca_and_for_all_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names and addresses are alternative names, the CA follows the leaf in the file, and the key belongs to it."""
    assert run(tmp_path, *NAMES) == 0

    certificates = x509.load_pem_x509_certificates((tmp_path / "certs/registry.local.crt").read_bytes())
    authority = x509.load_pem_x509_certificate((tmp_path / "ca/ca.crt").read_bytes())
    assert certificates == [leaf(tmp_path), authority]
    leaf(tmp_path).verify_directly_issued_by(authority)
    named = leaf(tmp_path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert named.get_values_for_type(x509.DNSName) == ["registry.local", "registry"]
    assert named.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("192.0.2.7")]
    usage = leaf(tmp_path).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    key = load_pem_private_key((tmp_path / "certs/registry.local.key").read_bytes(), None)
    assert key.public_key() == leaf(tmp_path).public_key()
    assert capsys.readouterr().out.startswith("wrote ")


def test_only_its_owner_can_read_the_key(tmp_path: Path) -> None:
    """The certificate is for everybody."""
    run(tmp_path, *NAMES)

    assert stat.S_IMODE((tmp_path / "certs/registry.local.key").stat().st_mode) == 0o600


def test_a_good_pair_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command may run at every start: what servers use does not change under them."""
    run(tmp_path, *NAMES)
    before = leaf(tmp_path)
    capsys.readouterr()

    assert run(tmp_path, *NAMES, now=NOW + dt.timedelta(days=100)) == 0
    assert leaf(tmp_path) == before
    assert capsys.readouterr().out.startswith("kept ")


@pytest.mark.parametrize(
    "change", ["old", "other names", "other CA", "damaged certificate", "damaged key", "other key", "no key"]
)
def test_a_pair_that_is_not_good_is_replaced(tmp_path: Path, change: str) -> None:
    """It is nearly over, for other names, of another CA, or damaged: a new one is written over it."""
    run(tmp_path, *NAMES)
    names: tuple[str, ...] = NAMES
    before, now = leaf(tmp_path), NOW
    key_file = tmp_path / "certs/registry.local.key"
    match change:
        case "old":
            now = NOW + dt.timedelta(days=170)
        case "other names":
            names = NAMES[:2]
        case "other CA":
            (tmp_path / "ca").rename(tmp_path / "ca-of-before")
        case "damaged certificate":
            (tmp_path / "certs/registry.local.crt").write_text("nothing")
        case "damaged key":
            key_file.write_text("nothing")
        case "other key":
            key_file.write_bytes((tmp_path / "ca/ca.key").read_bytes())
        case "no key":
            key_file.unlink()

    assert run(tmp_path, *names, now=now) == 0
    assert leaf(tmp_path) != before
    assert run(tmp_path, *names, now=now) == 0


@pytest.mark.parametrize("arguments", [(), ("somewhere",), ("somewhere", "../evil"), ("somewhere", "a b")])
def test_a_wrong_use_is_told(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """No name, or one that is none: nothing is written."""
    assert main(list(arguments), {}, NOW) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the directory and the user, and the exit code is 1."""
    (tmp_path / "certs").write_text("a file is in the way")

    assert run(tmp_path, *NAMES) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "certs") in line
    assert "user id" in line


def test_a_ca_without_its_key_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No second CA is made beside a certificate that hosts trust already."""
    run(tmp_path, *NAMES)
    (tmp_path / "ca/ca.key").unlink()

    assert run(tmp_path, *NAMES) == 1
    assert "ca.key" in capsys.readouterr().err
