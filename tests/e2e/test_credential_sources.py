"""Clients without a login pull private content with the operator's, wherever that comes from and when it changes."""

import base64
import datetime as dt
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.lab import HUB, Lab
from lab.origin import Reply
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME

pytestmark = pytest.mark.e2e

WRONG = "hunter2-Zq7"
ECR_HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
LIMIT_S = 20.0


def auth(password: str = PASSWORD, username: str = USERNAME) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def config_of(registry_name: str, entry: Mapping[str, str]) -> str:
    """Return a config.json with the login where clients of that registry get their tokens."""
    return json.dumps({"auths": {KEYS[registry_name]: entry}})


KEYS = {"basic": "basic.lab.test", "token": "https://auth.lab.test", "hub": "https://index.docker.io/v1/"}


@pytest.fixture
def helper(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Return what installs `docker-credential-test`, which gives the password in the file `password`."""
    directory = tmp_path / "helpers"
    directory.mkdir()
    program = directory / "docker-credential-test"
    program.write_text(
        f"#!/bin/sh\ncat >>{directory}/asked; echo >>{directory}/asked\n"
        f"""printf '{{"ServerURL":"x","Username":"{USERNAME}","Secret":"%s"}}' "$(cat {directory}/password)"\n"""
    )
    program.chmod(0o755)

    def set_password(password: str) -> dict[str, str]:
        (directory / "password").write_text(password)
        return {"PATH": f"{directory}:{Path(sys.executable).parent}:{os.defpath}"}

    return set_password


def wait_for(proxy: Proxy, *texts: str) -> list[str]:
    """Wait for lines of the log that have all these texts, and return them."""
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        found = [line for line in proxy.log.splitlines() if all(text in line for text in texts)]
        if found:
            return found
        time.sleep(0.05)
    pytest.fail(f"no line with {texts} in the log:\n{proxy.log}")


def assert_no_secret(proxy: Proxy) -> None:
    """Nothing of a login is in what the proxy has printed."""
    log = proxy.log
    pairs = [auth(password)["auth"] for password in (PASSWORD, WRONG)]
    assert [
        secret for secret in (f"{USERNAME}:{PASSWORD}", f'"{PASSWORD}"', WRONG, *pairs, "eyJ") if secret in log
    ] == []


@pytest.fixture(params=["basic", "hub"])
def registry_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestPulls:
    @pytest.fixture
    def pull(self, lab: Lab, build_image: MakeImage, registry_name: str, tmp_path: Path) -> Callable[[Proxy], int]:
        """Return what pulls a private image through a proxy, without a login, and returns the exit code."""
        name = f"private/sources-{registry_name}"
        lab.push(build_image(), name)
        host = getattr(lab, registry_name).name

        def run(proxy: Proxy) -> int:
            target = tmp_path / f"pulled-{time.monotonic_ns()}"
            return proxy.skopeo(target.name).pull(f"{host}/{name}:latest", target, check=False).returncode

        return run

    def test_from_the_settings_by_repository(
        self, start_proxy: StartProxy, pull: Callable[[Proxy], int], registry_name: str
    ) -> None:
        """One host has different logins for different repositories; the right one opens the private ones."""
        host = KEYS[registry_name].removeprefix("https://").removesuffix("/v1/")
        logins = f"{host}/other:bob:{WRONG} {host}/private:{USERNAME}:{PASSWORD} {host}/private-not:bob:{WRONG}"
        if registry_name == "basic":
            logins += f" {host}:{USERNAME}:{PASSWORD}"
        proxy = start_proxy({"AUTH_REGISTRIES": logins})
        assert pull(proxy) == 0
        assert_no_secret(proxy)

    @pytest.mark.parametrize("form", ["config.json", ".dockerconfigjson"])
    def test_from_a_docker_configuration(
        self, start_proxy: StartProxy, pull: Callable[[Proxy], int], registry_name: str, tmp_path: Path, form: str
    ) -> None:
        """A file of Docker and a mounted secret of Kubernetes are read; their hosts are intercepted unlisted."""
        directory = tmp_path / "secret"
        directory.mkdir()
        (directory / form).write_text(config_of(registry_name, auth()))
        proxy = start_proxy({"AUTH_CONFIG_FILE": str(directory / form if form == "config.json" else directory)})
        assert pull(proxy) == 0
        assert_no_secret(proxy)

    @pytest.mark.parametrize("section", ["credHelpers", "credsStore"])
    def test_from_a_credential_helper(
        self,
        start_proxy: StartProxy,
        pull: Callable[[Proxy], int],
        registry_name: str,
        tmp_path: Path,
        helper: Callable[[str], dict[str, str]],
        section: str,
    ) -> None:
        """A helper is asked for its host, a store for the hosts that the file names."""
        key = KEYS[registry_name]
        content: Mapping[str, object] = {"credHelpers": {key: "test"}}
        if section == "credsStore":
            content = {"credsStore": "test", "auths": {key: {}}}
        (tmp_path / "config.json").write_text(json.dumps(content))
        proxy = start_proxy({"AUTH_CONFIG_FILE": str(tmp_path / "config.json"), **helper(PASSWORD)})
        assert pull(proxy) == 0
        assert set((tmp_path / "helpers" / "asked").read_text().split()) <= {
            key,
            "https://index.docker.io/v1/",
            *KEYS.values(),
        } | {"token.lab.test"}
        assert_no_secret(proxy)

    def test_a_rotated_file_counts_without_a_restart(
        self, start_proxy: StartProxy, pull: Callable[[Proxy], int], registry_name: str, tmp_path: Path
    ) -> None:
        """A broken file changes nothing; a good one is used soon after it was put there."""
        file = tmp_path / "config.json"
        file.write_text(config_of(registry_name, auth(WRONG)))
        proxy = start_proxy({"AUTH_CONFIG_FILE": str(file)})
        assert pull(proxy) == 1
        file.write_text(config_of(registry_name, auth())[:-5])
        pull_until(lambda: f"AUTH_CONFIG_FILE={file}: not JSON" in proxy.log, lambda: pull(proxy) == 1)
        (tmp_path / "next").write_text(config_of(registry_name, auth()))
        (tmp_path / "next").replace(file)
        pull_until(lambda: pull(proxy) == 0, lambda: True)
        assert_no_secret(proxy)

    def test_a_rotated_secret_of_a_helper_counts_without_a_restart(
        self,
        start_proxy: StartProxy,
        pull: Callable[[Proxy], int],
        registry_name: str,
        tmp_path: Path,
        helper: Callable[[str], dict[str, str]],
    ) -> None:
        """A login that is refused is asked for anew."""
        (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {KEYS[registry_name]: "test"}}))
        proxy = start_proxy({"AUTH_CONFIG_FILE": str(tmp_path / "config.json"), **helper(WRONG)})
        assert pull(proxy) == 1
        helper(PASSWORD)
        pull_until(lambda: pull(proxy) == 0, lambda: True)
        assert_no_secret(proxy)


def pull_until(done: Callable[[], bool], meanwhile: Callable[[], bool]) -> None:
    """Wait until something has happened; `meanwhile` must hold at every look."""
    deadline_s = time.monotonic() + LIMIT_S
    while not done():
        assert meanwhile()
        assert time.monotonic() < deadline_s, "it has not happened"
        time.sleep(0.1)


def test_ecr_is_opened_by_the_machine_s_identity(
    lab: Lab, start_proxy: StartProxy, start_origin: StartOrigin, build_image: MakeImage, tmp_path: Path
) -> None:
    """AWS gives the login for the environment's keys; the registry of that name gets it."""
    token = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    expires_at = dt.datetime.now(dt.UTC).timestamp() + 12 * 3600
    granted = {"authorizationData": [{"authorizationToken": token, "expiresAt": expires_at}]}
    aws = start_origin("origin.lab.test")
    aws.serve("/", Reply(json.dumps(granted).encode(), headers={"Content-Type": "application/x-amz-json-1.1"}))
    lab.push(build_image(), "private/ecr")
    mappings = f"{lab.proxy_settings['UPSTREAM_MAPPINGS']} {ECR_HOST}={lab.basic.address}"
    proxy = start_proxy(
        {
            "REGISTRIES": "*.dkr.ecr.*.amazonaws.com",
            "UPSTREAM_MAPPINGS": mappings,
            "VERIFY_SSL": "false",
            "AWS_ENDPOINT_URL_ECR": f"https://{aws.address}",
            "AWS_CA_BUNDLE": str(lab.pki.ca_file),
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": WRONG,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    )
    assert proxy.skopeo().pull(f"{ECR_HOST}/private/ecr:latest", tmp_path / "pulled").returncode == 0
    assert [request.method for request in aws.log.requests()] == ["POST"]
    assert_no_secret(proxy)


class TestWhatIsSaidAtTheStart:
    def test_one_line_for_each_credential(
        self, lab: Lab, start_proxy: StartProxy, tmp_path: Path, helper: Callable[[str], dict[str, str]]
    ) -> None:
        """Who, where, from which source, and whether the registry takes it; no secret."""
        for name in ("basic", "token", "hub", "noauth"):
            getattr(lab, name)  # starts it
        content = {
            "auths": {"token.lab.test": auth(), "https://index.docker.io/v1/": auth(WRONG), "noauth.lab.test": auth()},
            "credHelpers": {"edge.lab.test": "test", "cdn.lab.test": "missing"},
        }
        (tmp_path / "config.json").write_text(json.dumps(content))
        proxy = start_proxy(
            {
                "AUTH_REGISTRIES": f"basic.lab.test:{USERNAME}:{PASSWORD} basic.lab.test/team:bob:{WRONG}",
                "AUTH_CONFIG_FILE": str(tmp_path / "config.json"),
                **helper(PASSWORD),
            }
        )
        wait_for(proxy, "credential for cdn.lab.test from docker-credential-missing: there is none")
        expected = {
            f"credential of '{USERNAME}' for basic.lab.test from AUTH_REGISTRIES: works": "INFO",
            "credential of 'bob' for basic.lab.test/team from AUTH_REGISTRIES: refused": "WARNING",
            f"credential of '{USERNAME}' for token.lab.test from AUTH_CONFIG_FILE: works": "INFO",
            f"credential of '{USERNAME}' for index.docker.io from AUTH_CONFIG_FILE: refused": "WARNING",
            f"credential of '{USERNAME}' for noauth.lab.test from AUTH_CONFIG_FILE: not checked": "INFO",
            f"credential of '{USERNAME}' for edge.lab.test from docker-credential-test: unreachable": "WARNING",
        }
        for text, level in expected.items():
            (line,) = wait_for(proxy, text)
            assert f'"level":"{level.lower()}"' in line
        assert_no_secret(proxy)
        assert lab.hub.name == HUB

    def test_a_token_server_elsewhere_gets_no_password(
        self, lab: Lab, start_proxy: StartProxy, start_origin: StartOrigin
    ) -> None:
        """A registry that sends to a foreign host is told, and nothing is asked there: it would take the password."""
        assert lab.auth.address == lab.addresses["auth.docker.io"]
        origin = start_origin("origin.lab.test")
        challenge = {"WWW-Authenticate": 'Bearer realm="https://auth.docker.io/token",service="x"'}
        origin.serve("/v2/", Reply(b"{}", 401, headers=challenge))
        registries = "origin.lab.test"
        proxy = start_proxy(
            {"REGISTRIES": registries, "TRUSTED_HOSTS": "", "AUTH_REGISTRIES": f"origin.lab.test:{USERNAME}:{PASSWORD}"}
        )
        (line,) = wait_for(proxy, "for origin.lab.test from AUTH_REGISTRIES")
        assert "not checked" in line
        assert "https://auth.docker.io" in line
