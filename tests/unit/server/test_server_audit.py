"""The server's audit trail: nothing changes without a record, nothing of a record changes, and who may read it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from server_federation import PASSWORD, Api, Federation, plain, write_settings
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError

from skerry.audit import Record, Verifier, lines_of
from skerry.cli.audit import audit as audit_command
from skerry.errors import BrokenChain
from skerry.keys import Identity
from skerry.wire import canonical
from skerry_server.cli import server as server_command
from skerry_server.models import Base, Organization
from skerry_server.server import Server, open_server, reading_database
from skerry_server.services.audit import read_heads, read_trail
from skerry_server.trail import add_rows

pytestmark = pytest.mark.unit
SKERRY = Path(sys.executable).with_name("skerry")


def records(server: Server) -> list[Record]:
    with server.database.reading() as session:
        return list(read_trail(session))


def since(server: Server, act: Callable[[], Any]) -> list[Record]:
    before = len(records(server))
    act()
    return records(server)[before:]


def told(found: list[Record]) -> list[str]:
    """Who did what to what: "user 3 task.create task 5"."""
    return [
        f"{r.deed.actor.kind} {r.deed.actor.id} {r.deed.action} {r.deed.object.kind} {r.deed.object.id}" for r in found
    ]


def verify(server: Server) -> int:
    verifier = Verifier()
    with server.database.reading() as session:
        for number, line in enumerate(lines_of(read_trail(session), read_heads(session)), start=1):
            verifier.feed(line, f"line {number}")
    verifier.finish()
    return verifier.records


# --- what is recorded --------------------------------------------------------------------------------------


def test_rows_that_are_written_at_once_are_recorded_as_others_are(server: Server) -> None:
    """In the same words; and their ids are in the order of the rows."""
    names = [f"at once {number}" for number in range(40)]

    def write() -> None:
        with server.database.writing() as session:
            session.add(Organization(name="alone", country="NL"))
            session.flush()
            rows = [{"name": name, "country": "NL", "domain": None} for name in names]
            ids.extend(add_rows(session, Organization, rows))

    ids: list[int] = []
    alone, *found = since(server, write)
    assert [r.deed.object.id for r in found] == ids
    for record, name in zip(found, names, strict=True):
        assert record.deed.details == alone.deed.details | {"name": name}
        assert (record.deed.action, record.deed.about) == (
            "organization.create",
            {"organization": record.deed.object.id},
        )
    with server.database.reading() as session:
        kept = select(Organization.name).where(Organization.id.in_(ids)).order_by(Organization.id)
        assert list(session.scalars(kept)) == names
        assert add_rows(session, Organization, []) == []


def test_a_runs_story(federation: Federation, researcher: Api) -> None:
    server, me = federation.server, researcher.post("token/user/validate")["user_id"]
    node = federation.node_ids[2]

    def live() -> None:
        federation.make_task(researcher)
        order = federation.claim()
        federation.nodes[2].post(f"skerry/run/{order['run']}/status", {"attempt": 1, "status": "active"})
        federation.nodes[2].post(f"skerry/run/{order['run']}/token", {"attempt": 1})
        federation.finish(order)

    found = since(server, live)
    run, task = found[1].deed.object.id, found[0].deed.object.id
    assert told(found) == [
        f"user {me} task.create task {task}",
        f"user {me} run.create run {run}",
        f"node {node} run.initializing run {run}",
        f"node {node} run.active run {run}",
        f"node {node} token.run run {run}",
        f"run {run} run.completed run {run}",
    ]
    assert found[0].deed.details["image"] == "example/mean"
    assert found[2].deed.details == {"state": "initializing", "attempt": 1, "changed": ["started_at"]}
    assert {r.deed.about["task"] for r in found} == {task}
    assert {r.deed.about.get("run") for r in found[1:]} == {run}
    assert verify(server) == len(records(server))


def test_a_kill_names_who_killed(federation: Federation, researcher: Api) -> None:
    me = researcher.post("token/user/validate")["user_id"]
    task = federation.make_task(researcher)
    [killed] = since(federation.server, lambda: researcher.post("kill/task", {"id": task["id"]}))
    assert told([killed]) == [f"user {me} run.killed run {killed.deed.object.id}"]
    assert killed.deed.details["reason"] == "killed by user"


def test_log_ins_failures_and_lock_outs(federation: Federation) -> None:
    user = federation.root.post("token/user/validate")["user_id"]

    def try_passwords() -> None:
        federation.log_in("root")
        for _ in range(5):
            federation.anybody.refused(401, "POST", "token/user", {"username": "root", "password": "wrong"})
        federation.anybody.refused(401, "POST", "token/user", {"username": "nobody-here", "password": "hunter2-typed"})
        federation.anybody.refused(401, "POST", "token/node", {"api_key": "00000000-0000-4000-8000-000000000000"})

    found = since(federation.server, try_passwords)
    assert told(found) == [
        f"user {user} login.succeed user {user}",
        *[f"nobody None login.fail user {user}"] * 5,
        f"nobody None user.change user {user}",
        "nobody None login.fail user None",
        "nobody None call.refuse vantage6.log_in_node None",
    ]
    assert "locked_until" in found[6].deed.details
    assert "nobody-here" not in json.dumps([r.as_dict() for r in found])


def test_a_late_result_is_refused_on_record(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    order = federation.claim()
    federation.clock.turn(hours=3)
    federation.server.sweep()

    def come_late() -> None:
        body = {"attempt": 1, "status": "completed", "log": None, "result": plain(1)}
        federation.nodes[2].refused(409, "POST", f"skerry/run/{order['run']}/finish", body)

    [refused] = since(federation.server, come_late)
    assert told([refused]) == [f"node {federation.node_ids[2]} call.refuse native.finish {order['run']}"]
    assert refused.deed.about == {"run": order["run"], "organization": 2}
    assert refused.deed.details == {"why": f'Run {order["run"]} ended as "unknown error".', "method": "POST"}


def test_what_is_not_allowed_is_refused_on_record(federation: Federation, researcher: Api) -> None:
    [refused] = since(federation.server, lambda: researcher.refused(401, "POST", "organization", {"name": "mine"}))
    assert refused.deed.action == "call.refuse"
    assert refused.deed.object.kind == "vantage6.organization_create"


def test_signs_of_life_are_no_deeds(federation: Federation) -> None:
    federation.work(2)
    federation.clock.turn(seconds=30)
    assert since(federation.server, lambda: federation.work(2)) == []


def test_secrets_and_payloads_are_never_told(federation: Federation, researcher: Api) -> None:
    secret = {"username": "carla", "email": "carla@example.org", "password": "Aa1-another-horse"}
    federation.root.post("user", {**secret, "roles": [federation.roles["Viewer"]]})
    federation.make_task(researcher, databases=[{"label": "default", "query": "SELECT name FROM patients"}])
    federation.finish(federation.claim(), result=plain("the-result"), log="what-the-log-says")
    exported = b"".join(record.line() for record in records(federation.server)).decode()
    for word in ("Aa1-", "argon2", "patients", plain("the-result"), "what-the-log-says", "carla@example.org"):
        assert word not in exported
    [made] = [r for r in records(federation.server) if r.deed.details.get("username") == "carla"]
    assert made.deed.details["roles"] == [federation.roles["Viewer"]]
    assert {"password", "email"} <= set(made.deed.details["changed"])


def test_a_statement_that_changes_many_rows_is_recorded(federation: Federation) -> None:
    def change() -> None:
        with federation.server.database.writing() as session:
            session.execute(text("SELECT 1"))
            session.execute(Organization.__table__.update().values(country="NL"))

    assert told(since(federation.server, change)) == ["server None organization.change organization None"]


def test_a_witnessed_head_of_a_node(federation: Federation) -> None:
    head = {"writer": "node-1", "sequence": 7, "hash": "a" * 64}
    [witness] = since(federation.server, lambda: federation.work(2, head=head))
    assert told([witness]) == [f"node {federation.node_ids[2]} audit.witness node {federation.node_ids[2]}"]
    assert witness.deed.details == head
    assert since(federation.server, lambda: federation.work(2, head={**head, "sequence": 8, "hash": "b" * 64})) == []
    federation.clock.turn(minutes=11)
    assert (
        len(since(federation.server, lambda: federation.work(2, head={**head, "sequence": 9, "hash": "c" * 64}))) == 1
    )
    answer = federation.work(2)["head"]
    assert answer == records(federation.server)[-1].head.as_dict()


# --- every mutating route ----------------------------------------------------------------------------------

WRITES = {"POST", "PUT", "PATCH", "DELETE"}
# Nothing changes but signs of life, or nothing at all.
CHANGES_NOTHING = {
    *("vantage6.validate_user", "vantage6.validate_node", "vantage6.make_container_token", "native.share_settings"),
    "native.show_log",
}
# Nothing is created: who logs in again gets other tokens, and who asks for work what there is by then.
NO_KEYS = {"vantage6.log_in_user", "vantage6.log_in_node", "vantage6.refresh"}
# Exercised by tests of their own, where every transaction is watched as it is here (see the fixture `server`).
ELSEWHERE = {
    *("vantage6.lost_password", "vantage6.reset_password", "vantage6.lost_second_factor"),
    *("vantage6.reset_second_factor", "vantage6.store_create", "vantage6.store_change", "vantage6.store_delete"),
    *("vantage6.send_blob", "native.join", "native.found", "native.succeed_keys"),
    *("native.revoke_certificates", "native.introduce"),
}


def calls(f: Federation, user: Api) -> dict[str, tuple[Api, str, str, Any]]:
    """For each mutating route one call that changes something, in this order: endpoint → who, method, path, body."""
    root, node, home = f.root, f.nodes[2], f.collaboration
    rule = root.get("rule", name="user", operation="view", scope="organization")["data"][0]["id"]
    roles = [root.post("role", {"name": f"role {n}", "rules": [rule]})["id"] for n in "abc"]
    people = [root.post("user", {**person(n), "roles": []})["id"] for n in "xy"]
    spare = [root.post("organization", {"name": f"spare {n}"})["id"] for n in "ab"]
    homes = [f.collaborate([1, 2, 3], encrypted=False) for _ in range(3)]
    studies = [make_study(root, f"study {n}", home)["id"] for n in "abc"]
    made = {o: root.post("node", {"collaboration_id": homes[0], "organization_id": o}) for o in (1, 2)}
    tasks = [f.make_task(user, 2) for _ in range(2)]
    order = next(one for one in f.work(2)["runs"] if one["task"]["id"] == tasks[0]["id"])
    killed, waiting = f.make_task(user, 2), f.make_task(user, 2)
    f.work(2, capacity=1, holding=[])
    run, as_run = order["run"], f.as_run(order)
    fresh = f.anybody.post("token/user", {"username": "root", "password": PASSWORD})
    identity = Identity.generate()
    keys = identity.organization_keys(2)
    root.ok(root.ask("PUT", f"skerry/organization/{spare[0]}/keys", identity.organization_keys(spare[0])))
    assert waiting
    return {
        "native.report_status": (node, "POST", f"skerry/run/{run}/status", {"attempt": 1, "status": "active"}),
        "native.renew_token": (node, "POST", f"skerry/run/{run}/token", {"attempt": 1}),
        "native.reserve": (node, "POST", f"skerry/run/{run}/peer", {"attempt": 1}),
        "vantage6.port_create": (node, "POST", "port", {"port": 8000, "run_id": run, "attempt": 1}),
        "vantage6.port_delete": (node, "DELETE", f"port?run_id={run}&attempt=1", None),
        "native.stage_result": (as_run, "PUT", f"skerry/run/{run}/result?attempt=1", b"1"),
        "native.send_blob": (user, "PUT", f"skerry/blob/{uuid.uuid4()}", b"{}"),
        "native.finish": (as_run, "POST", f"skerry/run/{run}/finish", ENDED),
        "native.find_work": (node, "POST", "skerry/node/work", {"capacity": 64, "wait": 0}),
        "vantage6.task_kill": (user, "POST", "kill/task", {"id": killed["id"]}),
        "vantage6.node_kill_tasks": (root, "POST", "kill/node/tasks", {"id": f.node_ids[2]}),
        "native.register_keys": (node, "PUT", "skerry/organization/2/keys", keys),
        "native.clear_keys": (root, "DELETE", f"skerry/organization/{spare[0]}/keys", None),
        "native.invite": (root, "POST", "skerry/invitation", {"collaboration_id": home, "organization_id": 2}),
        "native.rotate_key": (node, "POST", "skerry/node/key", {}),
        "vantage6.task_create": (user, "POST", "task", f.task_body(2)),
        "vantage6.columns": (user, "POST", "column", columns(home)),
        "vantage6.task_delete": (root, "DELETE", f"task/{tasks[1]['id']}", None),
        "native.leave": (node, "POST", "skerry/node/leave", {}),
        "vantage6.log_in_user": (f.anybody, "POST", "token/user", {"username": "root", "password": PASSWORD}),
        "vantage6.log_in_node": (f.anybody, "POST", "token/node", {"api_key": made[1]["api_key"]}),
        "vantage6.refresh": (Api(f.client, fresh["refresh_token"]), "POST", "token/refresh", None),
        "vantage6.organization_create": (root, "POST", "organization", {"name": "new"}),
        "vantage6.organization_change": (root, "PATCH", f"organization/{spare[0]}", {"country": "NL"}),
        "vantage6.organization_delete": (root, "DELETE", f"organization/{spare[1]}", None),
        "vantage6.collaboration_create": (root, "POST", "collaboration", NEW_COLLABORATION),
        "vantage6.collaboration_change": (root, "PATCH", f"collaboration/{homes[1]}", {"name": "renamed"}),
        "vantage6.collaboration_add": (root, "POST", f"collaboration/{homes[1]}/organization", {"id": spare[0]}),
        "vantage6.collaboration_remove": (root, "DELETE", f"collaboration/{homes[1]}/organization", {"id": 3}),
        "vantage6.collaboration_add_node": (root, "POST", f"collaboration/{homes[1]}/node", {"id": made[1]["id"]}),
        "vantage6.collaboration_remove_node": (
            root,
            "DELETE",
            f"collaboration/{homes[0]}/node",
            {"id": made[2]["id"]},
        ),
        "vantage6.collaboration_delete": (root, "DELETE", f"collaboration/{homes[2]}", None),
        "vantage6.study_create": (root, "POST", "study", study("new", home)),
        "vantage6.study_change": (root, "PATCH", f"study/{studies[0]}", {"name": "renamed"}),
        "vantage6.study_add": (root, "POST", f"study/{studies[0]}/organization", {"id": 2}),
        "vantage6.study_remove": (root, "DELETE", f"study/{studies[1]}/organization", {"id": 1}),
        "vantage6.study_delete": (root, "DELETE", f"study/{studies[2]}", None),
        "vantage6.node_create": (root, "POST", "node", {"collaboration_id": homes[1], "organization_id": 2}),
        "vantage6.node_change": (root, "PATCH", f"node/{made[1]['id']}", {"name": "renamed"}),
        "vantage6.node_renew_key": (root, "POST", "recover/node", {"id": made[1]["id"]}),
        "vantage6.node_delete": (root, "DELETE", f"node/{made[1]['id']}", None),
        "vantage6.user_create": (root, "POST", "user", person("z")),
        "vantage6.user_change": (root, "PATCH", f"user/{people[0]}", {"roles": [roles[0]]}),
        "vantage6.user_delete": (root, "DELETE", f"user/{people[1]}", None),
        "vantage6.role_create": (root, "POST", "role", {"name": "another", "rules": [rule]}),
        "vantage6.role_change": (root, "PATCH", f"role/{roles[0]}", {"description": "x"}),
        "vantage6.role_add_rule": (root, "POST", f"role/{roles[1]}/rule/{rule + 1}", None),
        "vantage6.role_remove_rule": (root, "DELETE", f"role/{roles[1]}/rule/{rule}", None),
        "vantage6.role_delete": (root, "DELETE", f"role/{roles[2]}", None),
        "vantage6.change_password": (user, "PATCH", "password/change", NEW_PASSWORD),
    }


ENDED = {"attempt": 1, "status": "completed", "log": "log", "result": plain(1)}
NEW_COLLABORATION = {"name": "new", "organization_ids": [1], "encrypted": False}
NEW_PASSWORD = {"current_password": PASSWORD, "new_password": "Aa1-another-horse"}


def person(name: str) -> dict[str, Any]:
    return {"username": f"person-{name}", "email": f"{name}@example.org", "password": "Aa1-another-horse"}


def study(name: str, home: int) -> dict[str, Any]:
    return {"name": name, "collaboration_id": home, "organization_ids": [1]}


def make_study(root: Api, name: str, home: int) -> dict[str, Any]:
    made: dict[str, Any] = root.post("study", study(name, home))
    return made


def columns(home: int) -> dict[str, Any]:
    return {"collaboration_id": home, "organizations": [{"id": 2, "input": plain({})}], "db_label": "x"}


def ask(who: Api, method: str, path: str, body: Any) -> Any:
    return who.ask(method, path, **({"data": body} if isinstance(body, bytes) else {"body": body}))


def test_every_post_under_a_key_is_done_once(federation: Federation, researcher: Api) -> None:
    """What is repeated gets the first answer, and leaves no record."""
    for endpoint, (who, method, path, body) in calls(federation, researcher).items():
        if method != "POST" or endpoint in NO_KEYS:
            continue
        headers = {"Authorization": f"Bearer {who.token}", "Idempotency-Key": f"the key of {endpoint}"}
        first = who.client.post(f"/api/{path}", json=body, headers=headers)
        before = len(records(federation.server))
        again = who.client.post(f"/api/{path}", json=body, headers=headers)
        assert first.status_code in {200, 201}, (endpoint, first.data)
        assert (again.status_code, again.get_json()) == (first.status_code, first.get_json()), endpoint
        assert len(records(federation.server)) == before, endpoint


def test_the_walk_knows_every_mutating_route(federation: Federation, researcher: Api) -> None:
    """A new route gets a call in ``calls``, or its name in one of the two sets above it."""
    rules = federation.client.application.url_map.iter_rules()
    routes = {rule.endpoint for rule in rules if WRITES & (rule.methods or set())}
    assert routes == set(calls(federation, researcher)) | CHANGES_NOTHING | ELSEWHERE


def test_every_mutating_route_leaves_records_that_name_the_caller(federation: Federation, researcher: Api) -> None:
    for endpoint, (who, method, path, body) in calls(federation, researcher).items():
        before = len(records(federation.server))
        answer = ask(who, method, path, body)
        assert answer.status_code < 300, (endpoint, answer.get_data(as_text=True))
        found = records(federation.server)[before:]
        assert found, endpoint
        assert {r.deed.actor.kind for r in found} <= {"user", "node", "run"}, (endpoint, told(found))
    assert verify(federation.server) == len(records(federation.server))


BLOCK = "blocked"


@pytest.mark.parametrize("damage", ["DROP TABLE audit", "DROP TABLE audit_head", BLOCK])
def test_what_cannot_be_recorded_is_not_done(damage: str, federation: Federation, researcher: Api) -> None:
    """Whatever is wrong with the trail: each mutating call is refused in a sentence, and nothing has changed."""
    asked = calls(federation, researcher)
    with federation.server.database.engine.begin() as connection:
        statements = FULL[connection.dialect.name] if damage == BLOCK else (damage,)
        for statement in statements:
            connection.execute(text(statement))
    before = everything(federation.server)
    for endpoint, (who, method, path, body) in asked.items():
        answer = ask(who, method, path, body)
        assert answer.status_code == 503, (endpoint, answer.get_data(as_text=True))
        assert "audit trail" in answer.get_json()["msg"]
        assert everything(federation.server) == before, endpoint
    assert researcher.get("task")["data"]


FULL = {
    "sqlite": ("CREATE TRIGGER full_ BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END",),
    "postgresql": (
        "CREATE FUNCTION full_() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'disk full'; END $$",
        "CREATE TRIGGER full_ BEFORE INSERT ON audit EXECUTE FUNCTION full_()",
    ),
}


def everything(server: Server) -> dict[str, list[Any]]:
    tables = [table for table in Base.metadata.sorted_tables if not table.name.startswith("audit")]
    with server.database.reading() as session:
        return {table.name: [tuple(row) for row in session.execute(select(table))] for table in tables}


# --- nothing of it changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET action = 'nothing' WHERE id = 3",
        "DELETE FROM audit WHERE id = 3",
        "DELETE FROM audit",
        "DELETE FROM audit_head",
        "UPDATE audit_head SET sequence = sequence - 1",
        "UPDATE audit_head SET writer = 'another'",
    ],
)
def test_the_database_refuses_to_change_the_trail(statement: str, server: Server) -> None:
    with pytest.raises(DatabaseError, match="only added"), server.database.engine.begin() as connection:
        connection.execute(text(statement))


def tamper(server: Server, *statements: str) -> None:
    """As somebody with the database's file in hand, for whom triggers are no hindrance."""
    with server.database.engine.begin() as connection:
        for statement in DEFENCELESS[connection.dialect.name]:
            connection.execute(text(statement))
        for statement in statements:
            connection.execute(text(statement))


