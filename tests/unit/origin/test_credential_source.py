"""Which source a credential comes from, and what is asked when."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from regproxy.origin.credential_file import CredentialFile
from regproxy.origin.credential_helper import CredentialHelpers
from regproxy.origin.credential_source import CredentialSource
from regproxy.origin.ecr import EcrLogin, EcrLogins
from regproxy.policy.credentials import Credential

ECR_HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
CONFIG = {
    "auths": {
        "file.test": {"username": "file", "password": "p"},
        "settled.test": {"username": "file", "password": "p"},
        "settled.test/team": {"username": "file", "password": "p"},
        "both.test": {"username": "file", "password": "p"},
        "stored.test": {},
        "bad key!": {},
    },
    "credHelpers": {"helped.test": "test", "both.test": "test", "token.test:5000": "tokens"},
    "credsStore": "store",
}
SCRIPTS = {
    "test": """echo '{"Username": "helper", "Secret": "p"}'""",
    "tokens": """echo '{"Username": "<token>", "Secret": "refresh"}'""",
    "store": """if [ "$(cat)" = stored.test ]; then echo '{"Username": "store", "Secret": "p"}'
    else echo 'credentials not found in native keychain'; exit 1; fi""",
}

type MakeSource = Callable[[], CredentialSource]


class Aws(EcrLogins):
    """AWS that knows one region."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def login_for(self, host: str) -> EcrLogin | None:
        """Return a login for the host."""
        self.asked.append(host)
        return EcrLogin("AWS", "p") if host == ECR_HOST else None


@pytest.fixture
def aws() -> Aws:
    return Aws()


@pytest.fixture
def source(tmp_path: Path, aws: Aws) -> CredentialSource:
    """Return all sources at once."""
    for name, script in SCRIPTS.items():
        helper = tmp_path / f"docker-credential-{name}"
        helper.write_text(f"#!/bin/sh\necho >>{tmp_path}/runs-{name}\n{script}\n")
        helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    helpers = CredentialHelpers({"PATH": f"{tmp_path}:{os.defpath}"})
    settled = [Credential("settled.test", None, "settled", "p"), Credential("docker.io", None, "hub", "p", path="team")]
    return CredentialSource(settled, CredentialFile(tmp_path / "config.json"), helpers, aws)


@pytest.mark.parametrize(
    ("host", "port", "repository", "username"),
    [
        pytest.param("settled.test", 443, "team/app", "settled", id="settings before file"),
        pytest.param("registry-1.docker.io", 443, "team/app", "hub", id="a path at Docker Hub"),
        pytest.param("registry-1.docker.io", 443, "library/alpine", None, id="another path"),
        pytest.param("FILE.test.", 443, None, "file", id="file"),
        pytest.param("both.test", 443, None, "file", id="file before helper"),
        pytest.param("helped.test", 443, None, "helper", id="helper of the host"),
        pytest.param("stored.test", 443, None, "store", id="store"),
        pytest.param("unknown.test", 443, None, None, id="unknown to the store"),
        pytest.param(ECR_HOST, 443, "app", "AWS", id="ECR"),
        pytest.param("not a host", 443, None, None, id="no host"),
    ],
)
async def test_the_first_source_that_has_one_is_used(
    source: CredentialSource, host: str, port: int, repository: str | None, username: str | None
) -> None:
    """Settings, file, helper, AWS: in this order."""
    found = await source.credential_for(host, port, repository)

    assert (found and found.username) == username


async def test_an_identity_token_of_a_helper_is_one(source: CredentialSource) -> None:
    """It is no password, and its text forms do not show it."""
    found = await source.credential_for("token.test", 5000)

    assert found is not None
    assert (found.identity_token, found.password) == ("refresh", "")
    assert "refresh" not in repr(found)


async def test_nobody_is_asked_for_what_is_settled(source: CredentialSource, aws: Aws, tmp_path: Path) -> None:
    """No process and no AWS for a host that settings or file know."""
    await source.credential_for("settled.test", 443)
    await source.credential_for("file.test", 443)

    assert aws.asked == []
    assert runs_in(tmp_path) == []


def runs_in(directory: Path) -> list[Path]:
    """Return the traces of helpers that ran."""
    return list(directory.glob("runs-*"))


async def test_every_credential_is_told_with_its_source(source: CredentialSource) -> None:
    """The list at start has settings, file and helpers, and also the host for which a helper has none."""
    held = [(str(one.place), one.source, one.credential and one.credential.username) async for one in source.held()]

    assert held == [
        ("settled.test", "AUTH_REGISTRIES", "settled"),
        ("docker.io/team", "AUTH_REGISTRIES", "hub"),
        ("file.test", "AUTH_CONFIG_FILE", "file"),
        ("settled.test", "AUTH_CONFIG_FILE", "file"),
        ("settled.test/team", "AUTH_CONFIG_FILE", "file"),
        ("both.test", "AUTH_CONFIG_FILE", "file"),
        ("helped.test", "docker-credential-test", "helper"),
        ("both.test", "docker-credential-test", "helper"),
        ("token.test:5000", "docker-credential-tokens", ""),
        ("stored.test", "docker-credential-store", "store"),
    ]
    assert {str(place) for place in source.places()} == {place for place, _, _ in held}
