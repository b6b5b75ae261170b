"""regproxy.store.index: the seam into diskcache's table, and what is refused at the door."""

import contextlib
import pickle
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.errors import StoreError
from regproxy.store.index import Index, open_index
from regproxy.store.layout import Layout
from regproxy.store.records import content_key, tag_key_prefix


@pytest.fixture
def index(layout: Layout) -> Iterator[Index]:
    opened = open_index(layout.directory)
    yield opened
    opened.close()


def _adopt(index: Index, layout: Layout, body: bytes, now_s: float, media_type: str = "") -> str:
    digest = Digest.of(body)
    finished = layout.directory / "partial" / "finished"
    finished.write_bytes(body)
    index.adopt(content_key(digest), finished, media_type, now_s)
    return content_key(digest)


def test_the_table_has_the_columns_that_our_statements_use(index: Index) -> None:
    """An update of diskcache that changes its table fails here and not in a cache full of images."""
    columns = {row[1] for row in index._sql("PRAGMA table_info(Cache)")}

    assert columns >= {"rowid", "key", "raw", "access_time", "tag", "size", "mode", "filename", "value"}


def test_eviction_reads_an_index_of_access_times(index: Index) -> None:
    """Finding the oldest entries does not sort the whole table."""
    (plan,) = index._sql("EXPLAIN QUERY PLAN SELECT key FROM Cache WHERE access_time < 1 ORDER BY access_time")

    assert "USING INDEX Cache_access_time" in plan[-1]


def test_diskcache_never_culls_by_itself(index: Index, layout: Layout) -> None:
    """Storing more than diskcache's own limit removes nothing: making room is our decision."""
    index.reset("size_limit", 1)

    keys = [_adopt(index, layout, bytes([number]) * 5000, 1.0) for number in range(12)]

    assert index.content_keys() == set(keys)


def test_content_comes_least_recently_accessed_first(index: Index, layout: Layout) -> None:
    """Access times are what the caller's clock said, moved forward by accesses and never back."""
    first, second, third = (_adopt(index, layout, bytes([number]), number * 10.0) for number in (1, 2, 3))
    index.put_text("tag:old", "not content", 1.0)

    index.touch_accesses({first: 25.0, third: 5.0, "content:unknown": 9.0})

    assert list(index.content_by_access()) == [(second, 4096), (first, 4096), (third, 4096)]


def test_adopting_known_content_keeps_one_row_and_one_file(index: Index, layout: Layout) -> None:
    """The second copy takes the place of the first, and only an empty media type is replaced."""
    key = _adopt(index, layout, b"hello", 1.0)
    _adopt(index, layout, b"hello", 2.0, "application/json")
    _adopt(index, layout, b"hello", 3.0, "text/plain")

    assert len(index) == 1
    assert index.content_bytes() == 4096
    assert index.media_type(key) == "application/json"
    assert layout.content(Digest.of(b"hello")).read_bytes() == b"hello"


def test_a_failed_adoption_leaves_no_row(index: Index, layout: Layout) -> None:
    """No file, no row."""
    with pytest.raises(FileNotFoundError):
        index.adopt(content_key(Digest.of(b"x")), layout.directory / "partial" / "missing", "", 1.0)

    assert len(index) == 0


def test_discard_removes_rows_with_their_files(index: Index, layout: Layout) -> None:
    """Nothing is left on disk, and unknown keys do not matter."""
    keys = [_adopt(index, layout, bytes([number]), 1.0) for number in range(100)]

    index.discard([*keys[:99], "content:unknown"])

    assert index.content_keys() == {keys[99]}
    assert len(list(layout.stored())) == 1
    assert index.content_bytes() == 4096


def test_forgetting_a_tag_takes_all_accept_variants_and_no_other_tag(index: Index) -> None:
    """Tags that continue or precede the name are other tags."""
    for tag in ("v1", "v1.0", "v", "v2"):
        for accepted in ("", "a", "b,c"):
            index.put_text(tag_key_prefix("quay.io", "a/b", tag) + accepted, "{}", 1.0)

    index.forget_tag("quay.io", "a/b", "v1")

    assert len(index) == 9
    assert index.text("tag:quay.io/a/b:v1|a") is None
    assert index.text("tag:quay.io/a/b:v1.0|a") == "{}"


