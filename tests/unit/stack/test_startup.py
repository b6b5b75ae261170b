"""What the entry loads, in which order, and what mitmproxy is told."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mitmproxy import ctx, options
from mitmproxy.addons import default_addons
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons, tflow
from mitmproxy.tools.dump import DumpMaster

from regproxy.settings import load_settings
from regproxy.stack import startup
from regproxy.stack.core import Core
from regproxy.stack.exchange import Exchange
from regproxy.stack.wiring import mitmproxy_options, summary, upstream_options
from regproxy.store.errors import StoreError

ENTRY = Path(__file__).parents[3] / "addons" / "registry_proxy.py"
ORDER = [
    "registry-startup",
    "registry-front-door",
    "registry-certificates",
    "registry-body-sender",
    "registry-client-login",
    "registry-interception",
    "registry-mirror-door",
    "registry-admin-door",
    "registry-admin-commands",
    "registry-metrics-page",
    "registry-dashboard",
    "registry-setup-responder",
    "registry-client-rules",
    "registry-drilling",
    "registry-push-bypass",
    "registry-auth-injector",
    "registry-client-tokens",
    "registry-ping",
    "registry-token-requests",
    "registry-manifest-cache",
    "registry-blob-cache",
    "registry-passed-on",
    "registry-passed-reads",
    "registry-upstream-route",
    "registry-mirror-answers",
    "registry-last-answers",
    "registry-access-log",
]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Return what sets variables; cache and CA are in the test's directory, the port is any."""
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    monkeypatch.setenv("CA_DIRECTORY", str(tmp_path / "ca"))
    monkeypatch.setenv("LISTEN_HOST", "127.0.0.1")
    return monkeypatch


