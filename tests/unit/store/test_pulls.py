"""What clients pulled: rows that outlive what was pulled."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.pulls import Pulled

DIGEST = Digest.of(b"x")


def test_a_row_is_read_as_it_was_written() -> None:
    """Names are written as people write them."""
    tag = Pulled("localhost:5000", "team/app", "1.4", 7.0)
    assert Pulled.read(tag.key, "7") == tag
    assert (tag.text, tag.digest) == ("localhost:5000/team/app:1.4", None)
    manifest = Pulled("quay.io", "team/app", str(DIGEST), 7.0)
    assert Pulled.read(manifest.key, "7") == manifest
    assert (manifest.text, manifest.digest) == (f"quay.io/team/app@{DIGEST}", DIGEST)


@pytest.mark.parametrize(("key", "text"), [("tag:quay.io/a|b", "1"), ("pull:quay.io|b", "1"), ("pull:q/a|b", "x")])
def test_anything_else_is_an_error(key: str, text: str) -> None:
    """Whatever the index holds."""
    with pytest.raises(ValueError, match=r"pull|float"):
        Pulled.read(key, text)


async def test_pulls_are_remembered_without_their_content(
    open_store: Callable[..., Store], clock: SimpleNamespace
) -> None:
    """Also by the next process; what is forgotten is gone."""
    clock.now_s = 1000.0
    store = open_store()
    store.note_pull("quay.io", "team/app", "1.4")
    clock.now_s = 2000.0
    store.note_pull("quay.io", "team/app", "1.4")
    store.note_pull("quay.io", "team/app", str(DIGEST))
    store.close()
    store.open()
    pulls = await store.inventory.pulls()
    assert {(pulled.text, pulled.at_s) for pulled in pulls} == {
        ("quay.io/team/app:1.4", 2000.0),
        (f"quay.io/team/app@{DIGEST}", 2000.0),
    }
    await store.inventory.forget_pulls(pulls[:1])
    assert await store.inventory.pulls() == pulls[1:]
