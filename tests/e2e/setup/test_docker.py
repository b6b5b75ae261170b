"""Docker's set-up, run for real: by both doors, once more, undone, refused."""

import datetime as dt
import json
import re
from pathlib import Path

import pytest

from lab.client_setup import ClientSetup
from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.proxy import Proxy
from lab.throwaway_root import ThrowawayRoot
from regproxy.engine.authority import create

pytestmark = pytest.mark.e2e

DROP_IN = "etc/systemd/system/docker.service.d/registry-proxy.conf"
ANCHOR = "usr/local/share/ca-certificates/registry-proxy-docker.crt"
DAEMON_JSON = "etc/docker/daemon.json"


def test_the_proxy_door_is_set_up_once_and_undone(root: ThrowawayRoot, setup: ClientSetup) -> None:
    """The service gets the proxy, the system trusts the CA, and in the end nothing is left."""
    tree = setup.round("docker?door=proxy&no_proxy=.corp,10.9.0.0/16")

    assert {DROP_IN, ANCHOR} <= tree.keys()
    assert root.systemctl_calls() == ["daemon-reload", "try-restart docker.service"] * 2


def test_what_is_set_up_is_used(root: ThrowawayRoot, setup: ClientSetup, proxy: Proxy) -> None:
    """A request through the proxy is trusted by the system's store, and the environment has what it must."""
    done = setup.run("docker?door=proxy&no_proxy=.corp", "--yes")

    assert f"answers 401 through http://{proxy.address}, with a trusted certificate" in done.stdout
    assert root.read(ANCHOR).encode() == proxy.ca_file.read_bytes()
    drop_in = dict(re.findall(r'"(\w+)=([^"]*)"', root.read(DROP_IN)))
    assert drop_in["HTTPS_PROXY"] == f"http://{proxy.address}/"
    assert {"localhost", "127.0.0.0/8", "::1", ".corp"} <= set(drop_in["NO_PROXY"].split(","))


def test_both_cas_are_trusted_while_one_follows_the_other(root: ThrowawayRoot, start_proxy: StartProxy) -> None:
    """Each in a file of its own; the one that has gone goes with the next run. A fingerprint is for one of them."""
    proxy = start_proxy({}, start=False)
    proxy.ca_file.parent.mkdir(parents=True)
    cas = [proxy.ca_file, proxy.ca_file.with_stem("ca-next")]
    for file in cas:
        create(file, file.with_suffix(".key"), dt.datetime.now(dt.UTC))
    proxy.start()
    setup = ClientSetup(proxy, root)
    second = ANCHOR.replace(".crt", "-2.crt")
    (fingerprint,) = set(re.findall(r"sha256:[0-9a-f]{64}", proxy.request("GET", "/setup/").body.decode()))

    setup.run("docker?door=proxy", "--yes")
    assert [root.read(ANCHOR), root.read(second)] == [file.read_text() for file in cas]

    setup.run(f"docker?door=proxy&fp={fingerprint}", "--yes")
    assert root.read(ANCHOR) == cas[0].read_text()
    assert second not in root.tree()


def test_another_no_proxy_and_another_proxy_are_respected(root: ThrowawayRoot, setup: ClientSetup) -> None:
    """Exceptions that somebody made stay; a proxy that is there already is told of."""
    text = '[Service]\nEnvironment="HTTPS_PROXY=http://corp:8080" "NO_PROXY=.theirs,bad$(x)"\n'
    root.write("etc/systemd/system/docker.service.d/http-proxy.conf", text)
    done = setup.run("docker?door=proxy", "--dry-run")

    assert "uses the proxy http://corp:8080 now" in done.stderr
    assert ",.theirs" in done.stdout
    assert "bad" not in done.stdout


def test_the_wrong_ca_stops_it_before_any_change(root: ThrowawayRoot, setup: ClientSetup, proxy: Proxy) -> None:
    """The fingerprint that was asked for is not that of the CA; the right one is accepted."""
    before = root.tree()
    done = setup.run(f"docker?door=proxy&fp=sha256:{'ab' * 32}", "--yes")
    shown = proxy.request("GET", "/setup/").body.decode()
    (fingerprint,) = set(re.findall(r"sha256:[0-9a-f]{64}", shown))

    assert done.returncode == 1
    assert "nothing was changed" in done.stderr
    assert fingerprint in done.stderr
    assert root.tree() == before
    assert root.systemctl_calls() == []
    assert setup.run(f"docker?door=proxy&fp={fingerprint}", "--dry-run").returncode == 0


def test_without_consent_nothing_is_changed(root: ThrowawayRoot, setup: ClientSetup, proxy: Proxy) -> None:
    """No terminal, a no at the terminal, and a look: each leaves everything as it is. A yes does not."""
    before = root.tree()
    unasked = setup.run("docker?door=proxy")
    looked = setup.run("docker?door=proxy", "--dry-run")
    assert (unasked.returncode, "--yes" in unasked.stderr) == (1, True)
    assert (looked.returncode, DROP_IN in looked.stdout) == (0, True)
    # `script` gives its command a terminal; what it reads itself is typed there.
    url = f"http://{proxy.address}/setup/docker?door=proxy"
    command = ["script", "--quiet", "--return", "--command", f"curl -fsS '{url}' | sh", "/dev/null"]
    refused = root.run(*command, script="n\n")
    assert "Do this? [y/N]" in refused.stdout
    assert root.tree() == before
    root.run(*command, script="y\n")
    assert DROP_IN in root.tree()


