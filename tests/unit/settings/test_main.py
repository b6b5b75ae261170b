"""The command that `entrypoint.sh` runs."""

from pathlib import Path

import pytest

from lab.addresses import free_port
from regproxy.settings.__main__ import main
from regproxy.settings.table import SETTINGS_TABLE

SECRET = "hunter2-s3cret"


def environ(directory: Path, **more: str) -> dict[str, str]:
    good = {
        "LISTEN_HOST": "127.0.0.1",
        "CACHE_DIRECTORY": str(directory / "cache"),
        "CA_DIRECTORY": str(directory / "ca"),
    }
    return {**good, "LISTEN_PORT": str(free_port()), **more}


@pytest.mark.parametrize(("debug", "program"), [("false", "mitmdump"), ("true", "mitmweb")])
def test_good_settings_print_what_the_entry_point_needs_and_nothing_else(
    debug: str, program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two values, which may come from YAML; the second may have a colon in it."""
    assert main(["start"], environ(tmp_path, DEBUG=debug, CACHE_DIRECTORY=f"{tmp_path}/a: b")) == 0
    assert capsys.readouterr() == (f"{program}:{tmp_path}/a: b\n", "")


@pytest.mark.parametrize("arguments", [[], ["check"], ["start"]])
def test_a_bad_setting_is_one_line_and_exit_code_1(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The proxy does not start, and the line says why."""
    assert main(arguments, environ(tmp_path, LISTEN_PORT="abc")) == 1
    assert capsys.readouterr() == ("", "registry-proxy: error: LISTEN_PORT=abc: not a port number (1-65535)\n")


def test_a_machine_that_cannot_run_the_proxy_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the preflight finds stops the start like a bad value."""
    (tmp_path / "cache").touch()

    assert main([], environ(tmp_path)) == 1
    assert capsys.readouterr().err.startswith(f"registry-proxy: error: CACHE_DIRECTORY={tmp_path}/cache: ")


def test_a_warning_does_not_stop_the_start_and_shows_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A malformed login is told by its number only."""
    assert main(["check"], environ(tmp_path, AUTH_REGISTRIES=f"a.test:{SECRET}")) == 0

    output = capsys.readouterr()
    assert (
        output.err
        == "registry-proxy: warning: AUTH_REGISTRIES: entry 1 is left out: it is not host, user and password\n"
    )
    assert SECRET not in output.err + output.out


def test_the_table_has_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """Two head lines, then one line each, one for all that have no effect, and no bar inside a cell."""
    assert main(["table"], {}) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len([row for row in SETTINGS_TABLE if not row.ignored]) + 3
    assert all(f"`{row.variable}`" in lines[-1] for row in SETTINGS_TABLE if row.ignored)
    assert all(line.replace(r"\|", "").count("|") == 4 for line in lines)


def test_an_unknown_command_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """A slip in a script is not taken for a check that passed."""
    assert main(["chekc"], {}) == 2
    assert "usage" in capsys.readouterr().err
