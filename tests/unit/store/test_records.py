"""regproxy.store.records: keys that cannot collide, text that reads back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store.records import TagKey, TagRecord, content_key, digest_of_key

DIGESTS = st.binary(max_size=8).map(Digest.of)
DESCRIPTORS = st.builds(Descriptor, st.text(max_size=20), DIGESTS, st.integers(0, 2**63))


@given(DESCRIPTORS, st.floats(0, 1e12), st.none() | DESCRIPTORS)
def test_a_tag_record_reads_back_as_it_was(
    descriptor: Descriptor, checked_at_s: float, previous: Descriptor | None
) -> None:
    """Nothing of a tag record is lost in its text form."""
    record = TagRecord(descriptor, checked_at_s, previous)

    assert TagRecord.from_json(record.to_json()) == record


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_text_makes_a_tag_record_raise_anything_but_value_error(text: str) -> None:
    """A broken row is one kind of error, whatever broke it."""
    with pytest.raises(ValueError, match=r".*"):
        TagRecord.from_json(text)


@pytest.mark.parametrize("field", ["media_type", "digest", "size_bytes"])
def test_a_descriptor_without_a_field_is_refused(field: str) -> None:
    """A record is whole or not there."""
    fields = json.loads(TagRecord(Descriptor("application/json", Digest.of(b""), 1), 1.0).to_json())
    del fields["descriptor"][field]

    with pytest.raises(ValueError, match="not a tag record"):
        TagRecord.from_json(json.dumps(fields))


def test_keys_tell_registry_port_name_tag_and_accept_apart() -> None:
    """Moving a character from one part of the key to the next gives another key."""
    keys = [
        TagKey("quay.io", "a/b", "v1", ("x", "y")),
        TagKey("quay.io:5000", "a/b", "v1", ("x", "y")),
        TagKey("quay.io", "a", "v1", ("x", "y")),
        TagKey("quay.io", "a/b", "v", ("1", "x", "y")),
        TagKey("quay.io", "a/b", "v1", ("x",)),
    ]

    assert len({key.text() for key in keys}) == len(keys)


def test_a_content_key_gives_its_digest_back() -> None:
    """The index key is all that is needed to find the file."""
    digest = Digest.of(b"x", "sha512")

    assert digest_of_key(content_key(digest)) == digest


@pytest.mark.parametrize("key", ["tag:quay.io/a:b|", "content:sha256:../../etc", "content:"])
def test_other_keys_name_no_content(key: str) -> None:
    """A key that does not hold a digest never becomes a path."""
    with pytest.raises(ValueError, match=r".+"):
        digest_of_key(key)
