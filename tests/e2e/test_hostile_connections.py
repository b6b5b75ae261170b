"""Connections that no client of the field makes: whom they ask for, and what they do not do.

While each of them is open, a bystander is served over a connection of its own.
"""

import contextlib
import resource
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from lab.addresses import Address
from lab.fixtures import StartProxy
from lab.hostile_clients import NAME, REGISTRY, Target, read_answer, statuses_in
from lab.image import random_chunks
from lab.lab import Lab
from lab.raw_http import ask, connected, parse_response, read_head, read_to_end, tunnelled

pytestmark = pytest.mark.e2e

IDLE = 2_000
SHORT = "2s"
CONNECT = f"CONNECT {REGISTRY}:443 HTTP/1.1\r\nHost: {REGISTRY}:443\r\n\r\n".encode()


@pytest.fixture(scope="module")
def target(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Yield one proxy for what leaves nothing behind; it listens at every address of this machine."""
    settings = {"LISTEN_HOST": "0.0.0.0", "TRUSTED_HOSTS": "localhost 127.0.0.1 me.lab.test"}  # noqa: S104
    proxy = lab.proxy(tmp_path_factory.mktemp("connections"), settings)
    proxy.settings["UPSTREAM_MAPPINGS"] += f" me.lab.test=127.0.0.1:{proxy.address.port}"
    with proxy:
        yield Target(lab, proxy)
        assert "Traceback" not in proxy.log


def own_names() -> list[str]:
    """Return by what this machine, and so the proxy on it, may be called."""
    names = ["localhost", "LOCALHOST.", "127.0.0.1", "127.1", "127.8.9.10", "2130706433", "0x7f.1", "me.lab.test"]
    names += ["0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::]"]  # noqa: S104
    with contextlib.suppress(OSError):
        host = socket.gethostname()
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None, socket.AF_INET)}
        names += [host, *found, *(f"[::ffff:{address}]" for address in found)]
    return sorted(set(names))


class TestConnect:
    @pytest.mark.parametrize(
        ("head", "status"),
        [
            pytest.param(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\nHost: other.lab.test:443", 400, id="another Host"),
            pytest.param(
                f"CONNECT {REGISTRY}:443 HTTP/1.1\r\nHost: {REGISTRY}\r\nHost: {REGISTRY}", 400, id="two Hosts"
            ),
            pytest.param(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\nContent-Length: 5", 400, id="a body"),
            pytest.param(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\nTransfer-Encoding: chunked", 400, id="a body in chunks"),
            pytest.param(f"CONNECT a@{REGISTRY}:443 HTTP/1.1", 400, id="a login"),
            pytest.param(f"CONNECT https://{REGISTRY}:443 HTTP/1.1", 400, id="a URL"),
            pytest.param(f"CONNECT {REGISTRY}:443/v2/ HTTP/1.1", 400, id="a path"),
            pytest.param(f"CONNECT {REGISTRY}:443\0.evil.example:443 HTTP/1.1", 400, id="a NUL"),
            pytest.param(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\nX: y\r\n Host: z", 400, id="a folded line"),
            pytest.param(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\nX: y\nHost: z", 400, id="a bare LF"),
            pytest.param(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\nHost : z", 400, id="a blank before the colon"),
            pytest.param(f"CONNECT {REGISTRY}:443 HTTP/2.0", 505, id="HTTP/2.0"),
            pytest.param(f"CONNECT {'a' * 10_000}:443 HTTP/1.1", 400, id="a name of 10 kB"),
            pytest.param(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\nX: {'y' * 70_000}", 431, id="a head of 70 kB"),
        ],
    )
    def test_one_in_doubt_is_refused(self, target: Target, head: str, status: int) -> None:
        """And what follows is not looked at."""
        answer = ask(target.proxy.address, f"{head}\r\n\r\n".encode() + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert statuses_in(answer) == [status]

    @pytest.mark.parametrize("name", ["other.lab.test", "evil.example", "noauth.lab.test.evil.example"])
    def test_tls_for_another_host_is_misdirected(self, target: Target, name: str) -> None:
        """421 for every request, also for what is at hand: the registry is the one that CONNECT named."""
        context = ssl.create_default_context(cafile=str(target.proxy.ca_file))
        context.check_hostname = False
        with connected(target.proxy.address) as plain:
            plain.sendall(CONNECT)
            assert b" 200 " in read_head(plain)
            with context.wrap_socket(plain, server_hostname=name) as tls:
                path = f"/v2/{NAME}/blobs/{target.digest}"
                for host in (REGISTRY, name):
                    tls.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                    assert read_head(tls).startswith(b"HTTP/1.1 421 ")
                    assert tls.recv(1000)

    @pytest.mark.parametrize("name", own_names())
    def test_to_ourselves_is_refused_by_every_name(self, target: Target, name: str) -> None:
        """Neither a tunnel nor a forwarded request leads to the proxy's own pages, which are for who asks it itself."""
        port = target.proxy.address.port
        authority = f"{name}:{443 if name == 'me.lab.test' else port}"
        refused = ask(target.proxy.address, f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        forwarded = [
            ask(
                target.proxy.address,
                f"GET http://{authority}{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode(),
            )
            for path in ("/ca.crt", "/healthz", "/setup/systemd", "/v2/")
        ]
        for answer in (refused, *forwarded):
            assert statuses_in(answer)[0] >= 400, answer
            assert b"BEGIN CERTIFICATE" not in answer
        assert target.proxy.readiness() == 200

    def test_the_predecessors_name_for_itself_leads_to_no_page_of_ours(self, target: Target) -> None:
        """It is intercepted as a registry's is, and there is none behind it."""
        name = "docker.caching.proxy.internal"
        with tunnelled(target.proxy.address, f"{name}:{target.proxy.address.port}", target.proxy.ca_file) as tls:
            tls.sendall(f"GET /ca.crt HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            assert statuses_in(read_to_end(tls)) == [502]


class TestOrder:
    def test_200_requests_at_once_are_answered_in_order(self, target: Target) -> None:
        """Pipelining: each answer is that of its own request, by both doors."""
        for door in ("proxy", "mirror"):
            with target.connection(door) as talk:
                ranges = [f"bytes={number}-{number + 9}" for number in range(200)]
                request = "GET {path} HTTP/1.1\r\nHost: {host}\r\nRange: %s\r\n\r\n"
                talk.send(b"".join(talk.written(request % each) for each in ranges))
                for number in range(200):
                    assert read_answer(talk.socket) == target.body[number : number + 10]

    @pytest.mark.parametrize("door", ["proxy", "mirror"])
    def test_a_client_that_closes_its_half_is_answered_or_let_go(self, target: Target, door: str) -> None:
        """What is at hand is answered; what is not may be given up, for who says nothing more may be gone."""
        with target.connection(door) as talk:
            talk.send(talk.written("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            talk.socket.shutdown(socket.SHUT_WR)
            received = read_to_end(talk.socket) if door == "mirror" else b""
        assert received.endswith(target.body) or door == "proxy"
        with target.connection(door) as talk:
            talk.send(talk.written("GET {in}a/manifests/absent HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            talk.socket.shutdown(socket.SHUT_WR)
            assert target.proxy.readiness() == 200


def hang(target: Target, stack: contextlib.ExitStack, number: int) -> socket.socket:
    """Open a connection that stops at one of its places: CONNECT, TLS, a request's head, by either door."""
    connection = stack.enter_context(connected(target.proxy.address))
    starts = (
        b"",
        b"CONNECT quay",
        CONNECT,
        CONNECT + b"\x16\x03\x01\x02\x00\x01",
        b"GET /v2/",
        b"GET / HTTP/1.1\r\nX: ",
    )
    with contextlib.suppress(OSError):
        connection.sendall(starts[number % len(starts)])
    return connection


@pytest.mark.slow
class TestSlowness:
    def test_heads_that_never_end_hold_nobody_up(self, lab: Lab, start_proxy: StartProxy) -> None:
        """Slowloris at CONNECT, TLS and the head: 300 of them, dripping, while others are served; then they are cut."""
        target = Target(lab, start_proxy({"CLIENT_HEADER_TIMEOUT": SHORT}))
        with contextlib.ExitStack() as stack, target.connection("proxy") as bystander:
            hanging = [hang(target, stack, number) for number in range(300)]
            for connection in hanging[::7]:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")
            assert bystander.blob() == target.body
            with target.connection("mirror") as other:
                assert other.blob() == target.body
            for connection in hanging:
                read_to_end(connection)
            assert bystander.blob() == target.body

    def test_clients_that_stop_reading_are_cut(self, lab: Lab, start_proxy: StartProxy) -> None:
        """20 by each door ask for 30 MB and take nothing; others have the same blob meanwhile."""
        target = Target(lab, start_proxy({"SEND_TIMEOUT": SHORT}))
        content = b"".join(random_chunks("stop reading", 30_000_000))
        digest = lab.storage.add_blob(NAME, [content])
        path = f"/v2/{NAME}/blobs/{digest}"
        assert target.proxy.client().get(f"https://{REGISTRY}{path}").body == content
        with contextlib.ExitStack() as stack:
            deaf = []
            for number in range(40):
                talk = stack.enter_context(target.connection(("proxy", "mirror")[number % 2]))
                head = f"GET {talk.prefix}{NAME}/blobs/{digest} HTTP/1.1\r\nHost: {talk.host}\r\n\r\n"
                talk.send(head.encode())
                deaf.append(talk)
            assert target.proxy.client().get(f"https://{REGISTRY}{path}").body == content
            wait_for_cut(target, len(deaf))
            for talk in deaf:
                assert len(received_until_cut(talk.socket)) < len(content)
        assert target.proxy.client().get(f"https://{REGISTRY}{path}").body == content

    def test_2000_idle_connections_cost_little(self, lab: Lab, start_proxy: StartProxy) -> None:
        """A tenth of them with TLS; one more client is served, and the memory is a bounded matter."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 5_000)), hard))
        target = Target(lab, start_proxy())
        before = target.proxy.rss_bytes()
        with contextlib.ExitStack() as stack:
            for number in range(IDLE):
                door = "mirror" if number % 10 else "proxy"
                talk = stack.enter_context(target.connection(door))
                if door == "mirror":
                    talk.send(f"GET /v2/ HTTP/1.1\r\nHost: {talk.host}\r\n\r\n".encode())
                    assert read_answer(talk.socket) == b"{}"
            each = (target.proxy.rss_bytes() - before) / IDLE
            with target.connection("proxy") as one_more:
                assert one_more.blob() == target.body
        assert each < 100_000
        assert "Traceback" not in target.proxy.log


class TestTooMany:
    def test_a_client_with_too_many_gets_no_more(self, lab: Lab, start_proxy: StartProxy) -> None:
        """503 and the name of the setting; another address is served; what ends makes room, handed over or not."""
        target = Target(lab, start_proxy({"MAX_CONNECTIONS_PER_CLIENT": "3", "MAX_CONNECTIONS": "5"}))
        address = target.proxy.address
        with contextlib.ExitStack() as stack:
            for handed_over in (True, False, True):
                stack.enter_context(target.connection("mirror", handed_over=handed_over))
            refused = parse_response(ask(address, b""))
            assert (refused.status, b"MAX_CONNECTIONS_PER_CLIENT" in refused.body) == (503, True)
            others = [stack.enter_context(connected_from(f"127.0.0.{n}", address)) for n in (2, 3)]
            for other in others:
                other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_answer(other) == b"ok\n"
            with connected_from("127.0.0.4", address) as one_too_many:
                assert b"MAX_CONNECTIONS" in read_to_end(one_too_many)
        until_served(target)


def connected_from(source: str, address: Address) -> socket.socket:
    """Return a connection from another of this machine's addresses."""
    return socket.create_connection(address, timeout=20, source_address=(source, 0))


def until_served(target: Target) -> None:
    """Wait until the proxy has seen the ends of the connections."""
    deadline_s = time.monotonic() + 30
    while target.proxy.readiness() != 200:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    for door in ("proxy", "mirror"):
        with target.connection(door) as talk:
            assert talk.blob() == target.body


def wait_for_cut(target: Target, number: int) -> None:
    """Wait until the access log has the ends of so many clients that did not read."""
    deadline_s = time.monotonic() + 60
    while target.proxy.log.count("took no byte") < number:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def received_until_cut(connection: socket.socket) -> bytes:
    """Return what is left to read of a connection that was cut."""
    received = b""
    with contextlib.suppress(OSError, ssl.SSLError):
        while piece := connection.recv(65536):
            received += piece
    return received
