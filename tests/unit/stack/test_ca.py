"""The CAs of a running proxy: replaced under its feet, handed out, counted; and the command for operators."""

import datetime as dt
import logging
from pathlib import Path

import pytest
from cryptography import x509
from mitmproxy import http

from regproxy.engine.authority import LIFETIME_DAYS, AuthorityError, create
from regproxy.engine.certificates import Certificates
from regproxy.engine.http_layer import Door
from regproxy.settings import load_settings
from regproxy.stack import ca_rotation
from regproxy.stack.ca import CLIENTS_FILE, CaWatch
from regproxy.stack.core import Core
from regproxy.stack.setup_responder import SetupResponder
from unit.stack.conftest import Configure, make_flow

NOW = dt.datetime.now(dt.UTC)


def after_days(days: float) -> dt.datetime:
    return NOW + dt.timedelta(days=days)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "cache").mkdir()
    return {"CACHE_DIRECTORY": str(tmp_path / "cache"), "CA_DIRECTORY": str(tmp_path / "ca")}


@pytest.fixture
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture
def watch(environ: dict[str, str], certificates: Certificates) -> CaWatch:
    """Return what looks after a CA that was made today."""
    opened = CaWatch(load_settings(environ), certificates)
    opened.open(NOW)
    return opened


def signing(watch: CaWatch) -> x509.Certificate:
    return watch.ca.authorities.signing.certificate


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


