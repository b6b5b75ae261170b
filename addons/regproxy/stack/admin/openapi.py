"""The OpenAPI 3.1 document of the admin API, made from its routes."""

from collections.abc import Iterable

from regproxy import __version__
from regproxy.stack.admin.queries import LARGEST_BODY_BYTES, TEXT, Json, Route, Schema, record

ERROR = record(error=TEXT)

_REFUSALS = {
    "400": "The query is wrong; the text says what",
    "401": "The token is missing or wrong",
    "403": "Without a token only clients on this machine are answered",
    "404": "There is no such thing",
    "421": "The Host field names no address of this proxy",
    "503": "The proxy is starting, or its store does not work",
}

_REFUSALS_OF_CONTENT = {
    "409": "Not now: someone else brings it, or the upload is elsewhere than this request",
    "411": "The body has no Content-Length",
    "413": f"The body is longer than {LARGEST_BODY_BYTES} bytes",
    "507": "There is no room in the cache",
}

_CONTENT = "application/octet-stream"
_BYTES: Schema = {"type": "string", "format": "binary"}


def openapi(routes: Iterable[Route], prefix: str) -> dict[str, Json]:
    """Return the document; `prefix` is the path that all of them have in common."""
    paths: dict[str, Json] = {}
    for route in routes:
        operations = paths.setdefault(route.path, {})
        assert isinstance(operations, dict)
        operations[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "registry-proxy", "version": __version__, "description": "Look at the proxy and steer it."},
        "servers": [{"url": prefix}],
        "security": [{"token": []}, {}],
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}, "schemas": {"Error": ERROR}},
        "paths": paths,
    }


def _operation(route: Route) -> dict[str, Json]:
    answered = {_CONTENT: _media(_BYTES)} if route.answer is None else {"application/json": _media(route.answer)}
    responses: dict[str, Json] = {"200": {"description": "Done", "content": {**answered}}}
    error: Json = {"$ref": "#/components/schemas/Error"}
    for status, words in (_REFUSALS | (_REFUSALS_OF_CONTENT if route.takes_content else {})).items():
        responses[status] = {"description": words, "content": {"application/json": _media(error)}}
    return {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [parameter.described() for parameter in route.parameters],
        "responses": responses,
        **({"requestBody": {"content": {_CONTENT: _media(_BYTES)}}} if route.takes_content else {}),
    }


def _media(schema: Json) -> dict[str, Json]:
    return {"schema": schema}
