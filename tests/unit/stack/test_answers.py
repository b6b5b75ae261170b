"""The proxy's own responses: exactly the fields they are given, and lengths that are true."""

import json

import pytest
from mitmproxy import http
from multidict import CIMultiDict

from regproxy.oci.digest import Digest
from regproxy.oci.errors import ErrorCode
from regproxy.origin.errors import Answer
from regproxy.stack.answers import (
    answer,
    content_fields,
    described_by_us,
    first_value,
    oci_error,
    passed_on,
    plain_text,
    relay,
)


def upstream(status: int = 200, body: bytes = b"", **fields: str) -> Answer:
    headers = CIMultiDict({field.replace("_", "-"): value for field, value in fields.items()})
    return Answer(status, headers, body, "https://quay.io")


@pytest.mark.parametrize(
    ("body", "length_bytes", "declared"), [(b"", None, "0"), (b"abc", None, "3"), (b"", 10, "10")], ids=str
)
def test_an_answer_declares_its_length(body: bytes, length_bytes: int | None, declared: str) -> None:
    """Its body's own, or that of a body that is elsewhere."""
    made = answer(200, {"Content-Type": "text/plain"}, body, length_bytes=length_bytes)

    assert dict(made.headers) == {"Content-Type": "text/plain", "content-length": declared}
    assert made.raw_content == body


def test_a_body_is_not_encoded_again() -> None:
    """Pins mitmproxy: setting `content` beside a Content-Encoding would compress what is compressed already."""
    made = answer(200, {"Content-Encoding": "gzip"}, b"as it is")

    assert made.raw_content == b"as it is"
    assert http.Response.make(200, b"as it is", {"Content-Encoding": "gzip"}).raw_content != b"as it is"


def test_fields_that_are_not_ascii_are_kept() -> None:
    """An upstream's bytes come out as they came in."""
    value = b"caf\xe9".decode("utf-8", "surrogateescape")

    assert answer(200, {"X-Name": value}).headers.fields[0] == (b"X-Name", b"caf\xe9")


def test_an_error_has_the_registrys_form() -> None:
    """Code and message as the distribution-spec has it, with further fields."""
    made = oci_error(503, ErrorCode.UNAVAILABLE, 'no "upstream"', retry_after="5")

    assert json.loads(made.raw_content or b"")["errors"][0] | {"detail": None} == {
        "code": "UNAVAILABLE",
        "message": 'no "upstream"',
        "detail": None,
    }
    assert made.headers["content-type"].startswith("application/json")
    assert made.headers["Retry-After"] == "5"


def test_a_text_is_utf_8() -> None:
    """And says so."""
    made = plain_text(405, "naïve")

    assert made.raw_content == "naïve".encode()
    assert made.headers["content-type"] == "text/plain; charset=utf-8"


def test_what_concerns_a_connection_is_not_passed_on() -> None:
    """Only fields that mean something to a registry's client, whatever their case."""
    fields = passed_on(
        upstream(
            WWW_AUTHENTICATE="Bearer x", set_cookie="a=b", transfer_encoding="chunked", retry_after="3", etag='"x"'
        )
    )

    assert {field.lower(): value for field, value in fields.items()} == {
        "www-authenticate": "Bearer x",
        "retry-after": "3",
        "etag": '"x"',
    }


def test_each_challenge_stays_a_field_of_its_own() -> None:
    """Docker reads one in each; Gitea sends two."""
    challenges = [("WWW-Authenticate", "Bearer x"), ("www-authenticate", "Basic y")]
    told = Answer(401, CIMultiDict(challenges), b"", "")

    assert relay(told, head=False).headers.get_all("www-authenticate") == ["Bearer x", "Basic y"]


def test_a_field_of_ours_takes_the_place_of_all_of_its_name() -> None:
    """However the upstream writes it, and however often."""
    told = Answer(200, CIMultiDict([("ETAG", "1"), ("etag", "2"), ("Link", "<a>")]), b"", "")

    assert list(described_by_us(told, {"ETag": "3"}).items()) == [("ETag", "3"), ("Link", "<a>")]


@pytest.mark.parametrize(
    ("head", "declared", "expected"),
    [
        (False, "99", ("4", b"body")),
        (True, "99", ("99", b"")),
        (True, None, ("4", b"")),
        (True, "many", ("4", b"")),
    ],
)
def test_an_upstreams_answer_is_relayed(head: bool, declared: str | None, expected: tuple[str, bytes]) -> None:
    """A HEAD keeps the length the upstream declared, or has that of the body which a GET gets."""
    fields = {} if declared is None else {"content_length": declared}

    made = relay(upstream(404, b"body", **fields), head=head)

    assert made.status_code == 404
    assert (made.headers["content-length"], made.raw_content) == expected


def test_content_is_described_by_its_digest() -> None:
    """The entity tag is quoted."""
    digest = Digest.of(b"x")

    fields = content_fields(digest, "text/plain")

    assert (fields["ETag"], fields["Docker-Content-Digest"]) == (f'"{digest}"', str(digest))


@pytest.mark.parametrize(("given", "value"), [({}, None), ({"A": "  "}, None), ({"a": "x"}, "x")])
def test_a_blank_field_is_an_absent_one(given: dict[str, str], value: str | None) -> None:
    """Some clients send `Authorization:` with nothing in it."""
    made = http.Headers([(field.encode(), text.encode()) for field, text in given.items()])

    assert first_value(made, "a") == value
