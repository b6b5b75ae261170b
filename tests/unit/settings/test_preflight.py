"""What the machine says before the start: real ports, real directories, real files."""

import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.addresses import free_port
from regproxy.settings import load_settings
from regproxy.settings.preflight import find_problems

NOBODY = 65534


def problems(directory: Path, **environ: str) -> tuple[str, ...]:
    """Return what is wrong with settings whose port and directories are good unless `environ` says otherwise."""
    good = {
        "LISTEN_HOST": "127.0.0.1",
        "LISTEN_PORT": str(free_port()),
        "CACHE_DIRECTORY": str(directory / "cache"),
        "CA_DIRECTORY": str(directory / "ca"),
    }
    return find_problems(load_settings(good | environ))


@contextmanager
def as_ordinary_user() -> Iterator[Path]:
    """Run the block as a user to whom permissions apply; gives a directory that is not theirs but can be read."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "theirs").mkdir()
        directory.chmod(0o755)
        directory.joinpath("theirs").chmod(0o555)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(NOBODY)
        try:
            yield directory / "theirs"
        finally:
            if is_root:
                os.seteuid(0)
            directory.joinpath("theirs").chmod(0o755)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pem") / "ca.crt"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=t",
    ]
    subprocess.run([*command, "-keyout", path.with_name("ca.key"), "-out", path], check=True, capture_output=True)
    return path


def test_a_good_machine_has_no_problems_and_private_directories(tmp_path: Path) -> None:
    """The directories are made, and nobody else can look into them."""
    assert problems(tmp_path) == ()
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_a_port_in_use_is_told_with_the_remedy(host: str, tmp_path: Path) -> None:
    """Also when the other program has the port on one address only and we want all."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = problems(tmp_path, LISTEN_PORT=str(port), LISTEN_HOST=host)

    address = host or "0.0.0.0"  # noqa: S104  # the expected text
    assert found == (f"port {port} on {address} is in use: stop the other program or set LISTEN_PORT",)


def test_a_port_in_use_on_ipv6_is_seen_when_all_addresses_are_wanted(tmp_path: Path) -> None:
    """The proxy listens on both families, so both must be free."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        found = problems(tmp_path, LISTEN_PORT=str(port), LISTEN_HOST="")

    assert found == (f"port {port} on :: is in use: stop the other program or set LISTEN_PORT",)


def test_a_port_with_only_finished_connections_is_free(tmp_path: Path) -> None:
    """A proxy that has just stopped can be started again at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
        client.close()

    assert problems(tmp_path, LISTEN_PORT=str(port)) == ()


def test_an_address_of_another_machine_cannot_be_listened_on(tmp_path: Path) -> None:
    """The reserved documentation address is nobody's."""
    assert problems(tmp_path, LISTEN_HOST="192.0.2.1") == ("LISTEN_HOST=192.0.2.1: not an address of this machine",)


def test_a_listen_name_without_an_address_is_told(tmp_path: Path) -> None:
    """A name that cannot exist has no address to listen on."""
    assert problems(tmp_path, LISTEN_HOST="no-such-host.invalid") == (
        "LISTEN_HOST=no-such-host.invalid: this name has no address",
    )


def test_a_cache_directory_below_a_file_is_told(tmp_path: Path) -> None:
    """What is in the way is named by the system's own words."""
    (tmp_path / "file").touch()
    found = problems(tmp_path, CACHE_DIRECTORY=str(tmp_path / "file" / "cache"))

    assert len(found) == 1
    assert found[0].startswith(
        f"CACHE_DIRECTORY={tmp_path}/file/cache: the cache cannot be written there (a file is in the way"
    )


