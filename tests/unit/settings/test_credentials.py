"""Logins: the reference's list with its delimiters, and what is left out of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.credentials import Credential
from regproxy.settings import load_settings
from regproxy.settings.credentials import (
    CredentialEntryError,
    parse_credential,
    parse_credential_list,
    parse_yaml_credential,
)

PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'"), min_size=1)


def as_tuple(credential: Credential) -> tuple[str, int | None, str, str]:
    return credential.host, credential.port, credential.username, credential.password


@pytest.mark.parametrize(
    ("text", "list_delimiter", "field_delimiter", "expected"),
    [
        pytest.param("a.io:u:p b.io:v:q", " ", ":", [("a.io", None, "u", "p"), ("b.io", None, "v", "q")], id="two"),
        pytest.param(
            " a.io:u:p \n\n b.io:v:q ", " ", ":", [("a.io", None, "u", "p"), ("b.io", None, "v", "q")], id="runs"
        ),
        pytest.param("a.io:u:p:w::", " ", ":", [("a.io", None, "u", "p:w::")], id="password with the delimiter"),
        pytest.param("a.io:5000:u:p", " ", ":", [("a.io", 5000, "u", "p")], id="port"),
        pytest.param("a.io:5000:p", " ", ":", [("a.io", None, "5000", "p")], id="number as user"),
        pytest.param("[::1]:5000:u:p", " ", ":", [("::1", 5000, "u", "p")], id="IPv6 with port"),
        pytest.param("[::1]:u:p", " ", ":", [("::1", None, "u", "p")], id="IPv6"),
        pytest.param("A.IO:u:p", " ", ":", [("a.io", None, "u", "p")], id="upper case"),
        pytest.param("https://index.docker.io/v1/:u:p", " ", ":", [("index.docker.io", None, "u", "p")], id="Docker's"),
        pytest.param('"a.io:u:p"', " ", ":", [("a.io", None, "u", "p")], id="quoted list"),
        pytest.param("a.io:u:'p'", " ", ":", [("a.io", None, "u", "p")], id="quoted password"),
        pytest.param(
            "a.io:::u:::p:q;;;b.io:1:::v:::q r",
            ";;;",
            ":::",
            [("a.io", None, "u", "p:q"), ("b.io", 1, "v", "q r")],
            id="long delimiters",
        ),
        pytest.param(
            "a.io|u|p;b.io|v|q",
            '";"',
            "'|'",
            [("a.io", None, "u", "p"), ("b.io", None, "v", "q")],
            id="quoted delimiters",
        ),
        pytest.param(
            "some.authenticated.registry:oneuser:onepassword another.registry:user:password",
            " ",
            ":",
            [],
            id="placeholders",
        ),
        pytest.param("", " ", ":", [], id="nothing"),
    ],
)
def test_a_list_of_logins_is_read(
    text: str, list_delimiter: str, field_delimiter: str, expected: list[tuple[str, int | None, str, str]]
) -> None:
    """Delimiters, ports, quotes and passwords with delimiters are read as users mean them, without a warning."""
    credentials, warnings = parse_credential_list(text, list_delimiter, field_delimiter)

    assert [as_tuple(credential) for credential in credentials] == expected
    assert warnings == ()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        pytest.param("s3cret", "not host, user and password", id="one field"),
        pytest.param("a.io:s3cret", "not host, user and password", id="two fields"),
        pytest.param("a.io:user:", "password is empty", id="empty password"),
        pytest.param("a.io/s3cret_/:u:s3cret", "not the beginning of a repository's name", id="path"),
        pytest.param("*.io:u:s3cret", "wildcard", id="wildcard"),
        pytest.param("-s3cret-:u:s3cret", "is not one", id="no host"),
        pytest.param("a.io:99999:u:s3cret", "is not one", id="no port"),
    ],
)
def test_a_bad_entry_is_a_warning_with_its_number_and_no_secret(entry: str, reason: str) -> None:
    """The start goes on, the other logins work, and no part of the entry is told."""
    credentials, warnings = parse_credential_list(f"ok.io:u:p {entry}", " ", ":")

    assert [credential.host for credential in credentials] == ["ok.io"]
    assert len(warnings) == 1
    assert warnings[0].startswith("AUTH_REGISTRIES: entry 2 is left out: ")
    assert reason in warnings[0]
    assert "s3cret" not in warnings[0]


def test_the_first_of_two_logins_for_a_host_counts() -> None:
    """A second login could never be used, so it is told and left out."""
    credentials, warnings = parse_credential_list("a.io:u:first a.io:u:second a.io:5000:u:third", " ", ":")

    assert [credential.password for credential in credentials] == ["first", "third"]
    assert warnings == ("AUTH_REGISTRIES: entry 2 is left out: an entry before it has the same host",)


def test_a_user_with_a_colon_is_refused() -> None:
    """HTTP Basic could not carry it; only another delimiter makes it possible."""
    with pytest.raises(CredentialEntryError, match="colon"):
        parse_credential("a.io|us:er|p", "|")


@given(PASSWORDS)
def test_a_password_comes_through_unchanged(password: str) -> None:
    """Whatever printable characters a password has, delimiters among them, it is not cut."""
    assert parse_credential(f"a.io:user:{password}", ":").password == password


@given(st.text())
def test_no_list_stops_the_start(text: str) -> None:
    """Any text gives logins and warnings, never an exception."""
    parse_credential_list(text, " ", ":")


def test_a_yaml_password_may_be_in_a_file_beside_it(tmp_path: Path) -> None:
    """The line end that an editor adds is not part of the password."""
    (tmp_path / "password").write_text("p:w \n", encoding="utf-8")
    entry = {"host": "a.io:5000", "username": "u", "password_file": "password"}

    assert as_tuple(parse_yaml_credential(entry, tmp_path)) == ("a.io", 5000, "u", "p:w ")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        pytest.param("a.io:u:s3cret", "not a mapping", id="text"),
        pytest.param({"host": "a.io", "password": "s3cret"}, "needs host, username", id="no user"),
        pytest.param({"host": "a.io", "username": "u"}, "one of password", id="no password"),
        pytest.param(
            {"host": "a.io", "username": "u", "password": "s3cret", "password_file": "f"}, "one of password", id="both"
        ),
        pytest.param({"host": "a.io", "username": "u", "password:s3cret": None}, "unknown key", id="secret in the key"),
        pytest.param({"host": "a.io", "username": "u", "password": 7777}, "password is not a text", id="number"),
        pytest.param({"host": "a.io", "username": "u", "password_file": "none"}, "No such file", id="no file"),
    ],
)
def test_a_bad_yaml_login_is_refused_without_its_secret(entry: object, reason: str, tmp_path: Path) -> None:
    """A file is checked strictly, and its error repeats nothing that may be a password."""
    with pytest.raises(CredentialEntryError, match=reason) as caught:
        parse_yaml_credential(entry, tmp_path)

    assert "s3cret" not in str(caught.value)
    assert "7777" not in str(caught.value)


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


def test_a_key_file_of_google_comes_through() -> None:
    """`_json_key` has a password of JSON in many lines: colons, blanks, quotes and line ends stay as they are."""
    key = '{\n  "type": "service_account",\n  "private_key": "-----BEGIN\\nMII=\\n", "it": "\'s"\n}\n'.strip()
    credentials, warnings = parse_credential_list(
        f"gcr.io/one|||_json_key|||{key};;;gcr.io|||_json_key|||{key}", ";;;", "|||"
    )

    assert [(credential.path, credential.password) for credential in credentials] == [("one", key), ("", key)]
    assert warnings == ()