@pytest.fixture
async def exits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list that ends of the process are written to, instead of ending it."""
    ended: list[str] = []
    monkeypatch.setattr(startup, "_exit_soon", lambda: ended.append("exit"))
    return ended


class Running:
    """The entry as mitmdump loads it."""

    def __init__(self, script: object) -> None:
        self.addons = script.addons  # type: ignore[attr-defined]
        self.startup = self.addons[0]
        self.core: Core = self.startup._core


@pytest.fixture
async def load(environ: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], Running]]:
    """Yield what loads the entry beside a proxy server; what it opened is closed at the end."""
    del environ
    running: list[Running] = []
    with taddons.context(Proxyserver()) as loaded:
        loaded.options.add_option("flow_detail", int, 1, "")
        loaded.options.add_option("onboarding", bool, True, "")
        loaded.options.add_option("block_global", bool, True, "")

        def start() -> Running:
            running.append(Running(loaded.script(str(ENTRY))))
            return running[-1]

        yield start
        for each in running:
            if each.core.ready:
                each.core.store.close()
                await each.core.upstream.close()
        await asyncio.sleep(0)


async def test_the_addons_are_in_the_order_of_a_pull(load: Callable[[], Running]) -> None:
    """The order is the order of every hook; no name is taken by mitmproxy."""
    names = [addon.name for addon in load().addons]

    assert names == ORDER
    assert not set(names) & {getattr(addon, "name", type(addon).__name__.lower()) for addon in default_addons()}


async def test_scripts_come_before_mitmproxys_own_layers_and_certificates() -> None:
    """Pins mitmproxy: our `next_layer` and `tls_start_client` are asked before the built-in ones."""
    order = list(DumpMaster(options.Options()).addons.lookup)

    assert order.index("proxyserver") < order.index("scriptloader")
    assert order.index("scriptloader") < order.index("nextlayer")
    assert order.index("scriptloader") < order.index("tlsconfig")


async def test_hooks_run_in_list_order_for_answers_too() -> None:
    """Pins mitmproxy: it is not an onion."""
    seen: list[str] = []

    class Noting:
        def __init__(self, name: str) -> None:
            self.name = name

        def request(self, _flow: object) -> None:
            seen.append(f"{self.name} request")

        def response(self, _flow: object) -> None:
            seen.append(f"{self.name} response")

    with taddons.context(Noting("first"), Noting("second")) as running:
        await running.cycle(SimpleNamespace(addons=[Noting("first"), Noting("second")]), tflow.tflow(resp=True))

    assert seen == ["first request", "second request", "first response", "second response"]


async def test_the_port_opens_when_there_is_a_stack_to_answer(
    load: Callable[[], Running], environ: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """Before the start nothing listens, whatever mitmproxy would do by itself."""
    environ.setenv("LISTEN_PORT", str(unused_tcp_port))
    running = load()
    proxyserver = ctx.master.addons.get("proxyserver")
    assert not running.core.ready
    assert proxyserver.listen_addrs() == []

    running.startup.running()
    assert running.core.ready
    while not proxyserver.listen_addrs():  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.005)

    assert proxyserver.listen_addrs() == [("127.0.0.1", unused_tcp_port)]
    ctx.options.update(server=False)
    await proxyserver.setup_servers()


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LISTEN_PORT", "many", "LISTEN_PORT"),
        ("CACHE_MAX_SIZE", "lots", "CACHE_MAX_SIZE"),
        ("CONFIG_FILE", "/no/such", "CONFIG_FILE"),
    ],
)
async def test_a_setting_that_cannot_be_used_ends_the_process(
    *,
    load: Callable[[], Running],
    environ: pytest.MonkeyPatch,
    exits: list[str],
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    said: str,
) -> None:
    """It is said before the end, and nothing is opened."""
    environ.setenv(variable, value)
    running = load()
    running.startup.running()

    assert exits
    assert said in capsys.readouterr().err
    assert not running.core.ready


def test_mitmproxy_is_told_what_this_job_needs() -> None:
    """The facts that the engine relies on are options of mitmproxy, so that a change of its defaults is no harm."""
    told = mitmproxy_options(load_settings({"LISTEN_PORT": "4000", "LISTEN_HOST": "127.0.0.1"}))

    assert told["connection_strategy"] == "lazy"
    assert told["http2"] is told["http3"] is told["upstream_cert"] is False
    assert (told["listen_host"], told["listen_port"]) == ("127.0.0.1", 4000)
    assert told["ssl_insecure"] is False
    assert "ssl_verify_upstream_trusted_ca" not in told


async def test_mitmproxy_knows_all_of_these_options() -> None:
    """An unknown one would be deferred for ever, without a word."""
    known = DumpMaster(options.Options()).options

    settings = load_settings({"UPSTREAM_CA_FILE": "/etc/hosts"})
    assert set(mitmproxy_options(settings)) <= set(known.keys())


def test_the_origin_room_is_told_the_same() -> None:
    """Registries, hosts with credentials and trusted hosts may be anywhere."""
    settings = load_settings(
        {
            "REGISTRIES": "quay.io",
            "AUTH_REGISTRIES": "ghcr.io:me:secret",
            "TRUSTED_HOSTS": "cdn.lan",
            "VERIFY_SSL": "false",
            "DISABLE_IPV6": "true",
            "PROXY_READ_TIMEOUT": "7s",
        }
    )

    told = upstream_options(settings)

    assert {str(pattern) for pattern in told.listed} == {"quay.io", "ghcr.io", "cdn.lan"}
    assert (told.verify_tls, told.ipv4_only, told.read_timeout_s) == (False, True, 7.0)


def test_the_summary_has_no_secret() -> None:
    """It names what is intercepted."""
    text = summary(load_settings({"REGISTRIES": "quay.io", "AUTH_REGISTRIES": "ghcr.io:me:hunter2"}))

    assert "quay.io ghcr.io" in text
    assert "hunter2" not in text


class TestCore:
    def test_a_part_that_is_not_there_yet_is_a_programming_error(self) -> None:
        """Not None somewhere deep in a pull."""
        core = Core()

        assert not core.ready
        for part in ("settings", "store", "upstream", "ca"):
            with pytest.raises(AssertionError):
                getattr(core, part)

    def test_a_store_that_fails_is_said_once_and_so_is_its_return(self, caplog: pytest.LogCaptureFixture) -> None:
        """Not for every request of an outage of the disk."""
        core = Core()
        caplog.set_level(logging.INFO)

        for _ in range(3):
            core.store_failed(StoreError("disk on fire"))
        core.store_worked()
        core.store_worked()
        core.store_failed(StoreError("again"))

        assert [(record.levelname, record.message[:30]) for record in caplog.records] == [
            ("ERROR", "the cache does not work, pulls"),
            ("WARNING", "the cache works again"),
            ("ERROR", "the cache does not work, pulls"),
        ]


def test_an_exchange_in_a_log_has_no_credential() -> None:
    """Its repr leaves the authorization out."""
    fields = Exchange.__dataclass_fields__

    assert not fields["authorization"].repr


async def test_no_limit_is_no_limit_at_the_front_door_either(
    load: Callable[[], Running], environ: pytest.MonkeyPatch
) -> None:
    """Nginx's 0 means so; a connection that ended after 0 s would be of no use."""
    environ.setenv("CLIENT_HEADER_TIMEOUT", "0")
    environ.setenv("SEND_TIMEOUT", "0")
    running = load()

    reception = running.startup.reception(running.core.settings)

    assert (reception.head_timeout_s, reception.send_timeout_s) == (math.inf, math.inf)
    assert reception.keepalive_timeout_s == 300.0
