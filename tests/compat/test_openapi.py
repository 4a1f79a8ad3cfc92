"""The main door against its own description: what schemathesis makes of it, sent in every role."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oracle
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_permission_matrix import World, forgetting, world

from skerry_server.app import describe_api

pytestmark = pytest.mark.unit
__all__ = ["world"]
REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference" / "openapi.json"
# Of each operation; with 75 in all operations together come to more than 5,000.
EXAMPLES = int(os.environ.get("SKERRY_SCHEMATHESIS_EXAMPLES", "3"))


def test_the_description_is_current() -> None:
    assert json.loads(REFERENCE.read_text(encoding="utf-8")) == json.loads(json.dumps(describe_api()))


def test_the_server_serves_it(world: World) -> None:
    assert world.federation.anybody.get("openapi.json") == json.loads(REFERENCE.read_text(encoding="utf-8"))


def test_every_operation_says_whose_tokens_it_takes() -> None:
    free = {
        *("show_version", "show_health", "log_in_user", "log_in_node", "lost_password", "reset_password"),
        *("lost_second_factor", "reset_second_factor"),
    }
    named = {one["operationId"] for path in describe_api()["paths"].values() for one in path.values()}
    unguarded = {
        one["operationId"]
        for path in describe_api()["paths"].values()
        for one in path.values()
        if "security" not in one
    }
    assert unguarded == free
    assert len(named) == sum(len(path) for path in describe_api()["paths"].values())


def operations() -> Iterator[Any]:
    schema = schemathesis.openapi.from_dict(describe_api())
    for found in schema.get_all_operations():
        yield found.ok()


def test_nothing_outside_the_description(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing the description allows, and nothing near it, gets a 5xx or an answer that it does not have."""
    tried = sum(_try(world, operation) for operation in operations())
    with capsys.disabled():
        print(f"\nschemathesis: {tried} examples")
    assert tried >= EXAMPLES * 40


def _try(world: World, operation: Any) -> int:
    tried = 0

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), caller=st.sampled_from([*oracle.CALLERS, "nobody"]))
    def send(case: Any, caller: str) -> None:
        nonlocal tried
        tried += 1
        api = world.callers.get(caller, world.federation.anybody)
        headers = {"Authorization": f"Bearer {api.token}"} if api.token else {}
        options = {} if isinstance(case.body, type(case.body)) and not _given(case.body) else {"json": case.body}
        query = {name: value for name, value in (case.query or {}).items() if value is not None}
        answer = api.client.open(
            f"/api{case.formatted_path}", method=case.method, headers=headers, query_string=query, **options
        )
        _check(operation, answer, (case.method, case.formatted_path, caller, case.body))

    with forgetting(world):
        send()
    return tried


def _given(body: Any) -> bool:
    return body is None or isinstance(body, (dict, list, str, int, float, bool))


def _check(operation: Any, answer: Any, what: Any) -> None:
    status, value = answer.status_code, answer.get_json(silent=True)
    assert status < 500 or status == 501, (what, status, answer.data)
    if status >= 400:
        assert isinstance(value, dict), (what, answer.data)
        assert isinstance(value["msg"], str), (what, value)
    elif "Page" in json.dumps(operation.definition.raw["responses"]["2XX"]):
        assert set(value) == {"data", "links"}, (what, value)
    else:
        assert isinstance(value, (dict, list)), (what, answer.data)
