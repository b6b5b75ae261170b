"""Variables in a compose file, by the Compose specification's "Interpolation", and the file `.env`."""

import re
from collections.abc import Mapping

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
_DEEPEST = 20
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(.*?)\s*")


def interpolated(text: str, environ: Mapping[str, str]) -> str:
    """Return a text with its variables put in; one that is not set is empty. Raises ValueError.

    `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?error}`, `${NAME?error}`, `${NAME:+instead}`,
    `${NAME+instead}`; `$$` is a dollar sign. What stands behind the operator may have variables, too.
    """
    return _interpolated(text, environ, _DEEPEST)


def parse_env(text: str) -> dict[str, str]:
    """Return what a file `.env` sets: `NAME=value` a line, in quotes or not; anything else is passed over."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _ASSIGNMENT.fullmatch(line)
        if match is None or line.lstrip().startswith("#"):
            continue
        value = match[2]
        if value[:1] in ("'", '"') and value.find(value[0], 1) > 0:
            found[match[1]] = value[1 : value.index(value[0], 1)]
        else:
            found[match[1]] = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
    return found


def _interpolated(text: str, environ: Mapping[str, str], depth: int) -> str:
    if not depth:
        raise ValueError(f"variables in variables, {_DEEPEST} deep")
    parts: list[str] = []
    position = 0
    while True:
        dollar = text.find("$", position)
        if dollar < 0:
            return "".join([*parts, text[position:]])
        parts.append(text[position:dollar])
        value, position = _value(text, dollar + 1, environ, depth)
        parts.append(value)


def _value(text: str, start: int, environ: Mapping[str, str], depth: int) -> tuple[str, int]:
    """Return what stands for the variable behind a dollar sign, and where the text goes on."""
    if text.startswith("$", start):
        return "$", start + 1
    if text.startswith("{", start):
        end = _closing(text, start)
        return _braced(text[start + 1 : end], environ, depth), end + 1
    name = _VARIABLE.match(text, start)
    if name is None:
        raise ValueError(f"{text!r}: a dollar sign without a name behind it is written $$")
    return environ.get(name[0], ""), name.end()


def _closing(text: str, start: int) -> int:
    open_braces = 0
    for position in range(start, len(text)):
        if text.startswith("${", position - 1) and text[position] == "{":
            open_braces += 1
        elif text[position] == "}":
            open_braces -= 1
            if not open_braces:
                return position
    raise ValueError(f"{text!r}: a brace is not closed")


def _braced(inner: str, environ: Mapping[str, str], depth: int) -> str:
    name = _VARIABLE.match(inner)
    rest = "" if name is None else inner[name.end() :]
    operator = next((each for each in _OPERATORS if rest.startswith(each)), "")
    if name is None or (rest and not operator):
        raise ValueError(f"${{{inner}}} is no variable")
    value = environ.get(name[0])
    is_there = bool(value) if operator.startswith(":") else value is not None
    word = rest[len(operator) :]
    match operator[-1:]:
        case "-":
            return (value or "") if is_there else _interpolated(word, environ, depth - 1)
        case "+":
            return _interpolated(word, environ, depth - 1) if is_there else ""
        case "?" if not is_there:
            raise ValueError(f"{name[0]} is not set" + (f": {word}" if word else ""))
        case _:
            return value or ""