def test_a_proxy_that_does_not_answer_stops_it(root: ThrowawayRoot, proxy: Proxy) -> None:
    """It is said before anything is changed."""
    script = proxy.request("GET", "/setup/docker?door=proxy").body.decode()
    before = root.tree()
    done = root.run("sh", "-s", "--", "--yes", script=script.replace(f":{proxy.address.port}", ":9"))

    assert (done.returncode, "the proxy does not answer at" in done.stderr) == (1, True)
    assert root.tree() == before


@pytest.mark.parametrize("tool", ["python3", pytest.param("jq", marks=pytest.mark.slow)])
def test_a_daemon_json_with_proxies_is_merged(root: ThrowawayRoot, setup: ClientSetup, tool: str) -> None:
    """What it says elsewhere stays, also what was changed since; without such changes it comes back as it was."""
    if tool == "jq":
        root.hide("python3")
    text = '{"data-root": "/srv", "proxies": {"http-proxy": "http://corp:1", "no-proxy": ".theirs"}}\n'
    root.write(DAEMON_JSON, text, mode=0o640)
    setup.install("docker?door=proxy")
    merged = json.loads(root.read(DAEMON_JSON))
    assert (merged["data-root"], merged["proxies"]["http-proxy"]) == ("/srv", "http://corp:1")
    assert merged["proxies"]["https-proxy"].startswith("http://127.0.0.1:")
    assert merged["proxies"]["no-proxy"].endswith(",.theirs")
    assert DROP_IN not in root.tree()

    root.write(DAEMON_JSON, json.dumps({**merged, "debug": True}), mode=0o640)
    setup.run("docker?door=proxy", "--yes", "--uninstall")
    assert json.loads(root.read(DAEMON_JSON)) == {**json.loads(text), "debug": True}

    root.write(DAEMON_JSON, text, mode=0o640)
    before = root.tree()[DAEMON_JSON]
    setup.run("docker?door=proxy", "--yes")
    setup.run("docker?door=proxy", "--yes", "--uninstall")
    assert root.tree()[DAEMON_JSON] == before


def test_what_cannot_be_merged_is_left_alone(root: ThrowawayRoot, setup: ClientSetup) -> None:
    """No tool for JSON, or no JSON: it says so and stops, without harm."""
    root.write(DAEMON_JSON, '{"proxies": {"no-proxy": "a"},}\n')
    before = root.tree()
    broken = setup.run("docker?door=proxy", "--yes")
    root.hide("python3")
    root.hide("jq")
    untouched = root.tree()
    toolless = setup.run("docker?door=proxy", "--yes")

    assert (broken.returncode, toolless.returncode) == (1, 1)
    assert "nothing was changed" in broken.stderr
    assert "python3 or jq" in toolless.stderr
    assert root.tree() == untouched
    assert root.tree()[DAEMON_JSON] == before[DAEMON_JSON]


@pytest.mark.slow
@pytest.mark.parametrize("door", ["proxy", "mirror"])
def test_a_real_daemon_pulls_through_it(
    root: ThrowawayRoot, setup: ClientSetup, lab: Lab, build_image: MakeImage, tmp_path: Path, door: str
) -> None:
    """With the environment and the daemon.json that the script made; Docker Hub, which both doors have."""
    if not root.has("dockerd"):
        pytest.skip("dockerd is not installed here")
    lab.push(build_image(), f"library/setup-{door}")
    root.write(DAEMON_JSON, '{"bridge": "none", "iptables": false, "storage-driver": "vfs"}\n')
    done = setup.run(f"docker?door={door}", "--yes")
    if door == "mirror" and "no mirror door" in done.stderr:
        pytest.skip("this proxy has no mirror door")
    drop_in = root.read(DROP_IN) if door == "proxy" else ""
    log = tmp_path / "dockerd.log"
    root.start("env", *re.findall(r'Environment="(.*)"', drop_in), "dockerd", log=log)
    root.wait_for("run/docker.sock")
    create = f"http://docker/images/create?fromImage=setup-{door}&tag=latest"
    pulled = root.run("curl", "-sS", "--unix-socket", "/run/docker.sock", "-X", "POST", create)

    assert "Downloaded newer image" in pulled.stdout, pulled.stdout + pulled.stderr + log.read_text()


def test_the_mirror_door_and_back_to_the_proxy_door(root: ThrowawayRoot, setup: ClientSetup, mirror: str) -> None:
    """A mirror for Docker Hub beside those that are there; the other door takes it back; undo restores all."""
    root.write(DAEMON_JSON, '{"registry-mirrors": ["https://other"]}\n')
    before = root.tree()
    setup.run("docker?door=mirror", "--yes")
    assert json.loads(root.read(DAEMON_JSON))["registry-mirrors"] == [mirror, "https://other"]

    setup.run("docker?door=proxy", "--yes")
    assert json.loads(root.read(DAEMON_JSON))["registry-mirrors"] == ["https://other"]
    assert DROP_IN in root.tree()

    setup.run("docker", "--yes", "--uninstall")
    assert root.tree() == before
