"""Several logins for one host, each for the repositories below a path."""

import pytest

from regproxy.policy.credentials import Credential, find_credential, repository_of_scope
from regproxy.settings import load_settings

ALL = Credential("gcr.test", None, "all", "p")
TEAM = Credential("gcr.test", None, "team", "p", "team")
SECRET_TEAM = Credential("gcr.test", None, "secret", "p", "team/secret")
EVERY = [ALL, TEAM, SECRET_TEAM]


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("team/app", TEAM),
        ("team", TEAM),
        ("team/secret", SECRET_TEAM),
        ("team/secret/app", SECRET_TEAM),
        ("team/secretly", TEAM),
        ("teams/app", ALL),
        ("other/app", ALL),
        (None, ALL),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_longest_path_counts(repository: str | None, expected: Credential, order: int) -> None:
    """Whole components only, in whatever order they are listed."""
    assert find_credential("gcr.test", 443, EVERY[::order], repository) is expected


def test_a_login_for_a_path_goes_to_no_other_repository() -> None:
    """A question without a repository, the ping that opens every pull, has to be asked by somebody."""
    assert find_credential("gcr.test", 443, [TEAM], "other/app") is None
    assert find_credential("gcr.test", 443, [TEAM], None) is TEAM


@pytest.mark.parametrize(
    ("target", "repository"),
    [
        ("/token?service=x&scope=repository:team/app:pull", "team/app"),
        ("/token?scope=repository%3Ateam%2Fapp%3Apull%2Cpush", "team/app"),
        ("/token?scope=registry:catalog:*&scope=repository:a:pull", "a"),
        ("/token?scope=repository:a", None),
        ("/token", None),
    ],
)
def test_a_token_is_asked_for_a_repository(target: str, repository: str | None) -> None:
    """The first one that the scopes name."""
    assert repository_of_scope(target) == repository


def test_paths_are_read_from_the_list() -> None:
    """Beside a login for the whole host; the same path twice is one too many."""
    settings = load_settings(
        {"AUTH_REGISTRIES": "g.test/team/a:u:p g.test:5000/b/:v:q g.test:w:r https://g.test/v2/:x:y g.test/team/a:z:p"}
    )

    assert [(each.port, each.path, each.username) for each in settings.credentials] == [
        (None, "team/a", "u"),
        (5000, "b", "v"),
        (None, "", "w"),
    ]
    assert [warning.partition(":")[2] for warning in settings.warnings] == [
        " entry 4 is left out: an entry before it has the same host",
        " entry 5 is left out: an entry before it has the same host and path",
    ]
