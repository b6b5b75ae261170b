"""Single words of settings: hosts, registries, a password; ValueError says what is wrong with one, never a secret."""

import dataclasses

from regproxy.policy.bucket_address import BucketAddress
from regproxy.policy.interception import HostPattern
from regproxy.policy.mirror import HUB, HUB_NAMES
from regproxy.settings import grammar

_SHORTEST_PASSWORD = 8
_SHORTEST_KEY = 16
_LONGEST_NOT_FOUND_S = 60.0


def parse_password(text: str) -> str:
    """Return the password of the web interface; empty for one that is made at start."""
    if 0 < len(text) < _SHORTEST_PASSWORD:
        raise ValueError(f"shorter than {_SHORTEST_PASSWORD} characters")
    return text


def parse_store_url(text: str) -> BucketAddress | None:
    """Return the shared store; None without one."""
    return BucketAddress.parse(text) if text else None


def parse_store_key(text: str) -> str:
    """Return what the records of the shared store are sealed with; empty for what follows from other settings."""
    if 0 < len(text) < _SHORTEST_KEY:
        raise ValueError(f"shorter than {_SHORTEST_KEY} characters: use `openssl rand -hex 32`")
    return text


def parse_not_found_s(text: str) -> float:
    """Return how long a 404 stands, in seconds."""
    lifetime_s = grammar.parse_duration_s(text)
    if lifetime_s > _LONGEST_NOT_FOUND_S:
        raise ValueError(f"longer than {_LONGEST_NOT_FOUND_S:g} s: an image that was just made would not be found")
    return lifetime_s


def parse_host(text: str) -> HostPattern:
    """Return the pattern of one word; `https://` and slashes at the end are habits without a meaning."""
    bare = text.rstrip("/")
    return HostPattern.parse(bare[len("https://") :] if bare.lower().startswith("https://") else bare)


def parse_registry(text: str) -> HostPattern:
    """Return the pattern of one word of REGISTRIES; `-host` is an exception from the others."""
    if not text.startswith("-"):
        return parse_host(text)
    return dataclasses.replace(parse_host(text[1:]), tunnelled=True)


def parse_mirrored(text: str) -> HostPattern:
    """Return the pattern of one word of MIRROR_REGISTRIES; Docker Hub by any of its names is where it is."""
    pattern = parse_registry(text)
    return dataclasses.replace(pattern, host=HUB.host) if pattern.host in HUB_NAMES else pattern


def reason(word: str, error: ValueError) -> str:
    """Return why a host or a mapping cannot be used, without a login that was written into it."""
    if "@" in word:
        return "it has a user name or password, which belongs in AUTH_REGISTRIES"
    return str(error)
