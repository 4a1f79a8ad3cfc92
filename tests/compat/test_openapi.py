"""The main door against its own description: what schemathesis makes of it, sent in every role."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema_rs import validator_for
from schemathesis.core import NotSet
from schemathesis.generation import GenerationMode
from test_permission_matrix import PASSWORD, World, forgetting, world

from skerry_server.app import describe_api
from skerry_server.models import User
from skerry_server.tokens import Purpose, for_reset, for_store

pytestmark = pytest.mark.unit
__all__ = ["world"]
REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference" / "openapi.json"
EXAMPLES = int(os.environ.get("SKERRY_SCHEMATHESIS_EXAMPLES", "68"))
"""Of each operation, where there are as many; together more than 5,000."""


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


def operations() -> list[Any]:
    schema = schemathesis.openapi.from_dict(describe_api())
    return [found.ok() for found in schema.get_all_operations()]


@pytest.mark.timeout(1800)
def test_nothing_outside_the_description(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing the description allows, and nothing near it, gets a 5xx or an answer that it does not have."""
    tokens, found = tokens_of(world), operations()
    with forgetting(world):
        tried = Counter(answer for operation in found for answer in _try(world, operation, tokens))
    with capsys.disabled():
        counts = ", ".join(f"{count} {status}xx" for status, count in sorted(tried.items()))
        callers = f"{len(found)} operations by {len(tokens)} kinds of callers"
        print(f"\nschemathesis: {sum(tried.values())} examples of {callers}: {counts}")
    assert sum(tried.values()) >= min(5000, EXAMPLES * len(found) * 0.7)
    assert tried[2] > sum(tried.values()) * 0.05


def tokens_of(world: World) -> dict[str, str | None]:
    """A token of each kind: of a user of each role, a node, a run, for refreshing, resetting, a store; and none."""
    found = {name: api.token for name, api in world.callers.items()}
    pair = world.federation.anybody.post("token/user", {"username": "root", "password": PASSWORD})
    server = world.federation.server
    with server.database.reading() as session:
        root = session.get_one(User, 1)
        reset = for_reset(server.secret, root, Purpose.PASSWORD, server.clock())
        with world.federation.client.application.app_context():
            store = for_store(root)
    return {**found, "refresh": pair["refresh_token"], "reset": reset, "store": store, "garbage": "a.b.c"}


def _try(world: World, operation: Any, tokens: dict[str, str | None]) -> list[int]:
    """The classes of the answers' statuses."""
    answers: list[int] = []
    check = _validators(operation)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=_cases(operation), caller=st.sampled_from(sorted(tokens)))
    def send(case: Any, caller: str) -> None:
        answer = _send(world, case, tokens[caller])
        answers.append(answer.status_code // 100)
        check(answer, (case.method, case.formatted_path, caller, case.query, case.body))

    send()
    return answers


def _cases(operation: Any) -> Any:
    """Half of them as described, half with something that is not; where all is free nothing can be wrong."""
    good = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    free = not (operation.body or operation.query or operation.path_parameters)
    return good if free else good | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)


def _send(world: World, case: Any, token: str | None) -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = {} if isinstance(case.body, NotSet) else {"data" if isinstance(case.body, bytes) else "json": case.body}
    query = {name: value for name, value in (case.query or {}).items() if value is not None}
    path = quote(f"/api{case.formatted_path}", safe="/%")
    return world.federation.client.open(path, method=case.method, headers=headers, query_string=query, **body)


def _validators(operation: Any) -> Callable[[Any, Any], None]:
    """A check of an answer against what the description has for its status."""
    described = operation.definition.raw["responses"]
    root = {"components": operation.schema.raw_schema["components"]}
    contents = {status: described[status]["content"] for status in described}
    checks = {
        (status, media): validator_for({**root, **what["schema"]})
        for status, content in contents.items()
        for media, what in content.items()
    }

    def check(answer: Any, what: Any) -> None:
        status = str(answer.status_code) if str(answer.status_code) in described else f"{answer.status_code // 100}XX"
        assert (status, answer.mimetype) in checks, (what, answer.status_code, answer.mimetype, answer.data)
        value = answer.get_json() if answer.mimetype == "application/json" else ""
        errors = [error.message for error in checks[status, answer.mimetype].iter_errors(value)]
        assert not errors, (what, answer.status_code, errors, answer.data)

    return check
