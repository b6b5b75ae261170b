"""The OpenAPI document is true: every operation answers as it says, to whatever may be asked."""

import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from e2e.test_admin import API
from lab.lab import Lab
from lab.proxy import Proxy

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schemathesis = pytest.importorskip("schemathesis")
    positive_data_acceptance = pytest.importorskip("schemathesis.specs.openapi.checks").positive_data_acceptance

pytestmark = pytest.mark.e2e

OPERATIONS = 21


@pytest.fixture(scope="module")
def proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield one proxy for all operations."""
    with lab.proxy(tmp_path_factory.mktemp("described")) as running:
        yield running


def operations(proxy: Proxy) -> list[Any]:
    """Return what the document of a running proxy describes."""
    document = json.loads(proxy.request("GET", f"{API}/openapi.json").body)
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = f"http://{proxy.address}{API}"
    return [result.ok() for result in schema.get_all_operations()]


def test_every_operation_answers_as_it_is_described(proxy: Proxy) -> None:
    """Right and wrong questions, each status and body is one of those that the document has."""
    seen = set()
    for operation in operations(proxy):
        seen.add(operation.label)

        @given(case=operation.as_strategy())
        @settings(
            max_examples=15,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:
            if case.query.get("wait"):
                case.query["wait"] = "0"
            if "size_bytes" in case.query:
                # For as much as a client announces disk space is claimed.
                case.query["size_bytes"] = 1000
            # Names and times have grammars that no schema states: a 400 is right for what is outside them.
            excluded = [positive_data_acceptance]
            case.call_and_validate(timeout=60, proxies={"http": ""}, excluded_checks=excluded)

        check()

    assert len(seen) == OPERATIONS
