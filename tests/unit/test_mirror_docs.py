"""The examples of docs/mirror.md: each is in the language it says, and leads to the door."""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCUMENT = (Path(__file__).parents[2] / "docs" / "mirror.md").read_text(encoding="utf-8")
PARSERS: Mapping[str, Callable[[str], Any]] = {"toml": tomllib.loads, "json": json.loads, "yaml": yaml.safe_load}
EXAMPLES = [(language, text) for language, text in re.findall(r"```(\w+)\n(.*?)```", DOCUMENT, re.DOTALL)]


def example(section: str, number: int = 0) -> Mapping[str, Any]:
    """Return an example of a section, parsed."""
    found = re.findall(r"```(\w+)\n(.*?)```", DOCUMENT.split(f"\n## {section}\n")[1].split("\n## ")[0], re.DOTALL)
    language, text = found[number]
    parsed: Mapping[str, Any] = PARSERS[language](text)
    return parsed


@pytest.mark.parametrize(("language", "text"), EXAMPLES)
def test_an_example_can_be_read(language: str, text: str) -> None:
    """As the client will."""
    assert PARSERS[language](text)


def test_each_client_is_led_to_the_door() -> None:
    """By the keys that it looks at."""
    assert example("containerd") == {
        "host": {"http://proxy:3128": {"capabilities": ["pull", "resolve"], "dial_timeout": "1s"}}
    }
    (registry,) = example("CRI-O, podman, buildah, skopeo")["registry"]
    assert registry["mirror"] == [{"location": f"proxy:3128/{registry['prefix']}", "insecure": True}]
    assert example("Docker") == {"registry-mirrors": ["http://proxy:3128"]}
    assert example("BuildKit")["registry"] == {"docker.io": {"mirrors": ["proxy:3128"]}, "proxy:3128": {"http": True}}
    assert example("k3s, RKE2") == {"mirrors": {"*": {"endpoint": ["http://proxy:3128"]}}}
