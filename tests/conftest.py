"""Fixtures of all tests: a lab that starts what is asked of it."""

from collections.abc import Iterator

import pytest

from lab.lab import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Yield the lab of real registries; a server starts when it is first asked for and stops at the end of the run."""
    with Lab(tmp_path_factory.mktemp("lab")) as running:
        yield running
