"""Which messages are printed, once and in which form, and the one that says at the start what this proxy does."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from regproxy.settings import LogFormat, load_settings
from regproxy.stack.announcements import Announcements, announce, has_colours, is_text
from regproxy.stack.wiring import summary


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        """Say yes."""
        return True


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """Give the root logger back as it was."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.setLevel(level)
    for handler in [each for each in logger.handlers if isinstance(each, Announcements)]:
        logger.removeHandler(handler)


def say_all() -> None:
    """Have the proxy and mitmproxy say something at each level."""
    for name in ("regproxy.x", "mitmproxy.x"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(level, "%s %s", name.partition(".")[0], logging.getLevelName(level).lower())


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["regproxy debug", "regproxy info", "mitmproxy debug", "mitmproxy info"]),
        ("info", ["regproxy info"]),
        ("warning", []),
    ],
)
def test_what_is_printed(capsys: pytest.CaptureFixture[str], level: str, expected: list[str]) -> None:
    """Ours from the level on, mitmproxy's warnings; each once, also after a second call."""
    settings = load_settings({"LOG_LEVEL": level})
    announce(LogFormat.JSON, logging.ERROR)
    announce(settings.log_format, settings.least_level)
    say_all()

    printed = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    always = [f"{name} {word}" for name in ("regproxy", "mitmproxy") for word in ("warning", "error")]
    assert sorted(printed) == sorted(expected + always)


def test_errors_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Then no warnings either, in the form for people."""
    announce(LogFormat.TEXT, load_settings({"LOG_LEVEL": "error"}).least_level)
    say_all()

    printed = [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert printed == ["error: regproxy error", "error: mitmproxy error"]


def test_the_predecessors_switch_wins() -> None:
    """Who sets it wants to see everything."""
    assert load_settings({"DEBUG_NGINX": "true", "LOG_LEVEL": "error"}).least_level == logging.DEBUG


@pytest.mark.parametrize(("variable", "default"), [("LOG_FORMAT", "auto"), ("LOG_LEVEL", "info")])
def test_a_word_of_another_program_is_no_reason_not_to_start(variable: str, default: str) -> None:
    """The names are common; what is read instead is said."""
    (warning,) = load_settings({variable: "verbose"}).warnings
    assert warning.startswith(f"{variable}=verbose: not one of ")
    assert warning.endswith(f"read as {default}")


@pytest.mark.parametrize(
    ("chosen", "on_terminal", "elsewhere"),
    [(LogFormat.AUTO, True, False), (LogFormat.JSON, False, False), (LogFormat.TEXT, True, True)],
)
def test_the_form(chosen: LogFormat, on_terminal: bool, elsewhere: bool) -> None:
    """For people on a terminal, for programs elsewhere, unless one was chosen."""
    assert is_text(chosen, Terminal()) is on_terminal
    assert is_text(chosen, io.StringIO()) is elsewhere


def test_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal; NO_COLOR (no-color.org) and a dumb terminal have none; an empty NO_COLOR says nothing."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "")
    assert has_colours(Terminal())
    assert not has_colours(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_colours(Terminal())
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("TERM", "dumb")
    assert not has_colours(Terminal())


@pytest.mark.parametrize(
    ("settings", "said", "not_said"),
    [
        (
            {},
            "intercepts Docker Hub and registry.k8s.io gcr.io quay.io ghcr.io; is a mirror of the same registries;",
            ("OFFLINE", "debug", "PROXY_AUTH", "VERIFY_SSL"),
        ),
        (
            {},
            "caches up to 34359738368 bytes in /docker_mirror_cache; tags revalidated at every pull; pushes refused;",
            (),
        ),
        ({}, "logins by AUTH_PRECEDENCE=client", ()),
        ({"MIRROR_REGISTRIES": "none"}, "the mirror door is closed", ("is a mirror",)),
        (
            {"MIRROR_REGISTRIES": "docker.io quay.io", "MIRROR_TLS": "true"},
            "is a mirror of registry-1.docker.io quay.io, by https too",
            (),
        ),
        ({"OFFLINE": "true"}, "OFFLINE is set: no registry is asked", ()),
        ({"ALLOW_PUSH": "true", "ENABLE_MANIFEST_CACHE": "true"}, "tags by tier; pushes allowed;", ()),
        ({"ALLOW_PUSH_WITH_OWN_AUTH": "true"}, "pushes allowed with a login of their own", ()),
        ({"AUTH_PRECEDENCE": "proxy"}, "logins by AUTH_PRECEDENCE=proxy", ()),
        ({"PROXY_AUTH": "me:hunter2"}, "clients need a login (PROXY_AUTH)", ("hunter2",)),
        ({"VERIFY_SSL": "false"}, "VERIFY_SSL is off", ()),
        ({"DEBUG": "true", "DEBUG_HUB": "true"}, "debug mode on port 8081 and 8082", ()),
        ({"LOG_LEVEL": "debug"}, "log level DEBUG", ()),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, dict) else None,
)
def test_the_summary(settings: dict[str, str], said: str, not_said: tuple[str, ...]) -> None:
    """One line with every door and every mode that is on."""
    text = summary(load_settings(settings))

    assert said in text
    assert "\n" not in text
    for each in not_said:
        assert each not in text
