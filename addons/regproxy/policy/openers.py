"""Whose login opened an answer of a registry."""

from enum import StrEnum


class OpenedBy(StrEnum):
    """What the registry was shown with the request that it answered."""

    NOBODY = "nobody"
    """Nothing, or a token that is given to anybody: what it opens is public."""

    OPERATOR = "operator"
    """A password or token of the operator's."""

    CLIENT = "client"
    """The client's own Authorization."""
