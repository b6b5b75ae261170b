"""What the access log says of whose login opened an answer."""

import pytest

from regproxy.policy.credentials import Credential
from regproxy.policy.openers import OpenedBy, opener_text

ROBOT = Credential("quay.io", None, "acme+pull", "wonderland-7", path="acme")


@pytest.mark.parametrize(
    ("opened_by", "credential", "expected"),
    [
        (OpenedBy.NOBODY, None, ""),
        (OpenedBy.CLIENT, None, "client"),
        (OpenedBy.OPERATOR, ROBOT, "operator:acme+pull@quay.io"),
        (OpenedBy.OPERATOR, None, "operator"),
    ],
)
def test_a_login_is_named_without_its_secret(opened_by: OpenedBy, credential: Credential | None, expected: str) -> None:
    """The operator's by user and host."""
    assert opener_text(opened_by, credential) == expected
