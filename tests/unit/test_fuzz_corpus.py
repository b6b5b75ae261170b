"""The corpus of the fuzzer, replayed without it: what was found once is not found again."""

from pathlib import Path

import pytest
from fuzz.targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_nothing_of_the_corpus_fails(name: str) -> None:
    """Each input is refused as promised or read as promised."""
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for each in inputs:
        TARGETS[name](each.read_bytes())


def test_every_corpus_has_its_target() -> None:
    """And each target a corpus."""
    assert {each.name for each in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS))
@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_fail(name: str, data: bytes) -> None:
    """The same with inputs that Hypothesis thinks of."""
    TARGETS[name](data)
