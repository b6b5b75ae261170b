"""docs/deploy/kind.md: its own commands change a node, which is here a throw-away copy of this machine's root."""

import re
import subprocess
from pathlib import Path

import pytest

from container.conftest import ROOT
from lab.lab import Lab
from lab.proxy import Proxy

pytestmark = pytest.mark.container

PROXY_NAME = "registry-proxy"
FAKE_KIND = '#!/bin/sh\n[ "$*" = "get nodes --name kind" ] && echo kind-control-plane\n'
FAKE_DOCKER = """\
#!/bin/sh
# docker exec NODE COMMAND...: in a root of its own, whose changes are left in {kept}
set -eu
[ "$1 $2" = "exec kind-control-plane" ]
shift 2
exec unshare --mount sh {directory}/enter "$@"
"""
ENTER = """\
set -eu
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
mount -t proc proc /mnt/root/proc
mount --bind /dev /mnt/root/dev
echo "{address} {name}" >/mnt/root/etc/hosts
mkdir -p /mnt/root/etc/systemd/system
printf '#!/bin/sh\\necho systemctl "$@" >>/systemctl-called\\n' >/mnt/root/usr/local/bin/systemctl
chmod 755 /mnt/root/usr/local/bin/systemctl
chroot /mnt/root env PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
cd /mnt/upper
cp -a --parents systemctl-called etc/systemd/system etc/ca-certificates.conf etc/ssl/certs \\
    usr/share/ca-certificates {kept}
"""


@pytest.fixture
def proxy(lab: Lab, tmp_path: Path) -> Proxy:
    """Start a proxy at the address and port that the recipe uses."""
    return lab.proxy(tmp_path / "proxy", {"LISTEN_HOST": "127.0.0.1", "LISTEN_PORT": "3128"})


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """Return the folder that gets a node's changed files; `kind` and `docker` in `bin` beside it know the node."""
    kept = tmp_path / "node"
    kept.mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "enter").write_text(ENTER.format(address="127.0.0.1", name=PROXY_NAME, kept=kept))
    for name, text in (("kind", FAKE_KIND), ("docker", FAKE_DOCKER.format(directory=tmp_path, kept=kept))):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return kept


def recipe() -> str:
    """Return the commands of the page that change the nodes."""
    (commands,) = re.findall(
        r"^```sh nodes\n(.*?)^```$", (ROOT / "docs/deploy/kind.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert isinstance(commands, str)
    return commands


def test_the_recipe_changes_a_node(proxy: Proxy, node: Path) -> None:
    """Its containerd gets the proxy and what is not to go through it, and is restarted; it trusts the CA."""
    proxy.address = proxy.address._replace(port=3128)
    with proxy:
        path = f"{node.parent}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        subprocess.run(["sh", "-e"], input=recipe(), text=True, check=True, env={"PATH": path}, cwd=node, timeout=60)
        authority = proxy.ca_file.read_bytes()

    drop_in = (node / "etc/systemd/system/containerd.service.d/http-proxy.conf").read_text().splitlines()
    assert drop_in[0] == "[Service]"
    values = dict(re.findall(r'"(\w+)=([^"]*)"', drop_in[1]))
    assert drop_in[1].startswith('Environment="HTTPS_PROXY=')
    assert values["HTTPS_PROXY"] == f"http://{PROXY_NAME}:3128/"
    assert {"10.0.0.0/8", "192.168.0.0/16", ".svc"} <= set(values["NO_PROXY"].split(","))
    assert not (node / "etc/systemd/system/docker.service.d").exists()
    assert (node / "usr/share/ca-certificates/docker_registry_proxy.crt").read_bytes() == authority
    assert "docker_registry_proxy.crt" in (node / "etc/ca-certificates.conf").read_text().splitlines()
    assert authority in (node / "etc/ssl/certs/ca-certificates.crt").read_bytes()
    called = (node / "systemctl-called").read_text().splitlines()
    assert called == ["systemctl daemon-reload", "systemctl restart containerd.service"]
