"""The log line: the predecessor's keys in its order, strings only, and nothing in it that does not belong in a log."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import flow as mitmproxy_flow
from mitmproxy import http
from mitmproxy.test import tutils

from regproxy.engine.bodies import FileBody, Sent, attach
from regproxy.engine.http_layer import BodySent, Door
from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import parse_endpoint
from regproxy.oci.names import Registry
from regproxy.policy.tiers import RequestClass
from regproxy.settings.model import Compat
from regproxy.stack.access_log import AccessLog, cache_fields, entry_of, log_line
from regproxy.stack.exchange import CacheStatus, Exchange, begin
from unit.stack.conftest import make_flow

DIGEST = str(Digest.of(b"x"))
BLOB = f"/v2/library/alpine/blobs/{DIGEST}"
NOW_S = 1_795_228_495.25
PREDECESSORS_KEYS = [
    "access_time",
    "upstream_cache_status",
    "method",
    "uri",
    "request_type",
    "status",
    "bytes_sent",
    "upstream_response_time",
    "host",
    "proxy_host",
    "upstream",
]


def pulled(path: str = BLOB, method: str = "GET", door: Door | None = Door.TUNNEL, **fields: str) -> http.HTTPFlow:
    flow = make_flow(method, "quay.io", 443, path, {f.replace("_", "-"): v for f, v in fields.items()}, door=door)
    flow.request.timestamp_start = NOW_S - 1.5
    endpoint = parse_endpoint(method, flow.request.path)
    begin(
        flow,
        Exchange(
            Registry("quay.io", 443), "https", endpoint, RequestClass.BLOB_BY_DIGEST, cache_status=CacheStatus.MISS
        ),
    )
    flow.response = tutils.tresp(status_code=200, content=b"abc")
    flow.response.headers["content-length"] = "3"
    return flow


def line_of(flow: http.HTTPFlow, exchange: Exchange | None, error: str | None = None) -> dict[str, str]:
    parsed: dict[str, str] = json.loads(log_line(entry_of(flow, exchange, 2480, error), NOW_S))
    return parsed


def exchange(path: str = BLOB, error: str | None = None) -> Exchange:
    return Exchange(
        Registry("quay.io", 443),
        "https",
        parse_endpoint("GET", path),
        RequestClass.BLOB_BY_DIGEST,
        authorization="Bearer s3cret",
        cache_status=CacheStatus.HIT,
        request_id="run-1",
        error=error,
    )


def test_the_line_is_the_predecessors_and_more() -> None:
    """The eleven known keys come first and in order, so that filters that cut by position go on working."""
    flow = pulled(user_agent="skopeo/1.2")

    text = log_line(entry_of(flow, exchange(), 2480, None), NOW_S)
    line = json.loads(text)

    assert text.startswith('{"access_time":"')
    assert list(line)[: len(PREDECESSORS_KEYS)] == PREDECESSORS_KEYS
    assert all(isinstance(value, str) for value in line.values())
    assert line == {
        "access_time": "21/Nov/2026:02:34:55 +0000",
        "upstream_cache_status": "HIT",
        "method": "GET",
        "uri": BLOB,
        "request_type": "blob-by-digest",
        "status": "200",
        "bytes_sent": "2480",
        "upstream_response_time": "",
        "host": "quay.io",
        "proxy_host": "quay.io",
        "upstream": "",
        "client_ip": "192.0.2.7",
        "user_agent": "skopeo/1.2",
        "bytes_upstream": "",
        "image": "library/alpine",
        "error": "",
        "duration_s": "1.500",
        "credential": "",
        "source": "",
        "request_id": "run-1",
    }


@pytest.mark.parametrize(
    ("path", "image"),
    [
        ("/v2/library/alpine/manifests/3.20", "library/alpine:3.20"),
        (f"/v2/library/alpine/manifests/{DIGEST}", f"library/alpine@{DIGEST}"),
        (BLOB, "library/alpine"),
        ("/v2/", ""),
        ("/token", ""),
    ],
)
def test_the_image_is_named_as_people_name_it(path: str, image: str) -> None:
    """With its tag or its digest; empty where there is none."""
    assert line_of(pulled(path), exchange(path))["image"] == image


def test_no_query_and_no_credential_is_logged() -> None:
    """Signatures and tokens are in queries and fields."""
    flow = pulled("/token?account=me&signature=s3cret", authorization="Bearer s3cret")

    text = log_line(entry_of(flow, exchange("/token"), 0, None), NOW_S)

    assert "s3cret" not in text
    assert '"uri":"/token"' in text


@given(agent=st.text(), error=st.text())
def test_a_line_stays_one_line(agent: str, error: str) -> None:
    """Whatever a client or an upstream sends: it parses as JSON and holds no control character."""
    flow = pulled()
    flow.request.headers["user-agent"] = "x"
    flow.request.headers.fields = (*flow.request.headers.fields[:-1], (b"user-agent", agent.encode("utf-8", "replace")))

    text = log_line(entry_of(flow, exchange(), 0, error), NOW_S)

    assert json.loads(text)["error"] == (error or "")
    assert text.isascii()
    assert text.isprintable()


def test_a_request_without_answer_or_exchange_is_a_line_too() -> None:
    """Unknown values are empty strings."""
    flow = make_flow("GET", "example.com", 80, "/x", door=Door.FORWARD)

    line = line_of(flow, None, "connection refused")

    assert (line["status"], line["request_type"], line["upstream_cache_status"]) == ("", "unknown", "")
    assert line["error"] == "connection refused"


def test_the_reason_of_the_exchange_is_logged_if_nothing_worse_happened() -> None:
    """Why an answer is stale, say; an error of the transfer counts more."""
    assert line_of(pulled(), exchange(error="stale because"))["error"] == "stale because"
    assert line_of(pulled(), exchange(error="stale because"), "cut off")["error"] == "cut off"


class TestAddon:
    def test_the_client_is_told_what_the_cache_did(self) -> None:
        """In the predecessor's two fields; a host that is no registry has none."""
        flow = pulled()
        other = make_flow("GET", "example.com", 80, "/x", door=Door.FORWARD)
        other.response = tutils.tresp()

        AccessLog().responseheaders(flow)
        AccessLog().responseheaders(other)

        assert flow.response is not None
        assert flow.response.headers["X-Docker-Registry-Proxy-Cache-Upstream-Status"] == "MISS"
        assert flow.response.headers["X-Docker-Registry-Proxy-Cache-Type"] == "blob-by-digest"
        assert not any(field.lower().startswith("x-docker") for field in other.response.headers)

    @pytest.mark.parametrize(("method", "sent"), [("GET", "3"), ("HEAD", "0")])
    def test_an_answer_is_logged_when_it_has_been_sent(
        self, capsys: pytest.CaptureFixture[str], method: str, sent: str
    ) -> None:
        """One line on standard output; a HEAD has sent no body."""
        AccessLog().response(pulled(method=method))

        (line,) = capsys.readouterr().out.splitlines()
        assert json.loads(line)["bytes_sent"] == sent

    def test_a_body_from_a_file_is_logged_when_it_has_been_sent(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """Not before, and with what was really sent."""
        (tmp_path / "blob").write_bytes(b"0123456789")
        flow = pulled()
        body = FileBody(os.open(tmp_path / "blob", os.O_RDONLY), 0, 10)
        attach(flow, body)
        log = AccessLog()

        log.response(flow)
        assert capsys.readouterr().out == ""
        log.registry_body_sent(BodySent(flow, Sent(7, "cut")))

        line = json.loads(capsys.readouterr().out)
        assert (line["bytes_sent"], line["error"]) == ("7", "cut")

    def test_a_request_that_failed_is_logged(self, capsys: pytest.CaptureFixture[str]) -> None:
        """With mitmproxy's reason."""
        flow = pulled()
        flow.response = None
        flow.error = mitmproxy_flow.Error("upstream went away")

        AccessLog().error(flow)

        assert json.loads(capsys.readouterr().out)["error"] == "upstream went away"

    @pytest.mark.parametrize("door", [None, Door.OWN])
    def test_requests_to_the_proxy_itself_are_not_logged(
        self, capsys: pytest.CaptureFixture[str], door: Door | None
    ) -> None:
        """Health checks every second would drown the pulls; replays are not requests."""
        AccessLog().response(pulled(door=door))

        assert capsys.readouterr().out == ""

    def test_a_log_that_cannot_be_written_does_not_stop_a_pull(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Standard output may be a pipe whose reader has gone."""
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as gone:
            monkeypatch.setattr("sys.stdout", gone)
            AccessLog().response(pulled())
            monkeypatch.undo()
            with pytest.raises(BrokenPipeError):
                gone.close()


def test_every_status_has_the_standards_words() -> None:
    """RFC 9211: one cache, and a hit or why it went on."""
    words = {}
    exchange = Exchange(Registry("quay.io", 443), "https", parse_endpoint("GET", BLOB), RequestClass.BLOB_BY_DIGEST)
    for status in CacheStatus:
        exchange.cache_status = status
        words[status] = cache_fields(exchange, Compat.RPARDINI).get("Cache-Status")
    assert words.pop(CacheStatus.NONE) is None
    assert all(text is not None and text.startswith("registry-proxy; ") for text in words.values())
    assert {status for status, text in words.items() if text and "; hit" in text} == {
        CacheStatus.HIT,
        CacheStatus.STALE,
    }
