"""Requests to upstreams: what is sent, which redirects are followed, and what is said when it fails."""

import asyncio
import gzip
import socket
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from lab.pki import Pki
from regproxy.origin.errors import AnswerEncoded, AnswerTooLarge, UpstreamUnavailable
from regproxy.origin.request import UpstreamRequest, header_pairs
from regproxy.policy.freshness import ConnectionFailed, TimedOut
from regproxy.policy.interception import HostPattern
from regproxy.policy.mappings import UpstreamMapping
from regproxy.policy.redirects import Url
from unit.origin.conftest import Open, Serve

type ServeRaw = Callable[[Callable[[str], bytes]], Awaitable[int]]

LIMIT_BYTES = 100_000
SECRETS = (("Authorization", "Basic c2VjcmV0"), ("X-Registry-Auth", "private"), ("Cookie", "session=1"))
PLAIN = (("Accept", "application/json"), ("User-Agent", "skopeo/1"), ("Range", "bytes=5-"), ("If-Range", '"x"'))


def get(port: int, target: str = "/v2/", headers: tuple[tuple[str, str], ...] = ()) -> UpstreamRequest:
    return UpstreamRequest("GET", Url("http", "127.0.0.1", port, target), headers)


def redirect(location: str, status: int = 307) -> web.Response:
    return web.Response(status=status, headers={"Location": location}, text="moved")


class Recorder:
    """A handler that writes down what it was asked and answers `ok`."""

    def __init__(self) -> None:
        self.requests: list[web.BaseRequest] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        self.requests.append(request)
        return web.Response(text="ok")

    def fields(self) -> dict[str, str]:
        """Return the last request's fields, in lower case."""
        return {field.lower(): value for field, value in self.requests[-1].headers.items()}


async def test_a_request_carries_what_it_was_given_and_nothing_of_the_library(
    serve: Serve, open_upstream: Open
) -> None:
    """No made-up User-Agent or Accept; identity is asked for, cookies are dropped."""
    recorder = Recorder()
    port = await serve(recorder)

    answer = await open_upstream().ask(get(port, headers=(*SECRETS, *PLAIN)), LIMIT_BYTES)

    assert (answer.status, answer.body, answer.origin) == (200, b"ok", f"http://127.0.0.1:{port}")
    assert recorder.fields() == {
        "host": f"127.0.0.1:{port}",
        "authorization": "Basic c2VjcmV0",
        "x-registry-auth": "private",
        "accept": "application/json",
        "user-agent": "skopeo/1",
        "range": "bytes=5-",
        "if-range": '"x"',
        "accept-encoding": "identity",
    }


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_on_the_same_origin_keeps_the_authorization(
    serve: Serve, open_upstream: Open, status: int
) -> None:
    """A relative Location stays at the registry, which may want to know who asks."""
    recorder = Recorder()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return redirect("other?x=1", status) if request.path == "/v2/first" else await recorder(request)

    port = await serve(handler)
    answer = await open_upstream().ask(get(port, "/v2/first", SECRETS + PLAIN), LIMIT_BYTES)

    assert answer.body == b"ok"
    assert recorder.requests[-1].path_qs == "/v2/other?x=1"
    assert recorder.requests[-1].method == "GET"
    assert recorder.fields()["authorization"] == "Basic c2VjcmV0"


async def test_a_redirect_to_another_origin_loses_the_authorization(serve: Serve, open_upstream: Open) -> None:
    """Another port is another origin: only what storage needs to choose and cut the content goes there."""
    recorder = Recorder()
    storage = await serve(recorder)

    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        return redirect(f"http://127.0.0.1:{storage}/blob")

    port = await serve(handler)
    answer = await open_upstream().ask(get(port, headers=SECRETS + PLAIN), LIMIT_BYTES)

    assert answer.origin == f"http://127.0.0.1:{storage}"
    assert recorder.fields() == {
        "host": f"127.0.0.1:{storage}",
        "accept": "application/json",
        "user-agent": "skopeo/1",
        "range": "bytes=5-",
        "if-range": '"x"',
        "accept-encoding": "identity",
    }


