"""Which images are served, and to whom."""

import pytest

from regproxy.oci.names import Registry
from regproxy.policy.image_rules import ImageRule, denying_rule, may_use, parse_network, without_effect

HUB, QUAY = Registry("registry-1.docker.io"), Registry("quay.io")
OFFICE, GUEST = "10.1.2.3", "10.9.9.9"


def rules(*lines: str) -> list[ImageRule]:
    return [ImageRule.parse(line) for line in lines]


STRICT = rules(
    "allow docker.io/library/*",
    "allow quay.io/secret/* from 10.1.0.0/16 2001:db8::/32",
    "deny quay.io/team/* from 10.9.0.0/16",
    "allow quay.io/team/*",
    "deny *",
)


@pytest.mark.parametrize(
    ("registry", "name", "client", "rule"),
    [
        (HUB, "library/alpine", GUEST, None),
        (HUB, "library/alpine/deep", GUEST, None),
        (Registry("index.docker.io"), "library/alpine", GUEST, None),
        (HUB, "other/alpine", GUEST, 4),
        (QUAY, "secret/a", OFFICE, None),
        (QUAY, "secret/a", "::ffff:10.1.2.3", None),
        (QUAY, "secret/a", "2001:db8::1", None),
        (QUAY, "secret/a", GUEST, 1),
        (QUAY, "secret/a", "", 1),
        (QUAY, "secretive/a", OFFICE, 4),
        (QUAY, "team/a", GUEST, 2),
        (QUAY, "team/a", OFFICE, None),
        (QUAY, None, OFFICE, 4),
        (Registry("quay.io", 5000), "team/a", OFFICE, 4),
        (Registry("quay.io.evil.example"), "team/a", OFFICE, 4),
    ],
)
def test_the_first_rule_that_fits_decides(registry: Registry, name: str | None, client: str, rule: int | None) -> None:
    """An allow for some refuses the others, a deny for some says nothing about the others."""
    assert denying_rule(STRICT, registry, name, client) == (None if rule is None else STRICT[rule])


def test_what_no_rule_fits_is_served() -> None:
    """Without rules everything is; a star in the middle stands for slashes, too."""
    assert denying_rule([], QUAY, "a", GUEST) is None
    assert denying_rule(rules("deny quay.io/*/secret"), QUAY, "a/b", GUEST) is None
    assert denying_rule(rules("deny quay.io/*/secret"), QUAY, "a/b/secret", GUEST) is not None
    assert denying_rule(rules("deny quay.io"), QUAY, None, GUEST) is not None


@pytest.mark.parametrize(
    "text",
    ["", "allow", "permit a", "allow a b", "allow a from", "allow a from b", "deny a from 10.0.0.0/33", "deny a;b"],
)
def test_a_rule_that_cannot_be_read_is_an_error(text: str) -> None:
    """The proxy must not be more open than it looks."""
    with pytest.raises(ValueError):  # noqa: PT011 - the words are told in the settings' tests
        ImageRule.parse(text)


def test_a_list_of_all_that_is_served_needs_its_end() -> None:
    """An allow behind which nothing is refused has no effect."""
    assert without_effect(rules("deny a", "allow b")) == ImageRule.parse("allow b")
    assert without_effect(rules("allow b", "deny *")) is None
    assert without_effect(rules("allow b from 10.0.0.0/8")) is None
    assert without_effect([]) is None


def test_who_may_use_the_proxy() -> None:
    """Everybody without networks; with them who is in one of them."""
    networks = (parse_network("10.0.0.0/8"), parse_network("2001:db8::/32"))
    assert may_use("anything", ())
    assert [may_use(client, networks) for client in (OFFICE, "::ffff:10.0.0.1", "2001:db8::7%eth0")] == [True] * 3
    assert [may_use(client, networks) for client in ("11.0.0.1", "::1", "", "office")] == [False] * 4
