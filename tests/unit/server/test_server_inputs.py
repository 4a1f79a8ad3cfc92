"""Whatever comes in: never a 500, always a sentence; and no token in place of another."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_federation import Api, Federation

pytestmark = pytest.mark.unit

FIELDS = ["id", "name", "image", "organizations", "input", "collaboration_id", "databases", "label", "uuid", "query"]
NOBODY_NEEDS_A_TOKEN = {
    *(
        "/api/version",
        "/api/health",
        "/api/skerry/info",
        "/api/skerry/join",
        "/api/skerry/bootstrap",
        "/api/token/user",
        "/api/token/node",
    ),
    "/api/openapi.json",
    *("/api/recover/lost", "/api/recover/reset", "/api/recover/2fa/lost", "/api/recover/2fa/reset"),
}
JUNK: list[Any] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"1e999",
    b"\xff\xfe",
    b'{"id": NaN}',
    b'{"name": "\\ud800"}',
    b"[" * 100_000,
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"id": 99999999999999999999999999, "capacity": 1e400}',
    b'{"id": ' + b"9" * 5000 + b"}",
    json.dumps({"id": "1", "name": 5, "organizations": "x", "username": None, "api_key": [], "attempt": True}).encode(),
    json.dumps({"__proto__": 1, "is_admin": True}).encode(),
    json.dumps({"name": "a\0b", "username": "root\0", "password": "\0", "email": "a\0@b"}).encode(),
    json.dumps({"organizations": [{"id": 2**40, "input": "x"}], "image": "x" * 10_000}).encode(),
]


WITHOUT_INPUT = ("/robots.txt",)


def endpoints(federation: Federation) -> list[tuple[str, str]]:
    found = []
    for rule in federation.client.application.url_map.iter_rules():
        path = (
            str(rule)
            .replace("<id:id_>", "1")
            .replace("<id:rule_id>", "1")
            .replace("<uuid:name>", str(uuid.UUID(int=1)))
        )
        found += [(method, path) for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})]
    return [one for one in found if one[1] not in WITHOUT_INPUT]


def callers(federation: Federation) -> dict[str, str | None]:
    researcher = federation.make_user()
    federation.make_task(researcher, 2)
    order = federation.claim(2)
    pair = federation.anybody.post("token/user", {"username": "root", "password": "Aa1-correct-horse"})
    return {
        "nobody": None,
        "root": pair["access_token"],
        "refresh": pair["refresh_token"],
        "node": federation.nodes[1].token,
        "run": order["token"],
        "garbage": "garbage",
        "unsigned": "eyJhbGciOiJub25lIn0.eyJzdWIiOjEsInR5cGUiOiJhY2Nlc3MiLCJjbGllbnRfdHlwZSI6InVzZXIifQ.",
    }


def test_no_input_makes_an_error_of_ours(federation: Federation) -> None:
    """Every endpoint, every kind of caller, every kind of junk, as body and as query."""
    tokens = callers(federation)
    tried = 0
    for method, path in endpoints(federation):
        for token in tokens.values():
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            for junk in JUNK if method != "GET" else [b""]:
                answer = federation.client.open(
                    path, method=method, data=junk, headers=headers, content_type="application/json"
                )
                assert answer.status_code < 500, (method, path, junk[:80], answer.data)
                if answer.status_code >= 400:
                    assert isinstance(answer.get_json()["msg"], str)
                tried += 1
    assert tried > 4000


def test_no_query_makes_an_error_of_ours(federation: Federation) -> None:
    values = [
        "x",
        "-1",
        "0",
        "1e5",
        "%00",
        "NaN",
        "99999999999999999999",
        "%ED%A0%80",
        "%FF",
        "'",
        "true",
        "2020-13-01",
    ]
    names = [
        "page",
        "per_page",
        "sort",
        "id",
        "ids",
        "include",
        "collaboration_id",
        "organization_id",
        "task_id",
        "status",
    ]
    names += ["last_seen_from", "assigned_from", "name", "attempt", "seen", "timeout", "delete_dependents", "database"]
    for method, path in endpoints(federation):
        if method not in {"GET", "DELETE", "PUT"}:
            continue
        for value in values:
            query = "&".join(f"{name}={value}" for name in names)
            answer = federation.client.open(f"{path}?{query}", method=method, headers=_bearer(federation.root))
            assert answer.status_code < 500, (path, value, answer.data)
        for name in names:
            answer = federation.client.open(f"{path}?{name}=%00", method=method, headers=_bearer(federation.root))
            assert answer.status_code < 500, (path, name, answer.data)


@pytest.mark.parametrize("path", ["/api//task", "/api/task//", "/api//task?page=1", "/%2fapi/task"])
def test_doubled_slashes_are_one_and_send_nobody_elsewhere(federation: Federation, path: str) -> None:
    answer = federation.client.open(path, headers={**_bearer(federation.root), "Host": "evil.example.org"})
    assert answer.status_code == 200
    assert answer.get_json()["links"]["self"] == "/api/task?page=1"


def _bearer(api: Api) -> dict[str, str]:
    return {"Authorization": f"Bearer {api.token}"}


def test_every_endpoint_needs_the_right_kind_of_token(federation: Federation) -> None:
    tokens = callers(federation)
    for method, path in endpoints(federation):
        if path in NOBODY_NEEDS_A_TOKEN:
            continue
        for caller, statuses in {
            "nobody": {401},
            "garbage": {422},
            "unsigned": {422},
            "refresh": {422} if path != "/api/token/refresh" else {200},
        }.items():
            token = tokens[caller]
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = federation.client.open(path, method=method, json={}, headers=headers)
            assert answer.status_code in statuses, (method, path, caller, answer.data)


def test_access_tokens_do_not_refresh(federation: Federation) -> None:
    message = federation.root.refused(422, "POST", "token/refresh", {})
    assert message == "Only refresh tokens are allowed"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(FIELDS),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_as_a_task(federation: Federation, body: Any) -> None:
    answer = federation.root.ask("POST", "task", data=json.dumps(body), content_type="application/json")
    assert 400 <= answer.status_code < 500
    assert isinstance(answer.get_json()["msg"], str)


def test_what_is_not_there(federation: Federation) -> None:
    federation.root.refused(404, "GET", "nonsense")
    federation.root.refused(404, "GET", "task/0")
    federation.root.refused(404, "GET", "task/-1")
    federation.root.refused(404, "GET", "task/99999999999")
    federation.root.refused(404, "GET", "task/1;drop")
    answer = federation.root.ask("PUT", "task")
    assert answer.status_code == 405
    assert answer.get_json()["message"] == "The method is not allowed for the requested URL."


def test_a_trailing_slash_does_no_harm(federation: Federation) -> None:
    assert federation.root.get("task/")["data"] == []


def test_a_body_may_not_be_too_large(federation: Federation) -> None:
    big = json.dumps({"name": "x" * (2 << 20)}).encode()
    federation.root.refused(413, "POST", "organization", data=big, content_type="application/json")


def test_nulls_count_as_absent(federation: Federation) -> None:
    """Published clients send them for everything that the user left out."""
    body = {"name": "with nulls", "address1": None, "country": None, "public_key": None}
    organization = federation.root.post("organization", body)
    changed = federation.root.patch(f"organization/{organization['id']}", {"name": None, "country": "NL"})
    assert (changed["name"], changed["country"]) == ("with nulls", "NL")


@pytest.mark.parametrize("name", ["1", " 2 ", "", "  ", "٣"])
@pytest.mark.parametrize("path", ["organization", "collaboration", "study", "node", "role", "task"])
def test_no_name_looks_like_an_id(federation: Federation, path: str, name: str) -> None:
    """CVE-2023-28635."""
    bodies = {
        "organization": {},
        "collaboration": {"organization_ids": [1], "encrypted": False},
        "study": {"collaboration_id": 1, "organization_ids": [1]},
        "node": {"collaboration_id": 1},
        "role": {"rules": []},
        "task": federation.task_body(),
    }
    assert "name" in federation.root.refused(400, "POST", path, {**bodies[path], "name": name})