DEFENCELESS = {
    "sqlite": [
        f"DROP TRIGGER {name}" for name in ("audit_update", "audit_delete", "audit_head_update", "audit_head_delete")
    ],
    "postgresql": ["ALTER TABLE audit DISABLE TRIGGER ALL", "ALTER TABLE audit_head DISABLE TRIGGER ALL"],
}
COLUMNS = [column.name for column in Base.metadata.tables["audit"].columns if column.name != "id"]


@pytest.mark.parametrize("column", COLUMNS)
def test_every_column_is_guarded(column: str, server: Server) -> None:
    kind = Base.metadata.tables["audit"].columns[column].type.python_type
    value = 77 if kind is int else "'{}'" if column == "details" else "'2027'"
    tamper(server, f"UPDATE audit SET {column} = {value} WHERE sequence = 5")  # noqa: S608 - names of our own columns
    with pytest.raises(BrokenChain, match=r"^line 5: "):
        verify(server)


def test_a_removed_and_a_cut_record(server: Server) -> None:
    count = len(records(server))
    tamper(server, "DELETE FROM audit WHERE sequence = 4")
    with pytest.raises(BrokenChain, match=r"line 4: Record 5 of server-\w+ comes after record 3: record 4 is removed"):
        verify(server)
    with server.database.engine.begin() as connection:
        connection.execute(text("DELETE FROM audit WHERE sequence >= 4"))
    with pytest.raises(BrokenChain, match=rf"cut at its end: records 4 to {count} are missing"):
        verify(server)


