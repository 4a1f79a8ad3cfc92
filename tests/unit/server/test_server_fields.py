"""Every endpoint, read from the address map: each field of each body and query, each id that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from server_federation import Api, Federation, plain
from werkzeug.routing import Rule

from skerry_server.doors.fields import LARGEST_ID
from skerry_server.doors.handling import Declared, declared
from skerry_server.doors.vantage6.paging import Listing
from skerry_server.policy import Kind

pytestmark = pytest.mark.unit
NOT_THERE = str(LARGEST_ID)


@dataclass(frozen=True)
class Endpoint:
    method: str
    path: str
    declared: Declared
    caller: Api

    @property
    def has_id(self) -> bool:
        return NOT_THERE in self.path

    def ask(self, body: Any = None, **query: str) -> Any:
        return self.caller.ask(self.method, self.path, body, query_string=query or None)


@pytest.fixture
def endpoints(federation: Federation) -> list[Endpoint]:
    """With a caller of a kind that may call it, and ids that are not there."""
    researcher = federation.make_user()
    federation.make_task(researcher, 2)
    callers = {
        Kind.USER: federation.root,
        Kind.NODE: federation.nodes[1],
        Kind.RUN: federation.as_run(federation.claim(2)),
    }
    app = federation.client.application
    return [
        Endpoint(method, _path(rule), note, callers[note.kinds[0]] if note.kinds else federation.anybody)
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        for note in [declared(app.view_functions[rule.endpoint])]
    ]


def _path(rule: Rule) -> str:
    path = str(rule).removeprefix("/api/")
    for name in ("<id:id_>", "<id:rule_id>"):
        path = path.replace(name, NOT_THERE)
    return path.replace("<uuid:name>", "00000000-0000-0000-0000-000000000001")


def refusal(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 400, (answer.request.method, answer.request.path, answer.status_code, answer.data)
    body: dict[str, Any] = answer.get_json()
    assert isinstance(body["msg"], str)
    return body


def named(answer: Any) -> set[str]:
    """The fields at fault; the first one is in the sentence too."""
    body = refusal(answer)
    fields = [name.split(".")[0] for name in body["errors"]]
    assert fields[0] in body["msg"], body
    return set(fields)


def test_each_field_of_each_body_is_named_when_it_has_a_wrong_type(endpoints: list[Endpoint]) -> None:
    tried = 0
    for endpoint in endpoints:
        for field in endpoint.declared.body.model_fields if endpoint.declared.body else ():
            wrong = [{field: {"x": 1}}, {field: 5.5}]
            assert any(field in named(endpoint.ask(body)) for body in wrong if _refused(endpoint, body)), (
                endpoint.method,
                endpoint.path,
                field,
            )
            tried += 1
    assert tried > 80


def _refused(endpoint: Endpoint, body: dict[str, Any]) -> bool:
    return bool(endpoint.ask(body).status_code == 400)


def test_unknown_fields_are_named(endpoints: list[Endpoint]) -> None:
    with_body = [endpoint for endpoint in endpoints if endpoint.declared.body]
    for endpoint in with_body:
        assert "is_admin" in named(endpoint.ask({"is_admin": True})), endpoint.path
    assert len(with_body) > 30


def test_missing_and_null_fields_are_named(endpoints: list[Endpoint]) -> None:
    """Published clients send null for what is absent."""
    for endpoint in endpoints:
        model = endpoint.declared.body
        needed = {name for name, field in model.model_fields.items() if field.is_required()} if model else set()
        for body in ({}, dict.fromkeys(needed)) if needed else ():
            assert needed <= named(endpoint.ask(body)), endpoint.path


def test_what_is_no_object_is_refused(endpoints: list[Endpoint]) -> None:
    for endpoint in endpoints:
        if endpoint.declared.body:
            for body in ([], "text", 5, True, [[[{}]]]):
                refusal(endpoint.ask(body))


def test_each_field_of_each_query_is_named_when_it_is_wrong(endpoints: list[Endpoint]) -> None:
    tried = 0
    for endpoint in endpoints:
        if not endpoint.declared.query or (endpoint.has_id and endpoint.method == "PUT"):
            continue
        for field, info in endpoint.declared.query.model_fields.items():
            if "str" in str(info.annotation):
                continue
            assert field in named(endpoint.ask(**{field: "no such thing"})), (endpoint.path, field)
            tried += 1
    assert tried > 80


def lists(endpoints: list[Endpoint]) -> Iterator[Endpoint]:
    for endpoint in endpoints:
        if endpoint.declared.query and issubclass(endpoint.declared.query, Listing):
            yield endpoint


@pytest.mark.parametrize(
    ("field", "value"),
    [("page", "0"), ("page", "-1"), ("page", "1.5"), ("per_page", "0"), ("per_page", "99999999"), ("sort", "nonsense")],
)
def test_bad_paging(endpoints: list[Endpoint], field: str, value: str) -> None:
    found = list(lists(endpoints))
    assert len(found) >= 11
    for endpoint in found:
        assert field in named(endpoint.ask(**{field: value})), endpoint.path


def test_what_is_not_there_is_named(endpoints: list[Endpoint]) -> None:
    tried = 0
    for endpoint in endpoints:
        model = endpoint.declared.body
        if not endpoint.has_id or (model and any(field.is_required() for field in model.model_fields.values())):
            continue
        if endpoint.path.endswith("/upload") or (endpoint.path.endswith("/result") and endpoint.method == "PUT"):
            continue  # its attempt comes first
        answer = endpoint.ask({} if model else None)
        assert answer.status_code == 404, (endpoint.method, endpoint.path, answer.data)
        assert NOT_THERE in answer.get_json()["msg"]
        tried += 1
    assert tried > 25


def test_what_was_deleted_is_not_there(federation: Federation) -> None:
    root = federation.root
    organization = root.post("organization", {"name": "to be deleted"})["id"]
    together = federation.collaborate([1], encrypted=False)
    federation.make_node(1, together)
    made = {
        "organization": organization,
        "study": root.post("study", {"name": "s-1", "collaboration_id": together, "organization_ids": []})["id"],
        "role": root.post("role", {"name": "r-1", "rules": [], "organization_id": 1})["id"],
        "task": federation.make_task(root, 2)["id"],
        "node": root.get("node", collaboration_id=together)["data"][0]["id"],
        "collaboration": together,
    }
    for resource, id_ in made.items():
        root.delete(f"{resource}/{id_}")
        for method in ("GET", "DELETE") if resource == "task" else ("GET", "PATCH", "DELETE"):
            said = root.refused(404, method, f"{resource}/{id_}", {} if method == "PATCH" else None)
            assert str(id_) in said
    targets = [{"id": organization, "input": plain({})}]
    assert str(organization) in root.refused(400, "POST", "task", federation.task_body(organizations=targets))
    assert str(together) in root.refused(404, "POST", "task", federation.task_body(collaboration_id=together))


def test_a_name_is_not_taken_for_an_id(federation: Federation) -> None:
    for path in ("organization/organization 1", "user/root", "role/Root", "task/1x", "node/1e0", "run/0x1"):
        federation.root.refused(404, "GET", path)
