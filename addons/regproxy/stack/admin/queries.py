"""What an admin request may say, and how an answer is described: the words of which the routes are made.

All that a request says is in its path's query; the body of an upload is content and nothing else. The same
descriptions check requests and make the OpenAPI document, so that the two cannot differ.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, assert_never
from urllib.parse import parse_qsl

from regproxy.oci.digest import Digest
from regproxy.oci.wording import shown
from regproxy.policy.targets import Target
from regproxy.settings.grammar import parse_duration_s
from regproxy.store.stored_content import StoredContent

type Json = str | int | float | bool | list[Json] | dict[str, Json] | None
type Schema = dict[str, Json]
type Value = str | int | bool | float | Target | Digest
type Kind = Literal["text", "target", "duration", "count", "flag", "digest"]

_LARGEST_COUNT = 2**53

LARGEST_BODY_BYTES = 4 * 1024 * 1024
"""Of one request: a manifest, or a piece of a blob. It is in memory while it is taken in."""


class RequestError(Exception):
    """A request that cannot be answered as it is."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a query."""

    name: str
    kind: Kind
    meaning: str
    required: bool = False

    def parse(self, text: str) -> Value:
        """Read a value. Raises RequestError."""
        try:
            return self._parse(text)
        except ValueError as error:
            raise RequestError(400, f"{self.name}={shown(text)}: {error}") from None

    def _parse(self, text: str) -> Value:
        match self.kind:
            case "text":
                return text
            case "target":
                return Target.parse(text)
            case "duration":
                return parse_duration_s(text)
            case "count":
                return _count(text)
            case "flag":
                return _flag(text)
            case "digest":
                return Digest.parse(text)
            case _ as unreachable:
                assert_never(unreachable)

    def described(self) -> Schema:
        """Return it as OpenAPI has it."""
        return {
            "name": self.name,
            "in": "query",
            "required": self.required,
            "description": self.meaning,
            "schema": _KINDS[self.kind],
        }


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > _LARGEST_COUNT:
        raise ValueError("not a whole number")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("neither true nor false")
    return text == "true"


_KINDS: Mapping[Kind, Schema] = {
    "text": {"type": "string"},
    "target": {"type": "string", "minLength": 1, "example": "quay.io/team/app:1.4"},
    "duration": {"type": "string", "example": "30d"},
    "count": {"type": "integer", "minimum": 0, "maximum": _LARGEST_COUNT},
    "flag": {"type": "boolean"},
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"},
}


class Query:
    """The parameters of one request, checked."""

    def __init__(self, values: Mapping[str, Value], body: bytes = b"") -> None:
        self._values = values
        self.body = body
        """What is uploaded."""

    def text(self, name: str) -> str:
        """Return a text, empty when it was not given."""
        value = self._values.get(name, "")
        assert isinstance(value, str)
        return value

    def target(self, name: str) -> Target | None:
        """Return what is meant."""
        value = self._values.get(name)
        assert value is None or isinstance(value, Target)
        return value

    def digest(self, name: str) -> Digest:
        """Return a digest, which has to be among the route's required parameters."""
        value = self._values[name]
        assert isinstance(value, Digest)
        return value

    def duration_s(self, name: str) -> float | None:
        """Return a time in seconds."""
        value = self._values.get(name)
        assert value is None or isinstance(value, float)
        return value

    def count(self, name: str, default: int) -> int:
        """Return a number."""
        value = self._values.get(name, default)
        assert isinstance(value, int)
        return value

    def flag(self, name: str) -> bool:
        """Return whether something is wanted; not when nothing was said."""
        return self._values.get(name) is True


type Handler = Callable[[Query], Awaitable[Json | StoredContent]]
"""Content that is returned is closed by the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One thing that can be asked."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    """Below the API's prefix."""
    name: str
    """Of the operation."""
    summary: str
    handler: Handler
    answer: Schema | None
    """None for content as it is."""
    parameters: tuple[Parameter, ...] = ()
    takes_content: bool = False
    """Whether a request has content as its body."""

    def read(self, query_text: str, body: bytes = b"") -> Query:
        """Check a query. Raises RequestError for what is wrong, unknown, doubled or not there."""
        known = {parameter.name: parameter for parameter in self.parameters}
        try:
            pairs = parse_qsl(query_text, keep_blank_values=True, strict_parsing=bool(query_text), errors="strict")
        except ValueError:
            raise RequestError(400, "the query cannot be read: name=value&name=value, percent-encoded") from None
        values: dict[str, Value] = {}
        for name, text in pairs:
            if name not in known:
                raise RequestError(400, f"{shown(name)} is no parameter here: {', '.join(known) or 'there are none'}")
            if name in values:
                raise RequestError(400, f"{name} is given twice")
            values[name] = known[name].parse(text)
        for parameter in self.parameters:
            if parameter.required and parameter.name not in values:
                raise RequestError(400, f"the parameter {parameter.name} is missing: {parameter.meaning}")
        return Query(values, body)


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}


def nullable(schema: Schema) -> Schema:
    """Describe what may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def array(schema: Schema) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": schema}


def record(**fields: Schema) -> Schema:
    """Describe an object that has exactly these fields."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }


def mapping(schema: Schema) -> Schema:
    """Describe an object whose keys are anything."""
    return {"type": "object", "additionalProperties": schema}