async def test_the_authorization_does_not_come_back(serve: Serve, open_upstream: Open) -> None:
    """Storage that redirects back to the registry does not get the proxy to log in on its behalf."""
    recorder = Recorder()
    ports: list[int] = []

    async def storage(_request: web.BaseRequest) -> web.StreamResponse:
        return redirect(f"http://127.0.0.1:{ports[1]}/back")

    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        return await recorder(request) if request.path == "/back" else redirect(f"http://127.0.0.1:{ports[0]}/")

    ports += [await serve(storage), await serve(registry)]
    await open_upstream().ask(get(ports[1], headers=SECRETS), LIMIT_BYTES)

    assert "authorization" not in recorder.fields()


async def test_a_signed_url_is_sent_as_it_is_written(serve: Serve, open_upstream: Open) -> None:
    """A signature covers every character; normalising one breaks it."""
    recorder = Recorder()
    storage = await serve(recorder)
    target = "/a%2Fb/c%20d/%e2%82%ac?sig=a%2Bb+c%3D%3D&x=~'()*&empty=&y"

    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        return redirect(f"http://127.0.0.1:{storage}{target}")

    await open_upstream().ask(get(await serve(handler)), LIMIT_BYTES)

    assert recorder.requests[-1].raw_path == target


@pytest.mark.parametrize(("hops", "works"), [(10, True), (11, False)])
async def test_ten_redirects_are_followed(serve: Serve, open_upstream: Open, hops: int, works: bool) -> None:
    """Eleven are refused, and so is a circle."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        left = int(request.path.strip("/"))
        return redirect(f"/{left - 1}") if left else web.Response(text="there")

    port, upstream = await serve(handler), open_upstream()
    if works:
        assert (await upstream.ask(get(port, f"/{hops}"), LIMIT_BYTES)).body == b"there"
    else:
        with pytest.raises(UpstreamUnavailable, match="more than 10 redirects"):
            await upstream.ask(get(port, f"/{hops}"), LIMIT_BYTES)


async def test_a_redirect_without_location_is_an_answer(serve: Serve, open_upstream: Open) -> None:
    """There is nowhere to go: the caller decides."""

    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, text="where?")

    assert (await open_upstream().ask(get(await serve(handler)), LIMIT_BYTES)).status == 302


async def test_head_stays_head(serve: Serve, open_upstream: Open) -> None:
    """Also behind a 303."""
    recorder = Recorder()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return redirect("/there", 303) if request.path == "/v2/" else await recorder(request)

    port = await serve(handler)
    request = UpstreamRequest("HEAD", Url("http", "127.0.0.1", port, "/v2/"), ())
    answer = await open_upstream().ask(request, LIMIT_BYTES)

    assert recorder.requests[-1].method == "HEAD"
    assert (answer.body, answer.headers["content-length"]) == (b"", "2")


async def test_bodies_are_not_decoded_cookies_not_kept_and_proxies_not_asked(
    serve: Serve, open_upstream: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content must hash to its digest; a cookie jar would be shared by all clients; a proxy variable is ours alone."""
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    recorder = Recorder()
    body = gzip.compress(b"content")

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        await recorder(request)
        return web.Response(body=body, headers={"Content-Encoding": "gzip", "Set-Cookie": "a=b"})

    port, upstream = await serve(handler), open_upstream()
    for _ in range(2):
        with pytest.raises(AnswerEncoded):
            await upstream.ask(get(port), LIMIT_BYTES)
    async with upstream.send(get(port)) as response:
        assert await response.read() == body

    assert "cookie" not in recorder.fields()


