"""Where the raw text of each variable comes from: the environment first, then the YAML file, then the default.

Reads the YAML file and nothing else. No value is judged here, only the shape of the file: a mapping with known keys
whose values are single values or lists of texts. An error of the file never repeats its text, which may hold passwords.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from regproxy.settings.grammar import parse_path, shown, split_words, strip_quotes
from regproxy.settings.model import SettingsError
from regproxy.settings.setting import FILE_SUFFIX, Setting
from regproxy.settings.table import BY_VARIABLE, BY_YAML_KEY, SETTINGS_TABLE

# Keys that are likely to be tried because the environment has them, and what they are called here.
_OTHER_NAMES = {"auth_registries": "credentials", "config_file": "the environment variable CONFIG_FILE"}


@dataclass(frozen=True, slots=True)
class Raw:
    """One value as it was written, and how to speak of it."""

    label: str
    """The name that the operator used: the variable, or the YAML key with its file."""
    value: str | tuple[object, ...]
    """The text, or the elements of a YAML list."""
    secret: bool

    @property
    def text(self) -> str:
        """The value of a setting that is not a list; ValueError for a list."""
        if isinstance(self.value, str):
            return self.value
        raise ValueError("not a single value")

    @property
    def words(self) -> tuple[str, ...]:
        """The words of a setting that is a list of texts; ValueError if a YAML list has anything else."""
        if isinstance(self.value, str):
            return split_words(self.value)
        if not all(isinstance(word, str) for word in self.value):
            raise ValueError("not a list of texts")
        return tuple(str(word).strip() for word in self.value)

    def problem(self, reason: str) -> str:
        """Return the line of an error or a warning: name, value unless it is secret, reason."""
        if self.secret:
            return f"{self.label}: {reason}"
        text = self.value if isinstance(self.value, str) else ", ".join(map(str, self.value))
        return f"{self.label}={shown(text)}: {reason}"


@dataclass(frozen=True, slots=True)
class Sources:
    """The environment and the content of the YAML file, if there is one."""

    environ: Mapping[str, str]
    secret_texts: Mapping[str, str]
    """Variable -> the text of the file that `<variable>_FILE` names."""
    yaml_path: Path | None
    yaml_values: Mapping[str, str | tuple[object, ...]]

    def find(self, variable: str) -> Raw | None:
        """Return what the operator wrote, or None if nothing was set."""
        setting = BY_VARIABLE[variable]
        for name in (variable, *setting.aliases):
            text = self.environ.get(name, "")
            if text or (setting.empty_counts and name in self.environ):
                return Raw(name, text, setting.secret)
        if variable in self.secret_texts:
            return Raw(f"{variable}{FILE_SUFFIX}", self.secret_texts[variable], setting.secret)
        if setting.yaml_key in self.yaml_values:
            return Raw(f"{self.yaml_path}: {setting.yaml_key}", self.yaml_values[setting.yaml_key], setting.secret)
        return None

    def get(self, variable: str) -> Raw:
        """Return what the operator wrote, or the default."""
        setting = BY_VARIABLE[variable]
        return self.find(variable) or Raw(variable, setting.default, setting.secret)


def read_sources(environ: Mapping[str, str]) -> Sources:
    """Return the sources, with the YAML file that CONFIG_FILE names. Raises SettingsError."""
    secret_texts = _read_secret_files(environ)
    name = strip_quotes(environ.get("CONFIG_FILE", ""))
    if not name:
        return Sources(environ, secret_texts, None, {})
    try:
        path = parse_path(name)
    except ValueError as error:
        raise SettingsError([f"CONFIG_FILE={shown(name)}: {error}"]) from None
    return Sources(environ, secret_texts, path, _read_yaml(path))


def _read_secret_files(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the texts of the secrets that are in files. Raises SettingsError, without a word of the texts."""
    texts: dict[str, str] = {}
    problems: list[str] = []
    for setting in (setting for setting in SETTINGS_TABLE if setting.secret):
        label = f"{setting.variable}{FILE_SUFFIX}"
        name = strip_quotes(environ.get(label, ""))
        if not name:
            continue
        if any(environ.get(variable) for variable in (setting.variable, *setting.aliases)):
            problems.append(f"{label}={shown(name)}: {setting.variable} is set, too: keep one of them")
            continue
        try:
            # The line end is the editor's, not the secret's.
            texts[setting.variable] = parse_path(name).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            problems.append(f"{label}={shown(name)}: {error.strerror}")
        except ValueError:
            problems.append(f"{label}={shown(name)}: not a file of UTF-8 text")
    if problems:
        raise SettingsError(problems)
    return texts


def _read_yaml(path: Path) -> Mapping[str, str | tuple[object, ...]]:
    content = _load_yaml(path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError([f"CONFIG_FILE={path}: not a YAML mapping of settings"])
    problems = [_unknown_key(path, key) for key in content if key not in BY_YAML_KEY]
    values: dict[str, str | tuple[object, ...]] = {}
    for setting in (BY_YAML_KEY[key] for key in content if key in BY_YAML_KEY):
        try:
            value = _yaml_value(content[setting.yaml_key])
        except ValueError as error:
            problems.append(f"{path}: {setting.yaml_key}: {error}")
            continue
        if value is not None and (value or _empty_counts(setting, value)):
            values[setting.yaml_key] = value
    if problems:
        raise SettingsError(problems)
    return values


def _load_yaml(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError([f"CONFIG_FILE={path}: {error.strerror}"]) from None
    except yaml.MarkedYAMLError as error:
        # The parser's own sentence quotes the file, and the quoted text may be a password.
        place = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise SettingsError([f"CONFIG_FILE={path}: not valid YAML{place}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise SettingsError([f"CONFIG_FILE={path}: not valid YAML in UTF-8"]) from None


def _yaml_value(value: object) -> str | tuple[object, ...] | None:
    """Return a single value as the text that the environment would have, a list as it is."""
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case list():
            return tuple(value)
        case _:
            raise ValueError("neither a single value nor a list")


def _empty_counts(setting: Setting, value: str | tuple[object, ...]) -> bool:
    """Return whether an empty YAML value says something: an empty list always does."""
    return setting.empty_counts or not isinstance(value, str)


def _unknown_key(path: Path, key: object) -> str:
    # `cert_password:secret` without a blank can be a key: only what looks like a name is repeated.
    if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", key):
        return f"{path}: a key that is no setting's name"
    near = _OTHER_NAMES.get(key.lower()) or next(iter(difflib.get_close_matches(key.lower(), BY_YAML_KEY, n=1)), None)
    return f"{path}: {key}: unknown setting" + (f", did you mean {near}?" if near else "")
