"""What mitmweb's list gets: masked copies, and a bounded number of them."""

import pytest
from mitmproxy import flow, http
from mitmproxy.addons.view import View
from mitmproxy.test import taddons, tflow, tutils

from regproxy.engine.shown_flows import ShownFlows, masked_flow

SECRET = b"hunter2"


@pytest.fixture
def original() -> http.HTTPFlow:
    """Return a flow with a secret in every place that a flow has for one."""
    request = tutils.treq(
        host="registry.test",
        port=443,
        authority=b"user:hunter2@registry.test",
        path=b"/v2/a/manifests/b?sig=hunter2",
        headers=http.Headers([(b"Authorization", b"Bearer hunter2"), (b"Accept", b"a"), (b"Accept", b"b\xff")]),
        content=SECRET,
        trailers=http.Headers([(b"X-Late", SECRET)]),
    )
    response = tutils.tresp(
        headers=http.Headers([(b"Location", b"https://cdn.test/?sig=hunter2"), (b"Set-Cookie", SECRET)]),
        content=SECRET,
        trailers=http.Headers([(b"X-Late", SECRET)]),
    )
    original = tflow.tflow(req=request, resp=response)
    original.error = flow.Error("cannot reach https://cdn.test/?sig=hunter2")
    original.metadata["note"] = SECRET.decode()
    original.live = True
    return original


def test_nothing_secret_is_in_the_copy(original: http.HTTPFlow) -> None:
    """Not in what is listed and not in what is exported, which is the flow's state."""
    shown = masked_flow(original, "HIT https://x.test/?sig=hunter2", ":green_circle:")

    assert SECRET.decode() not in repr(shown.get_state())
    assert shown.request.headers.fields == ((b"Authorization", b"Bearer ***"), (b"Accept", b"a"), (b"Accept", b"b\xff"))
    assert shown.request.raw_content is None
    assert shown.response is not None
    assert shown.response.raw_content is None
    assert (shown.comment, shown.marked, shown.id) == ("HIT https://x.test/?sig=***", ":green_circle:", original.id)


def test_the_flow_that_goes_upstream_is_not_touched(original: http.HTTPFlow) -> None:
    """Masking must not reach the registry."""
    before = original.get_state()

    masked_flow(original, "a comment", ":green_circle:")

    assert original.get_state() == before
    assert original.live


def test_a_copy_can_be_acted_on_without_effect(original: http.HTTPFlow) -> None:
    """It is not live: it cannot be killed, and shares nothing with the original that could be edited."""
    shown = masked_flow(original, "", "")
    shown.request.headers["Accept"] = "edited"

    assert not shown.killable
    assert original.request.headers.get_all("Accept")[0] == "a"


async def test_a_flow_is_brought_up_to_date_where_it_stands() -> None:
    """One request is one line, from its start to its end."""
    view = View()
    with taddons.context(view):
        flows = ShownFlows(view)
        original = tflow.tflow()
        flows.show(masked_flow(original, "", ""))
        original.response = tutils.tresp(status_code=206)
        original.error = flow.Error("cut")
        flows.show(masked_flow(original, "HIT", ":green_circle:"))

        (shown,) = view
        assert isinstance(shown, http.HTTPFlow)
        assert shown.response is not None
        assert (shown.response.status_code, shown.comment, shown.marked) == (206, "HIT", ":green_circle:")
        assert shown.error is not None


async def test_the_oldest_goes_when_the_list_is_full() -> None:
    """A proxy in debug mode does not grow with the number of requests."""
    view = View()
    with taddons.context(view):
        flows = ShownFlows(view, limit=3)
        originals = [tflow.tflow() for _ in range(5)]
        for number, original in enumerate(originals):
            original.timestamp_created = number
            flows.show(masked_flow(original, str(number), ""))

        assert [shown.comment for shown in view] == ["2", "3", "4"]


async def test_a_list_that_a_person_has_emptied_fills_again() -> None:
    """The bound holds, and nothing fails that was removed already."""
    view = View()
    with taddons.context(view):
        flows = ShownFlows(view, limit=2)
        for _ in range(2):
            flows.show(masked_flow(tflow.tflow(), "old", ""))
        view.clear()
        for _ in range(3):
            flows.show(masked_flow(tflow.tflow(), "new", ""))

        assert [shown.comment for shown in view] == ["new", "new"]
