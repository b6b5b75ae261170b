"""Lines of several workers in one pipe: each is one write, short enough that the kernel does not divide it."""

import contextlib
import io
import json
import select
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.stack.access_log import AccessLog, Entry, log_facts, log_line, text_line
from regproxy.stack.log_lines import LONGEST_LINE_BYTES, bounded
from unit.stack.test_metrics import entry as entry_of_a_hit

LONG = {"a": "x" * 60_000, "b": "\x00" * 60_000, "c": "\U0001f433" * 60_000}


def entry(**fields: str) -> Entry:
    """Return a request with fields that a client chooses."""
    return replace(entry_of_a_hit(), **fields)  # type: ignore[arg-type]


class Pipe(io.RawIOBase):
    """A standard output that says what the kernel is asked to write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        """Take all of it."""
        self.writes.append(bytes(data))
        return len(data)


@pytest.mark.parametrize("agent", ["docker/26.0", *LONG.values()], ids=["short", "long", "controls", "whales"])
@pytest.mark.parametrize("line_buffering", [False, True])
def test_a_line_is_one_write_that_a_pipe_takes_as_a_whole(agent: str, line_buffering: bool) -> None:
    """Whatever a client sends in its User-Agent; `announce` has Python keep no lines back."""
    pipe = Pipe()
    buffer = io.BufferedWriter(pipe)  # type: ignore[type-var]
    stdout = io.TextIOWrapper(buffer, encoding="utf-8", line_buffering=line_buffering)
    with contextlib.redirect_stdout(stdout):
        AccessLog().write(entry(user_agent=agent))

    (line,) = pipe.writes
    assert line.endswith(b"\n")
    assert len(line) <= select.PIPE_BUF
    assert json.loads(line)["host"] == "quay.io"


@given(st.dictionaries(st.sampled_from("abcdefghijklmnopqrst"), st.text() | st.sampled_from([*LONG.values()])))
def test_only_what_is_long_is_cut(facts: Mapping[str, str]) -> None:
    """In a line that fits nothing is; in another one each value is a beginning of what it was."""
    line = bounded(facts, json.dumps)

    said = json.loads(line)
    assert len(line) < LONGEST_LINE_BYTES
    assert said.keys() == facts.keys()
    assert said == facts or len(json.dumps(facts)) >= LONGEST_LINE_BYTES
    for key, value in said.items():
        assert value == facts[key] or (value.endswith("...") and facts[key].startswith(value[:-3]))


def test_a_usual_line_is_whole_in_both_forms() -> None:
    """Names have 255 characters at most, tags 128: a line of what a registry has is far from the bound."""
    usual = entry(target=f"/v2/{'n' * 255}/manifests/{'t' * 128}", user_agent="a" * 500)

    assert json.loads(log_line(usual, 101.0)) == log_facts(usual, 101.0)
    assert "..." not in text_line(usual, 101.0, colours=False)


def test_a_line_for_people_is_bounded_in_bytes() -> None:
    """They read letters of any script as such."""
    line = text_line(entry(user_agent="\u6771" * 2000), 101.0, colours=False)

    assert 1000 < len(line.encode()) < LONGEST_LINE_BYTES
