"""The operator's logins by repository path, on requests for content and for its tokens."""

import base64
from collections.abc import Callable

import pytest
from mitmproxy import http

from unit.stack.conftest import Configure
from unit.stack.registry import Registry

type Ask = Callable[..., http.HTTPFlow]


@pytest.mark.parametrize(
    ("path", "user"),
    [
        ("/v2/team/app/manifests/latest", "alice"),
        ("/v2/team/app/tags/list", "alice"),
        ("/v2/team/app/blobs/uploads/", "alice"),
        ("/token?service=x&scope=repository:team/app:pull", "alice"),
        ("/v2/other/app/manifests/latest", None),
        ("/token?scope=repository:other/app:pull", None),
        ("/v2/", "alice"),
    ],
)
async def test_a_login_is_used_for_its_repositories(
    configure: Configure, ask: Ask, registry: Registry, path: str, user: str | None
) -> None:
    """And for what names none."""
    core = configure(AUTH_REGISTRIES=f"{registry.name}/team|alice|secret", AUTH_REGISTRY_DELIMITER="|")

    sent = ask(core, path).request.headers.get("authorization")

    expected = None if user is None else "Basic " + base64.b64encode(f"{user}:secret".encode()).decode()
    assert sent == expected
