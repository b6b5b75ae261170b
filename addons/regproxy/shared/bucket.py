"""The S3 bucket, by way of obstore: the only module that knows it.

Credentials are found by obstore where AWS's own tools look: `AWS_*` variables, the token file of a Kubernetes service
account, a container's or a machine's role; and, by `credentials`, in the shared credentials file. They are in no
message: an engine's error may repeat the access key, so only its status and its code are told.
"""

import asyncio
import datetime as dt
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from regproxy.policy.bucket_address import BucketAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import ClientConfig, ObjectStore, S3Config

_CONNECT_LIMIT = "2s"
_REQUEST_LIMIT = "30s"
"""For one request that writes; a part of an upload is one."""

_NO_LIMIT = "24h"
"""Reading has its limits where it is done: of the whole record, of each piece of content."""

_READ_AGAIN, _WRITE_AGAIN = 1, 2
"""How often a request is repeated after a 5xx: engines put some off (AWS: 503 SlowDown); who reads has little time."""

UPLOAD_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 2
"""So much of one upload is in memory."""

LARGEST_RECORD_BYTES = 8 * 1024 * 1024
"""What is read as a whole: a description of 256 GiB is as large, a manifest half of it."""

_STATUS = re.compile(r"status code: (\d{3}(?: [A-Z][A-Za-z ]*)?)")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_NO_OBJECT = "<Code>NoSuchKey</Code>"


class BucketError(Exception):
    """The bucket did not do what was asked; the message has no credentials."""


class ConditionFailed(Exception):  # noqa: N818 - the state of the object
    """Somebody else has written the object in between."""


class ExtraMissing(Exception):  # noqa: N818 - the state of the installation
    """obstore is not installed; the message says how it gets there."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A small object, and what its next version is to replace."""

    body: bytes
    etag: str | None


@dataclass(frozen=True, slots=True)
class Download:
    """A content on its way from the bucket."""

    size_bytes: int
    """Of the whole object."""
    chunks: AsyncIterator[bytes]


