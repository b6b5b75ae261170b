"""The texts of the set-up pages, rendered from the templates in `config/setup/`.

A script is a head with values, rendered, and parts that are the same for everybody, as they lie in the folder. Every
value has passed the grammars of `regproxy.policy.client_setup`, and is quoted all the same.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2

from regproxy.oci.wording import shown
from regproxy.policy.client_setup import (
    CLIENTS,
    DOCTOR,
    BaseUrl,
    SetupClient,
    SetupDoor,
    SetupOptions,
    registry_to_test,
)

TEMPLATES = Path(__file__).resolve().parents[3] / "config" / "setup"

_PARTS: Mapping[str, tuple[str, ...]] = {
    "docker": ("json", "daemon", "hosts_toml"),
    "containerd": ("daemon", "hosts_toml"),
    "crio": ("daemon", "registries"),
    "podman": ("daemon", "registries"),
    "buildkit": ("daemon",),
    "k3s": ("daemon",),
    "rke2": ("daemon",),
    "minikube": ("daemon", "hosts_toml"),
}
"""What each script needs of `config/setup/parts` besides the library."""
_SAME_SCRIPT = {"rke2": "k3s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyFacts:
    """What the texts say of this proxy."""

    base_url: BaseUrl
    registries: tuple[str, ...]
    """That the proxy door caches, as clients name them."""
    mirrored: tuple[str, ...]
    """The same of the mirror door."""
    ca_pem: str
    """Every CA that clients are to trust now."""
    ca_fingerprint: str
    """The sha256 of the CA that signs over DER, in hex."""


def _shell_quoted(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{shown(text)} must not be in a script")
    return "'" + text.replace("'", "'\\''") + "'"


def _double_quoted(text: str) -> str:
    """Quote inside single quotes or double ones: nothing that either would read as more than text may be in it."""
    if not text.isprintable() or set(text) & set("'\"\\$`!"):
        raise ValueError(f"{shown(text)} must not be in a script")
    return f"'{text}'"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    environment.filters.update(sh=_shell_quoted, dq=_double_quoted, yaml=json.dumps)
    environment.globals["source"] = _source
    return environment


@cache
def _source(name: str) -> str:
    """Return a part as it is: shell has braces that a template would take for its own."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def systemd_script(base_url: str) -> str:
    """Return the script that points a Debian host's Docker at the proxy (contract section 1.3)."""
    return _environment().get_template("systemd.sh").render(base_url=base_url)


def index_page(base_url: str) -> str:
    """Return the page that a browser gets."""
    return _environment().get_template("index.html").render(base_url=base_url)


def client_text(client: SetupClient, facts: ProxyFacts, options: SetupOptions) -> str:
    """Return the script, or the document, that sets `client` up."""
    door = options.door or client.best_door
    registries = facts.mirrored if door is SetupDoor.MIRROR else facts.registries
    url = str(facts.base_url)
    values: dict[str, object] = {
        "client": client.name,
        "title": client.title,
        "base_url": url,
        "host": facts.base_url.authority,
        "plain_http": facts.base_url.scheme == "http",
        "own_url": f"{url}/setup/{client.name}{options.query()}",
        "door": door or "",
        "fingerprint": options.fingerprint,
        "no_proxy": options.exceptions,
        "no_proxy_client": ",".join(client.exceptions),
        "registries": registries,
        "test_registry": registry_to_test(registries),
        "for_user": client.for_user,
    }
    if not client.is_document:
        script = f"clients/{_SAME_SCRIPT.get(client.name, client.name)}.sh"
        parts = ["parts/library.sh", *(f"parts/{name}.sh" for name in _PARTS[client.name]), script]
        return _environment().get_template("script.sh").render(values, parts=parts)
    always = ("localhost", "127.0.0.0/8", "::1", facts.base_url.host)
    values["no_proxy_all"] = tuple(dict.fromkeys((*always, *client.exceptions, *options.exceptions)))
    values["ca_pem"] = facts.ca_pem.strip()
    values["node_script"] = f"{url}/setup/containerd{options.query()}"
    return _environment().get_template(f"clients/{client.name}.yaml").render(values)


def doctor_script(facts: ProxyFacts, options: SetupOptions) -> str:
    """Return the script that says whether a host uses the proxy as it should."""
    return (
        _environment()
        .get_template("doctor.sh")
        .render(
            base_url=str(facts.base_url),
            own_url=f"{facts.base_url}/setup/{DOCTOR}{options.query()}",
            fingerprint=options.fingerprint,
            no_proxy=options.exceptions,
            registries=facts.registries,
            test_registry=registry_to_test(facts.registries),
            parts=["parts/doctor.sh"],
        )
    )


def clients_page(facts: ProxyFacts, *, html: bool) -> str:
    """Return the list of clients with a line to copy for each, for a browser or for a terminal."""
    url = facts.base_url
    values = {
        "base_url": str(url),
        "fingerprint": facts.ca_fingerprint,
        "entries": [_entry(client, url) for client in CLIENTS],
        "doctor": f"curl -fsS {url}/setup/{DOCTOR} | sh",
        "systemd": f"curl -fsS {url}/setup/systemd | sudo sh",
    }
    return _environment().get_template("clients.html" if html else "clients.txt").render(values)


def _entry(client: SetupClient, url: BaseUrl) -> dict[str, object]:
    address = f"{url}/setup/{client.name}"
    line = f"curl -fsS {address}"
    if client.is_document:
        line += f" > {client.name}.yaml"
    else:
        line += " | sh" if client.for_user else " | sudo sh"
    return {
        "name": client.name,
        "title": client.title,
        "words": client.words,
        "line": line,
        "url": address,
        "other_doors": [door for door in SetupDoor if door is not client.best_door],
    }
