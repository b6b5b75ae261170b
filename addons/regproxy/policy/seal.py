"""What says that a record in the shared store was written by one of us: a keyed hash over its name and its text.

Content proves itself by its digest. A record does not: who can write to the bucket could say that a tag means an image
of their own, or that everybody may read a private repository. The key is known to the replicas and is not in the
bucket. The name is part of what is hashed, and bucket and prefix of the key, so that a record cannot be put in another
one's place. An old record can be put back in its own: the times inside say how much it still counts.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

_MAC_BYTES = 32
_SCRYPT_COST = 2**14
_SCRYPT_BLOCK = 8
"""About 40 ms and 16 MiB, once at start: the secret may be short, and who reads the bucket may guess at home."""

_PURPOSE = b"registry-proxy shared records 2"
"""The number is that of the seals' form: a version does not believe those of another one."""


@dataclass(frozen=True, slots=True)
class Seal:
    """The key of one shared store."""

    key: bytes = field(repr=False)

    @classmethod
    def of_secret(cls, secret: str, place: str) -> "Seal":
        """Derive the key from what all replicas know, and where the records are. Takes about 40 ms."""
        key = hashlib.scrypt(
            secret.encode("utf-8", "surrogateescape"),
            salt=_PURPOSE + b" " + place.encode(),
            n=_SCRYPT_COST,
            r=_SCRYPT_BLOCK,
            p=1,
            maxmem=64 * 1024 * 1024,
            dklen=_MAC_BYTES,
        )
        return cls(key)

    def close(self, name: str, text: str) -> bytes:
        """Return what is stored under the name."""
        return self._mac(name, text).hex().encode() + b"\n" + text.encode()

    def open(self, name: str, sealed: bytes) -> str:
        """Return the text; ValueError when it was not closed with this key under this name."""
        mac, _, body = sealed.partition(b"\n")
        try:
            text = body.decode()
            given = bytes.fromhex(mac.decode("ascii"))
        except ValueError:
            raise ValueError(f"{name} is not a sealed record") from None
        if not hmac.compare_digest(given, self._mac(name, text)):
            raise ValueError(f"{name} was not written with this key (STORE_KEY)")
        return text

    def _mac(self, name: str, text: str) -> bytes:
        encoded = name.encode()
        return hmac.digest(self.key, len(encoded).to_bytes(4) + encoded + text.encode(), "sha256")
