"""Which bucket is the shared tier: `s3://bucket/prefix?endpoint=https://s3.example&region=eu-central-1`.

The address is written into manifests and shown in logs, so it never has credentials. Raises ValueError with a reason
that does not repeat the text: somebody may have written a secret into it all the same.
"""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, urlsplit

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""Amazon S3 user guide, "General purpose bucket naming rules"."""

_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()-]+(?:/[A-Za-z0-9!_.*'()-]+)*")
"""The same, "Naming Amazon S3 objects": the characters that are safe everywhere."""

_OPTIONS = ("endpoint", "region", "virtual_hosted")
_CREDENTIALS = "credentials do not belong here: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a file, or a role has them"


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """A place in an S3 bucket."""

    bucket: str
    prefix: str = ""
    """Without a slash at either end; empty for the whole bucket."""
    endpoint: str | None = None
    """`http://host:port` or `https://host:port` of an engine; None is AWS."""
    region: str | None = None
    """None is what AWS_REGION says."""
    virtual_hosted: bool = False
    """Whether the bucket is part of the host name."""

    def __str__(self) -> str:
        return f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the URL; ValueError says what is wrong with it."""
        try:
            parts = urlsplit(text)
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        except ValueError:
            raise ValueError("not a URL such as s3://bucket/prefix?endpoint=https://host") from None
        if parts.scheme != "s3":
            raise ValueError("not an s3:// URL")
        if "@" in parts.netloc:
            raise ValueError(_CREDENTIALS)
        if _BUCKET.fullmatch(parts.netloc) is None:
            raise ValueError("the bucket's name needs 3 to 63 of a-z, 0-9, period and hyphen")
        prefix = parts.path.strip("/")
        if prefix and _PREFIX.fullmatch(prefix) is None:
            raise ValueError("the prefix may have letters, digits, !-_.*'() and single slashes")
        if parts.fragment or not options.keys() <= set(_OPTIONS):
            raise ValueError(f"only {', '.join(_OPTIONS)} may follow the question mark; {_CREDENTIALS}")
        return cls(
            bucket=parts.netloc,
            prefix=prefix,
            endpoint=_endpoint(options["endpoint"]) if "endpoint" in options else None,
            region=options.get("region") or None,
            virtual_hosted=_flag(options.get("virtual_hosted", "false")),
        )


def _endpoint(text: str) -> str:
    try:
        parts = urlsplit(text)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("the endpoint is not a URL") from None
    if "@" in parts.netloc:
        raise ValueError(_CREDENTIALS)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not has_port or parts.query or parts.fragment:
        raise ValueError("the endpoint is not http://host:port or https://host:port")
    return text.rstrip("/")


def _flag(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError("virtual_hosted is neither true nor false")
    return text == "true"
