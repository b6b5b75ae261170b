"""The predecessor's resolvers.conf, which users mount."""

from pathlib import Path

import pytest

from regproxy.settings import load_settings
from regproxy.settings.resolvers import Resolvers, parse_resolvers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Resolvers()),
        ("resolver 8.8.8.8 ipv6=off;\n", Resolvers(("8.8.8.8",), ipv4_only=True)),
        ("# mine\nresolver 10.0.0.2:53 [fd00::1] 10.0.0.2 valid=30s; # x", Resolvers(("10.0.0.2", "fd00::1"))),
        ("resolver_timeout 5s;\nresolver\n 1.1.1.1\n ipv6=on;", Resolvers(("1.1.1.1",))),
    ],
)
def test_addresses_and_ipv6_off_count(text: str, expected: Resolvers) -> None:
    """Comments, other statements and other parameters do not."""
    assert parse_resolvers(text) == expected


@pytest.mark.parametrize("word", ["dns.test", "10.0.0.2:5353", "1.2.3", "[::1", "::1"])
def test_a_word_that_cannot_be_used_is_told_by_its_number(word: str) -> None:
    """And the others stay."""
    found = parse_resolvers(f"resolver 10.0.0.2 {word};")

    assert found.nameservers == ("10.0.0.2",)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("word 2 of resolver is left out: ")


def test_the_file_is_read_if_it_is_there(tmp_path: Path) -> None:
    """A directory, or a file of something else, is doubted; the proxy starts."""
    path = tmp_path / "resolvers.conf"
    path.write_text("resolver 10.0.0.2 ipv6=off;")

    settings = load_settings({"RESOLVERS_FILE": str(path)})

    assert (settings.nameservers, settings.disable_ipv6, settings.warnings) == (("10.0.0.2",), True, ())
    assert load_settings({"RESOLVERS_FILE": str(tmp_path / "none")}).warnings == ()
    assert load_settings({"RESOLVERS_FILE": str(tmp_path)}).warnings[0].startswith(f"RESOLVERS_FILE={tmp_path}: cannot")
