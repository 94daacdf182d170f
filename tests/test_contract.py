"""The served OpenAPI, taken at its word by schemathesis: whatever it allows is answered as it says, and nothing makes a 5xx.

2,000 cases here; more by hand: CONTRACT_CASES=10000 pytest tests/test_contract.py
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from test_api import publish, served

CASES = int(os.environ.get("CONTRACT_CASES", "2000"))
ERASED = 4
OPERATIONS = [
    "POST /v1/events",
    "POST /v1/users/{user_id}/merge",
    "DELETE /v1/users/{user_id}",
    "GET /v1/recommend/{user_id}",
    "POST /v1/recommend",
    "GET /v1/why-not/{user_id}/{item_id}",
    "GET /v1/items/{item_id}/similar",
    "GET /v1/onboarding",
    "PUT /v1/items/{item_id}",
    "DELETE /v1/items/{item_id}",
    "GET /v1/releases",
    "POST /v1/releases/rollback",
    "DELETE /v1/releases/trial",
    "POST /v1/releases/{release}/promote",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    home = tmp_path_factory.mktemp("contract")
    publish(home)
    publish(home)
    with served(home) as api:
        schema = schemathesis.openapi.from_url(str(api.base_url.join("/openapi.json")))
        yield {operation.label: operation for operation in (found.ok() for found in schema.get_all_operations())}


def test_every_operation_is_tried(described: dict[str, Any]) -> None:
    assert sorted(described) == sorted(OPERATIONS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_case_is_answered_as_described(described: dict[str, Any], label: str) -> None:
    """Without the plugin for pytest, which does not know the pytest of today. What a schema cannot say may be refused, with a 422: that a
    text is JSON or a cursor of ours, that a column exists, that somebody must be named.
    """
    count, erased = max(1, CASES // len(OPERATIONS)), [0]

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate])
    @given(case=described[label].as_strategy())
    def holds(case: Any) -> None:
        if (case.query or {}).get("erase"):  # each is a process of its own, and takes a second
            erased[0] += 1
            assume(erased[0] <= ERASED)
        case.call_and_validate(excluded_checks=[positive_data_acceptance], timeout=60)

    holds()


def test_turning_releases_is_answered_as_described(described: dict[str, Any]) -> None:
    """No case that is drawn names a release that is there."""

    def asked(label: str, body: Any, **path: str) -> int:
        operation = described[f"POST /v1/releases/{label}"]
        case = operation.Case(path_parameters=path, body=body, media_type="application/json")
        return int(case.call_and_validate(excluded_checks=[positive_data_acceptance]).status_code)

    assert asked("rollback", {"release": "000001"}) == 200
    assert asked("rollback", {}) == 409
    assert asked("{release}/promote", {"canary": 0.1, "hours": 1.5}, release="000002") == 200
    assert asked("{release}/promote", {"shadow": 1}, release="000002") == 200
    assert asked("{release}/promote", {"shadow": 1}, release="000001") == 409
    assert asked("{release}/promote", {}, release="000002") == 200
    assert asked("{release}/promote", {}, release="000002") == 409
    assert asked("{release}/promote", {}, release="000009") == 404
    assert asked("{release}/promote", {"hours": 2}, release="000001") == 422
