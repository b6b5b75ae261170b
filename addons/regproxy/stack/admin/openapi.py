"""The OpenAPI 3.1 document of the admin API, made from its routes."""

from collections.abc import Iterable

from regproxy import __version__
from regproxy.stack.admin.queries import TEXT, Json, Route, record

ERROR = record(error=TEXT)

_REFUSALS = {
    "400": "The query is wrong; the text says what",
    "401": "The token is missing or wrong",
    "403": "Without a token only clients on this machine are answered",
    "404": "There is no such thing",
    "421": "The Host field names no address of this proxy",
    "503": "The proxy is starting, or its store does not work",
}


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
    responses: dict[str, Json] = {"200": {"description": "Done", "content": {"application/json": _media(route.answer)}}}
    error: Json = {"$ref": "#/components/schemas/Error"}
    for status, words in _REFUSALS.items():
        responses[status] = {"description": words, "content": {"application/json": _media(error)}}
    return {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [parameter.described() for parameter in route.parameters],
        "responses": responses,
    }


def _media(schema: Json) -> dict[str, Json]:
    return {"schema": schema}
