"""Where the dashboard answers, with which protection, and whom it shows names."""

import json

import pytest
from mitmproxy import http

from regproxy.engine.http_layer import Door
from regproxy.stack.core import Core
from regproxy.stack.dashboard import FILES, Dashboard
from regproxy.stack.statistics import Statistics
from unit.stack.conftest import Configure, make_flow

HTML = {"Accept": "text/html"}
DOCUMENT = "/_proxy/dashboard.json"
TOKEN = "the-admins-own-token"


async def asked(
    dashboard: Dashboard, path: str, fields: dict[str, str] | None = None, *, method: str = "GET", door: Door = Door.OWN
) -> http.Response | None:
    """Return the answer to a client of another machine."""
    flow = make_flow(method, "192.0.2.1", 3128, path, fields, door=door, scheme="http")
    await dashboard.requestheaders(flow)
    return flow.response


@pytest.mark.parametrize(
    ("path", "fields", "method", "door", "is_answered"),
    [
        ("/", HTML, "GET", Door.OWN, True),
        ("/?x=1", HTML, "HEAD", Door.OWN, True),
        ("/", {}, "GET", Door.OWN, False),
        ("/", HTML, "POST", Door.OWN, False),
        ("/", HTML, "GET", Door.TUNNEL, False),
        ("/", HTML, "GET", Door.FORWARD, False),
        (DOCUMENT, {}, "GET", Door.OWN, True),
        (DOCUMENT, {}, "GET", Door.TUNNEL, False),
        (DOCUMENT, {}, "GET", Door.MIRROR, False),
        ("/_proxy/dashboard.js", {}, "GET", Door.OWN, True),
        ("/_proxy/index.html", {}, "GET", Door.OWN, False),
        ("/_proxy/../dashboard.js", {}, "GET", Door.OWN, False),
    ],
)
async def test_what_is_answered(
    core: Core, path: str, fields: dict[str, str], method: str, door: Door, is_answered: bool
) -> None:
    """At the proxy's own address only, to readers only, and of all files those that are the page's."""
    response = await asked(Dashboard(core, Statistics(core)), path, fields, method=method, door=door)
    assert (response is not None) is is_answered
    if response is not None:
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"


async def test_every_file_of_the_page_is_served(core: Core) -> None:
    """What lies in the folder is asked for, and what is asked for lies there."""
    dashboard = Dashboard(core, Statistics(core))
    for file in FILES.iterdir():
        path = "/" if file.name == "index.html" else f"/_proxy/{file.name}"
        response = await asked(dashboard, path, HTML)
        assert response is not None, file.name
        assert response.raw_content == file.read_bytes()


@pytest.mark.parametrize(
    ("token", "shown", "names", "helps"),
    [("", "", False, False), (TOKEN, "", False, True), (TOKEN, "wrong", False, True), (TOKEN, TOKEN, True, False)],
    ids=["no token", "not shown", "wrong", "shown"],
)
async def test_the_token_shows_names(configure: Configure, token: str, shown: str, names: bool, helps: bool) -> None:
    """And the page asks for one only where that could help."""
    core = configure(**({"ADMIN_TOKEN": token} if token else {}))
    fields = {"Authorization": f"Bearer {shown}"} if shown else {}
    response = await asked(Dashboard(core, Statistics(core)), DOCUMENT, fields)
    assert response is not None
    told = json.loads(response.raw_content or b"")
    assert (told["names"], told["token_helps"]) == (names, helps)


async def test_before_the_start_there_are_no_figures() -> None:
    """The page is there, and says that there is no answer yet."""
    core = Core()
    dashboard = Dashboard(core, Statistics(core))
    dashboard.running()
    assert await asked(dashboard, "/", HTML) is not None
    assert await asked(dashboard, DOCUMENT) is None
    dashboard.done()
