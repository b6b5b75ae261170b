"""The YAML file: the same settings, behind the environment, and errors that do not quote it."""

import re
from pathlib import Path

import pytest

from regproxy.settings import Settings, SettingsError, load_settings
from regproxy.settings.table import BY_YAML_KEY, SETTINGS_TABLE

SECRET = "hunter2-s3cret"
EXAMPLE = Path(__file__).parents[3] / "config" / "registry-proxy.yaml"


def load_yaml(directory: Path, text: str, **environ: str) -> Settings:
    path = directory / "proxy.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings({"CONFIG_FILE": str(path), **environ})


def uncommented_example() -> str:
    """Return the example with every setting active: `#key: value` and the lists below it."""
    return re.sub(r"^#(?=[a-z0-9_]+:|  )", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_single_values_and_lists_are_read(tmp_path: Path) -> None:
    """YAML's own types and texts in the grammar of the environment both work."""
    text = "listen_port: 8080\nallow_push: true\ncache_max_size: 1g\nsend_timeout: 5\n"
    settings = load_yaml(tmp_path, text + "registries: [a.test, 'b.test:5000']\n")

    assert (settings.listen_port, settings.allow_push, settings.cache_max_size_bytes) == (8080, True, 1 << 30)
    assert [str(pattern) for pattern in settings.registries] == ["a.test", "b.test:5000"]
    assert settings.send_timeout_s == 5


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A variable that is set counts; an empty one leaves the file's value."""
    settings = load_yaml(tmp_path, "listen_port: 8080\ncache_inactive: 1d\n", LISTEN_PORT="9090", CACHE_INACTIVE="")

    assert (settings.listen_port, settings.cache_inactive_s) == (9090, 86400)


def test_an_empty_list_of_logins_in_the_environment_disables_those_of_the_file(tmp_path: Path) -> None:
    """For this variable and the tag patterns an empty value is a value."""
    text = "credentials: [{host: a.test, username: u, password: p}]\nmanifest_cache_primary_regex: ''\n"

    assert len(load_yaml(tmp_path, text).credentials) == 1
    assert load_yaml(tmp_path, text, AUTH_REGISTRIES="").credentials == ()
    assert [tier.name for tier in load_yaml(tmp_path, text).tiers] == ["secondary", "default"]


def test_an_empty_list_in_the_file_is_a_value(tmp_path: Path) -> None:
    """`registries: []` means none besides the built-in ones, and no value at all means the default."""
    assert load_yaml(tmp_path, "registries: []\n").registries == ()
    assert load_yaml(tmp_path, "registries:\n") == load_settings({})


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_a_file_without_settings_gives_the_defaults(text: str, tmp_path: Path) -> None:
    """The example as it is shipped changes nothing."""
    assert load_yaml(tmp_path, text) == load_settings({})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("listen_prot", "unknown setting, did you mean listen_port?"),
        ("LISTEN_PORT", "unknown setting, did you mean listen_port?"),
        ("auth_registries", "unknown setting, did you mean credentials?"),
        ("zzzz", "unknown setting"),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(key: str, hint: str, tmp_path: Path) -> None:
    """A slip in the file is not ignored: the setting would silently have its default."""
    with pytest.raises(SettingsError) as caught:
        load_yaml(tmp_path, f"{key}: 1\n")

    assert str(caught.value) == f"{tmp_path}/proxy.yaml: {key}: {hint}"


def test_a_bad_value_names_file_key_and_value(tmp_path: Path) -> None:
    """An error in the file is told in the file's words."""
    with pytest.raises(SettingsError) as caught:
        load_yaml(tmp_path, "listen_port: abc\n")

    assert str(caught.value) == f"{tmp_path}/proxy.yaml: listen_port=abc: not a port number (1-65535)"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("listen_port: [1, 2]\n", "not a single value"),
        ("listen_port: {a: 1}\n", "neither a single value nor a list"),
        ("registries: [1, 2]\n", "not a list of texts"),
        ("- a\n- b\n", "not a YAML mapping"),
        ("credentials: [{host: a.test, username: u}]\n", "entry 1 cannot be used: it needs host, username"),
    ],
)
def test_a_value_of_the_wrong_shape_is_an_error(text: str, reason: str, tmp_path: Path) -> None:
    """Lists, mappings and single values are not taken for one another."""
    with pytest.raises(SettingsError, match=reason) as caught:
        load_yaml(tmp_path, text)

    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"cert_password: *{SECRET}\n", id="alias"),
        pytest.param(f"cert_password: {SECRET}: x\n", id="colon"),
        pytest.param(f"cert_password: '{SECRET}\n", id="open quote"),
        pytest.param(f"cert_password: !{SECRET} x\n", id="tag"),
        pytest.param(f"{{cert_password:{SECRET}}}\n", id="key"),
        pytest.param(f"credentials: [{{host: a.test, username: u, password:{SECRET}}}]\n", id="key of a login"),
        pytest.param(f"credentials: [{{host: '-', username: u, password: {SECRET}}}]\n", id="bad host of a login"),
        pytest.param(f"cert_password: [{SECRET}]\n", id="list"),
        pytest.param(f"credentials: [a.test:u:{SECRET}]\n", id="login as text"),
    ],
)
def test_a_broken_file_does_not_tell_its_secrets(text: str, tmp_path: Path) -> None:
    """The parser's own messages quote the file, so they are not passed on."""
    with pytest.raises(SettingsError) as caught:
        load_yaml(tmp_path, text)

    assert str(tmp_path) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A wrong path in CONFIG_FILE does not mean the defaults."""
    with pytest.raises(SettingsError, match=r"^CONFIG_FILE=.*none\.yaml: No such file or directory$"):
        load_settings({"CONFIG_FILE": str(tmp_path / "none.yaml")})


def test_the_example_documents_every_key() -> None:
    """Each setting that the file can have is in the example once."""
    keys = re.findall(r"^#([a-z0-9_]+):", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert sorted(keys) == sorted(BY_YAML_KEY)


def test_the_example_uncommented_shows_the_defaults(tmp_path: Path) -> None:
    """Every value of the example works, and where there is a default, it is the one that is shown."""
    (tmp_path / "registry.example.com.password").write_text("secret\n", encoding="utf-8")
    text = uncommented_example()
    with_default = {row.yaml_key for row in SETTINGS_TABLE if row.default and row.yaml_key}
    sections = re.split(r"^(?=[a-z0-9_]+:)", text, flags=re.MULTILINE)
    defaults_only = "".join(part for part in sections if part.split(":")[0] in with_default)

    assert len(load_yaml(tmp_path, text).credentials) == 2
    assert len(re.findall(r"^[a-z0-9_]+:", defaults_only, flags=re.MULTILINE)) == len(with_default)
    assert load_yaml(tmp_path, defaults_only) == load_settings({})