async def test_a_body_beyond_the_limit_is_an_error(serve: Serve, open_upstream: Open) -> None:
    """The limit itself is allowed."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"x" * int(request.path.strip("/")))

    port, upstream = await serve(handler), open_upstream()

    assert len((await upstream.ask(get(port, "/1000"), 1000)).body) == 1000
    with pytest.raises(AnswerTooLarge, match=r"127\.0\.0\.1 sends more than 1000 bytes"):
        await upstream.ask(get(port, "/1001"), 1000)


class TestTls:
    @staticmethod
    def request(port: int) -> UpstreamRequest:
        """Return a request to a name that only a mapping knows."""
        return UpstreamRequest("GET", Url("https", "registry.test", port, "/v2/?sig=s3cret"), ())

    @staticmethod
    def mappings() -> tuple[UpstreamMapping, ...]:
        """Return where that name leads."""
        return (UpstreamMapping.parse("registry.test=127.0.0.1"),)

    async def test_a_mapped_name_is_verified_and_asked_by_its_name(
        self, serve: Serve, open_upstream: Open, pki: Pki
    ) -> None:
        """Certificate and Host are the name's, wherever it leads; the operator's CA counts."""
        recorder = Recorder()
        port = await serve(recorder, tls=True)

        await open_upstream(ca_file=pki.ca_file, mappings=self.mappings()).ask(self.request(port), LIMIT_BYTES)

        assert recorder.fields()["host"] == f"registry.test:{port}"

    async def test_an_unknown_ca_is_said_with_the_remedy(self, serve: Serve, open_upstream: Open) -> None:
        """The setting that helps is named; the request's query is not."""
        port = await serve(Recorder(), tls=True)

        with pytest.raises(UpstreamUnavailable, match=r"not trusted .*UPSTREAM_CA_FILE") as raised:
            await open_upstream(mappings=self.mappings()).ask(self.request(port), LIMIT_BYTES)

        assert isinstance(raised.value.failure, ConnectionFailed)
        assert "s3cret" not in str(raised.value)

    async def test_verification_can_be_turned_off(self, serve: Serve, open_upstream: Open) -> None:
        """VERIFY_SSL=false is the operator's word."""
        port = await serve(Recorder(), tls=True)

        answer = await open_upstream(verify_tls=False, mappings=self.mappings()).ask(self.request(port), LIMIT_BYTES)

        assert answer.body == b"ok"

    async def test_a_step_down_to_plain_http_is_refused(self, serve: Serve, open_upstream: Open, pki: Pki) -> None:
        """Content of a TLS registry does not come over a wire that anyone can write on."""
        recorder = Recorder()
        storage = await serve(recorder)

        async def handler(_request: web.BaseRequest) -> web.StreamResponse:
            return redirect(f"http://127.0.0.1:{storage}/?sig=s3cret")

        port = await serve(handler, tls=True)
        with pytest.raises(UpstreamUnavailable, match="plain http") as raised:
            await open_upstream(ca_file=pki.ca_file, mappings=self.mappings()).ask(self.request(port), LIMIT_BYTES)

        assert recorder.requests == []
        assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "[::1]"])
async def test_a_redirect_into_our_own_machine_is_refused(serve: Serve, open_upstream: Open, host: str) -> None:
    """By name or by address, whoever may listen there; the message names the setting that allows it, not the query."""
    recorder = Recorder()
    inside = await serve(recorder)

    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        return redirect(f"http://{host}:{inside}/admin?sig=s3cret")

    with pytest.raises(UpstreamUnavailable, match=r"loopback address; list it in TRUSTED_HOSTS") as raised:
        await open_upstream(ipv4_only=False).ask(get(await serve(handler)), LIMIT_BYTES)

    assert recorder.requests == []
    assert "s3cret" not in str(raised.value)


