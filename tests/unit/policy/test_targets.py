"""regproxy.policy.targets: what an operator means by a word."""

import pytest

from regproxy.oci.digest import Digest
from regproxy.policy.targets import Target

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("quay.io/team/app:1.4", "quay.io/team/app:1.4"),
        (f"quay.io/team/app@{DIGEST}", f"quay.io/team/app@{DIGEST}"),
        (f"quay.io/team/app:1.4@{DIGEST}", f"quay.io/team/app@{DIGEST}"),
        ("quay.io/team/app", "quay.io/team/app"),
        ("Quay.IO", "quay.io"),
        ("quay.io:443", "quay.io"),
        ("localhost:5000/app", "localhost:5000/app"),
        ("localhost:5000", "localhost:5000"),
        (str(DIGEST), str(DIGEST)),
        ("alpine", "registry-1.docker.io/library/alpine"),
        ("alpine:3.20", "registry-1.docker.io/library/alpine:3.20"),
        ("team/app:1", "registry-1.docker.io/team/app:1"),
        ("docker.io/library/alpine", "registry-1.docker.io/library/alpine"),
        ("docker.io", "registry-1.docker.io"),
    ],
)
def test_a_word_has_one_meaning(text: str, normal: str) -> None:
    """Every form is read, and its normal form means the same."""
    target = Target.parse(text)

    assert str(target) == normal
    assert Target.parse(normal) == target


@pytest.mark.parametrize(
    "text", ["", "/", "quay.io/", "UPPER/case", "quay.io/app:", "quay.io/app@sha256:1", "a b", "é"]
)
def test_what_means_nothing_is_refused(text: str) -> None:
    """The error repeats the word and says what there could be."""
    with pytest.raises(ValueError, match="is none of registry/name:tag"):
        Target.parse(text)


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("quay.io", True),
        ("quay.io/team/app", True),
        ("quay.io/team/app:1", True),
        ("quay.io/team/app:2", False),
        ("quay.io/team", False),
        ("quay.io:5000", False),
        ("ghcr.io/team/app", False),
    ],
)
def test_a_target_selects_what_is_below_it(text: str, selected: bool) -> None:
    """A repository is not its own prefix, and a port is another registry."""
    assert Target.parse(text).selects("quay.io", "team/app", "1") is selected
