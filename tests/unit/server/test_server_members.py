"""Organizations and keys, collaborations, studies, nodes, users and roles; and who may touch them."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from server_federation import PASSWORD, Api, Federation

from skerry.keys import Identity, OrganizationKeys
from skerry.wire import b64

pytestmark = pytest.mark.unit


def make_identity(*, signing: bool = True) -> Identity:
    rsa = generate_private_key(public_exponent=65537, key_size=2048)
    return Identity(rsa, Ed25519PrivateKey.generate() if signing else None)


@pytest.fixture(scope="module")
def identity() -> Identity:
    return make_identity()


@pytest.fixture(scope="module")
def other() -> Identity:
    return make_identity()


def test_keys_are_registered_once(federation: Federation, identity: Identity, other: Identity) -> None:
    admin = federation.make_user("Organization Admin", 2)
    wire = identity.organization_keys(2)
    path = f"skerry/keys?collaboration_id={federation.collaboration}"
    assert federation.root.get(path)["data"] == []
    for _ in range(2):
        assert OrganizationKeys.from_wire(admin.ok(admin.ask("PUT", "skerry/organization/2/keys", wire))).signing
    admin.refused(409, "PUT", "skerry/organization/2/keys", other.organization_keys(2))
    for caller in (federation.root, federation.nodes[1], federation.nodes[2]):
        [keys] = caller.get(path)["data"]
        assert OrganizationKeys.from_wire(keys).fingerprint == OrganizationKeys.from_wire(wire).fingerprint


def test_who_may_register_keys(federation: Federation, identity: Identity) -> None:
    path, wire = "skerry/organization/2/keys", identity.organization_keys(2)
    for caller in (
        federation.make_user("Researcher", 2),
        federation.make_user("Organization Admin", 1),
        federation.make_user("Collaboration Admin", 1),
        federation.nodes[1],
    ):
        caller.refused(401, "PUT", path, wire)
    federation.nodes[2].ok(federation.nodes[2].ask("PUT", path, wire))
    researcher = federation.make_user("Researcher", 2)
    researcher.ok(researcher.ask("PUT", path, wire))  # the same again changes nothing
    federation.make_user("Collaboration Admin", 1).refused(401, "PUT", path, wire)


@pytest.mark.parametrize(
    "change", [{"organization_id": 1}, {"binding": ""}, {"binding": b64(bytes(64))}, {"public_key": "x"}, {"extra": 1}]
)
def test_keys_that_do_not_hold(federation: Federation, identity: Identity, change: dict[str, Any]) -> None:
    wire = {**identity.organization_keys(2), **change}
    federation.root.refused(400, "PUT", "skerry/organization/2/keys", wire)


def test_a_run_reads_its_collaborations_keys_only(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    run = federation.as_run(federation.claim())
    assert run.get("skerry/keys", collaboration_id=federation.collaboration)["data"] == []
    elsewhere = federation.collaborate([2, 3], encrypted=False)
    run.refused(401, "GET", "skerry/keys", query_string={"collaboration_id": elsewhere})
    federation.nodes[2].refused(401, "GET", "skerry/keys", query_string={"collaboration_id": elsewhere})


def test_vantage6_keys(federation: Federation, identity: Identity, other: Identity) -> None:
    admin = federation.make_user("Organization Admin", 2)
    for key in (other, identity):
        changed = admin.patch("organization/2", {"public_key": b64(key.public_pem)})
        assert changed["public_key"] == b64(key.public_pem)
    with_signature = identity.organization_keys(2)
    admin.ok(admin.ask("PUT", "skerry/organization/2/keys", with_signature))
    admin.patch("organization/2", {"public_key": b64(identity.public_pem)})
    admin.refused(400, "PATCH", "organization/2", {"public_key": b64(other.public_pem)})
    federation.root.refused(401, "PATCH", "organization/2", {"public_key": b64(identity.public_pem)})
    federation.root.refused(400, "PATCH", "organization/1", {"public_key": "no key"})


def test_organizations(federation: Federation) -> None:
    created = federation.root.ask("POST", "organization", {"name": "new", "country": "NL", "address1": "Street 1"})
    assert created.status_code == 201
    body = created.get_json()
    assert set(body) == {
        *("id", "name", "domain", "address1", "address2", "zipcode", "country", "public_key", "collaborations"),
        *("nodes", "users", "tasks", "runs", "studies"),
    }
    assert body["public_key"] == ""
    federation.root.refused(400, "POST", "organization", {"name": "new"})
    federation.make_user("Collaboration Admin").refused(401, "POST", "organization", {"name": "newer"})
    assert [o["id"] for o in federation.root.get("organization", country="NL")["data"]] == [body["id"]]
    assert [o["id"] for o in federation.root.get("organization?ids=1&ids=3")["data"]] == [1, 3]
    assert [o["id"] for o in federation.nodes[1].get("organization")["data"]] == [1, 2]
    mine = federation.root.get("organization", collaboration_id=federation.collaboration)["data"]
    assert [o["id"] for o in mine] == [1, 2]


def test_creating_a_collaboration_answers_200(federation: Federation) -> None:
    body = {"name": "c", "organization_ids": [1, 3], "encrypted": True, "accept": "both"}
    answer = federation.root.ask("POST", "collaboration", body)
    assert answer.status_code == 200
    made = answer.get_json()
    assert (made["encrypted"], made["accept"]) == (True, "both")
    assert set(made) - {"accept"} == {
        *("id", "name", "encrypted", "organizations", "nodes", "tasks", "algorithm_stores", "studies"),
    }
    federation.root.refused(400, "POST", "collaboration", body)
    federation.root.refused(400, "POST", "collaboration", {**body, "name": "d", "organization_ids": [99]})
    federation.root.refused(400, "POST", "collaboration", {**body, "name": "d", "accept": "anything"})
    federation.make_user("Collaboration Admin").refused(401, "POST", "collaboration", {**body, "name": "d"})


def test_its_own_admin_does_not_widen_a_collaboration(federation: Federation) -> None:
    """CVE-2024-32969."""
    admin, path = federation.make_user("Collaboration Admin"), f"collaboration/{federation.collaboration}"
    assert admin.patch(path, {"name": "renamed"})["name"] == "renamed"
    admin.refused(401, "PATCH", path, {"organization_ids": [1, 2, 3]})
    admin.refused(401, "POST", f"{path}/organization", {"id": 3})
    admin.refused(401, "DELETE", f"{path}/organization", {"id": 2})
    assert [one["id"] for one in federation.root.post(f"{path}/organization", {"id": 3})] == [1, 2, 3]
    removed = federation.root.ask("DELETE", f"{path}/organization", {"id": 3}).get_json()
    assert [one["id"] for one in removed] == [1, 2]
    federation.make_user("Researcher").refused(401, "PATCH", path, {"name": "x"})


def test_encryption_is_not_switched_off_by_the_way(federation: Federation) -> None:
    id_ = federation.collaborate([1, 2], encrypted=True)
    assert federation.root.patch(f"collaboration/{id_}", {"name": "still"})["encrypted"] is True
    federation.make_user("Organization Admin").refused(401, "PATCH", f"collaboration/{id_}", {"encrypted": False})


def test_studies(federation: Federation) -> None:
    admin = federation.make_user("Collaboration Admin")
    body = {"name": "s", "collaboration_id": federation.collaboration, "organization_ids": [2]}
    made = admin.ask("POST", "study", body)
    assert made.status_code == 201
    study = made.get_json()
    assert [one["id"] for one in study["organizations"]] == [2]
    admin.refused(400, "POST", "study", {**body, "name": "t", "organization_ids": [3]})
    federation.make_user("Researcher").refused(401, "POST", "study", {**body, "name": "t"})
    federation.make_user("Viewer", 1).refused(401, "GET", f"study/{study['id']}")
    assert federation.make_user("Viewer", 2).get(f"study/{study['id']}")["name"] == "s"
    assert admin.patch(f"study/{study['id']}", {"organization_ids": [1, 2]})["id"] == study["id"]
    assert len(admin.get(f"study/{study['id']}", include="organizations")["organizations"]) == 2
    admin.delete(f"study/{study['id']}")
    admin.refused(404, "GET", f"study/{study['id']}")


def test_nodes(federation: Federation) -> None:
    where = {"collaboration_id": federation.collaboration}
    federation.root.refused(400, "POST", "node", {**where, "organization_id": 1})
    federation.root.refused(400, "POST", "node", {**where, "organization_id": 3})
    federation.root.refused(404, "POST", "node", {"collaboration_id": 99})
    node = federation.root.get(f"node/{federation.node_ids[1]}")
    assert set(node) == {
        *("id", "type", "name", "ip", "last_seen", "status", "refuses", "organization", "collaboration", "config"),
    }
    assert "Node" in node["name"]
    federation.make_user("Researcher").refused(401, "PATCH", f"node/{node['id']}", {"name": "x"})
    federation.make_user("Organization Admin", 2).refused(401, "PATCH", f"node/{node['id']}", {"name": "x"})
    assert federation.make_user("Organization Admin", 1).patch(f"node/{node['id']}", {"name": "mine"})["name"] == "mine"
    federation.root.refused(400, "PATCH", f"node/{node['id']}", {"organization_id": 2})
    federation.nodes[2].refused(401, "PATCH", f"node/{node['id']}", {"name": "theirs"})
    federation.work(1, capacity=0)
    assert [one["id"] for one in federation.root.get("node", status="online")["data"]] == [federation.node_ids[1]]
    assert [one["id"] for one in federation.root.get("node", status="offline")["data"]] == [federation.node_ids[2]]
    federation.root.delete(f"node/{node['id']}")
    federation.nodes[1].refused(401, "GET", "skerry/node/self")


def test_a_deleted_nodes_waiting_runs_are_taken_by_the_next(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    federation.root.delete(f"node/{federation.node_ids[2]}")
    federation.nodes[2] = federation.make_node(2)
    assert federation.claim()["node_id"] == federation.node_ids[2]


def test_a_deleted_nodes_running_runs_end(federation: Federation, researcher: Api) -> None:
    """Whoever waits for them hears of it; with the node its token died, so nobody else can end them."""
    task = federation.make_task(researcher)
    federation.claim()
    federation.root.delete(f"node/{federation.node_ids[2]}")
    [run] = researcher.get("run", task_id=task["id"])["data"]
    assert (run["status"], run["reason"]) == ("killed by user", "its node was deleted")


def test_a_node_is_deleted_that_runs_a_parent_and_its_child(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    parent = federation.claim()
    federation.as_run(parent).post("task", federation.task_body(2))
    [child] = federation.work(2, holding=[{"run": parent["run"], "attempt": 1}])["runs"]
    federation.root.delete(f"node/{federation.node_ids[2]}")
    ended = [researcher.get(f"run/{order['run']}")["status"] for order in (parent, child)]
    assert ended == ["killed by user", "killed by user"]


def test_a_removed_members_node_and_run_are_out(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    run = federation.as_run(federation.claim())
    path = f"collaboration/{federation.collaboration}/organization"
    federation.root.ok(federation.root.ask("DELETE", path, {"id": 2}))
    federation.nodes[2].refused(401, "POST", "skerry/node/work", {"capacity": 1, "wait": 0})
    run.refused(401, "GET", "organization", query_string={"collaboration_id": federation.collaboration})


def test_a_run_sees_its_own_node_only(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    run = federation.as_run(federation.claim())
    assert run.get(f"node/{federation.node_ids[2]}")["id"] == federation.node_ids[2]
    run.refused(401, "GET", f"node/{federation.node_ids[1]}")


def new_user(name: str, **more: Any) -> dict[str, Any]:
    about = {"username": name, "email": f"{name}@example.org", "password": PASSWORD}
    return {**about, "firstname": "A", "lastname": "B", **more}


def test_users(federation: Federation) -> None:
    made = federation.root.post("user", new_user("somebody", organization_id=2, roles=[federation.roles["Viewer"]]))
    assert "password" not in made
    assert made["otp_secret"] is None
    assert made["organization"]["id"] == 2
    federation.root.refused(400, "POST", "user", new_user("somebody"))
    federation.root.refused(400, "POST", "user", new_user("ab"))
    federation.root.refused(400, "POST", "user", new_user("1abc"))
    federation.root.refused(400, "POST", "user", new_user("weak-one", password="weak"))
    federation.root.refused(400, "POST", "user", new_user("somewhere", roles=[999]))
    federation.root.refused(404, "POST", "user", new_user("nowhere", organization_id=99))
    somebody = federation.log_in("somebody")
    assert somebody.get(f"user/{made['id']}", include_permissions=1)["permissions"]["roles"]
    assert somebody.patch(f"user/{made['id']}", {"firstname": "C", "username": "some.body"})["username"] == "some.body"
    somebody.refused(401, "PATCH", f"user/{made['id']}", {"roles": [federation.roles["Root"]]})
    somebody.refused(401, "PATCH", "user/1", {"firstname": "C"})
    somebody.refused(400, "PATCH", f"user/{made['id']}", {"password": PASSWORD})
    federation.root.refused(401, "PATCH", f"user/{made['id']}", {"username": "renamed"})
    roles = federation.root.get("role", user_id=made["id"])["data"]
    assert [role["name"] for role in roles] == ["Viewer"]
    somebody.delete(f"user/{made['id']}")
    federation.root.refused(404, "GET", f"user/{made['id']}")


def test_nobody_makes_themselves_or_others_more_than_they_are(federation: Federation) -> None:
    admin = federation.make_user("Organization Admin")
    for roles in (["Root"], ["Viewer", "Researcher"], ["Collaboration Admin"]):
        ids = [federation.roles[role] for role in roles]
        admin.refused(401, "POST", "user", new_user("helper", roles=ids))
    helper = admin.post("user", new_user("helper", roles=[federation.roles["Viewer"]]))
    rules = federation.root.get("rule", no_pagination=1, scope="global")["data"]
    admin.refused(401, "PATCH", f"user/{helper['id']}", {"rules": [rules[0]["id"]]})
    admin.refused(401, "POST", "role", {"name": "too much", "rules": [rules[0]["id"]]})
    admin.refused(401, "PATCH", "user/1", {"email": "mine@example.org"})
    admin.refused(401, "DELETE", "user/1")
    admin.refused(401, "POST", "user", new_user("abroad", organization_id=2))


def test_roles(federation: Federation) -> None:
    admin = federation.make_user("Organization Admin")
    rule = federation.root.get("rule", name="task", operation="VIEW", scope="collaboration")["data"][0]
    assert (rule["operation"], rule["scope"]) == ("VIEW", "COLLABORATION")
    role = admin.post("role", {"name": "watcher", "description": "watches", "rules": [rule["id"]]})
    assert (role["organization"]["id"], role["is_default_role"]) == (1, False)
    assert [one["id"] for one in federation.root.get("rule", role_id=role["id"])["data"]] == [rule["id"]]
    admin.refused(400, "POST", "role", {"name": "watcher", "rules": []})
    admin.refused(400, "POST", "role", {"name": "Root", "rules": []})
    abroad = federation.make_user("Organization Admin", 3)
    abroad.refused(401, "GET", f"role/{role['id']}")
    assert role["id"] not in [one["id"] for one in abroad.get("role", per_page=100)["data"]]
    own = federation.root.post("user", new_user("watching", organization_id=2))
    federation.root.refused(400, "PATCH", f"user/{own['id']}", {"roles": [role["id"]]})


def test_users_see_users(federation: Federation) -> None:
    federation.make_user("Viewer", 3)
    viewer = federation.make_user("Viewer", 2)
    assert {one["organization"]["id"] for one in viewer.get("user", per_page=100)["data"]} == {2}
    admin = federation.make_user("Collaboration Admin", 2)
    assert {one["organization"]["id"] for one in admin.get("user", per_page=100)["data"]} == {1, 2}
    viewer.refused(401, "GET", "user/1")


def test_without_rules_one_sees_oneself(federation: Federation) -> None:
    nobody = federation.make_user(None)
    me = nobody.post("token/user/validate")["user_id"]
    assert [one["id"] for one in nobody.get("user")["data"]] == [me]
    for path in ("task", "run", "result", "organization", "collaboration", "study", "node", "role"):
        assert nobody.get(path)["data"] == []


def test_facts(federation: Federation) -> None:
    assert federation.anybody.get("version")["version"]
    assert federation.anybody.get("health") == {"database": True}
    info = federation.anybody.get("skerry/info")
    assert set(info) == {"name", "version", "server_id", "time"}
    assert federation.root.get("blobstream/status") == {"blob_store_enabled": False}
    assert federation.client.get("/robots.txt").data.startswith(b"User-agent")