async def test_a_trusted_host_may_be_in_our_own_machine(serve: Serve, open_upstream: Open) -> None:
    """The operator named it."""
    recorder = Recorder()
    inside = await serve(recorder)

    async def handler(_request: web.BaseRequest) -> web.StreamResponse:
        return redirect(f"http://localhost:{inside}/blob")

    listed = (HostPattern.parse("127.0.0.1"), HostPattern.parse("localhost"))
    answer = await open_upstream(listed=listed).ask(get(await serve(handler)), LIMIT_BYTES)

    assert answer.body == b"ok"


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed the connection without an answer"),
        (b"what?\r\n\r\n", "is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "broke off its answer"),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://cdn.example/?sig=s3cret\r\nContent-Length: 0\r\n\r\n", "neither http"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://u:s3cret@cdn.example/\r\nContent-Length: 0\r\n\r\n", "user name"),
    ],
    ids=["nothing", "nonsense", "half a body", "another scheme", "a password in the location"],
)
async def test_an_answer_that_is_none_is_the_upstreams_failure(
    serve_raw: ServeRaw, open_upstream: Open, answer: bytes, said: str
) -> None:
    """Whatever it is, the caller gets one class of error, its text without a query."""
    port = await serve_raw(lambda _: answer)

    with pytest.raises(UpstreamUnavailable, match=said) as raised:
        await open_upstream().ask(get(port, "/blob?sig=s3cret"), LIMIT_BYTES)

    assert isinstance(raised.value.failure, ConnectionFailed)
    assert f"127.0.0.1:{port}" in str(raised.value)
    assert "s3cret" not in str(raised.value)


async def test_a_port_where_nobody_listens_is_said_in_words(open_upstream: Open) -> None:
    """Origin and reason, not a class name or a stack."""
    port = closed_port()

    with pytest.raises(UpstreamUnavailable) as raised:
        await open_upstream().ask(get(port, "/blob?sig=s3cret"), LIMIT_BYTES)

    assert str(raised.value) == f"http://127.0.0.1:{port} cannot be reached: Connection refused"


async def test_a_name_that_does_not_exist_is_said_in_words(open_upstream: Open) -> None:
    """As for any other host that cannot be reached."""
    request = UpstreamRequest("GET", Url("https", "no-such-host.invalid", 443, "/?sig=s3cret"), ())

    with pytest.raises(UpstreamUnavailable, match=r"^https://no-such-host\.invalid cannot be reached: .*not|resol"):
        await open_upstream().ask(request, LIMIT_BYTES)


@pytest.mark.parametrize("moment", ["head", "body"])
async def test_silence_is_a_timeout(serve: Serve, open_upstream: Open, moment: str) -> None:
    """Before the head and in the middle of a body; a stale answer may stand in."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        if moment == "body":
            await response.prepare(request)
            await response.write(b"some")
        await request.read()
        assert request.transport is not None
        while not request.transport.is_closing():  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.005)
        return response

    with pytest.raises(UpstreamUnavailable, match="did not answer in time") as raised:
        await open_upstream(read_timeout_s=0.05).ask(get(await serve(handler), "/?sig=s3cret"), LIMIT_BYTES)

    assert isinstance(raised.value.failure, TimedOut)
    assert "s3cret" not in str(raised.value)


async def test_a_closed_client_is_unavailable(open_upstream: Open) -> None:
    """At the end of the process a late request gets an answer, not a crash."""
    upstream = open_upstream()
    await upstream.close()
    await upstream.close()

    with pytest.raises(UpstreamUnavailable, match="closed"):
        await upstream.ask(get(1), LIMIT_BYTES)


def test_a_ca_bundle_that_cannot_be_used_is_an_os_error(open_upstream: Open, pki: Pki) -> None:
    """At the start, not at the first request."""
    for file in (pki.ca_file.with_name("missing"), pki.key_file):
        with pytest.raises(OSError):  # noqa: PT011 - OpenSSL's words differ from version to version
            open_upstream(ca_file=file)


def test_a_request_in_a_log_has_no_header() -> None:
    """Its repr shows neither credentials nor the query."""
    shown = repr(get(443, "/v2/?sig=s3cret", SECRETS))

    assert shown == "UpstreamRequest(GET Url(http://127.0.0.1:443/v2/?...))"


def test_fields_without_a_value_are_not_sent() -> None:
    """None and the empty text alike."""
    assert header_pairs({"Accept": "a", "Authorization": None, "User-Agent": ""}) == (("Accept", "a"),)