class TestWatch:
    def test_the_whole_life_of_a_ca(
        self, watch: CaWatch, certificates: Certificates, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One CA, the overlap, the switch: leaves and contexts follow, and each stage is told once."""
        first = signing(watch)
        context = certificates.context_for("quay.io", NOW)
        watch.look(after_days(LIFETIME_DAYS - 100))
        assert warnings(caplog) == []
        assert certificates.on_client is None
        for _ in range(2):
            watch.look(after_days(LIFETIME_DAYS - 60))
        assert ["comes after it" in line for line in warnings(caplog)] == [True]
        assert signing(watch) == first
        assert certificates.context_for("quay.io", NOW) is context
        caplog.clear()
        for _ in range(2):
            watch.look(after_days(LIFETIME_DAYS - 10))
        assert ["from now on the CA is" in line for line in warnings(caplog)] == [True]
        assert signing(watch) != first
        assert certificates.authority is not None
        assert certificates.authority.certificate == signing(watch)
        assert certificates.context_for("quay.io", NOW) is not context

    def test_the_operators_switch_is_taken_up(self, watch: CaWatch, environ: dict[str, str]) -> None:
        """No restart: the command moves files, and the next look sees them."""
        first = signing(watch)
        assert ca_rotation.main(["make"], environ, NOW) == 0
        watch.look(NOW)
        following = watch.ca.authorities.following
        assert following is not None
        assert signing(watch) == first
        assert ca_rotation.main(["switch"], environ, NOW) == 0
        watch.look(NOW)
        assert signing(watch) == following.certificate

    @pytest.mark.parametrize("damage", ["gone", "garbage", "other key"])
    def test_what_happens_to_the_files_does_not_stop_the_proxy(
        self, watch: CaWatch, environ: dict[str, str], caplog: pytest.LogCaptureFixture, damage: str, tmp_path: Path
    ) -> None:
        """An unmounted volume or a half-written replacement leaves the CA in memory, and no new one is made."""
        first, directory = signing(watch), Path(environ["CA_DIRECTORY"])
        if damage == "gone":
            (directory / "ca.crt").unlink()
            (directory / "ca.key").unlink()
        elif damage == "garbage":
            (directory / "ca.crt").write_text("garbage")
        else:
            create(tmp_path / "x.crt", directory / "ca.key", NOW)
        before = sorted(path.name for path in directory.iterdir())

        watch.look(NOW)
        watch.look(NOW)

        assert signing(watch) == first
        assert len(warnings(caplog)) == 1
        assert "the CA in memory goes on: " in warnings(caplog)[0]
        assert sorted(path.name for path in directory.iterdir()) == before

    def test_clients_are_counted_in_the_overlap_only(
        self, watch: CaWatch, environ: dict[str, str], certificates: Certificates, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Who gets a leaf and has not fetched the next CA is named, also after a restart."""
        certificates.context_for("quay.io", NOW, "10.0.0.1")
        watch.look(after_days(LIFETIME_DAYS - 60))
        assert watch.ca.clients_without_newest() == ()
        for address in ("10.0.0.2", "10.0.0.3"):
            certificates.context_for("quay.io", NOW, address)
        watch.ca.fetched_by("10.0.0.3")
        assert watch.ca.clients_without_newest() == ("10.0.0.2",)
        watch.tell_missing()
        assert warnings(caplog)[-1].endswith(": 10.0.0.2")
        watch.write_clients()
        file = Path(environ["CACHE_DIRECTORY"]) / CLIENTS_FILE
        assert file.stat().st_mode & 0o777 == 0o600
        restarted = CaWatch(load_settings(environ), Certificates())
        assert restarted.open(after_days(LIFETIME_DAYS - 60)).clients_without_newest() == ("10.0.0.2",)

    def test_nobody_missing_is_not_told(self, watch: CaWatch, caplog: pytest.LogCaptureFixture) -> None:
        """A log line a day is for when there is something to do."""
        watch.tell_missing()
        watch.look(after_days(LIFETIME_DAYS - 60))
        caplog.clear()
        watch.tell_missing()
        assert warnings(caplog) == []

    def test_a_host_that_the_ca_is_not_for_is_told(
        self, environ: dict[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A limited CA, and later one more registry: clients would refuse it, so the log says what to do."""
        limited = {**environ, "CA_NAME_CONSTRAINTS": "true"}
        CaWatch(load_settings({**limited, "REGISTRIES": "quay.io"}), Certificates()).open(NOW)
        assert warnings(caplog) == []
        CaWatch(load_settings({**limited, "REGISTRIES": "quay.io ghcr.io"}), Certificates()).open(NOW)
        assert "limited to other hosts than ghcr.io:" in warnings(caplog)[0]

    def test_a_pattern_that_cannot_be_a_limit_is_refused(self, environ: dict[str, str]) -> None:
        """The error names setting, pattern and remedy."""
        settings = load_settings({**environ, "CA_NAME_CONSTRAINTS": "true", "REGISTRIES": "registry.*"})
        with pytest.raises(AuthorityError, match=r"CA_NAME_CONSTRAINTS=true: .*registry\.\*"):
            CaWatch(settings, Certificates()).open(NOW)


class TestPage:
    def get(self, core: Core, method: str = "GET") -> http.Response:
        """Return the answer to a request from 127.0.0.1."""
        flow = make_flow(method, "proxy.lan", 3128, "/ca.crt", {"Host": "proxy.lan:3128"}, door=Door.OWN, scheme="http")
        flow.client_conn.peername = ("127.0.0.1", 40000)
        SetupResponder(core).requestheaders(flow)
        assert flow.response is not None
        return flow.response

    async def test_who_gets_the_certificates_is_counted(self, configure: Configure, tmp_path: Path) -> None:
        """Both CAs in one answer; a HEAD gives nothing, so it does not count. Keys are never in it."""
        settings = {"CA_DIRECTORY": str(tmp_path / "ca")}
        create(tmp_path / "ca" / "ca.crt", tmp_path / "ca" / "ca.key", after_days(60 - LIFETIME_DAYS))
        core = configure(**settings)
        core.ca.clients.connected("127.0.0.1")
        self.get(core, "HEAD")
        assert core.ca.clients_without_newest() == ("127.0.0.1",)
        response = self.get(core)
        assert core.ca.clients_without_newest() == ()
        served = response.raw_content or b""
        assert len(x509.load_pem_x509_certificates(served)) == 2
        assert b"PRIVATE" not in served


class TestCommand:
    def run(self, environ: dict[str, str], *arguments: str) -> int:
        """Return the exit code."""
        return ca_rotation.main(arguments, environ, NOW)

    def test_status_make_and_switch(
        self, watch: CaWatch, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Each says what there is and until when; a client without the next CA stops the switch."""
        assert self.run(environ) == 0
        assert capsys.readouterr().out.startswith("signs: ")
        assert self.run(environ, "switch") == 1
        assert "make it first" in capsys.readouterr().err
        assert self.run(environ, "make") == 0
        assert self.run(environ, "make") == 1
        watch.look(NOW)
        watch.ca.clients.connected("10.0.0.9")
        watch.write_clients()
        capsys.readouterr()
        assert self.run(environ, "status") == 0
        assert capsys.readouterr().out.splitlines()[-1] == "clients without the next CA: 10.0.0.9"
        assert self.run(environ, "switch") == 1
        assert "not fetched yet by 10.0.0.9" in capsys.readouterr().err
        assert self.run(environ, "switch", "--anyway") == 0
        assert self.run(environ, "status") == 0
        assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["signs", "former"]
        assert ca_rotation.main([], environ, after_days(LIFETIME_DAYS)) == 0
        assert capsys.readouterr().out.count(", ended on ") == 2

    def test_before_the_first_start(self, environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        """There is nothing to tell yet, and a wrong word is answered with the usage."""
        assert self.run(environ) == 0
        assert "no CA" in capsys.readouterr().out
        assert self.run(environ, "rotate") == 2
