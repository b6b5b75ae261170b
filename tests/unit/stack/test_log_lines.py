"""Lines of the log for people: the same facts as in JSON, and nothing that could move a cursor."""

import json
import logging
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.stack.access_log import log_facts, log_line, text_line
from regproxy.stack.log_lines import JsonMessages, TextMessages, access_text, decoded, escaped
from unit.stack.test_metrics import entry

COLOUR = re.compile(r"\x1b\[[0-9]+m")
FACTS = {
    "access_time": "21/Nov/2026:02:34:55 +0000",
    "upstream_cache_status": "STALE",
    "method": "GET",
    "uri": "/v2/team/app/manifests/1.4",
    "request_type": "manifest-default",
    "status": "200",
    "bytes_sent": "1536",
    "upstream_response_time": "0.012 : 0.300",
    "host": "quay.io",
    "proxy_host": "cdn.quay.io",
    "upstream": "192.0.2.1:443 : 192.0.2.2:443",
    "client_ip": "198.51.100.7",
    "user_agent": "docker/26.0 go/1.21",
    "bytes_upstream": "77",
    "image": "team/app:1.4",
    "error": "quay.io answered 503",
    "duration_s": "0.345",
    "credential": "operator:alice@quay.io",
    "source": "bucket",
}


def message(text: str, level: int = logging.INFO, *, failed: bool = False) -> logging.LogRecord:
    """Return a message; a failed one has a traceback."""
    failure = None
    if failed:
        try:
            int("bad\x1b[2J")
        except ValueError:
            failure = sys.exc_info()
    return logging.LogRecord("regproxy.stack.x", level, "x.py", 1, "%s", (text,), failure)


@pytest.mark.parametrize("colours", [False, True])
def test_all_facts_are_said(colours: bool) -> None:
    """Without the date: who sits before it knows what day it is."""
    line = COLOUR.sub("", access_text(FACTS, colours=colours))

    for key, value in FACTS.items():
        assert (value if key != "access_time" else "02:34:55") in line, key


def test_a_hit_is_short() -> None:
    """Nothing is said where there is nothing to say."""
    nothing = dict.fromkeys(
        ("upstream", "upstream_response_time", "bytes_upstream", "error", "credential", "source"), ""
    )
    line = access_text({**FACTS, **nothing, "upstream_cache_status": "HIT", "proxy_host": "quay.io"}, colours=False)

    assert line == (
        "02:34:55 HIT         200 GET  quay.io/v2/team/app/manifests/1.4 manifest-default team/app:1.4 "
        "1536 B in 0.345 s to 198.51.100.7 (docker/26.0 go/1.21)"
    )


def test_the_facts_are_those_of_the_json_line() -> None:
    """Both forms come from one place."""
    asked = entry()
    assert json.loads(log_line(asked, 101.0)) == log_facts(asked, 101.0)
    assert text_line(asked, 101.0, colours=False) == access_text(log_facts(asked, 101.0), colours=False)


def test_colours_are_only_added() -> None:
    """And only where they were asked for."""
    plain = access_text(FACTS, colours=False)
    assert "\x1b" not in plain
    coloured = access_text(FACTS, colours=True)
    assert COLOUR.sub("", coloured) == plain
    assert coloured != plain


@given(st.text())
def test_what_others_choose_cannot_leave_its_place(text: str) -> None:
    """No control character, no line end, no mark that turns the direction of writing."""
    facts = {**FACTS, "uri": text, "user_agent": text, "error": text}

    assert access_text(facts, colours=False).isprintable()
    assert TextMessages(colours=False).format(message(text)).isprintable()
    assert JsonMessages().format(message(text)).isprintable()


def test_readable_text_stays() -> None:
    """Letters of any script are no danger."""
    assert escaped("café 東京 ünïcode") == "café 東京 ünïcode"
    assert escaped("a\x1b[2J\nb\u202e") == r"a\x1b[2J\nb\u202e"


def test_a_message_in_json() -> None:
    """When, how bad, what, whose."""
    fields = json.loads(JsonMessages().format(message('say "x"', logging.WARNING)))

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("time"))
    assert fields == {"level": "warning", "message": 'say "x"', "logger": "regproxy.stack.x"}


def test_a_traceback_is_there_in_both_forms() -> None:
    """As one field, and as lines that are escaped like the rest."""
    assert "ValueError: invalid literal" in json.loads(JsonMessages().format(message("x", failed=True)))["exception"]
    first, *rest = TextMessages(colours=False).format(message("x", failed=True)).splitlines()
    assert first.endswith("info: x")
    assert rest[-1] == r"  ValueError: invalid literal for int() with base 10: 'bad\x1b[2J'"


def test_a_message_for_people_in_colours() -> None:
    """The level is what is looked for."""
    plain = TextMessages(colours=False).format(message("x", logging.ERROR))
    coloured = TextMessages(colours=True).format(message("x", logging.ERROR))
    assert re.fullmatch(r"\d\d:\d\d:\d\d error: x", plain)
    assert "\x1b[31merror" in coloured


@pytest.mark.parametrize(
    ("sent", "shown"),
    [(b"docker/26.0", "docker/26.0"), ("caf\u00e9".encode(), "caf\u00e9"), (b"caf\xe9 \x9b2J", "caf\ufffd \ufffd2J")],
)
def test_bytes_that_are_no_text_are_shown_as_such(sent: bytes, shown: str) -> None:
    """Half a surrogate pair, as Python keeps them, is an error for strict readers of JSON."""
    assert decoded(sent.decode("utf-8", "surrogateescape")) == shown
