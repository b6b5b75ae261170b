"""Operators' requests on their way to the desk (`stack.desk`), and the answers on their way back."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from regproxy.engine.parcels import unwrap, wrap
from regproxy.stack.admin.queries import Json, Query, RequestError, Route
from regproxy.stack.desk import Desk, DeskAwayError
from regproxy.store.errors import StoreError, StoreFull
from regproxy.store.stored_content import StoredContent

logger = logging.getLogger(__name__)

_TOPIC = "admin"


class PassingOn:
    """Both ends."""

    def __init__(self, desk: Desk, routes: Sequence[Route]) -> None:
        self._desk = desk
        self._routes = {route.name: route for route in routes}
        desk.on_question(_TOPIC, self._at_the_desk)

    async def answer(self, route: Route, query_text: str, body: bytes) -> Json | StoredContent:
        """Answer here what is here, or is content. Raises RequestError, StoreError."""
        query = route.read(query_text, body)
        if self._desk.is_here or route.answer is None:
            return await route.handler(query)
        try:
            told = await self._desk.ask(_TOPIC, [route.name, query_text, wrap(body)])
            answered = unwrap(told["answer"])
        except (DeskAwayError, OSError) as error:
            raise RequestError(503, "the worker that answers operators has just ended: ask again") from error
        if told["status"] != 200:
            raise RequestError(told["status"], answered.decode())
        parsed: Json = json.loads(answered)
        return parsed

    async def _at_the_desk(self, asked: list[Any]) -> dict[str, Any]:
        name, query_text, body = asked
        route = self._routes[name]
        try:
            answered = await self._handled(route, route.read(query_text, unwrap(body)))
        except RequestError as error:
            return {"status": error.status, "answer": wrap(str(error).encode())}
        except Exception:
            logger.exception("%s %s", route.method, route.path)
            return {"status": 500, "answer": wrap(b"this is a mistake of the proxy: its log has the details")}
        return {"status": 200, "answer": wrap(json.dumps(answered, separators=(",", ":")).encode())}

    async def _handled(self, route: Route, query: Query) -> Json:
        try:
            answered = await route.handler(query)
        except StoreFull as error:
            raise RequestError(507, str(error)) from None
        except StoreError as error:
            raise RequestError(503, str(error)) from None
        assert not isinstance(answered, StoredContent)
        return answered
