"""Error bodies: the JSON that clients of registries read."""

import json

import pytest

from regproxy.oci.errors import ErrorCode, error_body

CODES_OF_THE_SPECIFICATION = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
]


@pytest.mark.parametrize("word", CODES_OF_THE_SPECIFICATION)
def test_every_code_of_the_specification_exists(word: str) -> None:
    """Each of the 14 codes is a member whose value is the word on the wire."""
    assert ErrorCode[word] == word


def test_a_body_is_a_list_of_one_error() -> None:
    """The body has the form of the specification, with code, message and detail."""
    body = error_body(ErrorCode.MANIFEST_UNKNOWN, "no such tag", {"tag": "latest"})

    assert json.loads(body) == {
        "errors": [{"code": "MANIFEST_UNKNOWN", "message": "no such tag", "detail": {"tag": "latest"}}]
    }


def test_an_absent_detail_is_left_out() -> None:
    """A body without detail has no null that a strict client could trip over."""
    assert b"detail" not in error_body(ErrorCode.DENIED, "no")


def test_messages_cannot_break_out_of_the_json() -> None:
    """Quotes, line breaks and letters outside ASCII in a message survive as JSON text."""
    message = 'bad "name"\r\n{ü}'

    assert json.loads(error_body(ErrorCode.NAME_INVALID, message))["errors"][0]["message"] == message
