"""Records that another version wrote: they are read as far as they are known (docs/shared-store.md)."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pytest

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Given, Repository
from regproxy.policy.shared_records import Answered, Lease, SharedOpenness
from regproxy.shared.records import About, HolderRecord, RepositoryRecord, TagState, sum_of
from regproxy.store.pins import Pin
from regproxy.store.records import TagRecord
from regproxy.store.sources import Source
from regproxy.store.tag_history import history_from_json
from unit.shared.conftest import SEAL, Replica
from unit.shared.shaky_bucket import ShakyBucket

DIGEST = Digest.of(b"newer")
REPOSITORY = Repository(Registry.parse("quay.io"), "team/app")
TAG = TagRecord(Descriptor("application/x", DIGEST, 5), 1000.0)


class Written(Protocol):
    """A record with a text form."""

    def to_json(self) -> str:
        """Return it."""
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of record."""

    record: Written
    read: Callable[[str], object]


KINDS = [
    Kind(About(5, "", sum_of(b"newer")), About.from_json),
    Kind(HolderRecord(REPOSITORY, Given.TO_NOBODY), HolderRecord.from_json),
    Kind(RepositoryRecord(REPOSITORY, SharedOpenness(Answered(9.0, let_in=True))), RepositoryRecord.from_json),
    Kind(TagState(TAG, Lease("somebody", 12.0)), TagState.from_json),
    Kind(TAG, TagRecord.from_json),
    Kind(Pin("quay.io/a:1", 5.0, frozenset({DIGEST}), frozenset()), Pin.from_json),
]


def newer(value: object) -> object:
    """Add a field to every object."""
    if isinstance(value, list):
        return [newer(each) for each in value]
    if isinstance(value, dict):
        return {**{key: newer(each) for key, each in value.items()}, "newer": {"than": ["all", None]}}
    return value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind.record).__name__)
def test_fields_that_nobody_knows_change_nothing(kind: Kind) -> None:
    """In the record and in all that is in it."""
    text = json.dumps(newer(json.loads(kind.record.to_json())))

    assert '"newer"' in text
    assert kind.read(text) == kind.record


def test_a_kind_of_holder_that_nobody_knows_is_kept_as_it_is() -> None:
    """A newer version may know more about whom something was given to: what is known of it counts."""
    text = json.dumps({**json.loads(HolderRecord(REPOSITORY, 1).to_json()), "given": 1 | 64})

    assert HolderRecord.from_json(text).given & Given.TO_NOBODY


def test_the_history_of_a_tag_and_a_source_have_more_fields() -> None:
    """Those are in the index."""
    source = Source("quay.io", "team/app", DIGEST, 5.0, "https://quay.io", "client")
    assert Source.read(source.key, json.dumps(newer(json.loads(source.to_json())))) == source
    assert history_from_json("[]") == ()


async def test_what_cannot_be_read_counts_as_not_there_and_is_written_anew(
    replica: Replica, bucket: ShakyBucket
) -> None:
    """A record of another form, sealed by a replica: the content is fetched and described again."""
    first = replica()
    path = f"about/{DIGEST.algorithm}/{DIGEST.hex[:2]}/{DIGEST.hex}"
    await bucket.put(path, SEAL.close(path, '["another form"]'))
    assert await first.content.about(DIGEST) is None
