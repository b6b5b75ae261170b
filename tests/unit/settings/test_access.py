"""Who may use the proxy and read what: settings that must not be more open than they look."""

from pathlib import Path

import pytest

from regproxy.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("ALLOW_CLIENTS", "10.0.0.0/8 10.0.0.0/99", "entry 2 cannot be used: '10.0.0.0/99' is neither a network"),
        ("IMAGE_RULES", "permit a/*", "'permit a/*' is not of the form `allow NAME` or `deny NAME from NETWORK`"),
        ("IMAGE_RULES", "deny b; allow a/*", "the last rule, `allow a/*`, has no effect, for what no rule fits is"),
    ],
)
def test_what_cannot_be_read_does_not_start(variable: str, value: str, reason: str) -> None:
    """The error names the variable and the entry."""
    with pytest.raises(SettingsError) as caught:
        load_settings({variable: value})
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(variable)
    assert reason in caught.value.problems[0]


def test_the_file_has_lists(tmp_path: Path) -> None:
    """Each rule is an entry, with its blanks; comments and empty lines of a variable are passed over."""
    path = tmp_path / "proxy.yaml"
    path.write_text(
        'allow_clients: [10.0.0.0/8, 192.0.2.7]\nimage_rules:\n  - allow a/* from 10.0.0.0/8\n  - deny "*"\n'
    )
    with pytest.raises(SettingsError):
        load_settings({"CONFIG_FILE": str(path)})
    path.write_text("allow_clients: [10.0.0.0/8, 192.0.2.7]\nimage_rules:\n  - allow a/* from 10.0.0.0/8\n  - deny *\n")
    from_file = load_settings({"CONFIG_FILE": str(path)})
    text = "# mine\nallow a/* from 10.0.0.0/8\n\ndeny *\n"
    assert from_file == load_settings({"ALLOW_CLIENTS": "10.0.0.0/8 192.0.2.7", "IMAGE_RULES": text})