def test_two_processes_share_the_writer_in_turn(server: Server) -> None:
    """The command line founds, and changes, beside a running server."""
    other = open_server(server.settings)
    for number, database in enumerate([server.database, other.database, server.database]):
        with database.writing() as session:
            session.add(Organization(name=f"made {number}"))
    other.database.close()
    assert verify(server) == len(records(server))


# --- the command line --------------------------------------------------------------------------------------


def command_lines(server: Server) -> tuple[Path, str]:
    path = write_settings(server.settings)
    exported = CliRunner().invoke(server_command, ["audit", "export", "--config", str(path)], catch_exceptions=False)
    assert exported.exit_code == 0, exported.output
    return path, exported.stdout


def test_export_and_verify_on_the_command_line(federation: Federation, researcher: Api, tmp_path: Path) -> None:
    federation.make_task(researcher)
    config, exported = command_lines(federation.server)
    file = tmp_path / "trail.jsonl"
    file.write_text(exported)
    for source in ([str(file)], ["--server", str(config)]):
        result = CliRunner().invoke(audit_command, ["verify", *source], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert f"{len(records(federation.server))} records hold" in result.output
    lines = exported.splitlines(keepends=True)
    file.write_text("".join([*lines[:6], lines[6].replace('"action":"', '"action":"un'), *lines[7:]]))
    broken = subprocess.run([SKERRY, "audit", "verify", file], capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    assert re.search(r"line 7: Record 7 of server-\w+ was changed", broken.stderr), broken.stderr


def test_what_is_exported_is_of_one_moment(federation: Federation, researcher: Api) -> None:
    """Records of several writers come out of order: who looks again and again would miss one."""
    server = federation.server
    with reading_database(server.settings) as session:
        before = read_heads(session), len(list(read_trail(session)))
        federation.make_task(researcher)
        assert (read_heads(session), len(list(read_trail(session)))) == before
    with reading_database(server.settings) as session:
        assert len(list(read_trail(session))) > before[1]


def test_verify_without_a_source() -> None:
    assert "Name a FILE" in CliRunner().invoke(audit_command, ["verify"]).output


# --- who may read it ---------------------------------------------------------------------------------------


def seen(by: Api, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = by.get("skerry/audit", **{"limit": 1000, **query})["data"]
    return found


def test_an_auditor_sees_what_concerns_the_organization_and_its_collaborations(
    federation: Federation, researcher: Api
) -> None:
    auditor, outsider = federation.make_user("Auditor"), federation.make_user("Auditor", 3)
    federation.make_user("Organization Admin", 2).post("user", person("elsewhere"))
    task = federation.make_task(researcher)
    mine = seen(auditor, task_id=task["id"])
    assert [row["action"] for row in mine] == ["task.create", "run.create"]
    assert seen(outsider, task_id=task["id"]) == []
    assert "person-elsewhere" not in json.dumps([r for r in seen(auditor) if r["about"].get("organization") == 2])
    assert {r["about"].get("organization") or r["actor"]["organization"] for r in seen(outsider)} <= {3, 1}
    assert len(seen(federation.root)) == min(len(records(federation.server)), 1000)


@pytest.mark.parametrize("role", ["Researcher", "Viewer", "Organization Admin", "Collaboration Admin", None])
def test_other_roles_see_nothing(role: str | None, federation: Federation) -> None:
    federation.make_user(role).refused(401, "GET", "skerry/audit")


def test_nodes_and_strangers_see_nothing(federation: Federation) -> None:
    federation.nodes[1].refused(401, "GET", "skerry/audit")
    federation.anybody.refused(401, "GET", "skerry/audit")


def test_pages_and_filters(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    me = researcher.post("token/user/validate")["user_id"]
    found, after = [], 0
    while after is not None:
        page = federation.root.get("skerry/audit", limit=7, after=after)
        found += page["data"]
        after = page["next"]
    assert [row["id"] for row in found] == [row["id"] for row in seen(federation.root)]
    assert {row["actor"]["id"] for row in seen(federation.root, actor="user", actor_id=me)} == {me}
    assert {row["action"] for row in seen(federation.root, action="task.create")} == {"task.create"}
    [run] = seen(federation.root, action="run.create", task_id=found[-1]["about"]["task"])
    assert seen(federation.root, run_id=run["about"]["run"]) == [run]
    verifier = Verifier()
    for row in found:
        row.pop("id")
        verifier.feed(canonical(row))
    for wrong in ({"limit": 0}, {"limit": 1001}, {"after": -1}, {"run_id": "x"}, {"actor": "x" * 65}):
        federation.root.refused(400, "GET", "skerry/audit", query_string=wrong)


def test_the_application_has_no_way_to_write_it(federation: Federation) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        federation.root.refused(405, method, "skerry/audit", {})
