"""The settings of debug mode: its password, its ports, its program."""

import socket
from pathlib import Path

import pytest

from lab.addresses import AddressBlock
from regproxy.settings import SettingsError, load_settings
from regproxy.settings.preflight import find_problems

PASSWORD = "hunter2-s3cret"


@pytest.mark.parametrize(
    ("environ", "ports"),
    [
        ({}, ()),
        ({"DEBUG_NGINX": "true"}, ()),
        ({"DEBUG": "true"}, (8081,)),
        ({"DEBUG_HUB": "true"}, (8082,)),
        ({"DEBUG": "true", "DEBUG_HUB": "true"}, (8081, 8082)),
    ],
)
def test_the_ports_follow_from_the_switches(environ: dict[str, str], ports: tuple[int, ...]) -> None:
    """The predecessor's: 8081 for what clients ask, 8082 for what upstreams are asked."""
    assert load_settings(environ).debug_ports == ports


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_password_may_be_in_a_file(tmp_path: Path, end: str) -> None:
    """The line end that editors add is no part of it."""
    file = tmp_path / "password"
    file.write_bytes(f"{PASSWORD}{end}".encode())

    assert load_settings({"DEBUG_PASSWORD_FILE": str(file)}).debug_password == PASSWORD


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "DEBUG_PASSWORD_FILE={}: No such file or directory"),
        (b"s3cret", "DEBUG_PASSWORD_FILE: shorter than 8 characters"),
        (b"\xff" * 9, "DEBUG_PASSWORD_FILE={}: not a file of UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | None, problem: str
) -> None:
    """A start with a password that was not meant would be a surprise; what the file has is not repeated."""
    # a short path: long values are shortened in messages
    file = tmp_path_factory.mktemp("f") / "password"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        load_settings({"DEBUG_PASSWORD_FILE": str(file)})

    assert caught.value.problems == (problem.format(file),)


def test_a_short_password_is_an_error_that_does_not_show_it() -> None:
    """The interface is on the network."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"DEBUG_PASSWORD": "s3cret"})

    assert caught.value.problems == ("DEBUG_PASSWORD: shorter than 8 characters",)


def test_two_passwords_are_an_error(tmp_path: Path) -> None:
    """Which of them counts would be a guess."""
    file = tmp_path / "password"
    file.write_text(PASSWORD)

    with pytest.raises(SettingsError, match=r"^DEBUG_PASSWORD_FILE=.*: DEBUG_PASSWORD is set, too: keep one of them"):
        load_settings({"DEBUG_PASSWORD": PASSWORD, "DEBUG_PASSWORD_FILE": str(file)})


def test_the_password_is_in_no_text_of_the_settings() -> None:
    """A log of the settings has it not."""
    assert PASSWORD not in repr(load_settings({"DEBUG_PASSWORD": PASSWORD}))


def test_the_proxys_port_cannot_be_that_of_the_interface(tmp_path: Path) -> None:
    """Told before the second of them fails to open it."""
    environ = {
        "LISTEN_HOST": "127.0.0.1",
        "LISTEN_PORT": "8082",
        "DEBUG_HUB": "true",
        "CACHE_DIRECTORY": str(tmp_path / "cache"),
        "CA_DIRECTORY": str(tmp_path / "ca"),
    }

    found = find_problems(load_settings(environ))

    assert "LISTEN_PORT=8082: DEBUG_HUB=true has its web interface there: use another port" in found


def test_a_port_of_the_interface_in_use_is_told_with_its_switch(tmp_path: Path) -> None:
    """On an address of this test's own, where nothing else listens."""
    block = AddressBlock.claim()
    host = block.address(1).host
    environ = {
        "LISTEN_HOST": host,
        "DEBUG": "true",
        "DEBUG_HUB": "true",
        "CACHE_DIRECTORY": str(tmp_path / "cache"),
        "CA_DIRECTORY": str(tmp_path / "ca"),
    }

    with socket.create_server((host, 8082)):
        found = find_problems(load_settings(environ))
    block.release()

    assert found == (f"port 8082 on {host} is in use: stop the other program or turn DEBUG_HUB off",)
