"""A Docker configuration that changes on the disk while the proxy runs."""

import json
import logging
import os
from pathlib import Path

import pytest

from regproxy.origin.credential_file import LOOK_INTERVAL_S, SIZE_LIMIT_BYTES, CredentialFile

SECRET = "s3cret-word"


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s

    def pass_interval(self) -> None:
        """Let the file be looked at again."""
        self.now_s += LOOK_INTERVAL_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def content(username: str) -> str:
    return json.dumps({"auths": {"quay.io": {"username": username, "password": SECRET}}})


def users(file: CredentialFile) -> list[str]:
    return [credential.username for credential in file.current().credentials]


def test_a_changed_file_is_read_again_after_a_moment(path: Path, clock: Clock) -> None:
    """The file is looked at once a second at most, and what it says now counts then."""
    path.write_text(content("old"))
    file = CredentialFile(path, clock)
    assert users(file) == ["old"]
    path.write_text(content("newer"))
    assert users(file) == ["old"]
    clock.pass_interval()
    assert users(file) == ["newer"]


def test_a_replaced_file_of_the_same_size_and_time_is_read(path: Path, clock: Clock) -> None:
    """Programs write beside a file and rename: another inode is another file."""
    path.write_text(content("aaa"))
    file = CredentialFile(path, clock)
    assert users(file) == ["aaa"]
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    (path.parent / "next").write_text(content("bbb"))
    os.utime(path.parent / "next", ns=times)
    (path.parent / "next").replace(path)
    clock.pass_interval()
    assert users(file) == ["bbb"]


@pytest.mark.parametrize("named", ["folder", "file"])
def test_the_kubelet_s_swap_of_a_secret_is_seen(tmp_path: Path, clock: Clock, named: str) -> None:
    """A mounted secret is a link to a link to a folder of a version; the kubelet renames the middle one."""
    mount = tmp_path / "secret"
    for version in ("v1", "v2"):
        (mount / version).mkdir(parents=True)
        (mount / version / ".dockerconfigjson").write_text(content(version))
    (mount / "..data").symlink_to("v1")
    (mount / ".dockerconfigjson").symlink_to("..data/.dockerconfigjson")
    file = CredentialFile(mount if named == "folder" else mount / ".dockerconfigjson", clock)
    assert users(file) == ["v1"]
    (mount / "..data_tmp").symlink_to("v2")
    (mount / "..data_tmp").replace(mount / "..data")
    clock.pass_interval()
    assert users(file) == ["v2"]


def test_a_folder_of_docker_is_read(path: Path, clock: Clock) -> None:
    """`~/.docker` is as good as the file in it."""
    path.write_text(content("bob"))
    assert users(CredentialFile(path.parent, clock)) == ["bob"]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(f'{{"auths": {{"quay.io": {{"password": "{SECRET}"'.encode(), id="cut"),
        pytest.param(b"\xff\xfe" + SECRET.encode(), id="no text"),
        pytest.param(b" " * (SIZE_LIMIT_BYTES + 1), id="too large"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_broken_file_keeps_the_old_logins_and_is_said_once(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, broken: bytes
) -> None:
    """Pulls go on with what was read before; one warning names the file and shows nothing of it."""
    path.write_text(content("bob"))
    file = CredentialFile(path, clock)
    assert users(file) == ["bob"]
    path.write_bytes(broken)
    for _ in range(3):
        clock.pass_interval()
        assert users(file) == ["bob"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert SECRET not in caplog.text
    path.write_text(content("mended"))
    clock.pass_interval()
    assert users(file) == ["mended"]


def test_a_missing_file_is_said_once_and_read_when_it_comes(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A secret may be mounted later, and one that goes away leaves what it said."""
    file = CredentialFile(path, clock)
    for _ in range(3):
        assert users(file) == []
        clock.pass_interval()
    assert caplog.text.count("No such file") == 1
    path.write_text(content("bob"))
    assert users(file) == ["bob"]
    path.unlink()
    clock.pass_interval()
    assert users(file) == ["bob"]


def test_a_pipe_in_its_place_is_not_waited_for(path: Path, clock: Clock) -> None:
    """Opening it must not stop the proxy."""
    os.mkfifo(path)
    assert users(CredentialFile(path, clock)) == []


def test_entries_that_are_left_out_are_said(path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The warning names file and entry."""
    path.write_text(json.dumps({"auths": {"quay.io": {"auth": SECRET}}}))
    assert users(CredentialFile(path, clock)) == []
    assert f"AUTH_CONFIG_FILE={path}: auths: 'quay.io' is left out" in caplog.text
    assert SECRET not in caplog.text
