"""The scripts and documents of `/setup/`: as they were agreed to, and safe whoever asks for them.

`make golden` renews tests/golden/setup after a wanted change; the difference is then read in review.
"""

import os
import re
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mitmproxy import http

from lab.programs import find_program
from regproxy.engine.http_layer import Door
from regproxy.policy.client_setup import CLIENTS, BaseUrl, SetupClient, SetupDoor, SetupOptions
from regproxy.stack.core import Core
from regproxy.stack.setup_pages import TEMPLATES, ProxyFacts, client_text, clients_page, doctor_script
from regproxy.stack.setup_responder import SetupResponder
from unit.policy.test_client_setup import HOSTILE
from unit.stack.conftest import make_flow

GOLDEN = Path(__file__).parents[2] / "golden" / "setup"
PEM = "-----BEGIN CERTIFICATE-----\nMIIBnotacertificate\n-----END CERTIFICATE-----\n"
FACTS = ProxyFacts(
    base_url=BaseUrl("http", "proxy.lan:3128"),
    registries=("docker.io", "registry.k8s.io", "quay.io", "reg.lan:5000"),
    mirrored=("docker.io", "registry.k8s.io", "quay.io", "reg.lan:5000"),
    ca_pem=PEM,
    ca_fingerprint="ab" * 32,
)
OPTIONS = SetupOptions(exceptions=("10.0.0.0/8", ".lan"), fingerprint="cd" * 32)
SCRIPTS = tuple(client for client in CLIENTS if not client.is_document)
DOCUMENTS = tuple(client for client in CLIENTS if client.is_document)


def rendered() -> Iterator[tuple[str, str]]:
    """Yield a file name and a text for every client by each door, and for the doctor."""
    for client in CLIENTS:
        suffix = "yaml" if client.is_document else "sh"
        yield f"{client.name}.{suffix}", client_text(client, FACTS, SetupOptions())
        for door in SetupDoor:
            options = SetupOptions(door, OPTIONS.exceptions, OPTIONS.fingerprint)
            yield f"{client.name}-{door}.{suffix}", client_text(client, FACTS, options)
    yield "doctor.sh", doctor_script(FACTS, OPTIONS)
    yield "clients.html", clients_page(FACTS, html=True)
    yield "clients.txt", clients_page(FACTS, html=False)


TEXTS = tuple(rendered())


def without_fixed_parts(text: str) -> str:
    """Name the parts that are in every script as they lie in config/setup, instead of repeating them."""
    for file in (*TEMPLATES.glob("parts/*.sh"), *TEMPLATES.glob("clients/*.sh")):
        text = text.replace(file.read_text(), f"### config/setup/{file.relative_to(TEMPLATES)} as it is\n")
    return text


@pytest.mark.parametrize(("name", "text"), TEXTS, ids=[name for name, _ in TEXTS])
def test_the_texts_are_the_golden_ones(name: str, text: str) -> None:
    """What a client runs as root changes by a decision, not by the way."""
    golden = GOLDEN / name
    if "RENEW_GOLDEN" in os.environ:
        golden.write_text(without_fixed_parts(text))

    assert without_fixed_parts(text) == golden.read_text()


def test_no_golden_text_is_left_over() -> None:
    """A client that is gone takes its files along."""
    assert {file.name for file in GOLDEN.iterdir()} == {name for name, _ in TEXTS}


def test_every_shell_reads_every_script(tmp_path: Path) -> None:
    """dash, busybox and shellcheck find nothing to complain of."""
    scripts = [(name, text) for name, text in TEXTS if name.endswith(".sh")]
    for name, text in scripts:
        (tmp_path / name).write_text(text)
        for shell in (["dash"], [find_program("busybox"), "sh"]):
            subprocess.run([*shell, "-n", tmp_path / name], check=True)
    # By another door a script differs in its values only.
    different = [tmp_path / name for name, _ in scripts if "-" not in name]
    checked = subprocess.run(
        [find_program("shellcheck"), "--shell=sh", *different], capture_output=True, text=True, check=False
    )

    assert (checked.returncode, checked.stdout) == (0, "")
    assert len(different) == len(SCRIPTS) + 1


@pytest.mark.parametrize(("client", "door"), [(client, door) for client in DOCUMENTS for door in SetupDoor], ids=str)
def test_the_documents_are_yaml_with_this_proxy(client: SetupClient, door: SetupDoor) -> None:
    """Each of them is read by the client's tools as it is."""
    text = client_text(client, FACTS, SetupOptions(door))
    documents = list(yaml.safe_load_all(text))

    assert all({"kind", "apiVersion"} <= document.keys() for document in documents)
    assert str(FACTS.base_url) in text
    if client.name in ("talos", "openshift") and door is SetupDoor.PROXY:
        assert PEM.strip() in str(documents).replace("\\n", "\n")


@pytest.mark.parametrize(("name", "text"), TEXTS, ids=[name for name, _ in TEXTS])
def test_no_template_is_left_in_a_text(name: str, text: str) -> None:
    """Each placeholder got its value; docker's own format strings are in single quotes."""
    assert re.search(r"\{%|\{\{(?! ?\.| ?range| ?end)", text) is None, name