def test_forgetting_may_keep_the_variants_used_last(index: Index) -> None:
    """The bound on variants drops the oldest."""
    for number in range(5):
        index.put_text(f"tag:r/n:t|{number}", "{}", float(number))

    index.forget_tag("r", "n", "t", keep=2)

    assert [index.text(f"tag:r/n:t|{number}") for number in range(5)] == [None, None, None, "{}", "{}"]


def test_unused_keys_are_found_by_their_last_access(index: Index, layout: Layout) -> None:
    """Content and records alike."""
    content = _adopt(index, layout, b"x", 1.0)
    index.put_text("tag:old", "{}", 2.0)
    index.put_text("tag:new", "{}", 9.0)

    assert index.unused_since(5.0) == [content, "tag:old"]


class _Marker:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize(
    "columns",
    [
        {"mode": 4},
        {"raw": 0},
        {"key": b"bytes"},
        {"mode": 3, "filename": "content/x"},
        {"mode": 2, "filename": None},
    ],
    ids=["pickled value", "pickled key", "key of bytes", "text file", "content without a file"],
)
def test_a_row_that_we_did_not_write_is_refused_and_not_read(
    layout: Layout, tmp_path: Path, columns: dict[str, object]
) -> None:
    """CVE-2025-69872: whoever can write the directory cannot make the proxy run code."""
    open_index(layout.directory).close()
    trace = tmp_path / "trace"
    row = {"key": "tag:x", "raw": 1, "mode": 1, "filename": None, "value": pickle.dumps(_Marker(trace))} | columns
    connection = sqlite3.connect(layout.database)
    with connection:
        connection.execute(
            "INSERT INTO Cache (key, raw, mode, filename, value) VALUES (:key, :raw, :mode, :filename, :value)", row
        )
    connection.close()

    with pytest.raises(StoreError, match="did not write"):
        open_index(layout.directory)

    assert not trace.exists()


def test_a_directory_name_with_a_variable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise diskcache would expand it and put the index somewhere else."""
    monkeypatch.setenv("ELSEWHERE", "/")

    with pytest.raises(StoreError, match=r"\$variable"):
        Index(tmp_path / "$ELSEWHERE")


def test_a_file_that_is_no_database_is_an_error_and_leaves_nothing_open(layout: Layout) -> None:
    """The connection is closed before the error leaves (an open one is a warning, and so a failure, in this suite)."""
    layout.database.write_bytes(b"this is not a database, not at all, not even a bit" * 100)

    with pytest.raises(sqlite3.DatabaseError):
        open_index(layout.directory)


def test_a_transaction_whose_commit_fails_is_over(index: Index) -> None:
    """A full disk may fail a COMMIT, here a broken promise does: the next transaction must not find this one open."""
    index._sql("PRAGMA foreign_keys = ON")
    index._sql("CREATE TABLE Parent (id INTEGER PRIMARY KEY)")
    index._sql("CREATE TABLE Child (parent REFERENCES Parent DEFERRABLE INITIALLY DEFERRED)")

    def break_the_promise() -> None:
        with index.transact():
            index.put_text("tag:lost", "text", 1.0)
            index._sql("INSERT INTO Child VALUES (1)")

    with pytest.raises(sqlite3.IntegrityError):
        break_the_promise()

    index.put_text("tag:kept", "text", 1.0)

    assert (index.text("tag:lost"), index.text("tag:kept")) == (None, "text")


def test_a_transaction_that_cannot_begin_says_why(index: Index) -> None:
    """Not every failure is another process's lock."""
    index._sql("PRAGMA query_only = ON")

    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        index.put_text("tag:a", "text", 1.0)


@pytest.mark.parametrize("size", [-4096, 4097, 1.5, "many"])
def test_a_size_that_no_file_has_is_damage(layout: Layout, size: object) -> None:
    """SQLite sees no damage in a number; the cap must not be counted by it."""
    with contextlib.closing(open_index(layout.directory)) as opened:
        opened.put_text("tag:a", "text", 1.0)
        opened._sql("UPDATE Cache SET size = ?", (size,))

    with pytest.raises(sqlite3.DatabaseError, match="size"):
        open_index(layout.directory)
