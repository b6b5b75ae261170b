"""Types of the fixtures that make things, for the annotations of tests."""

from collections.abc import Mapping
from typing import Protocol

from lab.image import Image
from lab.origin import Origin
from lab.proxy import Proxy


class StartProxy(Protocol):
    """Starts another proxy of the test, with settings that win over the lab's."""

    def __call__(self, settings: Mapping[str, str] | None = None, *, start: bool = True) -> Proxy:
        """Return a proxy with an empty cache; with `start=False` it is left to the test to start it."""
        ...


class MakeImage(Protocol):
    """Makes an image that no other test has: its bytes come from the test's name and `seed`."""

    def __call__(
        self,
        seed: str = "",
        *,
        layers: int = 2,
        layer_bytes: int = 100_000,
        architectures: tuple[str, ...] = ("amd64",),
    ) -> Image:
        """Return an image of random bytes; more than one architecture makes an image index."""
        ...


class StartOrigin(Protocol):
    """Starts a scripted origin by one of the lab's free names."""

    def __call__(self, name: str) -> Origin:
        """Return it; KeyError for a name that is not of the lab."""
        ...
