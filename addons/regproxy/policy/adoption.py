"""What is taken over of a predecessor's cache: whether its files stay, how much disk that may take, what comes first.

Contract section 1.8. The old files lie in the same directory as our content, and their bodies start at an offset inside
them, so content that is taken over is a copy: as long as the old file stays, it takes its place on the disk twice.
"""

import enum
import json

from regproxy.oci.media_types import is_manifest_media_type


class OldCache(enum.StrEnum):
    """What becomes of the files of an old cache."""

    COPY = "copy"
    """They stay: the way back to the predecessor is warm. The default, because deleting cannot be undone."""

    MOVE = "move"
    """Each is removed once its content is stored: for a disk that has no room for both."""

    IGNORE = "ignore"
    """They are not looked at."""


_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"

COPY_SHARE = 0.5
"""Of the free space, what copies may take: the disk is somebody else's, too, and nobody asked for the doubling."""

PROBATION_SHARE = 0.5
"""Of the inactive time, what content that was taken over has at least, to be asked for by somebody."""


def budget_bytes(mode: OldCache, free_bytes: int) -> int | None:
    """Return how many bytes may be taken over when so many are free; None: as many as the cache holds."""
    return int(free_bytes * COPY_SHARE) if mode is OldCache.COPY else None


def last_use_s(access_s: float, modification_s: float, now_s: float, inactive_s: float) -> float:
    """Return when content of an old cache counts as used last, as Unix time.

    The file's times say it roughly (`relatime`), or not at all (`noatime`): the predecessor kept in memory when it had
    used a file, and removed what it had not. So nothing counts as older than a share of the inactive time.
    """
    return max(min(max(access_s, modification_s), now_s), now_s - inactive_s * PROBATION_SHARE)


def manifest_media_type(content_type: str, body: bytes) -> str | None:
    """Return the media type of a manifest that was stored with this Content-Type; None if it is no manifest.

    The predecessors followed redirects and then stored the storage's type, `binary/octet-stream`. The manifest says
    its own type in `mediaType`, which is optional in the OCI formats: these are told by the fields that they must have.
    """
    if is_manifest_media_type(content_type):
        return content_type.partition(";")[0].strip().lower()
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    stated = fields.get("mediaType")
    if isinstance(stated, str):
        return stated if is_manifest_media_type(stated) else None
    if isinstance(fields.get("manifests"), list):
        return _INDEX
    return _MANIFEST if {"config", "layers"} <= fields.keys() else None