def test_a_cache_directory_without_permission_is_told_with_the_user(tmp_path: Path) -> None:
    """The operator learns which user id needs the directory."""
    with as_ordinary_user() as theirs:
        good = {"LISTEN_HOST": "127.0.0.1", "LISTEN_PORT": str(free_port()), "CA_DIRECTORY": str(theirs)}
        found = find_problems(load_settings({**good, "CACHE_DIRECTORY": str(theirs)}))
        user = os.geteuid()

    assert tmp_path.exists()
    assert [line.split("=")[0] for line in found] == ["CACHE_DIRECTORY", "CA_DIRECTORY"]
    assert all(f"(Permission denied, user id {user})" in line for line in found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of another user")
def test_a_directory_of_another_user_is_told_with_both_remedies() -> None:
    """What a container that ran as root left is root's: chown it, or run as root again."""
    with as_ordinary_user() as theirs:
        good = {"LISTEN_HOST": "127.0.0.1", "LISTEN_PORT": str(free_port()), "CA_DIRECTORY": str(theirs)}
        found = find_problems(load_settings({**good, "CACHE_DIRECTORY": str(theirs)}))
        remedy = f"(chown -R {os.geteuid()} {theirs}), run as its owner (a container: --user 0) or set"

    assert len(found) == 2
    assert all(remedy in line for line in found)


def test_a_certificate_without_its_key_is_told(tmp_path: Path) -> None:
    """The predecessor stopped with an error of openssl here."""
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "ca.crt").write_text("x", encoding="utf-8")

    ca = tmp_path / "ca"

    assert problems(tmp_path) == (
        f"CA_KEY_FILE={ca}/ca.key: not there, but its certificate {ca}/ca.crt is: give both or neither",
    )


def test_a_key_without_its_certificate_is_told(tmp_path: Path) -> None:
    """A new CA must not be made over a key that somebody has put there."""
    (tmp_path / "k").write_text("x", encoding="utf-8")

    assert problems(tmp_path, CA_KEY_FILE=str(tmp_path / "k")) == (
        f"CA_CRT_FILE={tmp_path}/ca/ca.crt: not there, but its key {tmp_path}/k is: give both or neither",
    )


def test_a_key_that_cannot_be_read_is_told(certificate: Path) -> None:
    """A key of another user is named before TLS fails."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o777)  # another user must reach the files
        (directory / "ca.crt").write_bytes(certificate.read_bytes())
        (directory / "ca.key").touch(mode=0o000)
        (directory / "ca.crt").chmod(0o644)
        with as_ordinary_user():
            found = problems(directory, CA_DIRECTORY=name)
            user = os.geteuid()

    (line,) = found
    assert line.startswith(f"CA_KEY_FILE={name}/ca.key: cannot be read (Permission denied, user id {user})")


def test_an_empty_certificate_is_told(tmp_path: Path, certificate: Path) -> None:
    """An empty file is what a failed mount or a full disk leaves."""
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "ca.crt").touch()
    (tmp_path / "ca" / "ca.key").write_bytes(certificate.with_name("ca.key").read_bytes())

    assert problems(tmp_path) == (f"CA_CRT_FILE={tmp_path}/ca/ca.crt: the file is empty",)


def test_a_ca_that_is_there_needs_no_writing(certificate: Path) -> None:
    """The CA directory may be mounted read-only."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o777)  # another user must reach the files
        ca = directory / "ca"
        ca.mkdir()
        for file in (certificate, certificate.with_name("ca.key")):
            (ca / file.name).write_bytes(file.read_bytes())
        ca.chmod(0o555)
        with as_ordinary_user():
            found = problems(directory)

    assert found == ()


def test_a_new_ca_that_cannot_be_written_is_told_by_the_setting_that_placed_it(tmp_path: Path) -> None:
    """A certificate file elsewhere is not blamed on the CA directory."""
    (tmp_path / "file").touch()
    certificate = tmp_path / "file" / "ca.crt"
    found = problems(tmp_path, CA_CRT_FILE=str(certificate))

    assert len(found) == 1
    assert found[0].startswith(f"CA_CRT_FILE={certificate}: a new CA cannot be written there (a file is in the way")


def test_a_bundle_of_authorities_must_be_there_and_be_pem(tmp_path: Path, certificate: Path) -> None:
    """Verification with half of the authorities would fail later, at every pull."""
    (tmp_path / "text.pem").write_text("not a certificate", encoding="utf-8")

    assert problems(tmp_path, UPSTREAM_CA_FILE=str(certificate)) == ()
    assert problems(tmp_path, UPSTREAM_CA_FILE=str(tmp_path / "text.pem")) == (
        f"UPSTREAM_CA_FILE={tmp_path}/text.pem: not a bundle of PEM certificates",
    )
    assert problems(tmp_path, UPSTREAM_CA_FILE=str(tmp_path / "none.pem")) == (
        f"UPSTREAM_CA_FILE={tmp_path}/none.pem: cannot be read (No such file or directory)",
    )