@pytest.mark.parametrize("client", SCRIPTS, ids=lambda client: client.name)
def test_a_script_that_arrives_in_part_does_nothing(client: SetupClient) -> None:
    """Everything is in functions, and what calls them is the last line."""
    lines = client_text(client, FACTS, SetupOptions()).splitlines()

    assert lines[-1] == 'main "$@"'
    done = subprocess.run(
        ["/bin/sh"],
        input="\n".join(lines[:-1]),
        env={"PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def get(core: Core, path: str, fields: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Return status, type and text of an answer of the proxy's own port."""
    headers = {"Host": "proxy.lan:3128"} | (fields or {})
    flow = make_flow("GET", "proxy.lan", 3128, path, headers, door=Door.OWN, scheme="http")
    SetupResponder(core).requestheaders(flow)
    response = flow.response
    assert isinstance(response, http.Response)
    return response.status_code, response.headers["content-type"], (response.raw_content or b"").decode()


def output(*command: str, script: str = "") -> str:
    """Return all that a command prints, complaints included."""
    done = subprocess.run(
        command, input=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("name", [*(client.name for client in CLIENTS), "doctor"])
async def test_each_client_has_its_address(core: Core, name: str) -> None:
    """With and without a slash at the end, as text also for a browser, with the address that was used."""
    status, kind, text = get(core, f"/setup/{name}")

    assert (status, kind) == (200, "text/plain; charset=utf-8")
    assert f"http://proxy.lan:3128/setup/{name}" in text
    assert get(core, f"/setup/{name}/")[2] == text
    assert get(core, f"/setup/{name}", {"Accept": "text/html"})[1:] == (kind, text)


@pytest.mark.parametrize("path", ["/setup", "/setup/", "/setup/?x=1"])
async def test_the_list_is_a_page_for_a_browser_and_text_for_curl(core: Core, path: str) -> None:
    """One line to copy for each client, and the CA's fingerprint."""
    _, html_kind, page = get(core, path, {"Accept": "text/html,*/*;q=0.8"})
    _, text_kind, text = get(core, path)

    assert (html_kind, text_kind) == ("text/html; charset=utf-8", "text/plain; charset=utf-8")
    for client in CLIENTS:
        assert f"curl -fsS http://proxy.lan:3128/setup/{client.name}" in page
        assert f"curl -fsS http://proxy.lan:3128/setup/{client.name}" in text
    assert re.search(r"sha256:[0-9a-f]{64}", page)
    assert not re.search(r"(src|href)=\"?(https?:)?//(?!proxy\.lan)", page)
    assert "<script" not in page


async def test_the_page_has_the_cas_fingerprint(core: Core) -> None:
    """As openssl computes it from what `/ca.crt` serves."""
    certificate = core.settings.ca_certificate_file
    printed = output("openssl", "x509", "-in", str(certificate), "-noout", "-fingerprint", "-sha256")

    assert printed.strip().partition("=")[2].replace(":", "").lower() in get(core, "/setup/")[2]


@pytest.mark.parametrize(
    ("path", "fields", "status", "words"),
    [
        ("/setup/windows", {}, 404, "docker, containerd, crio, podman"),
        ("/setup/docker/x", {}, 404, "no such client"),
        ("/setup/$(reboot)", {}, 404, "no such client"),
        ("/setup/docker?door=window", {}, 400, "door=proxy or door=mirror"),
        ("/setup/docker?fp=12", {}, 400, "64 hex digits"),
        ("/setup/kind?no_proxy='", {}, 400, "no_proxy=HOST"),
        ("/setup/doctor?x=1", {}, 400, "the query is wrong"),
        ("/setup/docker", {"Host": "a b"}, 400, "Host field"),
        ("/setup/", {"X-Forwarded-Host": "a;b"}, 400, "Host field"),
    ],
)
async def test_a_refusal_says_why_in_words(
    *, core: Core, path: str, fields: dict[str, str], status: int, words: str
) -> None:
    """And a shell that gets it instead of a script takes it for a comment; nothing of the request is in it."""
    found, kind, text = get(core, path, fields)

    assert (found, kind) == (status, "text/plain; charset=utf-8")
    assert words in text
    assert all(line.startswith("# ") for line in text.splitlines())
    assert "reboot" not in text
    assert output("sh", script=text) == ""


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", ["docker", "doctor", "kind", "openshift", ""])
async def test_nothing_hostile_gets_into_a_text(core: Core, name: str, hostile: str) -> None:
    """Neither by the Host field, nor by a front's, nor by the query: 400."""
    encoded = urllib.parse.quote(hostile)
    for path, fields in (
        (f"/setup/{name}", {"Host": hostile}),
        (f"/setup/{name}", {"X-Forwarded-Host": hostile}),
        (f"/setup/{name}?no_proxy={encoded}", {}),
        (f"/setup/{name}?fp={encoded}", {}),
        (f"/setup/{name}?door={encoded}", {}),
    ):
        status, _, text = get(core, path, fields)
        assert status == 400 or (not name and "?" in path), (path, fields)
        assert hostile not in text or len(hostile) < 4


async def test_the_predecessors_script_is_where_it_was(core: Core) -> None:
    """Its address is a prefix, and no query is wrong there."""
    script = get(core, "/setup/systemd")[2]

    assert script == get(core, "/setup/systemd?x=1")[2] == get(core, "/setup/systemd/anything")[2]
    assert 'Environment="HTTPS_PROXY=http://proxy.lan:3128/"' in script


def test_before_the_start_there_is_no_script() -> None:
    """There is no CA yet that it could name."""
    assert get(Core(), "/setup/docker")[0] == 503
