"""What all tests have: a lab that starts what is asked of it, and names that are the same in every worker."""

from collections.abc import Iterator

import pytest

from lab.lab import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Yield the lab of real registries; a server starts when it is first asked for and stops at the end of the run.

    Each worker of `make test` has its own, at addresses of its own.
    """
    with Lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test whose name has an object's address in it: workers agree on tests by their names."""
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid}: the name is another one in each process: give it an id")
