"""Successors and revocations as the server hands them on; invitations; API keys that take each other's place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from server_federation import PASSWORD, Api, Federation, make_settings
from sqlalchemy import select

from skerry import keys
from skerry.errors import KeyChanged
from skerry.keys import Identity
from skerry.statements import Announced, revoked, succeed
from skerry_server.app import create_app
from skerry_server.models import Answered, Base, Failure, User
from skerry_server.server import open_server

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _short_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "RSA_BITS", 2048)


@pytest.fixture
def identity(federation: Federation) -> Identity:
    """Organization 1's, registered."""
    made = Identity.generate()
    federation.root.ask("PUT", "skerry/organization/1/keys", made.organization_keys(1))
    return made


def shown(api: Api, federation: Federation) -> dict[str, Any]:
    entries = api.get("skerry/keys", collaboration_id=federation.collaboration)["data"]
    return next(entry for entry in entries if entry["organization_id"] == 1)


def test_keys_are_replaced_by_the_word_of_the_old_ones(federation: Federation, identity: Identity) -> None:
    fresh, statement = succeed(identity, 1, compromised=False)
    for _ in range(2):
        federation.root.post("skerry/organization/1/successor", statement)
    entry = shown(federation.nodes[2], federation)
    assert entry["successions"] == [statement]
    assert Announced.from_wire(entry).follow(identity.own_keys(1)) == fresh.own_keys(1)


def test_nobody_elses_word_replaces_them(federation: Federation, identity: Identity) -> None:
    fresh, statement = succeed(identity, 1, compromised=False)
    forged, _ = succeed(Identity.generate(), 1, compromised=False)
    path = "skerry/organization/1/successor"
    for caller in (federation.make_user("Researcher"), federation.make_user("Organization Admin", 2)):
        caller.refused(401, "POST", path, statement)
    for wrong in (
        {**statement, "until": statement["until"] + 1},
        {**statement, **forged.organization_keys(1)},
        {**statement, "organization_id": 2},
    ):
        federation.root.refused(400, "POST", path, wrong)
    federation.root.refused(400, "POST", path, {**statement, "more": 1})
    assert shown(federation.root, federation)["successions"] == []
    assert fresh.public_pem != identity.public_pem


