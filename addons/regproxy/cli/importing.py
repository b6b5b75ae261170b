"""Import: bring the images of a layout to the proxy. It hashes everything itself before it is content.

Blobs go in pieces, each when the one before is written, so memory is bounded on both sides; what is there already is
not sent again, and an interrupted import goes on where it was.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from regproxy.cli.api import Api, ApiError
from regproxy.cli.image_lists import with_tag
from regproxy.cli.layout_index import Entry, closure_of, read_index, referrers_of
from regproxy.cli.layouts import Layout, LayoutError, blob_name
from regproxy.oci.digest import Digest

PIECE_BYTES = 4 * 1024 * 1024
BUSY_LIMIT_S = 120.0
"""How long is waited for someone else who brings the same blob."""


@dataclass(frozen=True, slots=True)
class Import:
    """One image, and what it is to be called."""

    name: str
    entry: Entry
    referrers: tuple[Entry, ...] = ()

    @property
    def repository(self) -> str:
        """The name without tag or digest."""
        bare = self.name.partition("@")[0]
        first, slash, path = bare.rpartition("/")
        return f"{first}{slash}{path.partition(':')[0]}"

    @property
    def has_tag(self) -> bool:
        """Whether the name ends with a tag."""
        return "@" not in self.name


def plan(layout: Layout, name: str | None, reference: str | None) -> list[Import]:
    """Return what is to be imported. Raises LayoutError.

    `reference` chooses an image by the name that it has in the layout, `name` says what one image is to be called.
    """
    entries = read_index(layout)
    chosen = [entry for entry in entries if reference is None or reference in entry.names]
    roots = [entry for entry in chosen if entry.names]
    unnamed = [entry for entry in chosen if not entry.names]
    roots = roots or (unnamed if name is not None else [])
    if not roots:
        there = ", ".join(name for entry in entries for name in entry.names[-1:]) or "only images without a name"
        raise LayoutError(f"there is no such image in the layout, but {there}: choose with --ref, or --name it")
    if name is not None and len({entry.digest for entry in roots}) > 1:
        there = ", ".join(entry.names[-1] if entry.names else str(entry.digest) for entry in roots)
        raise LayoutError(f"--name is for one image, and there are several: choose with --ref one of {there}")
    if name is not None:
        return [_with_referrers(layout, entries, with_tag(name), roots[0])]
    nameless = [entry.names[0] for entry in roots if entry.full_name is None]
    if nameless:
        raise LayoutError(
            f"{', '.join(nameless)}: no registry and repository in it; say --name registry/repository:tag"
        )
    return [_with_referrers(layout, entries, entry.full_name or "", entry) for entry in roots]


def total_bytes(layout: Layout, imports: list[Import]) -> int:
    """Return how much all blobs are, and look whether all is there. Raises LayoutError."""
    blobs = {blob for each in imports for entry in _entries(each) for blob in closure_of(layout, entry)[1]}
    return sum(layout.size_bytes(blob_name(blob)) or 0 for blob in blobs)


def bring(api: Api, layout: Layout, image: Import, progress: Callable[[int], None], done: set[Digest]) -> None:
    """Bring one image; `done` are the blobs that came with others. Raises ApiError."""
    for entry in _entries(image):
        manifests, blobs = closure_of(layout, entry)
        for blob in blobs:
            if blob not in done:
                _bring_blob(api, layout, blob, progress)
                done.add(blob)
        for digest, media_type, body in manifests:
            api.ask("PUT", "/manifests", body, target=f"{image.repository}@{digest}", media_type=media_type)
    if image.has_tag:
        checked_at = str(image.entry.checked_at_s)
        api.ask("PUT", "/tags", target=image.name, digest=str(image.entry.digest), checked_at=checked_at)


def _with_referrers(layout: Layout, entries: list[Entry], name: str, root: Entry) -> Import:
    manifests, _ = closure_of(layout, root)
    unnamed = [entry for entry in entries if not entry.names]
    return Import(name, root, tuple(referrers_of(layout, unnamed, [digest for digest, _, _ in manifests])))


def _entries(image: Import) -> tuple[Entry, ...]:
    return (image.entry, *image.referrers)


def _bring_blob(api: Api, layout: Layout, digest: Digest, progress: Callable[[int], None]) -> None:
    name = blob_name(digest)
    size_bytes = layout.size_bytes(name) or 0
    said = _begun(api, digest, size_bytes)
    resumed = sent_bytes = 0 if said["stored"] else said["received_bytes"]
    progress(size_bytes if said["stored"] else sent_bytes)
    with layout.open(name) as file:
        file.seek(sent_bytes)
        while not said["stored"]:
            piece = file.read(PIECE_BYTES)
            try:
                said = api.ask(
                    "PUT", "/content", piece, digest=str(digest), size_bytes=str(size_bytes), offset=str(sent_bytes)
                )
            except ApiError as error:
                if not resumed or error.status != 400:
                    raise
                # What an earlier download had left was wrong, and is gone now.
                resumed = sent_bytes = _begun(api, digest, size_bytes)["received_bytes"]
                file.seek(sent_bytes)
                continue
            sent_bytes += len(piece)
            progress(len(piece))
            if not piece and not said["stored"]:
                raise LayoutError(f"{name} ended after {sent_bytes} of {size_bytes} bytes")


def _begun(api: Api, digest: Digest, size_bytes: int) -> dict[str, int]:
    """Ask how much is there; wait while someone else brings it."""
    deadline_s = time.monotonic() + BUSY_LIMIT_S
    while True:
        try:
            return api.ask("PUT", "/content", digest=str(digest), size_bytes=str(size_bytes))
        except ApiError as error:
            if error.status != 409 or time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)
