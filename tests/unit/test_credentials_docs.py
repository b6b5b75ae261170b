"""The examples of docs/credentials.md are read by the proxy as they stand there."""

import re
from pathlib import Path

import pytest
import yaml

from regproxy.policy.docker_config import parse_docker_config
from regproxy.settings import load_settings

DOCUMENT = (Path(__file__).parents[2] / "docs" / "credentials.md").read_text(encoding="utf-8")
REGISTRIES = [
    "Docker",
    "Hub",
    "GHCR",
    "Quay",
    "GCR",
    "GAR",
    "registry.k8s.io",
    "ECR",
    "public.ecr.aws",
    "ACR",
    "MCR",
    "GitLab",
    "Harbor",
    "JFrog",
    "nvcr.io",
    "Red",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("env"))
def test_an_environment_works(block: str) -> None:
    """Each line is a variable; nothing of it is doubted, and each login and registry is taken."""
    environ = dict(line.split("=", 1) for line in block.splitlines())
    settings = load_settings(environ)

    assert settings.warnings == ()
    delimiter = environ.get("AUTH_REGISTRIES_DELIMITER")
    entries = environ.get("AUTH_REGISTRIES", "").split(delimiter)
    assert len(settings.credentials) == len([entry for entry in entries if entry])
    assert len(settings.registries) > 0


@pytest.mark.parametrize("block", blocks("json"))
def test_a_docker_configuration_works(block: str) -> None:
    """Nothing is left out."""
    config = parse_docker_config(block)

    assert config.problems == ()
    assert len(config.credentials) + len(config.helpers) == 2 - ("acr-env" in block)


def test_the_mount_names_the_folder_of_the_secret() -> None:
    """The variable says where the secret is mounted."""
    (block,) = blocks("yaml")
    content = yaml.safe_load(block)

    (container,) = content["containers"]
    assert container["env"] == [{"name": "AUTH_CONFIG_FILE", "value": container["volumeMounts"][0]["mountPath"]}]


@pytest.mark.parametrize("name", REGISTRIES)
def test_every_registry_has_its_place(name: str) -> None:
    """Those that people use are all there."""
    assert name in DOCUMENT
    assert len(blocks("env")) > 10


def test_a_key_file_comes_through_as_it_is() -> None:
    """GCR's password is JSON with colons, blanks and quotes."""
    block = next(block for block in blocks("env") if "_json_key" in block)
    settings = load_settings(dict(line.split("=", 1) for line in block.splitlines()))

    by_host = {credential.host: credential for credential in settings.credentials}
    assert yaml.safe_load(by_host["gcr.io"].password)["private_key"].startswith("-----BEGIN PRIVATE KEY-----\n")
    assert by_host["europe-docker.pkg.dev"].path == "project-one"