class Bucket:
    """The objects below one prefix. Every method raises BucketError; none has a limit of time of its own."""

    def __init__(self, reading: "ObjectStore", writing: "ObjectStore") -> None:
        self._reading, self._writing = reading, writing

    @classmethod
    def open(
        cls, address: BucketAddress, ca_file: Path | None, find_credentials: "Callable[[], Any] | None" = None
    ) -> Self:
        """Set up the client; no request is made. Raises ExtraMissing, BucketError for settings it does not take."""
        try:
            from obstore.store import S3Store  # noqa: PLC0415 - optional, and 15 MB that most proxies do without
        except ImportError as error:
            raise ExtraMissing("obstore is not installed: install registry-proxy[s3]") from error
        config: S3Config = {"virtual_hosted_style_request": address.virtual_hosted}
        if address.endpoint is not None:
            config["endpoint"] = address.endpoint
        if address.region is not None:
            config["region"] = address.region

        def store(limit: str, retries: int) -> "ObjectStore":
            client: ClientConfig = {"connect_timeout": _CONNECT_LIMIT, "timeout": limit}
            if address.endpoint is not None and address.endpoint.startswith("http://"):
                client["allow_http"] = True
            if ca_file is not None:
                client["root_certificate"] = ca_file.read_bytes()
            return S3Store(
                address.bucket,
                prefix=address.prefix or None,
                config=config,
                client_options=client,
                retry_config={"max_retries": retries, "retry_timeout": dt.timedelta(seconds=60)},
                credential_provider=find_credentials,
            )

        with _translated():
            return cls(store(_NO_LIMIT, _READ_AGAIN), store(_REQUEST_LIMIT, _WRITE_AGAIN))

    async def get(self, path: str) -> StoredObject | None:
        """Return a small object; None when it is not there. One that is not small is as good as an empty one."""
        import obstore  # noqa: PLC0415 - optional

        with _translated():
            try:
                found = await obstore.get_async(self._reading, path)
                if found.meta["size"] > LARGEST_RECORD_BYTES:
                    return StoredObject(b"", found.meta["e_tag"])
                return StoredObject(bytes(await found.bytes_async()), found.meta["e_tag"])
            except FileNotFoundError as error:
                _require_absent(error)
                return None

    async def size_of(self, path: str) -> int | None:
        """Return an object's size in bytes; None when it is not there, or neither is the bucket: a HEAD cannot tell."""
        import obstore  # noqa: PLC0415 - optional

        with _translated():
            try:
                return (await obstore.head_async(self._reading, path))["size"]
            except FileNotFoundError:
                return None

    async def download(self, path: str, start: int) -> Download | None:
        """Begin to read an object from an offset; None when it is not there."""
        import obstore  # noqa: PLC0415 - optional

        with _translated():
            try:
                # An offset of 0 is no range: a range of an empty object cannot be satisfied.
                options: Any = {"range": {"offset": start}} if start else None
                found = await obstore.get_async(self._reading, path, options=options)
            except FileNotFoundError as error:
                _require_absent(error)
                return None
            return Download(found.meta["size"], _chunks(found.stream(min_chunk_size=1)))

    async def put(self, path: str, body: bytes, *, replaces: str | None = None, only_new: bool = False) -> str | None:
        """Write a small object and return its entity tag.

        Raises ConditionFailed when it is there although it is to be new, or is not the one that it `replaces`.
        """
        import obstore  # noqa: PLC0415 - optional

        mode: Any = "overwrite"
        if only_new:
            mode = "create"
        elif replaces is not None:
            mode = {"e_tag": replaces}
        with _translated():
            try:
                return (await obstore.put_async(self._writing, path, body, mode=mode, use_multipart=False))["e_tag"]
            except Exception as error:
                if mode != "overwrite" and _is_overtaken(error, only_new=only_new):
                    raise ConditionFailed(path) from error
                raise

    async def upload(self, path: str, pieces: AsyncIterator[bytes]) -> None:
        """Write an object piece by piece; it is there when all of it is. Raises what `pieces` raises."""
        import obstore  # noqa: PLC0415 - optional

        failure: list[Exception] = []

        async def told() -> AsyncIterator[bytes]:
            try:
                async for piece in pieces:
                    yield piece
            except Exception as error:
                failure.append(error)
                raise

        try:
            with _translated():
                await obstore.put_async(
                    self._writing, path, told(), chunk_size=UPLOAD_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
                )
        except BucketError:
            if failure:
                raise failure[0] from None
            raise

    async def delete(self, paths: Sequence[str]) -> None:
        """Remove objects, a thousand by one request; what is not there is passed over."""
        import obstore  # noqa: PLC0415 - optional

        with _translated():
            try:
                await obstore.delete_async(self._writing, list(paths))
            except FileNotFoundError as error:
                _require_absent(error)

    async def names_below(self, prefix: str, most: int) -> list[str]:
        """Return the names of objects below a prefix, without the bucket's own prefix."""
        import obstore  # noqa: PLC0415 - optional

        found: list[str] = []
        with _translated():
            async for page in obstore.list(self._reading, prefix):
                found += [entry["path"] for entry in page]
                if len(found) >= most:
                    break
        return found[:most]


async def _chunks(stream: Any) -> AsyncIterator[bytes]:
    with _translated():
        async for chunk in stream:
            yield bytes(chunk)


@contextmanager
def _translated() -> "Iterator[None]":
    """Turn obstore's errors into BucketError without what an engine's answer may repeat."""
    try:
        yield
    except (BucketError, ConditionFailed, asyncio.CancelledError):
        raise
    except Exception as error:  # noqa: BLE001 - obstore's errors have a base of their own beside built-in ones
        raise BucketError(_told(error)) from None


def _told(error: Exception) -> str:
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    if code is not None and code[1] == "NoSuchBucket":
        return "the bucket does not exist"
    if status is not None:
        return f"it answered {status[1].strip()}" + (f" ({code[1]})" if code else "")
    if "timed out" in text.lower() or isinstance(error, TimeoutError):
        return "it did not answer in time"
    if "error sending request" in text.lower() or "connect" in text.lower():
        return "no connection"
    return type(error).__name__


def _require_absent(error: Exception) -> None:
    """Raise it again unless it says that the object is not there: a server that is no engine knows 404, too."""
    text = str(error)
    if _STATUS.search(text) is not None and _NO_OBJECT not in text:
        raise error


def _is_overtaken(error: Exception, *, only_new: bool) -> bool:
    """Whether a conditional write was refused for what somebody else has done to the object.

    Amazon S3 user guide, "How to prevent object overwrites with conditional writes": 412, 409 while another one is
    under way, 404 NoSuchKey to If-Match when the object is gone.
    """
    from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415 - optional

    text = str(error)
    match = _STATUS.search(text)
    if match is None:
        return isinstance(error, AlreadyExistsError | PreconditionError)
    if match[1].startswith("404"):
        return _NO_OBJECT in text and not only_new
    return match[1].startswith(("409", "412"))
