"""The history of a tag: what is news, how much is kept, and for how long."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.records import TagKey, TagRecord
from regproxy.store.tag_history import (
    KEPT_CHANGES,
    ChangeKind,
    TagChange,
    TagEvent,
    history_from_json,
    history_to_json,
)

type OpenStore = Callable[..., Store]

A, B = Digest.of(b"a"), Digest.of(b"b")
OCI = "application/vnd.oci.image.index.v1+json"
MOVED = TagChange(100.0, ChangeKind.MOVED, A, B, OCI)
GONE = TagChange(200.0, ChangeKind.VANISHED, B, None, OCI)
BACK = TagChange(300.0, ChangeKind.BACK, None, A, OCI)


def event(change: TagChange, registry: str = "quay.io") -> TagEvent:
    return TagEvent(registry, "team/app", "latest", change)


@pytest.mark.parametrize(
    ("change", "history", "known_at_s", "is_news"),
    [
        pytest.param(MOVED, (), 0.0, True, id="the first move"),
        pytest.param(replace(MOVED, at_s=150.0), (MOVED,), 50.0, False, id="the same move by another kind of client"),
        pytest.param(replace(MOVED, at_s=150.0), (MOVED,), 120.0, True, id="there and back, and there again"),
        pytest.param(replace(MOVED, after=A, before=B), (MOVED,), 50.0, True, id="back to what it was"),
        pytest.param(GONE, (MOVED,), 150.0, True, id="vanished"),
        pytest.param(replace(GONE, at_s=201.0), (MOVED, GONE), 150.0, False, id="vanished for another one, too"),
        pytest.param(BACK, (MOVED, GONE), 0.0, True, id="back"),
        pytest.param(BACK, (MOVED,), 0.0, False, id="it had not vanished"),
        pytest.param(BACK, (), 0.0, False, id="never seen before"),
    ],
)
def test_what_is_news(change: TagChange, history: tuple[TagChange, ...], known_at_s: float, is_news: bool) -> None:
    """A change is told once, however many kinds of clients see it."""
    assert change.is_news(history, known_at_s) is is_news


def test_the_text_form_has_everything() -> None:
    """What is written is read."""
    assert history_from_json(history_to_json((MOVED, GONE, BACK))) == (MOVED, GONE, BACK)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "[1]",
        "[{}]",
        history_to_json((MOVED,)).replace(str(A), "sha256:1"),
        history_to_json((MOVED,)).replace("moved", "lost"),
        history_to_json((MOVED,)).replace("100.0", '"now"'),
    ],
)
def test_another_text_is_refused(text: str) -> None:
    """By ValueError, whatever it is."""
    with pytest.raises(ValueError, match=r"."):
        history_from_json(text)


class TestStore:
    async def test_the_newest_are_kept_newest_first(self, open_store: OpenStore) -> None:
        """And what is kept outlives the tag's records and the process."""
        store = open_store()
        for number in range(KEPT_CHANGES + 5):
            assert await store.note_tag_change(event(replace(MOVED, at_s=float(number))), known_at_s=float(number))
        await store.forget_tag("quay.io", "team/app", "latest")
        store.close()

        store = open_store()
        history = await store.tag_history("quay.io", "team/app", "latest")
        assert [change.at_s for change in history] == [float(n) for n in reversed(range(5, KEPT_CHANGES + 5))]
        assert await store.tag_history("quay.io", "team/app", "late") == ()

    async def test_what_was_known_is_not_told_again(self, open_store: OpenStore) -> None:
        """One event, one count."""
        store = open_store()
        assert await store.note_tag_change(event(MOVED), 50.0)
        assert not await store.note_tag_change(event(replace(MOVED, at_s=101.0)), 50.0)

        assert [each.change for each in store.activity.tag_events] == [MOVED]
        assert store.activity.tag_changes == {("quay.io", "moved"): 1}

    async def test_it_stays_while_the_tag_is_checked(self, open_store: OpenStore, clock: SimpleNamespace) -> None:
        """It goes with a tag that nobody asks for."""
        store = open_store()
        await store.note_tag_change(event(MOVED), 0.0)
        key = TagKey("quay.io", "team/app", "latest", (OCI,))
        inactive_s = store._inactive_s
        clock.now_s += inactive_s - 1
        await store.put_tag_record(key, TagRecord(Descriptor(OCI, B, 1), clock.now_s))
        clock.now_s += 2
        await store.evict_inactive()
        assert await store.tag_history("quay.io", "team/app", "latest") == (MOVED,)

        clock.now_s += inactive_s
        await store.evict_inactive()
        assert await store.tag_history("quay.io", "team/app", "latest") == ()

    async def test_a_damaged_history_is_as_good_as_none(
        self, open_store: OpenStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And is written anew."""
        store = open_store()
        ledger = store._open_ledger()
        await ledger._change("damage", lambda: ledger._index.put_text("history:quay.io/team/app:latest", "{", 0.0))
        assert await store.tag_history("quay.io", "team/app", "latest") == ()
        assert "ignoring the history" in caplog.text
        assert await store.note_tag_change(event(MOVED), 0.0)
        assert await store.tag_history("quay.io", "team/app", "latest") == (MOVED,)


async def test_registries_that_clients_make_up_do_not_fill_the_memory(open_store: OpenStore) -> None:
    """The rest counts as `other`."""
    activity = open_store().activity
    for number in range(300):
        activity.note_tag_event(event(MOVED, f"r{number}.example"))
    assert len(activity.tag_changes) <= 201
    assert activity.tag_changes["other", "moved"] == 100
