"""Single values: nginx's grammar of times and sizes, quotes, lists, booleans, ports."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.settings import grammar

UNITS_S = {"y": 31_536_000, "M": 2_592_000, "w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1, "ms": 0.001}


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        pytest.param("90", 90, id="bare number"),
        pytest.param("0", 0, id="zero"),
        pytest.param("0s", 0, id="zero seconds"),
        pytest.param("30s", 30, id="seconds"),
        pytest.param("10m", 600, id="minutes"),
        pytest.param("1M", 2_592_000, id="a month is 30 days"),
        pytest.param("1y", 31_536_000, id="a year is 365 days"),
        pytest.param("60d", 5_184_000, id="days"),
        pytest.param("1h30m", 5_400, id="combined"),
        pytest.param("1h 30m", 5_400, id="combined with a blank"),
        pytest.param("1h30", 3_630, id="bare number after a unit"),
        pytest.param("500ms", 0.5, id="milliseconds"),
        pytest.param("1m500ms", 60.5, id="minutes and milliseconds"),
        pytest.param(" 5s ", 5, id="blanks around"),
    ],
)
def test_a_time_has_the_seconds_that_nginx_gives_it(text: str, expected_s: float) -> None:
    """Each form of nginx's grammar is understood."""
    assert grammar.parse_duration_s(text) == expected_s


@pytest.mark.parametrize(
    "text", ["", " ", "s", "abc", "-1", "1.5h", "30m1h", "1h1h", "1 0", "10D", "1e3", "٣s", "1" * 16, "1,5", "5s\n6s"]
)
def test_a_text_that_is_no_time_is_refused(text: str) -> None:
    """What nginx would not read is an error and not a guess."""
    with pytest.raises(ValueError, match="not a time"):
        grammar.parse_duration_s(text)


@given(st.lists(st.integers(0, 9999), min_size=len(UNITS_S), max_size=len(UNITS_S)), st.sampled_from(["", " ", "  "]))
def test_a_combined_time_is_the_sum_of_its_parts(numbers: list[int], blank: str) -> None:
    """All units together, with or without blanks, add up."""
    text = blank.join(f"{number}{unit}" for number, unit in zip(numbers, UNITS_S, strict=True))
    expected_s = sum(number * length_s for number, length_s in zip(numbers, UNITS_S.values(), strict=True))

    assert grammar.parse_duration_s(text) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("text", "expected_bytes"),
    [
        pytest.param("1048576", 1 << 20, id="bytes"),
        pytest.param("0", 0, id="zero"),
        pytest.param("512k", 512 << 10, id="kibibytes"),
        pytest.param("100M", 100 << 20, id="upper case"),
        pytest.param("32g", 32 << 30, id="gibibytes"),
        pytest.param("2t", 2 << 40, id="tebibytes, our addition"),
    ],
)
def test_a_size_counts_by_1024(text: str, expected_bytes: int) -> None:
    """The units are powers of two, in either case."""
    assert grammar.parse_size_bytes(text) == expected_bytes


@pytest.mark.parametrize("text", ["", "g", "32gb", "1.5g", "-1", "1 g", "1e9", "٣"])
def test_a_text_that_is_no_size_is_refused(text: str) -> None:
    """A size in another notation is an error."""
    with pytest.raises(ValueError, match="not a size"):
        grammar.parse_size_bytes(text)


@given(st.text(max_size=30))
def test_parsers_raise_nothing_but_value_errors(text: str) -> None:
    """No text makes a parser fail in another way, or give a number that is negative or not finite."""
    for parse in (grammar.parse_duration_s, grammar.parse_size_bytes, grammar.parse_port):
        try:
            number = parse(text)
        except ValueError:
            continue
        assert 0 <= number < float("inf")


@given(st.text(max_size=30))
def test_an_error_does_not_repeat_the_text(text: str) -> None:
    """The reason is the same for every text: whether a value may be shown is not decided here."""
    reasons = set()
    for attempt in (text + "!", "!"):
        with pytest.raises(ValueError, match=re.compile(".", re.DOTALL)) as caught:
            grammar.parse_size_bytes(attempt)
        reasons.add(str(caught.value))

    assert len(reasons) == 1


@pytest.mark.parametrize("text", ["1", "3128", "65535", " 80 "])
def test_a_port_is_a_number_from_1_to_65535(text: str) -> None:
    """The ends of the range are ports."""
    assert grammar.parse_port(text) == int(text)


@pytest.mark.parametrize("text", ["0", "65536", "", "-1", "abc", "80.0", "\N{FULLWIDTH DIGIT THREE}", "+80", "8_0"])
def test_other_texts_are_no_ports(text: str) -> None:
    """Neither zero nor what only `int` would read is a port."""
    with pytest.raises(ValueError, match=r"not a port number \(1-65535\)"):
        grammar.parse_port(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('"a b"', "a b", id="double"),
        pytest.param("'a'", "a", id="single"),
        pytest.param("\"'a'\"", "'a'", id="one pair only"),
        pytest.param("\"a'", "\"a'", id="two kinds"),
        pytest.param('"', '"', id="one quote"),
        pytest.param('"a" "b"', '"a" "b"', id="two quoted words"),
        pytest.param(" a ", "a", id="blanks"),
        pytest.param('" "', " ", id="a quoted blank is kept"),
    ],
)
def test_one_pair_of_quotes_is_removed(text: str, expected: str) -> None:
    """Only quotes that belong together are removed, and only one pair."""
    assert grammar.strip_quotes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a b", ("a", "b"), id="blank"),
        pytest.param("a,b, c", ("a", "b", "c"), id="commas"),
        pytest.param("a\n\tb\r\n", ("a", "b"), id="line ends"),
        pytest.param('"a b"', ("a", "b"), id="the whole quoted"),
        pytest.param("'a' 'b'", ("a", "b"), id="each word quoted"),
        pytest.param(" ,, ", (), id="nothing"),
    ],
)
def test_a_list_is_split_at_blanks_line_ends_and_commas(text: str, expected: tuple[str, ...]) -> None:
    """Every way in which users write lists gives the same words."""
    assert grammar.split_words(text) == expected


@pytest.mark.parametrize("text", ["True", "1", "yes", "on", "TRUE", "", "false"])
def test_only_the_exact_word_true_is_true(text: str) -> None:
    """The predecessors compare with `true`, so other words stay false."""
    assert not grammar.is_true(text)
    assert grammar.is_true("true")


@pytest.mark.parametrize("text", ["[::]", "::1", "127.0.0.1", "", "proxy.example.com"])
def test_a_listen_host_is_an_address_or_a_name(text: str) -> None:
    """Brackets around IPv6 are dropped, everything else is kept."""
    assert grammar.parse_listen_host(text) == text.strip("[]")


@pytest.mark.parametrize("text", ["a b", "http://a", "a/b", "ä"])
def test_other_texts_are_no_listen_hosts(text: str) -> None:
    """A URL or a text with blanks is an error here and not at the first connection."""
    with pytest.raises(ValueError, match="not an address"):
        grammar.parse_listen_host(text)


@given(st.text())
def test_a_shown_text_is_one_short_line(text: str) -> None:
    """Whatever a variable holds, an error stays one line without control characters."""
    line = grammar.shown(text)

    assert line.isprintable()
    assert len(line) <= 83