def test_certificates_are_taken_back(
    federation: Federation, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = revoked(identity, 1, {7: int(time.time())})
    path = "skerry/organization/1/revocation"
    federation.make_user("Organization Admin", 2).refused(401, "PUT", path, statement)
    federation.root.refused(400, "PUT", path, {**statement, "revoked": []})
    federation.root.refused(400, "PUT", path, revoked(Identity.generate(), 1, {}))
    federation.root.ok(federation.root.ask("PUT", path, statement))
    assert shown(federation.nodes[2], federation)["revocation"] == statement
    monkeypatch.setattr(time, "time", lambda: statement["created"] - 1)
    federation.root.refused(409, "PUT", path, revoked(identity, 1, {}))


def test_a_node_is_told_that_keys_have_changed(federation: Federation, identity: Identity) -> None:
    seen = []
    for step in range(3):
        federation.make_task(federation.root, 2)
        order = federation.claim()
        seen.append(order["keys_version"])
        federation.finish(order)
        if step == 0:
            statement = revoked(identity, 1, {7: 1})
            federation.root.ok(federation.root.ask("PUT", "skerry/organization/1/revocation", statement))
    assert seen[0] != seen[1] == seen[2]


# --- invitations -----------------------------------------------------------------------------------------


def invite(federation: Federation, **more: Any) -> dict[str, Any]:
    body = {"collaboration_id": federation.collaboration, "organization_id": 2, **more}
    made: dict[str, Any] = federation.root.post("skerry/invitation", body)
    return made


def join(federation: Federation, made: dict[str, Any]) -> dict[str, Any]:
    welcome: dict[str, Any] = federation.anybody.post("skerry/join", {"secret": made["secret"]})
    return welcome


def test_an_invitation_is_good_once_and_for_its_time(federation: Federation) -> None:
    made = invite(federation)
    welcome = join(federation, made)
    assert federation.anybody.post("token/node", {"api_key": welcome["api_key"]})["access_token"]
    again = federation.anybody.refused(401, "POST", "skerry/join", {"secret": made["secret"]})
    late = invite(federation, hours=1)
    federation.clock.turn(hours=1, seconds=1)
    assert federation.anybody.refused(401, "POST", "skerry/join", {"secret": late["secret"]}) == again
    assert federation.anybody.refused(401, "POST", "skerry/join", {"secret": "unknown"}) == again


def test_who_lost_the_answer_gets_it_again_by_the_key_of_the_request(federation: Federation) -> None:
    made, other = invite(federation), invite(federation, organization_id=1)

    def ask(key: str, secret: str = made["secret"]) -> Any:
        return federation.client.post("/api/skerry/join", json={"secret": secret}, headers={"Idempotency-Key": key})

    first = ask("one key of the node's")
    federation.clock.turn(hours=23)
    again = ask("one key of the node's")
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.get_json() == again.get_json()
    assert federation.anybody.post("token/node", {"api_key": again.get_json()["api_key"]})["access_token"]
    assert ask("another key of a thief").status_code == 401
    assert ask("one key of the node's", other["secret"]).status_code == 409
    with federation.server.database.reading() as session:
        kept = str(session.execute(select(Answered.answer)).all())
    assert first.get_json()["api_key"] not in kept


def test_a_newer_invitation_voids_the_one_before(federation: Federation) -> None:
    first, second = invite(federation), invite(federation)
    federation.anybody.refused(401, "POST", "skerry/join", {"secret": first["secret"]})
    join(federation, second)


def test_an_invitation_makes_the_node_where_there_is_none(federation: Federation) -> None:
    collaboration = federation.collaborate([1, 3], encrypted=False)
    made = invite(federation, collaboration_id=collaboration, organization_id=3)
    assert federation.root.get(f"node/{made['node_id']}")["organization"]["id"] == 3
    assert join(federation, made)["collaboration"]["id"] == collaboration


def test_an_invitation_dies_with_its_node(federation: Federation) -> None:
    made = invite(federation)
    federation.root.delete(f"node/{made['node_id']}")
    federation.anybody.refused(401, "POST", "skerry/join", {"secret": made["secret"]})


def test_who_may_invite(federation: Federation) -> None:
    body = {"collaboration_id": federation.collaboration, "organization_id": 2}
    federation.make_user("Researcher").refused(401, "POST", "skerry/invitation", body)
    federation.make_user("Organization Admin", 1).refused(401, "POST", "skerry/invitation", body)
    federation.nodes[2].refused(401, "POST", "skerry/invitation", body)
    federation.root.refused(400, "POST", "skerry/invitation", {**body, "hours": 200})
    federation.root.refused(404, "POST", "skerry/invitation", {**body, "collaboration_id": 99})


def test_a_secret_is_kept_as_a_hash(federation: Federation) -> None:
    secret = invite(federation)["secret"]
    with federation.server.database.reading() as session:
        kept = {name: str(session.execute(select(table)).all()) for name, table in Base.metadata.tables.items()}
    assert "datetime" in kept["invitation"]
    assert secret not in str(kept)


# --- rotation and revocation -----------------------------------------------------------------------------


def test_the_old_api_key_is_good_until_the_new_one_is_used(federation: Federation) -> None:
    node = federation.nodes[2]
    old = federation.root.post("recover/node", {"id": federation.node_ids[2]})["api_key"]

    def log_in(key: str) -> Api:
        return Api(federation.client, federation.anybody.post("token/node", {"api_key": key})["access_token"])

    node = log_in(old)
    new = node.post("skerry/node/key")["api_key"]
    node.get("skerry/node/self")
    log_in(old)
    fresh = log_in(new)
    federation.anybody.refused(401, "POST", "token/node", {"api_key": old})
    node.refused(401, "GET", "skerry/node/self")
    fresh.get("skerry/node/self")


def test_a_rotation_does_not_disturb_a_run(federation: Federation) -> None:
    federation.make_task(federation.root, 2)
    order = federation.claim()
    new = federation.nodes[2].post("skerry/node/key")["api_key"]
    answer = federation.anybody.post("token/node", {"api_key": new})
    federation.nodes[2] = Api(federation.client, answer["access_token"])
    assert federation.work(2, holding=[{"run": order["run"], "attempt": order["attempt"]}])["stop"] == []
    assert federation.finish(order)["status"] == "completed"


def test_an_administrators_new_key_ends_a_waiting_one(federation: Federation) -> None:
    waiting = federation.nodes[2].post("skerry/node/key")["api_key"]
    federation.root.post("recover/node", {"id": federation.node_ids[2]})
    federation.anybody.refused(401, "POST", "token/node", {"api_key": waiting})


def test_a_deleted_node_is_out_at_once(federation: Federation) -> None:
    """Its token, its refresh token, its runs' tokens, and the call in which it waits."""
    federation.make_task(federation.root, 2)
    order = federation.claim()
    ticket = federation.server.hub.ticket([f"node:{federation.node_ids[2]}"])
    federation.root.delete(f"node/{federation.node_ids[2]}")
    assert federation.server.hub.ticket([f"node:{federation.node_ids[2]}"]) != ticket
    federation.nodes[2].refused(401, "POST", "skerry/node/work", {"wait": 0})
    federation.as_run(order).refused(401, "POST", f"skerry/run/{order['run']}/token", {"attempt": order["attempt"]})
    run = federation.root.get(f"run/{order['run']}")
    assert run["status"] == "killed by user"


def test_an_organization_that_leaves_is_out_at_once(federation: Federation) -> None:
    federation.make_task(federation.root, 2)
    order = federation.claim()
    partner = federation.make_user("Researcher", 2)
    topic = [f"node:{federation.node_ids[2]}"]
    ticket = federation.server.hub.ticket(topic)
    federation.root.delete("organization/2", delete_dependents="true")
    assert federation.server.hub.ticket(topic) != ticket
    for caller in (partner, federation.nodes[2], federation.as_run(order)):
        caller.refused(401, "GET", "collaboration")


def test_a_new_password_ends_all_sessions(federation: Federation) -> None:
    user = federation.make_user("Researcher")
    body = {"current_password": "Aa1-correct-horse", "new_password": "Bb2-correct-horse"}
    user.patch("password/change", body)
    user.refused(401, "GET", "task")


def test_a_second_factor_set_anew_ends_all_sessions(federation: Federation) -> None:
    from skerry_server import tokens  # noqa: PLC0415 - only here

    user = federation.make_user("Researcher")
    id_ = user.post("token/user/validate")["user_id"]
    with federation.server.database.reading() as session:
        row = session.get_one(User, id_)
        token = tokens.for_reset(federation.server.secret, row, tokens.Purpose.SECOND_FACTOR, federation.server.clock())
    federation.anybody.post("recover/2fa/reset", {"reset_token": token})
    user.refused(401, "GET", "task")


# --- who is shut out, who has lost their keys, and who comes first ---------------------------------------


def user_id(user: Api) -> int:
    return int(user.post("token/user/validate")["user_id"])


def test_who_is_disabled_is_out_at_once(federation: Federation) -> None:
    """Their sessions, their log-in, their open task with its run at a node, and the letters that they could ask for."""
    user = federation.make_user()
    id_, name = user_id(user), federation.root.get(f"user/{user_id(user)}")["username"]
    own, others = federation.make_task(user, 2), federation.make_task(federation.root, 2)
    orders = federation.work(2)["runs"]
    held = [{"run": order["run"], "attempt": order["attempt"]} for order in orders]
    shown = federation.root.patch(f"user/{id_}", {"disabled": True})
    assert (shown["disabled"], federation.root.get(f"user/{id_}")["disabled"]) == (True, True)
    user.refused(401, "GET", "task")
    wrong = federation.anybody.refused(401, "POST", "token/user", {"username": name, "password": "Aa1-wrong-horse"})
    right = {"username": name, "password": PASSWORD}
    assert federation.anybody.refused(401, "POST", "token/user", right) == wrong
    [stop] = federation.work(2, holding=held)["stop"]
    assert (stop["run"], stop["reason"]) == (orders[0]["run"], "its user was disabled")
    assert federation.root.get(f"task/{own['id']}")["status"] == "killed by user"
    assert federation.root.get(f"task/{others['id']}")["status"] == "initializing"
    federation.root.patch(f"user/{id_}", {"disabled": False})
    user.refused(401, "GET", "task")
    federation.log_in(name).get("task")


def test_who_may_disable_whom(federation: Federation) -> None:
    victim, near = federation.make_user("Viewer"), federation.make_user("Organization Admin")
    path = f"user/{user_id(victim)}"
    federation.make_user("Organization Admin", 2).refused(401, "PATCH", path, {"disabled": True})
    victim.refused(400, "PATCH", path, {"disabled": True})
    near.refused(401, "PATCH", "user/1", {"disabled": True})
    assert federation.root.refused(400, "PATCH", "user/1", {"disabled": True}) == "You can't disable yourself."
    near.patch(path, {"disabled": True})


def test_the_open_tasks_of_a_deleted_user_end(federation: Federation) -> None:
    user = federation.make_user()
    task = federation.make_task(user, 2)
    federation.root.delete(f"user/{user_id(user)}")
    assert federation.root.get(f"task/{task['id']}")["status"] == "killed by user"


@pytest.mark.parametrize("way", ["remove", "replace"])
def test_a_member_that_leaves_is_out_at_once(federation: Federation, way: str) -> None:
    """Its runs, those that wait too, what it asked of others, and the call in which its node waits."""
    asked = federation.make_task(federation.root, 2)
    order = federation.claim()
    waiting = federation.make_task(federation.root, 2)
    own = federation.make_task(federation.make_user(organization=2), 1)
    topic = [f"node:{federation.node_ids[2]}"]
    ticket = federation.server.hub.ticket(topic)
    path = f"collaboration/{federation.collaboration}"
    if way == "remove":
        federation.root.ok(federation.root.ask("DELETE", f"{path}/organization", {"id": 2}))
    else:
        federation.root.patch(path, {"organization_ids": [1, 3]})
    assert federation.server.hub.ticket(topic) != ticket
    for task in (asked, waiting, own):
        assert federation.root.get(f"task/{task['id']}")["status"] == "killed by user", task
    federation.nodes[2].refused(401, "POST", "skerry/node/work", {"wait": 0})
    federation.as_run(order).refused(401, "GET", f"task/{asked['id']}")
    federation.anybody.refused(401, "POST", "token/node", {"api_key": federation.api_keys[federation.node_ids[2]]})
    with federation.server.database.reading() as session:
        assert session.scalars(select(Failure)).all() == [], "a right key is no guess"
    assert federation.work(1)["runs"] == []


def test_an_organization_that_lost_its_keys_registers_new_ones(federation: Federation, identity: Identity) -> None:
    fresh, statement = succeed(identity, 1, compromised=False)
    federation.root.post("skerry/organization/1/successor", statement)
    federation.root.ok(federation.root.ask("PUT", "skerry/organization/1/revocation", revoked(fresh, 1, {7: 1})))
    path, lost = "skerry/organization/1/keys", Identity.generate()
    federation.root.refused(409, "PUT", path, lost.organization_keys(1))
    for caller in (federation.make_user("Organization Admin"), federation.nodes[1]):
        caller.refused(401, "DELETE", path)
    federation.root.delete(path)
    assert federation.root.get(path) == {
        **dict.fromkeys(("public_key", "signing_key", "binding"), ""),
        "organization_id": 1,
        "successions": [],
        "revocation": None,
    }
    federation.root.refused(400, "DELETE", path)
    federation.make_user("Organization Admin").ok(federation.root.ask("PUT", path, lost.organization_keys(1)))
    with pytest.raises(KeyChanged):
        Announced.from_wire(shown(federation.nodes[2], federation)).follow(fresh.own_keys(1))
    told = federation.root.get("skerry/audit", action="organization.change", organization_id=1, limit=1000)["data"]
    assert [record["actor"]["kind"] for record in told if record["details"].get("public_key", "") is None] == ["user"]


FIRST = {"organization": "first", "username": "first", "password": PASSWORD}


def test_who_lost_the_answer_of_the_founding_gets_it_again_by_the_key(tmp_path: Path) -> None:
    server = open_server(make_settings(tmp_path))
    server.begin()
    body = {**FIRST, "secret": (server.settings.state / "bootstrap-secret").read_text().strip()}
    client = create_app(server).test_client()

    def found(key: str, **changes: str) -> tuple[int, Any]:
        answer = client.post("/api/skerry/bootstrap", json={**body, **changes}, headers={"Idempotency-Key": key})
        return answer.status_code, answer.get_json()

    first = found("a key of the caller's")
    assert first[0] == 201
    assert found("a key of the caller's") == first
    assert found("another key of theirs")[0] == 401
    assert found("a key of the caller's", secret="guessed")[0] == 409
    server.database.close()


def test_the_first_user_is_made_by_a_secret_that_is_good_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = open_server(make_settings(tmp_path))
    server.begin()
    file = server.settings.state / "bootstrap-secret"
    secret = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (str(file) in caplog.text, secret in caplog.text) == (True, False)
    server.begin()
    assert file.read_text().strip() == secret
    anybody = Api(create_app(server).test_client())
    path = "skerry/bootstrap"
    refusal = anybody.refused(401, "POST", path, {**FIRST, "secret": "guessed"})
    anybody.refused(400, "POST", path, {**FIRST, "secret": secret, "password": "weak"})
    made = anybody.post(path, {**FIRST, "secret": secret})
    assert not file.exists()
    token = anybody.post("token/user", {"username": "first", "password": PASSWORD})["access_token"]
    assert Api(anybody.client, token).get(f"user/{made['user_id']}")["username"] == "first"
    assert anybody.refused(401, "POST", path, {**FIRST, "secret": secret}) == refusal
    assert anybody.refused(401, "POST", path, {**FIRST, "username": "second", "secret": secret}) == refusal
    file.write_text(secret)
    anybody.refused(400, "POST", path, {**FIRST, "username": "second", "secret": secret})
    server.begin()
    assert not file.exists()
    server.database.close()
