"""The files of an nginx cache: their heads are read, their keys judged, and no bytes make the parser fail otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.old_cache import cache_file, write_cache_file
from regproxy.oci.digest import Digest
from regproxy.store.nginx_cache import (
    FIRST_BYTES,
    CachedAnswer,
    NginxCacheError,
    content_type,
    files_below,
    folders_of,
    named_content,
    parse_answer,
    split_slice,
)

HEX = "0123456789abcdef" * 4
KEY = f"/v2/library/alpine/blobs/sha256:{HEX}"


def test_a_file_that_nginx_wrote_is_read(tmp_path: Path) -> None:
    """Key, head and body are where the struct says; the e2e tests read files of a real nginx."""
    content = write_cache_file(tmp_path, KEY, b"body", "text/plain").read_bytes()

    answer = parse_answer(content)

    assert answer.key == KEY
    assert content[answer.body_start :] == b"body"
    assert content[answer.head_start : answer.body_start].startswith(b"HTTP/1.1 200 OK\r\n")
    assert content_type(content[answer.head_start : answer.body_start]) == "text/plain"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(lambda file: file[:300], "300 bytes", id="cut inside the struct"),
        pytest.param(lambda file: b"\x03" + file[1:], "version 3", id="another version"),
        pytest.param(lambda file: file[:350], "KEY", id="cut inside the key"),
        pytest.param(lambda file: file.replace(b"\nKEY: ", b"\nKAY: "), "KEY", id="no key line"),
        pytest.param(lambda file: file.replace(b"alpine", b"alpinf"), "damaged", id="a bit of the key"),
        pytest.param(lambda file: file[:54] + b"\x00\x00" + file[56:], "KEY", id="head inside the struct"),
        pytest.param(lambda file: file[:56] + b"\x00\x00" + file[58:], "before the head", id="body before the head"),
        pytest.param(lambda file: file[:54] + b"\xff\xff\xff\xff" + file[58:], "KEY", id="head behind the end"),
        pytest.param(lambda _: b"", "0 bytes", id="empty"),
    ],
)
def test_what_is_not_a_cache_file_is_told(tmp_path: Path, spoil: Callable[[bytes], bytes], told: str) -> None:
    """The reason is told; nothing of it is used."""
    content = write_cache_file(tmp_path, KEY, b"body").read_bytes()

    with pytest.raises(NginxCacheError, match=told):
        parse_answer(spoil(content))


@given(st.binary(max_size=FIRST_BYTES))
def test_arbitrary_bytes_are_a_head_or_a_cache_error(content: bytes) -> None:
    """Nothing else is raised."""
    try:
        answer = parse_answer(content)
    except NginxCacheError:
        return
    assert isinstance(answer, CachedAnswer)


@given(st.data())
def test_a_spoilt_file_is_a_head_inside_it_or_a_cache_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Also when only a few bytes of a good file are wrong: the offsets stay in order."""
    content = bytearray(write_cache_file(tmp_path_factory.getbasetemp() / "spoilt", KEY, b"body").read_bytes())
    for position, byte in data.draw(st.dictionaries(st.integers(0, len(content) - 1), st.integers(0, 255))).items():
        content[position] = byte
    try:
        answer = parse_answer(bytes(content))
    except NginxCacheError:
        return
    assert 336 < answer.head_start <= len(content)
    assert answer.head_start <= answer.body_start


@given(st.binary())
def test_any_head_has_a_content_type_or_none(head: bytes) -> None:
    """A text without line ends comes out, whatever is stored."""
    assert not set(content_type(head)) & {"\r", "\n"}


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n", "a/b"),
        (b"HTTP/1.1 200 OK\r\ncontent-type:a/b; c=d \r\n\r\n", "a/b; c=d"),
        (b"HTTP/1.1 200 OK\r\nX-Content-Type: a/b\r\n\r\n", ""),
        (b"", ""),
    ],
)
def test_the_content_type_is_that_field(head: bytes, expected: str) -> None:
    """In any case, without the blanks around it."""
    assert content_type(head) == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param(KEY, (Digest("sha256", HEX), False), id="blob"),
        pytest.param(f"/v2/a/b/manifests/sha256:{HEX}", (Digest("sha256", HEX), True), id="manifest"),
        pytest.param(f"quay.io{KEY}", (Digest("sha256", HEX), False), id="blob, after the upstream's host"),
        pytest.param(
            f"cdn.io/forcecachesecure/cdn.io/originalwas/registry-v2/docker/registry/v2/blobs/sha256/01/{HEX}/data",
            (Digest("sha256", HEX), False),
            id="blob, as its storage names it",
        ),
        pytest.param(f"cdn.io/blobs/sha256/02/{HEX}/data", None, id="storage path that does not fit"),
        pytest.param(f"cdn.io/blobs/sha256/01/{HEX}/data/more", None, id="more than a storage path"),
        pytest.param("quay.io/v2/library/alpine/manifests/latest", None, id="tag, after the upstream's host"),
        pytest.param("/v2/library/alpine/manifests/latest", None, id="tag"),
        pytest.param(f"/v2/a/referrers/sha256:{HEX}", None, id="referrers of a digest"),
        pytest.param(f"/v2/a/blobs/sha256:{HEX[:-1]}", None, id="too short a digest"),
        pytest.param(f"/v2/a/../b/blobs/sha256:{HEX}", None, id="dot segments"),
        pytest.param(f"https://cdn/v2/a/blobs/sha256:{HEX}", None, id="a URL"),
        pytest.param(f"GET{HEX}", (Digest("sha256", HEX), False), id="gmarcy's blob"),
        pytest.param(f"GET/v2/a/manifests/sha256:{HEX}", (Digest("sha256", HEX), True), id="gmarcy's manifest"),
        pytest.param(f"HEAD{HEX}", None, id="gmarcy's answer to a HEAD"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_a_key_names_content_only_by_a_digest(key: str, expected: object) -> None:
    """A tag key does not say whose tag it is; everything else is no content."""
    assert named_content(key) == expected


@given(st.text())
def test_any_key_is_judged(key: str) -> None:
    """No key makes the judgement fail."""
    named_content(key)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (f"{KEY}bytes=0-4194303", (KEY, 0)),
        (f"GET{HEX}bytes=4194304-8388607", (f"GET{HEX}", 4194304)),
        (KEY, (KEY, 0)),
        (f"{KEY}bytes=1-2x", (f"{KEY}bytes=1-2x", 0)),
        ("bytes=1-2", ("bytes=1-2", 0)),
    ],
)
def test_a_slice_is_told_from_its_key(key: str, expected: tuple[str, int]) -> None:
    """What is no slice stays part of the key, and then names nothing."""
    assert split_slice(key) == expected


@given(st.text())
def test_any_key_is_split(key: str) -> None:
    """A key is its beginning and an offset."""
    base, offset = split_slice(key)

    assert key.startswith(base)
    assert offset >= 0


def test_only_folders_and_files_of_the_cache_are_found(tmp_path: Path) -> None:
    """Our own folders beside them, files in the making, links and files in the wrong folder are passed over."""
    file = write_cache_file(tmp_path, KEY, b"body")
    (tmp_path / "content" / "sha256" / "aa").mkdir(parents=True)
    (tmp_path / "partial").mkdir()
    file.with_name(f"{file.name}.0000000017").touch()
    other = cache_file(tmp_path, "/other")
    file.with_name(other.name).touch()
    other.parent.mkdir(parents=True)
    other.symlink_to(file)

    folders = folders_of(tmp_path)

    assert set(folders) == {file.parent, other.parent}
    assert [entry.path for folder in folders for entry in files_below(folder)] == [str(file)]
