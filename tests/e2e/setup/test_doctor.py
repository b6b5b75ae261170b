"""`/setup/doctor` on hosts that are right and on hosts that are not: what it says, and that it changes nothing."""

import subprocess
from collections.abc import Callable

import pytest

from lab.client_setup import ClientSetup
from lab.proxy import Proxy
from lab.throwaway_root import ThrowawayRoot

pytestmark = pytest.mark.e2e

DROP_IN = "etc/systemd/system/docker.service.d/registry-proxy.conf"

type Doctor = Callable[[], subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def _docker_is_here(root: ThrowawayRoot) -> None:
    """Whether Docker is installed must not matter: it has no daemon, and its settings are its unit's."""
    for name in ("docker", "dockerd"):
        root.hide(name)
        root.write(f"usr/local/bin/{name}", "#!/bin/sh\nexit 1\n", mode=0o755)


@pytest.fixture
def doctor(proxy: Proxy, root: ThrowawayRoot) -> Doctor:
    """Return what runs the doctor and checks that it changes nothing and gives a remedy for all that is wrong."""

    def examine(query: str = "") -> subprocess.CompletedProcess[str]:
        before = root.tree()
        done = root.run("sh", script=proxy.request("GET", f"/setup/doctor{query}").body.decode())
        lines = done.stdout.splitlines()
        findings = [line for line in lines if not line.startswith("      ")]
        assert root.tree() == before
        assert done.stderr == ""
        assert {line[:6] for line in findings} <= {"ok    ", "warn  ", "FAIL  "}
        assert len(lines) - len(findings) == sum(not line.startswith("ok") for line in findings)
        assert done.returncode == int(any(line.startswith("FAIL") for line in findings))
        return done

    return examine


def test_a_host_that_is_not_set_up_is_told_where_to_go(doctor: Doctor, proxy: Proxy) -> None:
    """The proxy answers, and nobody uses it."""
    done = doctor()

    assert f"ok    the proxy answers at http://{proxy.address} and is ready" in done.stdout
    assert "FAIL  nothing here uses this proxy" in done.stdout
    assert f"http://{proxy.address}/setup/" in done.stdout


def test_a_host_of_the_proxy_door_that_is_right(doctor: Doctor, setup: ClientSetup) -> None:
    """The door, NO_PROXY, the CA, and a request that reached the cache: all ok."""
    setup.install("docker?door=proxy")
    done = doctor()

    assert done.returncode == 0, done.stdout
    assert "warn" not in done.stdout
    for words in (
        "docker uses the proxy door",
        "NO_PROXY of docker has what it must have",
        "the proxy's CA is in /etc/ssl/certs/ca-certificates.crt",
        "reached the cache through the proxy door",
    ):
        assert f"{words}" in done.stdout


def test_a_ca_that_is_not_trusted_is_found(doctor: Doctor, root: ThrowawayRoot, setup: ClientSetup) -> None:
    """Somebody took it out, or made a new one at the proxy."""
    setup.install("docker?door=proxy")
    (root.path / "usr/local/share/ca-certificates/registry-proxy-docker.crt").unlink()
    root.run("update-ca-certificates", "--fresh")
    done = doctor()

    assert "FAIL  the proxy's CA is not in /etc/ssl/certs/ca-certificates.crt" in done.stdout


def test_a_no_proxy_that_lacks_the_clusters_networks_is_found(
    doctor: Doctor, root: ThrowawayRoot, setup: ClientSetup
) -> None:
    """They are read from the cluster's own files; a larger network in NO_PROXY covers them."""
    setup.install("docker?door=proxy")
    root.write("etc/kubernetes/manifests/kube-apiserver.yaml", "    - --service-cluster-ip-range=10.96.0.0/12\n")
    root.write("etc/kubernetes/manifests/kube-controller-manager.yaml", "    - --cluster-cidr=10.244.0.0/16\n")
    lacking = doctor().stdout
    setup.install("docker?door=proxy&no_proxy=10.0.0.0/8,.svc,.cluster.local")
    complete = doctor().stdout

    assert "NO_PROXY of docker lacks .cluster.local,.svc,10.244.0.0/16,10.96.0.0/12" in lacking
    assert "NO_PROXY of docker has what it must have" in complete


@pytest.mark.slow
@pytest.mark.parametrize("exceptions", ["", "10.96.0.0/16,127.0.0.1,localhost"])
def test_a_smaller_network_does_not_cover_a_larger_one(
    *, doctor: Doctor, root: ThrowawayRoot, setup: ClientSetup, proxy: Proxy, exceptions: str
) -> None:
    """And an empty list covers nothing."""
    setup.install("docker?door=proxy")
    environment = f'[Service]\nEnvironment="HTTPS_PROXY=http://{proxy.address}/"\n'
    root.write(DROP_IN, f'{environment}Environment="NO_PROXY={exceptions}"\n')
    root.write("etc/kubernetes/manifests/kube-apiserver.yaml", "    - --service-cluster-ip-range=10.96.0.0/12\n")

    assert "10.96.0.0/12" in doctor().stdout


def test_the_wrong_ca_is_found(doctor: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    """By the fingerprint that it was given."""
    assert "FAIL  the CA of" in doctor(f"?fp={'ab' * 32}").stdout


def test_a_proxy_that_is_gone_is_found(root: ThrowawayRoot, proxy: Proxy) -> None:
    """Nothing else can be said then."""
    script = proxy.request("GET", "/setup/doctor").body.decode()
    done = root.run("sh", script=script.replace(f":{proxy.address.port}", ":9"))

    assert done.returncode == 1
    assert done.stdout.startswith("FAIL  nobody answers at http://127.0.0.1:9")
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.usefixtures("mirror")
def test_hosts_of_the_mirror_door(doctor: Doctor, setup: ClientSetup) -> None:
    """Each client that has it is named; the door answers."""
    setup.install("podman")
    setup.install("k3s")
    done = doctor()

    assert "skopeo or CRI-O by /etc/containers uses the mirror door" in done.stdout
    assert "k3s uses the mirror door" in done.stdout
    assert "the mirror door answers" in done.stdout
    assert "for a manifest of Docker Hub reached the cache through the mirror door" in done.stdout
