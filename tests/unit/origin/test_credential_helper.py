"""Real `docker-credential-*` programs: what they are asked, what is believed, and what is never logged."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from regproxy.origin import credential_helper
from regproxy.origin.credential_helper import (
    KNOWN_S,
    LEAST_AGE_S,
    OUTPUT_LIMIT_BYTES,
    Answer,
    CredentialHelpers,
    HelperFailed,
    helper_environment,
    parse_answer,
    run_helper,
)
from regproxy.policy.docker_config import HelperRequest

SECRET = "s3cret-word"
REQUEST = HelperRequest("test", "https://reg.test")
GOOD = json.dumps({"ServerURL": "https://reg.test", "Username": "bob", "Secret": SECRET})

type WriteHelper = Callable[[str], dict[str, str]]


@pytest.fixture
def write_helper(tmp_path: Path) -> WriteHelper:
    """Return what installs `docker-credential-test` with a shell script, and returns its environment."""

    def write(script: str) -> dict[str, str]:
        helper = tmp_path / "docker-credential-test"
        helper.unlink(missing_ok=True)
        helper.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        helper.chmod(0o755)
        return {"PATH": f"{tmp_path}:{os.defpath}"}

    return write


async def test_a_helper_gets_the_host_and_gives_a_login(write_helper: WriteHelper, tmp_path: Path) -> None:
    """The verb is its argument, the host its standard input, and that ends."""
    environ = write_helper(f"echo \"$@\" >arguments; cat >input; echo '{GOOD}'")

    assert await run_helper(REQUEST, environ) == Answer("bob", SECRET)
    assert (tmp_path / "arguments").read_text() == "get\n"
    assert (tmp_path / "input").read_text() == "https://reg.test"


async def test_a_helper_need_not_read(write_helper: WriteHelper) -> None:
    """One that knows one host only may answer at once."""
    assert await run_helper(REQUEST, write_helper(f"exec 0<&-; echo '{GOOD}'")) == Answer("bob", SECRET)


async def test_a_helper_without_a_login(write_helper: WriteHelper) -> None:
    """The protocol's words for "not found" are an answer and no failure."""
    environ = write_helper("echo 'credentials not found in native keychain'; exit 1")

    assert await run_helper(REQUEST, environ) is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param(f"echo {SECRET}; exit 3", "code 3", id="code"),
        pytest.param(f"echo {SECRET}", "not JSON", id="no JSON"),
        pytest.param(f"echo '[\"{SECRET}\"]'", "JSON object", id="no object"),
        pytest.param(f"head -c {OUTPUT_LIMIT_BYTES + 1} /dev/zero; sleep 60", "larger", id="endless"),
        pytest.param("kill -9 $$", "code -9", id="killed"),
        pytest.param("sleep 60", "no answer", id="hangs"),
        pytest.param("sleep 60 & wait", "no answer", id="its child hangs"),
    ],
)
async def test_a_failing_helper_is_told_without_its_output(
    write_helper: WriteHelper, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    """The reason is in our words; the helper and what it has started are gone."""
    monkeypatch.setattr(credential_helper, "HELPER_LIMIT_S", 0.5 if reason == "no answer" else 30.0)
    with pytest.raises(HelperFailed, match=reason) as failure:
        await run_helper(REQUEST, write_helper(f"echo $$ >pid\n{script}"))
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize("ending", ["mkfifo p; read x <p", "exit 0"])
async def test_a_hanging_helper_is_ended_with_its_children(
    write_helper: WriteHelper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Nothing of it stays behind."""
    monkeypatch.setattr(credential_helper, "HELPER_LIMIT_S", 1.0)
    with pytest.raises(HelperFailed):
        await run_helper(REQUEST, write_helper(f"sleep 60 & echo $! >child; {ending}"))
    child = int((tmp_path / "child").read_text())
    for _ in range(500):
        if not runs(child):
            return
        await asyncio.sleep(0.01)
    pytest.fail("the helper's child still runs")


def runs(pid: int) -> bool:
    """Return whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_helper_that_is_not_there() -> None:
    """The reason says where it is looked for."""
    with pytest.raises(HelperFailed, match="PATH"):
        await run_helper(HelperRequest("nothing-of-this-name", "x"), {"PATH": os.defpath})


def test_an_identity_token_is_known_by_its_user() -> None:
    """`<token>` is the protocol's word for it."""
    answer = parse_answer(b'{"Username": "<token>", "Secret": "refresh"}')
    assert answer is not None
    assert answer.is_identity_token
    assert "refresh" not in repr(answer)


def test_an_empty_secret_is_no_login() -> None:
    """Some helpers say so instead of failing."""
    assert parse_answer(b'{"Username": "", "Secret": ""}') is None


def test_a_helper_sees_the_clouds_variables_and_not_ours() -> None:
    """What it needs to find its identity is passed on, the proxy's own secrets are not."""
    environ = {"PATH": "/bin", "AWS_ROLE_ARN": "r", "AUTH_REGISTRIES": SECRET, "CERT_PASSWORD": SECRET}

    assert helper_environment(environ) == {"PATH": "/bin", "AWS_ROLE_ARN": "r"}


class TestAnswersAreKept:
    @pytest.fixture
    def counted(self, write_helper: WriteHelper) -> dict[str, str]:
        """Install a helper that counts its runs and prints what is in the file `answer`."""
        return write_helper("echo >>runs; cat answer 2>/dev/null || exit 1")

    async def test_for_a_moment(self, counted: dict[str, str], tmp_path: Path) -> None:
        """A pull of many requests runs one process; a rotated secret is seen after a while."""
        (tmp_path / "answer").write_text(GOOD)
        now_s = 0.0
        helpers = CredentialHelpers(counted, lambda: now_s)
        answers = await asyncio.gather(*(helpers.ask(REQUEST) for _ in range(5)))
        assert answers == [Answer("bob", SECRET)] * 5
        (tmp_path / "answer").write_text(GOOD.replace(SECRET, "next"))
        assert await helpers.ask(REQUEST) == Answer("bob", SECRET)
        assert len((tmp_path / "runs").read_text()) == 1
        now_s = KNOWN_S
        assert await helpers.ask(REQUEST) == Answer("bob", "next")

    async def test_until_they_are_refused(self, counted: dict[str, str], tmp_path: Path) -> None:
        """A refused login is asked for again, but not at once: clients repeat themselves."""
        (tmp_path / "answer").write_text(GOOD)
        now_s = 0.0
        helpers = CredentialHelpers(counted, lambda: now_s)
        await helpers.ask(REQUEST)
        (tmp_path / "answer").write_text(GOOD.replace(SECRET, "next"))
        helpers.distrust(REQUEST)
        assert await helpers.ask(REQUEST) == Answer("bob", SECRET)
        now_s = LEAST_AGE_S
        helpers.distrust(REQUEST)
        assert await helpers.ask(REQUEST) == Answer("bob", "next")

    async def test_while_the_helper_fails(
        self, counted: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The last login is used on, and one line names the helper and shows nothing of its output."""
        (tmp_path / "answer").write_text(GOOD)
        now_s = 0.0
        helpers = CredentialHelpers(counted, lambda: now_s)
        await helpers.ask(REQUEST)
        (tmp_path / "answer").write_text(f"oops {SECRET}")
        for _ in range(3):
            now_s += KNOWN_S
            assert await helpers.ask(REQUEST) == Answer("bob", SECRET)
        assert caplog.text.count("docker-credential-test: its answer is not JSON") == 1
        assert SECRET not in caplog.text
