"""`GET /metrics` at the proxy's own address. It names no image and no client: whoever may use the proxy may read it."""

from mitmproxy import http

from regproxy.engine.http_layer import Door, door
from regproxy.stack.answers import answer
from regproxy.stack.metrics import CONTENT_TYPE, Metrics


class MetricsPage:
    """Stands before the other pages of the proxy's own address."""

    name = "registry-metrics-page"

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Answer Prometheus."""
        request = flow.request
        if flow.response is not None or door(request) is not Door.OWN or request.method != "GET":
            return
        if request.path.partition("?")[0] == "/metrics":
            flow.response = answer(200, {"Content-Type": CONTENT_TYPE}, await self._metrics.text())
