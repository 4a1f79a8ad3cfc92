"""A small federation at one server, spoken to through Flask's test client."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from skerry_server.models import User, utcnow
from skerry_server.server import Server
from skerry_server.settings import Settings

PASSWORD = "Aa1-correct-horse"
SECRET = "a secret of the tests, long enough for every algorithm that a forger may try: 0123456789"


@dataclass
class Clock:
    now: datetime = field(default_factory=utcnow)

    def __call__(self) -> datetime:
        return self.now

    def turn(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Api:
    """Speaks to the doors as one caller."""

    client: FlaskClient
    token: str | None = None

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            options["json"] = body
        return self.client.open(f"/api/{path}", method=method, headers=headers, **options)

    def get(self, path: str, **query: Any) -> Any:
        return self.ok(self.ask("GET", path, query_string=query or None))

    def post(self, path: str, body: Any = None) -> Any:
        return self.ok(self.ask("POST", path, body if body is not None else {}))

    def put(self, path: str, body: Any) -> Any:
        return self.ok(self.ask("PUT", path, body))

    def patch(self, path: str, body: Any) -> Any:
        return self.ok(self.ask("PATCH", path, body))

    def delete(self, path: str, **query: Any) -> Any:
        return self.ok(self.ask("DELETE", path, query_string=query or None))

    def refused(self, status: int, method: str, path: str, body: Any = None, **options: Any) -> str:
        """The sentence of a refusal with this status."""
        answer = self.ask(method, path, body, **options)
        assert answer.status_code == status, (answer.status_code, answer.get_data(as_text=True))
        message = answer.get_json()["msg"]
        assert isinstance(message, str)
        assert message
        return message

    @staticmethod
    def ok(answer: TestResponse) -> Any:
        assert answer.status_code in {200, 201, 204}, (answer.status_code, answer.get_data(as_text=True))
        return answer.get_json(silent=True)


@dataclass
class Federation:
    """Organizations 1 to 3; the first two work together in a collaboration that is not encrypted, each with a node."""

    server: Server
    client: FlaskClient
    clock: Clock
    root_token: str = ""
    collaboration: int = 0
    roles: dict[str, int] = field(default_factory=dict)
    node_ids: dict[int, int] = field(default_factory=dict)
    api_keys: dict[int, str] = field(default_factory=dict)
    node_tokens: dict[int, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.anybody = Api(self.client)
        self.root = Api(self.client, self.root_token)
        self.nodes = {organization: Api(self.client, token) for organization, token in self.node_tokens.items()}

    @property
    def facts(self) -> dict[str, Any]:
        """What another federation needs to go on with a copy of this one's state."""
        return {
            "root_token": self.root.token,
            "collaboration": self.collaboration,
            "roles": self.roles,
            "node_ids": self.node_ids,
            "api_keys": self.api_keys,
            "node_tokens": {organization: node.token for organization, node in self.nodes.items()},
        }

    def found(self) -> None:
        self.root = self.log_in("root")
        self.roles = {role["name"]: role["id"] for role in self.root.get("role", per_page=100)["data"]}
        for number in (2, 3):
            self.root.post("organization", {"name": f"organization {number}"})
        self.collaboration = self.collaborate([1, 2], encrypted=False)
        for organization in (1, 2):
            self.nodes[organization] = self.make_node(organization)

    def collaborate(self, organizations: list[int], **options: Any) -> int:
        body = {"name": f"collaboration {uuid.uuid4()}", "organization_ids": organizations, **options}
        return int(self.root.post("collaboration", body)["id"])

    def make_node(self, organization: int, collaboration: int | None = None) -> Api:
        where = collaboration or self.collaboration
        node = self.root.post("node", {"collaboration_id": where, "organization_id": organization})
        if collaboration is None:
            self.node_ids[organization] = node["id"]
        self.api_keys[node["id"]] = node["api_key"]
        answer = self.anybody.post("token/node", {"api_key": node["api_key"]})
        return Api(self.client, answer["access_token"])

    def log_in(self, username: str, password: str = PASSWORD) -> Api:
        answer = self.anybody.post("token/user", {"username": username, "password": password})
        return Api(self.client, answer["access_token"])

    def make_user(self, role: str | None = "Researcher", organization: int = 1) -> Api:
        name = f"user-{uuid.uuid4().hex[:12]}"
        with self.server.database.writing() as session:
            hashed = session.get_one(User, 1).password
            user = User(username=name, email=f"{name}@example.org", password=hashed, organization_id=organization)
            session.add(user)
            session.flush()
            id_ = user.id
        if role is not None:
            self.root.patch(f"user/{id_}", {"roles": [self.roles[role]]})
        return self.log_in(name)

    def task_body(self, *organizations: int, **more: Any) -> dict[str, Any]:
        targets = [{"id": one, "input": plain({"method": "mean"})} for one in organizations or (2,)]
        body = {"image": "example/mean", "collaboration_id": self.collaboration, "organizations": targets}
        return {**body, "uuid": str(uuid.uuid4()), **more}

    def make_task(self, by: Api, *organizations: int, **more: Any) -> dict[str, Any]:
        task: dict[str, Any] = by.post("task", self.task_body(*organizations, **more))
        return task

    def work(self, organization: int, **report: Any) -> Any:
        """The node's call; waits for nothing."""
        return self.nodes[organization].post("skerry/node/work", {"capacity": 10, "wait": 0, **report})

    def claim(self, organization: int = 2) -> dict[str, Any]:
        order: dict[str, Any] = self.work(organization)["runs"][0]
        return order

    def as_run(self, order: dict[str, Any]) -> Api:
        return Api(self.client, order["token"])

    def finish(self, order: dict[str, Any], status: str = "completed", by: Api | None = None, **more: Any) -> Any:
        result = {"result": plain(1)} if status == "completed" else {}
        body = {"attempt": order["attempt"], "status": status, "log": "log", **result, **more}
        return (by or self.as_run(order)).post(f"skerry/run/{order['run']}/finish", body)


def plain(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def make_settings(folder: Path, **changes: Any) -> Settings:
    return Settings(folder=folder, tokens={"secret": SECRET}, **changes)  # type: ignore[arg-type]


def write_settings(settings: Settings, **more: Any) -> Path:
    """The configuration file of a server with these settings, in its folder."""
    path = settings.folder / "server.yaml"
    value = {"database": settings.database, "tokens": {"secret": SECRET}, **more}
    path.write_text(json.dumps(value))  # which is YAML
    return path
