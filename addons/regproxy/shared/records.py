"""The records in the bucket and their text form. Reading raises ValueError for anything that was not written here."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from regproxy.oci.names import Registry
from regproxy.policy.access import Given, Holder, Repository
from regproxy.policy.shared_records import Answered, Lease, SharedOpenness
from regproxy.store.records import TagRecord

PIECE_BYTES = 1024 * 1024
"""Content is checked in pieces before a byte of it goes to a client: 16 KiB of hashes for 1 GiB."""

_SUM_BYTES = 16


def sum_of(piece: bytes) -> bytes:
    """Return the hash of a piece. BLAKE2b: twice as fast as SHA-256 where the processor knows neither."""
    return hashlib.blake2b(piece, digest_size=_SUM_BYTES).digest()


@dataclass(frozen=True, slots=True)
class About:
    """What a content is."""

    size_bytes: int
    media_type: str
    """Empty for a blob."""
    sums: bytes
    """The hashes of its pieces, one after the other."""

    def __post_init__(self) -> None:
        pieces = -(-self.size_bytes // PIECE_BYTES)
        if self.size_bytes < 0 or len(self.sums) != pieces * _SUM_BYTES:
            raise ValueError(f"{len(self.sums)} bytes of hashes for {self.size_bytes} bytes of content")

    def fits(self, number: int, piece: bytes) -> bool:
        """Whether this is the piece of that number, from 0."""
        return sum_of(piece) == self.sums[number * _SUM_BYTES : (number + 1) * _SUM_BYTES]

    def to_json(self) -> str:
        """Return the text form."""
        sums = base64.b64encode(self.sums).decode()
        return json.dumps({"size_bytes": self.size_bytes, "media_type": self.media_type, "sums": sums})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text form."""
        fields = _fields(text)
        try:
            return cls(
                _number(fields, "size_bytes"), _text(fields, "media_type"), base64.b64decode(_text(fields, "sums"))
            )
        except binascii.Error as error:
            raise ValueError("the hashes of the pieces are not base64") from error


@dataclass(frozen=True, slots=True)
class HolderRecord:
    """That a repository has a content."""

    repository: Repository
    given: int
    """To whom it gave it (`Given`)."""

    @property
    def holder(self) -> Holder:
        """What the rules of access ask for."""
        return Holder(self.repository.registry, self.given)

    def to_json(self) -> str:
        """Return the text form."""
        return json.dumps({**_repository_fields(self.repository), "given": int(self.given)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text form."""
        fields = _fields(text)
        return cls(_repository(fields), int(Given(_number(fields, "given"))))


@dataclass(frozen=True, slots=True)
class RepositoryRecord:
    """Whom a repository's registry let read last."""

    repository: Repository
    openness: SharedOpenness

    def to_json(self) -> str:
        """Return the text form."""
        answers = {"public": self.openness.public, "shared": self.openness.shared}
        told = {kind: {"at_s": answer.at_s, "let_in": answer.let_in} for kind, answer in answers.items()}
        return json.dumps({**_repository_fields(self.repository), **told})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text form."""
        fields = _fields(text)
        return cls(_repository(fields), SharedOpenness(_answered(fields, "public"), _answered(fields, "shared")))


@dataclass(frozen=True, slots=True)
class TagState:
    """What a tag means, and who checks it."""

    record: TagRecord | None
    lease: Lease | None = None

    def to_json(self) -> str:
        """Return the text form."""
        return json.dumps(
            {
                "record": None if self.record is None else self.record.to_json(),
                "lease": None if self.lease is None else {"holder": self.lease.holder, "until_s": self.lease.until_s},
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text form."""
        fields = _fields(text)
        lease = fields.get("lease")
        return cls(
            None if fields.get("record") is None else TagRecord.from_json(_text(fields, "record")),
            None if lease is None else Lease(_text(_mapping(lease), "holder"), _time_s(_mapping(lease), "until_s")),
        )


def _fields(text: str) -> Mapping[str, object]:
    try:
        return _mapping(json.loads(text))
    except RecursionError as error:
        raise ValueError("not a record of the shared store") from error


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError("not a record of the shared store")  # noqa: TRY004 - of a text, for those who read it
    return value


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")  # noqa: TRY004 - of a text, for those who read it
    return value


def _number(fields: Mapping[str, object], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is not a whole number")  # noqa: TRY004 - of a text, for those who read it
    return value


def _time_s(fields: Mapping[str, object], name: str) -> float:
    value = fields.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} is not a time")  # noqa: TRY004 - of a text, for those who read it
    return float(value)


def _repository_fields(repository: Repository) -> dict[str, str]:
    return {"registry": str(repository.registry), "name": repository.name}


def _repository(fields: Mapping[str, object]) -> Repository:
    return Repository(Registry.parse(_text(fields, "registry")), _text(fields, "name"))


def _answered(fields: Mapping[str, object], kind: str) -> Answered:
    answer = _mapping(fields.get(kind))
    return Answered(_time_s(answer, "at_s"), bool(answer.get("let_in")))
