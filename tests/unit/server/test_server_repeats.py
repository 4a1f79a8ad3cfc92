"""Requests with a key of the caller's are done once; and what finished runs carried goes after a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from server_federation import Api, Clock, Federation, plain
from sqlalchemy import select

from skerry.wire import INLINE_LIMIT
from skerry_server.models import Answered, Base, Run
from skerry_server.server import Server, open_server

pytestmark = pytest.mark.unit
KEY = "0b8c1f1e-key-of-the-caller"


def ask(by: Api, path: str, body: Any, key: str = KEY) -> Any:
    headers = {"Authorization": f"Bearer {by.token}", "Idempotency-Key": key}
    return by.client.post(f"/api/{path}", json=body, headers=headers)


def creations(f: Federation) -> list[tuple[str, dict[str, Any]]]:
    """Everything that a user may create, but for tasks, which have UUIDs."""
    rule = f.root.get("rule")["data"][0]["id"]
    spare = f.root.post("organization", {"name": "spare"})["id"]
    home = f.collaborate([1, spare], encrypted=False)
    person = {"username": "ada", "email": "ada@example.org", "password": "Aa1-another-horse", "roles": []}
    return [
        ("organization", {"name": "made once"}),
        ("collaboration", {"name": "made once", "organization_ids": [1, 2], "encrypted": False}),
        ("study", {"name": "made once", "collaboration_id": home, "organization_ids": [1]}),
        ("node", {"collaboration_id": home, "organization_id": spare}),
        ("user", {**person, "organization_id": 1}),
        ("role", {"name": "made once", "rules": [rule]}),
        ("skerry/invitation", {"collaboration_id": home, "organization_id": 1, "hours": 1}),
    ]


def test_whatever_is_created_is_created_once(federation: Federation) -> None:
    for number, (path, body) in enumerate(creations(federation)):
        first, again = (ask(federation.root, path, body, f"{KEY}-{number}") for _ in range(2))
        assert first.status_code == again.status_code < 300, (path, first.data, again.data)
        assert first.get_json() == again.get_json()
    names = [row["name"] for row in federation.root.get("organization", per_page=100)["data"]]
    assert names.count("made once") == 1


def test_a_task_without_a_uuid_is_created_once(federation: Federation, researcher: Api) -> None:
    """However late it is repeated."""
    body = {name: value for name, value in federation.task_body().items() if name != "uuid"}
    first = ask(researcher, "task", body)
    federation.clock.turn(hours=1)
    again = ask(researcher, "task", body)
    assert (first.status_code, again.status_code) == (201, 201), again.data
    assert first.get_json() == again.get_json()
    assert len(researcher.get("task")["data"]) == 1


def test_another_request_under_the_same_key(federation: Federation) -> None:
    assert ask(federation.root, "organization", {"name": "one"}).status_code == 201
    answer = ask(federation.root, "organization", {"name": "two"})
    assert (answer.status_code, "take a new one" in answer.get_json()["msg"]) == (409, True)
    assert ask(federation.root, "role", {"name": "one", "rules": []}).status_code == 409


def test_keys_are_each_callers_own(federation: Federation) -> None:
    admin = federation.make_user("Root")
    assert ask(federation.root, "organization", {"name": "one"}).status_code == 201
    assert ask(admin, "organization", {"name": "two"}).status_code == 201


@pytest.mark.parametrize("key", ["short", "x" * 129])
def test_a_key_that_is_none(federation: Federation, key: str) -> None:
    answer = ask(federation.root, "organization", {"name": "one"}, key)
    assert (answer.status_code, "Idempotency-Key" in answer.get_json()["msg"]) == (400, True)


def test_what_was_refused_is_not_remembered(federation: Federation) -> None:
    taken = {"name": "organization 2"}
    assert ask(federation.root, "organization", taken).status_code == 400
    federation.root.patch("organization/2", {"name": "renamed"})
    assert ask(federation.root, "organization", taken).status_code == 201


def test_answers_are_kept_under_the_callers_key_for_a_day(federation: Federation) -> None:
    """The database does not hold the API key that is in one of them."""
    home = federation.collaborate([1, 3], encrypted=False)
    made = ask(federation.root, "node", {"collaboration_id": home, "organization_id": 3}).get_json()
    with federation.server.database.reading() as session:
        kept = str([session.execute(select(table)).all() for table in Base.metadata.sorted_tables])
    assert made["api_key"] not in kept
    assert KEY not in kept
    federation.clock.turn(hours=25)
    federation.server.sweep()
    with federation.server.database.reading() as session:
        assert session.scalars(select(Answered)).all() == []


# --- retention ------------------------------------------------------------------------------------------------


@pytest.fixture
def keeping(server: Server, clock: Clock) -> Any:
    """The same server, which keeps what runs carried for ten days."""
    opened = open_server(server.settings.model_copy(update={"retention_days": 10}), clock)
    yield opened
    opened.database.close()


def files(server: Server) -> list[Path]:
    return list(server.settings.payload_folder.iterdir())


def test_what_finished_runs_carried_goes_after_a_while(
    federation: Federation, researcher: Api, keeping: Server
) -> None:
    federation.make_task(researcher, organizations=[{"id": 2, "input": plain("x" * 2 * INLINE_LIMIT)}])
    order = federation.claim()
    federation.finish(order)
    run, task = order["run"], order["task"]["id"]
    assert len(files(keeping)) == 1
    federation.clock.turn(days=9)
    keeping.sweep()
    assert federation.log_in("root").get(f"run/{run}")["log"] == "log"
    federation.clock.turn(days=2)
    keeping.sweep()
    root = federation.log_in("root")
    shown, result = root.get(f"run/{run}"), root.get(f"result/{run}")
    assert (shown["status"], shown["log"], shown["input"], result["result"]) == ("completed", None, None, None)
    assert shown["cleanup_at"] == result["cleanup_at"] == federation.clock.now.isoformat()
    for what in ("input", "result"):
        assert "keeps them for a while" in root.refused(410, "GET", f"skerry/run/{run}/{what}")
    assert files(keeping) == []
    actions = {row["action"] for row in root.get("skerry/audit", task_id=task)["data"]}
    assert {"task.create", "run.completed"} <= actions
    assert root.get("skerry/audit", action="run.clean_up")["data"]


def test_runs_of_an_open_job_keep_what_they_carry(federation: Federation, researcher: Api, keeping: Server) -> None:
    federation.make_task(researcher, 1, 2)
    federation.finish(federation.claim(2))
    federation.clock.turn(days=30)
    keeping.sweep()
    with keeping.database.reading() as session:
        assert session.scalars(select(Run.cleanup_at)).all() == [None, None]
