"""The CA with real clients: its key stays here, its limits hold, and one follows the other without a gap."""

import datetime as dt
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.proxy import ENTRYPOINT, Proxy
from lab.raw_http import ask
from lab.skopeo import Skopeo
from regproxy.engine.authority import LIFETIME_DAYS, create

pytestmark = pytest.mark.e2e

ROTATION = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('regproxy.stack.ca_rotation', \
run_name='__main__', alter_sys=True)"


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def rotation(proxy: Proxy, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the operator's command beside the proxy."""
    command = [sys.executable, "-I", "-c", ROTATION, str(ENTRYPOINT.parent / "addons"), *arguments]
    return subprocess.run(command, env=proxy.settings, capture_output=True, text=True, check=False)


def trusting(proxy: Proxy, certificates: bytes, directory: Path) -> Skopeo:
    """Return a skopeo that goes through the proxy and trusts these certificates only."""
    directory.mkdir()
    (directory / "trusted.pem").write_bytes(certificates)
    return Skopeo(directory, directory / "trusted.pem", proxy.address)


class TestKey:
    PATHS = (
        "/ca.crt", "/ca.key", "/ca/ca.key", "/../ca/ca.key", "/%2e%2e/ca/ca.key", "/setup/systemd", "/setup/ca.key",
        "/", "/readyz", "/ca-next.key", "/ca.crt/../ca.key", "/ca.crt?file=ca.key",
    )  # fmt: skip

    @pytest.mark.parametrize("one_file", [False, True], ids=["two files", "one file"])
    def test_it_is_neither_served_nor_logged(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path, *, one_file: bool
    ) -> None:
        """Not at any path, not in the debug log of a pull; also when `CA_CRT_FILE` names the file that has both."""
        lab.push(build_image(), "authority/key")
        create(tmp_path / "ca" / "ca.crt", tmp_path / "ca" / "ca.key", now())
        key_pem = (tmp_path / "ca" / "ca.key").read_text()
        both = tmp_path / "ca" / "both.pem"
        both.write_text(key_pem + (tmp_path / "ca" / "ca.crt").read_text())
        chosen = {"CA_CRT_FILE": str(both), "CA_KEY_FILE": str(both)} if one_file else {}
        proxy = start_proxy({"CA_DIRECTORY": str(tmp_path / "ca"), "DEBUG_NGINX": "true", **chosen})
        trusting(proxy, (tmp_path / "ca" / "ca.crt").read_bytes(), tmp_path / "client").pull(
            f"{lab.noauth.name}/authority/key:latest", tmp_path / "pulled"
        )
        answers = [
            ask(proxy.address, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            for path in self.PATHS
        ]
        assert b"BEGIN CERTIFICATE" in answers[0]
        lines = [line for line in key_pem.splitlines() if "-----" not in line]
        told = proxy.log + b"".join(answers).decode("latin-1")
        assert [line for line in [*lines, "PRIVATE KEY"] if line in told] == []


class TestLimits:
    def test_a_limited_ca_is_for_the_configured_hosts(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Go (skopeo) and Python pull from a listed registry; one that is listed later is refused by both, and told."""
        lab.push(build_image(), "authority/limits")
        listed, later = lab.noauth.name, lab.redirect.name
        proxy = start_proxy({"CA_NAME_CONSTRAINTS": "true", "REGISTRIES": listed})
        proxy.skopeo().pull(f"{listed}/authority/limits:latest", tmp_path / "pulled")
        assert proxy.client().get(f"https://{listed}/v2/").status == 200
        assert "is limited to" not in proxy.log

        proxy.settings["REGISTRIES"] = f"{listed} {later}"
        proxy.restart()
        assert f"is limited to other hosts than {later}:" in proxy.log
        pulled = proxy.skopeo().pull(f"{later}/authority/limits:latest", tmp_path / "refused", check=False)
        assert pulled.returncode != 0
        assert "is not permitted by any constraint" in pulled.stderr
        with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
            proxy.client().get(f"https://{later}/v2/")
        assert proxy.client().get(f"https://{listed}/v2/").status == 200


class TestRotation:
    def test_from_one_ca_to_the_next(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Clients with the old CA pull during the overlap, those with both always, and who lacks the next is known."""
        lab.push(build_image(), "authority/rotation")
        image = f"{lab.noauth.name}/authority/rotation:latest"
        old_pem = create(
            tmp_path / "ca" / "ca.crt", tmp_path / "ca" / "ca.key", now() - dt.timedelta(days=760)
        ).chain_pem
        proxy = start_proxy({"CA_DIRECTORY": str(tmp_path / "ca")})
        assert f"ends on {now() + dt.timedelta(days=LIFETIME_DAYS - 761):%Y-%m-%d}" in proxy.log

        with_old = trusting(proxy, old_pem, tmp_path / "with-old")
        with_old.pull(image, tmp_path / "1")
        proxy.restart()  # also writes down who has pulled
        assert "clients without the next CA: 127.0.0.1" in rotation(proxy).stdout
        refused = rotation(proxy, "switch")
        assert (refused.returncode, "not fetched yet by 127.0.0.1" in refused.stderr) == (1, True)

        both_pem = proxy.request("GET", "/ca.crt").body
        old, new = x509.load_pem_x509_certificates(both_pem)
        assert old == x509.load_pem_x509_certificate(old_pem)
        with_both = trusting(proxy, both_pem, tmp_path / "with-both")
        with_both.pull(image, tmp_path / "2")
        proxy.stop()
        assert "none is known" in rotation(proxy).stdout

        assert rotation(proxy, "switch").returncode == 0
        proxy.start()
        with_both.pull(image, tmp_path / "3")
        assert with_old.pull(image, tmp_path / "4", check=False).returncode != 0
        assert x509.load_pem_x509_certificates(proxy.request("GET", "/ca.crt").body) == [new, old]
        assert x509.load_pem_x509_certificate((tmp_path / "ca" / "ca.crt").read_bytes()) == new
