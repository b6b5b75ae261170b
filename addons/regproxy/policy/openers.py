"""Whose login opened an answer of a registry."""

from enum import StrEnum
from typing import assert_never

from regproxy.policy.credentials import Credential


class OpenedBy(StrEnum):
    """What the registry was shown with the request that it answered."""

    NOBODY = "nobody"
    """Nothing, or a token that is given to anybody: what it opens is public."""

    OPERATOR = "operator"
    """A password or token of the operator's."""

    CLIENT = "client"
    """The client's own Authorization."""


def opener_text(opened_by: OpenedBy, credential: Credential | None) -> str:
    """Return what the access log says of a login; `credential` is the operator's. Empty for nobody's."""
    match opened_by:
        case OpenedBy.NOBODY:
            return ""
        case OpenedBy.CLIENT:
            return "client"
        case OpenedBy.OPERATOR:
            return "operator" if credential is None else f"operator:{credential.username}@{credential.host}"
        case _ as unreachable:
            assert_never(unreachable)
