"""One request to an upstream, as the rest of the proxy describes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from regproxy.origin.trace import Trace
from regproxy.policy.credentials import Credential
from regproxy.policy.openers import OpenedBy
from regproxy.policy.realms import Access
from regproxy.policy.redirects import Url


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A GET or HEAD to a registry, or a question to its token server."""

    method: str
    url: Url
    headers: tuple[tuple[str, str], ...]
    """`Accept-Encoding: identity` is added; Authorization is for the origin of `url` only."""
    trace: Trace | None = field(default=None, compare=False)
    """Where the client's cost is written down; equal requests may have different ones."""
    access: Access | None = None
    """What the proxy may add of its own (`origin.logins`); None sends the headers as they are."""
    fallback: Access | None = None
    """What the proxy may show in place of the headers' Authorization if that is refused; without `access` only."""
    opened_by: OpenedBy = OpenedBy.NOBODY
    """Whose login the Authorization among the headers is."""
    is_anonymous: bool = False
    """Whether that is a token which says of itself that it was given to nobody."""
    body: bytes | None = field(default=None, repr=False)
    follow_redirects: bool = True
    owner: Credential | None = field(default=None, compare=False, repr=False)
    """The operator's login that the request itself carries; what is counted is counted as its."""
    dispensable: bool = False
    """Whether a stored answer can stand in: then it is not asked while a quota is low (`policy.quota`)."""

    is_drill: bool = False
    """Whether it is for a client to whom the registry is to be away: then it is not asked (`policy.drills`)."""

    def __repr__(self) -> str:
        """Leave the headers out: they may hold a credential."""
        return f"UpstreamRequest({self.method} {self.url!r})"


def header_pairs(headers: Mapping[str, str | None]) -> tuple[tuple[str, str], ...]:
    """Return the fields that have a value."""
    return tuple((field, value) for field, value in headers.items() if value)
