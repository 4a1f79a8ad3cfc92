"""Every public member of vantage6's published user client: what is called, with what, and what comes of it.

Read a section from its top: what one step makes, the next ones use, see changed, and see gone. ``w`` is the tour's
world: the federation's facts, and the answers that earlier steps kept. All names end in ``w.tag``.
"""

import base64
import json
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from steps import Step as Call
from steps import has, rows, says

LACKING = {
    "4.7.1": {
        "check_if_blob_store_enabled",
        "wait_for_task_completion",
        "store.role.create",
        "store.role.edit",
        "store.role.delete",
    }
}
"""What a release's client does not have, of what the newest one has."""

LONG_AGO, LATER = "2020-01-01T00:00:00", "2100-01-01T00:00:00"
PASSWORD, CHANGED, RECOVERED = "Aa1-horse-battery", "Bb2-horse-battery", "Cc3-horse-battery"
NEVER = 2**31 - 1


def task(w, method, kwargs, organizations, image, **more):
    """Arguments of ``task.create``."""
    return {
        "organizations": organizations,
        "name": f"{method} {w.tag}",
        "image": image,
        "description": f"of the tour {w.tag}",
        "input_": {"method": method, "kwargs": kwargs},
        "collaboration": w.collaboration,
        **more,
    }


def nap(w, organization):
    """A task that lasts until somebody ends it."""
    return task(w, "sleep", {"seconds": 900}, [organization], w.probe)


def statuses(answer):
    return [row["status"] for row in answer["data"]]


def results(answer):
    return [json.loads(row["result"]) for row in answer["data"]]


def names(answer):
    return [row["name"] for row in answer["data"]]


SESSION = [
    Call(
        "authenticate",
        lambda w: {"username": "root", "password": "Wrong-1"},
        raises="Failed to authenticate",
        who="nobody",
    ),
    Call("authenticate", lambda w: w.login(0)),
    Call("authenticate", lambda w: w.login(1), who="researcher"),
    Call("name", check=lambda answer, w: answer == "Researcher", who="researcher"),
    Call("setup_encryption", lambda w: {"private_key_file": w.key_of(w.one)}),
    Call("setup_encryption", lambda w: {"private_key_file": w.key_of(w.one)}, who="researcher"),
    Call("host", check=lambda answer, w: w.url.startswith(f"{answer}:")),
    Call("port", check=lambda answer, w: w.url.endswith(f":{answer}")),
    Call("path", check=lambda answer, w: answer == "/api"),
    Call("base_path", check=lambda answer, w: answer == f"{w.url}/api"),
    Call(
        "generate_path_to",
        lambda w: {"endpoint": "task/1", "is_for_algorithm_store": False},
        lambda answer, w: answer == f"{w.url}/api/task/1",
    ),
    Call("token", check=lambda answer, w: answer.count(".") == 2, keep="token"),
    Call("headers", check=lambda answer, w: answer == {"Authorization": f"Bearer {w.token}"}),
    Call("refresh_token"),
    Call("token", check=lambda answer, w: answer.count(".") == 2 and answer != w.token),
    Call("request", lambda w: {"endpoint": "user/1"}, has(username="root")),
    Call("request", lambda w: {"endpoint": f"task/{NEVER}"}, says("no task")),
    Call("check_if_blob_store_enabled", check=lambda answer, w: answer is False),
    Call("util.get_server_version", lambda w: {"attempts_on_timeout": 3}, lambda answer, w: set(answer) == {"version"}),
    Call("util.get_server_health", check=lambda answer, w: answer == {"database": True}),
]

ORGANIZATIONS = [
    Call(
        "organization.create",
        lambda w: {
            "name": f"Island {w.tag}",
            "address1": "Quay 1",
            "address2": "Back door",
            "zipcode": "1234 AB",
            "country": f"NL-{w.tag}",
            "domain": "island.example.org",
        },
        has(address1="Quay 1", domain="island.example.org", public_key=""),
        keep="island",
    ),
    Call(
        "organization.create",
        lambda w: (
            dict.fromkeys(("address1", "address2", "zipcode", "country", "domain"), None) | {"name": f"Bare {w.tag}"}
        ),
        has(address1=None, country=None),
        keep="bare",
    ),
    Call(
        "organization.create",
        lambda w: (
            dict.fromkeys(("address1", "address2", "zipcode", "country", "domain"), "") | {"name": f"Bare {w.tag}"}
        ),
        says("already exists"),
    ),
    Call("organization.get", lambda w: {"id_": w.island["id"]}, lambda answer, w: answer == w.island),
    Call("organization.get", check=has(id=lambda w: w.one)),
    Call("organization.list", lambda w: {"name": f"%and {w.tag}"}, rows(lambda w: [w.island["id"]])),
    Call("organization.list", lambda w: {"country": f"NL-{w.tag}"}, rows(lambda w: [w.island["id"]])),
    Call("organization.list", lambda w: {"collaboration": w.collaboration}, rows(lambda w: w.organizations)),
    Call(
        "organization.list",
        lambda w: {"page": 2, "per_page": 1},
        lambda answer, w: len(answer["data"]) == 1 and {"first", "previous", "self", "next"} <= set(answer["links"]),
    ),
    Call("organization.list", lambda w: {"page": 10**5}, lambda answer, w: answer["data"] == []),
    Call(
        "organization.list",
        lambda w: {"name": f"% {w.tag}", "fields": ["name"]},
        lambda answer, w: answer == [{"name": f"Island {w.tag}"}, {"name": f"Bare {w.tag}"}],
    ),
    Call(
        "organization.list",
        lambda w: {"filter_": ("name", f"Bare {w.tag}"), "per_page": 500},
        lambda answer, w: [row["id"] for row in answer] == [w.bare["id"]],
    ),
    Call(
        "organization.update",
        lambda w: {"id_": w.island["id"], "name": f"Skerry {w.tag}", "zipcode": "4321"},
        has(zipcode="4321"),
    ),
    Call(
        "organization.get",
        lambda w: {"id_": w.island["id"], "fields": ["name", "zipcode", "country"]},
        lambda answer, w: answer == {"name": f"Skerry {w.tag}", "zipcode": "4321", "country": f"NL-{w.tag}"},
    ),
    Call("organization.update", lambda w: {"id_": w.two, "name": "mine now"}, says("permission"), who="researcher"),
    Call("organization.get", lambda w: {"id_": NEVER}, says("no organization")),
]

ROLES = [
    Call(
        "rule.list",
        lambda w: {"name": "task", "operation": "create", "scope": "collaboration"},
        lambda answer, w: (
            [(row["name"], row["operation"], row["scope"]) for row in answer["data"]]
            == [("task", "CREATE", "COLLABORATION")]
        ),
        keep="rules",
    ),
    Call(
        "rule.list",
        lambda w: {"name": "USER", "per_page": 100},
        lambda answer, w: {row["name"] for row in answer["data"]} == {"user"},
    ),
    Call("rule.get", lambda w: {"id_": w.rules["data"][0]["id"]}, lambda answer, w: answer == w.rules["data"][0]),
    Call(
        "rule.list",
        lambda w: {"name": "task", "operation": "view", "scope": "own"},
        lambda answer, w: len(answer["data"]) == 1,
        keep="own",
    ),
    Call(
        "role.create",
        lambda w: {
            "name": f"pilot {w.tag}",
            "description": "steers",
            "rules": [w.rules["data"][0]["id"]],
            "organization": w.island["id"],
        },
        has(description="steers", is_default_role=False),
        keep="pilot",
    ),
    Call(
        "role.create",
        lambda w: {"name": f"mate {w.tag}", "description": None, "rules": []},
        lambda answer, w: answer["organization"]["id"] == w.one,
        keep="mate",
    ),
    Call("role.get", lambda w: {"id_": w.pilot["id"]}, lambda answer, w: answer == w.pilot),
    Call("role.list", lambda w: {"name": f"pilot {w.tag}"}, rows(lambda w: [w.pilot["id"]])),
    Call(
        "role.list",
        lambda w: {"description": "steer%", "organization": w.island["id"]},
        rows(lambda w: [w.pilot["id"]]),
    ),
    Call(
        "role.list",
        lambda w: {"rule": w.rules["data"][0]["id"], "organization": w.island["id"]},
        rows(lambda w: [w.pilot["id"]]),
    ),
    Call(
        "role.list",
        lambda w: {"organization": w.island["id"], "include_root": True, "per_page": 100},
        lambda answer, w: {"Root", "Viewer", "Researcher", f"pilot {w.tag}"} <= set(names(answer)),
    ),
    Call("role.list", lambda w: {"user": 1}, lambda answer, w: names(answer) == ["Root"]),
    Call("rule.list", lambda w: {"role": w.pilot["id"]}, rows(lambda w: [w.rules["data"][0]["id"]])),
    Call("role.update", lambda w: {"role": w.pilot["id"], "name": f"captain {w.tag}"}, has(description="steers")),
    Call(
        "role.get",
        lambda w: {"id_": w.pilot["id"], "field": "name"},
        lambda answer, w: answer == {"name": f"captain {w.tag}"},
    ),
    Call("rule.list", lambda w: {"role": w.pilot["id"]}, rows(lambda w: [w.rules["data"][0]["id"]])),
    Call(
        "role.update",
        lambda w: {"role": w.pilot["id"], "rules": [w.own["data"][0]["id"]]},
        has(name=lambda w: f"captain {w.tag}"),
    ),
    Call("rule.list", lambda w: {"role": w.pilot["id"]}, rows(lambda w: [w.own["data"][0]["id"]])),
    Call(
        "role.list", lambda w: {"name": "Organization Admin"}, lambda answer, w: len(answer["data"]) == 1, keep="admins"
    ),
    Call("role.update", lambda w: {"role": w.admins["data"][0]["id"], "name": "mine"}, says("default role")),
]

USERS = [
    Call(
        "user.create",
        lambda w: {
            "username": f"ann-{w.tag}",
            "firstname": "Ann",
            "lastname": "Other",
            "password": PASSWORD,
            "email": f"ann-{w.tag}@example.org",
            "organization": w.island["id"],
            "roles": [w.admins["data"][0]["id"]],
            "rules": [w.rules["data"][0]["id"]],
        },
        has(firstname="Ann", lastname="Other", otp_secret=None),
        keep="ann",
    ),
    Call(
        "user.create",
        lambda w: {
            "username": f"bob-{w.tag}",
            "firstname": "Bob",
            "lastname": "Mate",
            "password": PASSWORD,
            "email": f"bob-{w.tag}@example.org",
        },
        lambda answer, w: answer["organization"]["id"] == w.one,
        keep="bob",
    ),
    Call(
        "user.create",
        lambda w: {
            "username": f"cee-{w.tag}",
            "firstname": "Cee",
            "lastname": "Weak",
            "password": "weak",
            "email": "cee@example.org",
        },
        says("too weak"),
    ),
    Call("user.get", lambda w: {"id_": w.ann["id"]}, lambda answer, w: answer == w.ann),
    Call("user.get", check=has(username="root")),
    Call("user.list", lambda w: {"username": f"ann-{w.tag}"}, rows(lambda w: [w.ann["id"]])),
    Call("user.list", lambda w: {"organization": w.island["id"]}, rows(lambda w: [w.ann["id"]])),
    Call(
        "user.list",
        lambda w: {"firstname": "An%", "lastname": "Oth_r", "email": f"%{w.tag}@example.org"},
        rows(lambda w: [w.ann["id"]]),
    ),
    Call(
        "user.list",
        lambda w: {"role": w.admins["data"][0]["id"], "organization": w.island["id"]},
        rows(lambda w: [w.ann["id"]]),
    ),
    Call(
        "user.list",
        lambda w: {"rule": w.rules["data"][0]["id"], "organization": w.island["id"]},
        rows(lambda w: [w.ann["id"]]),
    ),
    Call(
        "user.list",
        lambda w: {"last_seen_from": LONG_AGO, "last_seen_till": LATER, "username": "root"},
        rows(lambda w: [1]),
    ),
    Call("user.list", lambda w: {"last_seen_from": LATER}, rows(lambda w: [])),
    Call(
        "user.update",
        lambda w: {
            "id_": w.ann["id"],
            "firstname": "Anna",
            "email": f"anna-{w.tag}@example.org",
            "roles": [w.admins["data"][0]["id"], w.pilot["id"]],
            "rules": [],
        },
        has(firstname="Anna", lastname="Other"),
    ),
    Call(
        "user.get", lambda w: {"id_": w.ann["id"]}, has(firstname="Anna", email=lambda w: f"anna-{w.tag}@example.org")
    ),
    Call("role.list", lambda w: {"user": w.ann["id"]}, rows(lambda w: [w.admins["data"][0]["id"], w.pilot["id"]])),
    Call(
        "user.update",
        lambda w: {"id_": w.ann["id"], "organization": w.two},
        has(organization=lambda w: w.ann["organization"]),
    ),
    Call("user.update", lambda w: {"roles": []}, says("own roles")),
    Call("role.delete", lambda w: {"role": w.pilot["id"]}),
    Call("role.get", lambda w: {"id_": w.pilot["id"]}, has(name=lambda w: f"captain {w.tag}")),
    Call("role.delete", lambda w: {"role": w.mate["id"]}),
    Call("role.get", lambda w: {"id_": w.mate["id"]}, says("no role")),
]

PASSWORDS = [
    Call("authenticate", lambda w: {"username": f"ann-{w.tag}", "password": PASSWORD}, who="ann"),
    Call(
        "util.change_my_password",
        lambda w: {"current_password": PASSWORD, "new_password": CHANGED},
        says("changed"),
        who="ann",
    ),
    Call(
        "authenticate",
        lambda w: {"username": f"ann-{w.tag}", "password": PASSWORD},
        raises="Failed to authenticate",
        who="ann",
    ),
    Call("authenticate", lambda w: {"username": f"ann-{w.tag}", "password": CHANGED}, who="ann"),
    Call("util.reset_my_password", lambda w: {"username": f"ann-{w.tag}"}, says("email"), who="nobody"),
    Call(
        "util.set_my_password",
        lambda w: {"token": w.letter(f"anna-{w.tag}@example.org"), "password": RECOVERED},
        says("reset"),
        who="nobody",
    ),
    Call("authenticate", lambda w: {"username": f"ann-{w.tag}", "password": RECOVERED}, who="ann"),
    Call("util.reset_my_password", lambda w: {"email": f"bob-{w.tag}@example.org"}, says("email"), who="nobody"),
    Call(
        "util.set_my_password",
        lambda w: {"token": w.letter(f"bob-{w.tag}@example.org"), "password": RECOVERED},
        says("reset"),
        who="nobody",
    ),
    Call("authenticate", lambda w: {"username": f"bob-{w.tag}", "password": RECOVERED}, who="bob"),
    Call(
        "util.set_my_password",
        lambda w: {"token": w.letter(f"bob-{w.tag}@example.org"), "password": PASSWORD},
        says("Invalid recovery token"),
        who="bob",
    ),
    Call("util.generate_private_key", lambda w: {"file_": f"{w.folder}/{w.tag}.pem"}, who="ann"),
    Call(
        "organization.get",
        lambda w: {"id_": w.island["id"]},
        lambda answer, w: base64.b64decode(answer["public_key"]) == public_key(f"{w.folder}/{w.tag}.pem"),
    ),
    Call("user.delete", lambda w: {"id_": w.bob["id"]}),
    Call("user.get", lambda w: {"id_": w.bob["id"]}, says("no user")),
]


def public_key(path):
    key = serialization.load_pem_private_key(Path(path).read_bytes(), None).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


SECOND_FACTOR = [
    Call("authenticate", lambda w: w.guarded, lambda answer, w: w.keep_secret(), who="guarded"),
    Call("authenticate", lambda w: w.guarded, raises="two-factor", who="guarded"),
    Call("authenticate", lambda w: w.guarded | {"mfa_code": "12"}, raises="Failed to authenticate", who="guarded"),
    Call("authenticate", lambda w: w.guarded | {"mfa_code": w.code()}, who="guarded"),
    Call("user.get", check=has(username=lambda w: w.guarded["username"]), who="guarded"),
    Call(
        "util.reset_two_factor_auth",
        lambda w: {"password": "Wrong-1", "username": w.guarded["username"]},
        says("Failed"),
        who="guarded",
    ),
    Call("util.reset_two_factor_auth", lambda w: w.guarded, says("email"), who="guarded"),
    Call(
        "util.set_two_factor_auth",
        lambda w: {"token": w.letter(f"{w.guarded['username']}@localhost")},
        lambda answer, w: (
            w.keep_secret() and w.secret == answer["otp_secret"] and answer["otp_secret"] in answer["qr_uri"]
        ),
        who="guarded",
    ),
    Call("authenticate", lambda w: w.guarded | {"mfa_code": w.code()}, who="guarded again"),
    Call("user.get", check=has(username=lambda w: w.guarded["username"]), who="guarded again"),
]

COLLABORATIONS = [
    Call(
        "collaboration.create",
        lambda w: {"name": f"Reef {w.tag}", "organizations": [w.one, w.island["id"]]},
        has(encrypted=False),
        keep="reef",
    ),
    Call("collaboration.get", lambda w: {"id_": w.reef["id"]}, lambda answer, w: answer == w.reef),
    Call("collaboration.list", lambda w: {"name": f"Reef {w.tag}"}, rows(lambda w: [w.reef["id"]])),
    Call("collaboration.list", lambda w: {"name": f"Reef {w.tag}", "encrypted": False}, rows(lambda w: [w.reef["id"]])),
    Call("collaboration.list", lambda w: {"name": f"Reef {w.tag}", "encrypted": True}, rows(lambda w: [])),
    Call(
        "collaboration.list",
        lambda w: {"scope": "global", "organization": w.island["id"]},
        rows(lambda w: [w.reef["id"]]),
    ),
    Call(
        "collaboration.list",
        lambda w: {"scope": "global", "page": 1, "per_page": 1},
        lambda answer, w: len(answer["data"]) == 1 and "next" in answer["links"],
    ),
    Call("collaboration.list", check=rows(lambda w: [w.collaboration]), who="researcher of two"),
    Call("collaboration.update", lambda w: {"id_": w.reef["id"], "name": f"Atoll {w.tag}"}, has(encrypted=False)),
    Call(
        "collaboration.update",
        lambda w: {"id_": w.reef["id"], "organizations": [w.one, w.two, w.island["id"]]},
        has(name=lambda w: f"Atoll {w.tag}"),
    ),
    Call(
        "organization.list", lambda w: {"collaboration": w.reef["id"]}, rows(lambda w: [w.one, w.two, w.island["id"]])
    ),
    Call(
        "collaboration.add_organization",
        lambda w: {"organization": w.bare["id"], "collaboration": w.reef["id"]},
        rows(lambda w: [w.one, w.two, w.island["id"], w.bare["id"]]),
    ),
    Call(
        "collaboration.remove_organization",
        lambda w: {"organization": w.two, "collaboration": w.reef["id"]},
        rows(lambda w: [w.one, w.island["id"], w.bare["id"]]),
    ),
    Call(
        "collaboration.create",
        lambda w: {"name": "not theirs", "organizations": []},
        says("permission"),
        who="researcher",
    ),
    Call("setup_collaboration", lambda w: {"collaboration_id": w.reef["id"]}, who="settled"),
    Call(
        "collaboration.update",
        lambda w: {"encrypted": True},
        has(id=lambda w: w.reef["id"], encrypted=True),
        who="settled",
    ),
    Call("collaboration.update", lambda w: {"encrypted": False}, has(encrypted=False), who="settled"),
]

STUDIES = [
    Call(
        "study.create",
        lambda w: {"name": f"Tides {w.tag}", "organizations": [w.one], "collaboration": w.reef["id"]},
        lambda answer, w: [one["id"] for one in answer["organizations"]] == [w.one],
        keep="tides",
    ),
    Call(
        "study.get",
        lambda w: {"id_": w.tides["id"]},
        has(name=lambda w: f"Tides {w.tag}", collaboration=lambda w: w.tides["collaboration"]),
    ),
    Call("study.list", lambda w: {"name": f"Tides {w.tag}"}, rows(lambda w: [w.tides["id"]])),
    Call("study.list", lambda w: {"organization": w.one, "name": f"% {w.tag}"}, rows(lambda w: [w.tides["id"]])),
    Call(
        "study.list",
        lambda w: {"name": f"Tides {w.tag}", "include_organizations": True} | w.if_newest(collaboration=w.reef["id"]),
        lambda answer, w: [one["id"] for one in answer["data"][0]["organizations"]] == [w.one],
    ),
    Call(
        "study.update", lambda w: {"id_": w.tides["id"], "name": f"Currents {w.tag}"}, has(id=lambda w: w.tides["id"])
    ),
    Call(
        "study.update",
        lambda w: {"id_": w.tides["id"], "organizations": [w.one, w.bare["id"]]},
        has(name=lambda w: f"Currents {w.tag}"),
    ),
    Call("organization.list", lambda w: {"study": w.tides["id"]}, rows(lambda w: [w.one, w.bare["id"]])),
    Call(
        "study.add_organization",
        lambda w: {"organization": w.island["id"], "study": w.tides["id"]},
        rows(lambda w: [w.one, w.bare["id"], w.island["id"]]),
    ),
    Call(
        "study.add_organization",
        lambda w: {"organization": w.two, "study": w.tides["id"]},
        says("not in collaboration"),
    ),
    Call(
        "study.remove_organization",
        lambda w: {"organization": w.bare["id"], "study": w.tides["id"]},
        rows(lambda w: [w.one, w.island["id"]]),
    ),
    Call(
        "study.create",
        lambda w: {"name": f"Waves {w.tag}", "organizations": [], "collaboration": w.reef["id"]},
        has(name=lambda w: f"Waves {w.tag}"),
        keep="waves",
    ),
    Call("study.delete", lambda w: {"id_": w.waves["id"]}),
    Call("study.get", lambda w: {"id_": w.waves["id"]}, says("no study")),
    Call(
        "study.create",
        lambda w: {"name": f"Half {w.tag}", "organizations": [w.one], "collaboration": w.collaboration},
        has(name=lambda w: f"Half {w.tag}"),
        keep="half",
    ),
]

NODES = [
    Call("node.list", lambda w: {"collaboration": w.collaboration}, rows(lambda w: w.nodes)),
    Call("node.list", lambda w: {"is_online": True}, rows(lambda w: w.nodes)),
    Call(
        "node.create",
        lambda w: {"collaboration": w.reef["id"], "organization": w.island["id"], "name": f"buoy {w.tag}"},
        has(status="offline"),
        keep="buoy",
    ),
    Call(
        "node.create",
        lambda w: {},
        has(name=lambda w: f"organization 1 - Atoll {w.tag} Node"),
        keep="second",
        who="settled",
    ),
    Call("node.list", check=rows(lambda w: [w.buoy["id"], w.second["id"]]), who="settled"),
    Call(
        "request",
        lambda w: {"endpoint": "token/node", "method": "post", "json": {"api_key": w.buoy["api_key"]}},
        lambda answer, w: answer["node_url"] == f"/api/node/{w.buoy['id']}",
    ),
    Call(
        "node.get",
        lambda w: {"id_": w.buoy["id"]},
        lambda answer, w: answer == {key: value for key, value in w.buoy.items() if key != "api_key"},
    ),
    Call("node.list", lambda w: {"name": f"buoy {w.tag}"}, rows(lambda w: [w.buoy["id"]])),
    Call("node.list", lambda w: {"organization": w.island["id"], "is_online": False}, rows(lambda w: [w.buoy["id"]])),
    Call(
        "node.list",
        lambda w: {"study": w.half["id"]},
        lambda answer, w: [row["organization"]["id"] for row in answer["data"]] == [w.one],
    ),
    Call("node.list", lambda w: {"last_seen_from": LONG_AGO, "last_seen_till": LATER}, rows(lambda w: w.nodes)),
    Call("node.list", lambda w: {"last_seen_till": LONG_AGO}, rows(lambda w: [])),
    Call("node.list", lambda w: {"ip": "192.0.2.1"}, rows(lambda w: [])),
    Call(
        "request",
        lambda w: {"endpoint": f"node/{w.buoy['id']}", "method": "patch", "json": {"ip": "192.0.2.1"}},
        has(ip="192.0.2.1"),
    ),
    Call("node.list", lambda w: {"ip": "192.0.2.1"}, rows(lambda w: [w.buoy["id"]])),
    Call("node.update", lambda w: {"id_": w.buoy["id"], "name": f"light {w.tag}"}, has(ip="192.0.2.1")),
    Call(
        "node.update", lambda w: {"id_": w.buoy["id"], "clear_ip": True}, has(name=lambda w: f"light {w.tag}", ip=None)
    ),
    Call("node.kill_tasks", lambda w: {"id_": w.buoy["id"]}, says("offline")),
    Call("node.delete", lambda w: {"id_": w.buoy["id"]}),
    Call("node.get", lambda w: {"id_": w.buoy["id"]}, says("no node")),
]

STORES = [
    Call(
        "store.create",
        lambda w: {"algorithm_store_url": w.store_url, "name": f"Shop {w.tag}", "collaboration": w.collaboration},
        says("force"),
    ),
    Call(
        "store.create",
        lambda w: {
            "algorithm_store_url": "http://127.0.0.2:9/api",
            "name": "none",
            "collaboration": w.collaboration,
            "force": True,
        },
        says("allow"),
    ),
    Call(
        "store.create",
        lambda w: {
            "algorithm_store_url": w.store_url,
            "name": f"Shop {w.tag}",
            "collaboration": w.collaboration,
            "force": True,
        },
        lambda answer, w: [one["id"] for one in answer["collaborations"]] == [w.collaboration],
        keep="shop",
    ),
    Call("store.get", lambda w: {"id_": w.shop["id"]}, lambda answer, w: answer == w.shop),
    Call("store.list", lambda w: {"name": f"Shop {w.tag}"}, rows(lambda w: [w.shop["id"]])),
    Call(
        "store.list", lambda w: {"url": w.store_url, "collaboration": w.collaboration}, rows(lambda w: [w.shop["id"]])
    ),
    Call("store.list", lambda w: {"collaboration": w.reef["id"]}, rows(lambda w: [])),
    Call(
        "collaboration.list",
        lambda w: {"scope": "global", "algorithm_store": w.shop["id"]},
        rows(lambda w: [w.collaboration]),
    ),
    Call(
        "store.update",
        lambda w: {"id_": w.shop["id"], "name": f"Stall {w.tag}"},
        has(collaborations=lambda w: w.shop["collaborations"]),
    ),
    Call(
        "store.update",
        lambda w: {"id_": w.shop["id"], "all_collaborations": True},
        has(name=lambda w: f"Stall {w.tag}", collaborations=[]),
    ),
    Call("store.list", lambda w: {"collaboration": w.reef["id"]}, rows(lambda w: [w.shop["id"]])),
    Call(
        "store.update",
        lambda w: {"id_": w.shop["id"], "collaboration": w.collaboration},
        has(collaborations=lambda w: w.shop["collaborations"]),
    ),
    Call("store.list", lambda w: {"collaboration": w.reef["id"]}, rows(lambda w: [])),
    Call("store.set", lambda w: {"id_": w.shop["id"]}, has(id=lambda w: w.shop["id"])),
    Call("store.policy.get", lambda w: {"public": True}, has(algorithm_view="public")),
    Call("store.policy.get", check=has(asked_by="root")),
    Call("store.rule.list", lambda w: {"operation": "edit"}, rows(lambda w: [2])),
    Call("store.role.list", lambda w: {"name": "Reviewer"}, rows(lambda w: [1])),
    Call(
        "store.role.create",
        lambda w: {"name": f"critic {w.tag}", "description": "reads", "rules": [1]},
        has(rules=[1]),
        keep="critic",
    ),
    Call(
        "store.role.edit",
        lambda w: {"role_id": w.critic["id"], "rules": [1, 2]},
        has(rules=[1, 2], description="reads"),
    ),
    Call("store.role.delete", lambda w: {"role_id": w.critic["id"]}),
    Call("store.role.list", lambda w: {"name": f"critic {w.tag}"}, rows(lambda w: [])),
    Call("store.user.register", lambda w: {"username": f"root {w.tag}", "roles": [1]}, has(roles=[1]), keep="reviewer"),
    Call("store.user.get", lambda w: {"id_": w.reviewer["id"]}, has(username=lambda w: f"root {w.tag}")),
    Call("store.user.update", lambda w: {"id_": w.reviewer["id"], "roles": []}, has(roles=[])),
    Call(
        "store.user.list",
        lambda w: {"username": f"root {w.tag}"},
        lambda answer, w: [row["roles"] for row in answer["data"]] == [[]],
    ),
    Call(
        "algorithm.create",
        lambda w: {
            "name": f"mean {w.tag}",
            "description": "a mean",
            "image": f"example.org/mean:{w.tag}",
            "partitioning": "horizontal",
            "vantage6_version": "4.15.2",
            "code_url": "https://example.org",
            "functions": [{"name": "mean", "type": "central", "databases": [], "arguments": []}],
        },
        has(status="awaiting reviewer assignment"),
        keep="algorithm",
    ),
    Call("algorithm.get", lambda w: {"id_": w.algorithm["id"]}, lambda answer, w: answer == w.algorithm),
    Call(
        "algorithm.list",
        lambda w: {"name": f"mean {w.tag}", "partitioning": "horizontal"},
        rows(lambda w: [w.algorithm["id"]]),
    ),
    Call(
        "algorithm.update",
        lambda w: {"id_": w.algorithm["id"], "description": "the mean"},
        has(description="the mean", image=lambda w: f"example.org/mean:{w.tag}"),
    ),
    Call(
        "store.review.create",
        lambda w: {"algorithm": w.algorithm["id"], "reviewer": w.reviewer["id"]},
        has(status="under review"),
        keep="review",
    ),
    Call("store.review.get", lambda w: {"id_": w.review["id"]}, has(algorithm_id=lambda w: w.algorithm["id"])),
    Call(
        "store.review.approve",
        lambda w: {"id_": w.review["id"], "comment": "fine"},
        has(status="approved", comment="fine"),
    ),
    Call("store.review.reject", lambda w: {"id_": w.review["id"]}, has(status="rejected")),
    Call("store.review.list", lambda w: {"algorithm": w.algorithm["id"]}, rows(lambda w: ["rejected"], by="status")),
    Call("store.review.delete", lambda w: {"id_": w.review["id"]}),
    Call("store.review.get", lambda w: {"id_": w.review["id"]}, says("no review")),
    Call("algorithm.invalidate", lambda w: {"id_": w.algorithm["id"]}, has(status="removed")),
    Call(
        "algorithm.list", lambda w: {"name": f"mean {w.tag}", "invalidated": True}, rows(lambda w: [w.algorithm["id"]])
    ),
    Call("algorithm.delete", lambda w: {"id_": w.algorithm["id"]}),
    Call("algorithm.get", lambda w: {"id_": w.algorithm["id"]}, says("no algorithm")),
    Call("store.user.delete", lambda w: {"id_": w.reviewer["id"]}),
    Call("store.user.get", lambda w: {"id_": w.reviewer["id"]}, says("no user")),
]


def mean(w, **more):
    return task(w, "mean", {"column": "age"}, [w.one], w.average, databases=[{"label": "default"}], **more)


def of_the_mean(**arguments):
    """The ways to find the one task of the researcher."""
    return lambda w: (
        {name: value(w) if callable(value) else value for name, value in arguments.items()} | {"name": f"mean {w.tag}"}
    )


ONLY_THE_MEAN = rows(lambda w: [w.mean["id"]])

TASKS = [
    Call(
        "task.create",
        mean,
        has(status="pending", parent=None, description=lambda w: f"of the tour {w.tag}"),
        who="researcher",
        keep="mean",
    ),
    Call(
        "wait_for_results",
        lambda w: {"task_id": w.mean["id"]},
        lambda answer, w: results(answer) == [{"mean": 34.5}],
        who="researcher",
    ),
    Call(
        "wait_for_task_completion",
        lambda w: {"request_func": w.client("researcher").request, "task_id": w.mean["id"], "log_animation": False},
        who="researcher",
    ),
    Call(
        "task.get",
        lambda w: {"id_": w.mean["id"]},
        has(status="completed", image=lambda w: w.average),
        who="researcher",
    ),
    Call(
        "task.get",
        lambda w: {"id_": w.mean["id"], "include_results": True},
        lambda answer, w: len(answer["results"]) == 1 and bool(answer["results"][0]["result"]),
    ),
    Call(
        "task.get",
        lambda w: {"id_": w.mean["id"]},
        lambda answer, w: (
            json.loads(answer["databases"][0]["parameters"]) == {} and answer["databases"][0]["label"] == "default"
        ),
    ),
    Call(
        "run.from_task",
        lambda w: {"task_id": w.mean["id"]},
        lambda answer, w: json.loads(answer["data"][0]["input"])["method"] == "mean",
        who="researcher",
        keep="runs",
    ),
    Call(
        "run.from_task",
        lambda w: {"task_id": w.mean["id"], "include_task": True},
        lambda answer, w: answer["data"][0]["task"]["name"] == f"mean {w.tag}",
        who="researcher",
    ),
    Call(
        "run.get",
        lambda w: {"id_": w.run},
        lambda answer, w: (
            json.loads(answer["input"])["kwargs"] == {"column": "age"} and answer["status"] == "completed"
        ),
        who="researcher",
    ),
    Call(
        "run.get",
        lambda w: {"id_": w.run, "include_task": True},
        lambda answer, w: answer["task"]["id"] == w.mean["id"],
        who="researcher",
    ),
    Call(
        "request",
        lambda w: {"endpoint": f"run/{w.run}"},
        lambda answer, w: (
            (b"column" in base64.b64decode(answer["input"])) if not w.encrypted else answer["input"].count("$") == 2
        ),
    ),
    Call(
        "request",
        lambda w: {"endpoint": f"result/{w.run}"},
        lambda answer, w: (
            (b"34.5" in base64.b64decode(answer["result"])) if not w.encrypted else answer["result"].count("$") == 2
        ),
    ),
    Call(
        "result.get", lambda w: {"id_": w.run}, lambda answer, w: json.loads(answer) == {"mean": 34.5}, who="researcher"
    ),
    Call(
        "result.from_task",
        lambda w: {"task_id": w.mean["id"]},
        lambda answer, w: results(answer) == [{"mean": 34.5}],
        who="researcher",
    ),
    Call("task.list", of_the_mean(), ONLY_THE_MEAN),
    Call(
        "task.list", of_the_mean(initiating_org=lambda w: w.one, initiating_user=lambda w: w.researcher), ONLY_THE_MEAN
    ),
    Call("task.list", of_the_mean(initiating_user=1), rows(lambda w: [])),
    Call("task.list", of_the_mean(collaboration=lambda w: w.collaboration), ONLY_THE_MEAN),
    Call("task.list", of_the_mean(collaboration=lambda w: w.reef["id"]), rows(lambda w: [])),
    Call("task.list", of_the_mean(study=lambda w: w.half["id"]), rows(lambda w: [])),
    Call(
        "task.list",
        of_the_mean(image=lambda w: w.average, description="of the tour%", database="default"),
        ONLY_THE_MEAN,
    ),
    Call("task.list", of_the_mean(database="other"), rows(lambda w: [])),
    Call("task.list", of_the_mean(job=lambda w: w.mean["job_id"], user_created=True), ONLY_THE_MEAN),
    Call("task.list", of_the_mean(run=lambda w: w.run, status="completed"), ONLY_THE_MEAN),
    Call("task.list", of_the_mean(status="failed"), rows(lambda w: [])),
    Call(
        "task.list", of_the_mean(include_results=True), lambda answer, w: answer["data"][0]["results"][0]["id"] == w.run
    ),
    Call(
        "task.list",
        lambda w: {"page": 1, "per_page": 1},
        lambda answer, w: len(answer["data"]) == 1 and "next" in answer["links"],
    ),
    Call(
        "task.list",
        lambda w: {"parent": w.mean["id"], "user_created": False},
        lambda answer, w: [row["job_id"] for row in answer["data"]] == [w.mean["job_id"]],
        keep="children",
    ),
    Call(
        "run.from_task",
        lambda w: {"task_id": w.children["data"][0]["id"]},
        lambda answer, w: (
            sorted(row["organization"]["id"] for row in answer["data"]) == w.organizations
            and statuses(answer) == ["completed"] * 2
        ),
    ),
    Call(
        "run.list",
        lambda w: {"task": w.children["data"][0]["id"], "organization": w.two},
        lambda answer, w: statuses(answer) == ["completed"],
    ),
    Call(
        "run.list",
        lambda w: {"task": w.mean["id"], "include_task": True},
        lambda answer, w: answer["data"][0]["task"]["name"] == f"mean {w.tag}",
    ),
    Call(
        "run.list",
        lambda w: {"task": w.mean["id"], "node": w.nodes[0], "page": 1, "per_page": 5},
        rows(lambda w: [w.run]),
    ),
    Call("run.list", lambda w: {"task": w.mean["id"], "node": w.nodes[1]}, rows(lambda w: [])),
    Call("run.list", lambda w: {"task": w.mean["id"], "state": "open"}, rows(lambda w: [])),
    Call("run.list", lambda w: {"task": w.mean["id"], "port": 1}, rows(lambda w: [])),
    Call(
        "run.list",
        lambda w: dict.fromkeys(("started", "assigned", "finished"), (LONG_AGO, LATER)) | {"task": w.mean["id"]},
        rows(lambda w: [w.run]),
    ),
    Call("run.list", lambda w: {"task": w.mean["id"], "started": (LATER, None)}, rows(lambda w: [])),
    Call("run.list", lambda w: {"task": w.mean["id"], "assigned": (None, LONG_AGO)}, rows(lambda w: [])),
    Call("run.list", lambda w: {"task": w.mean["id"], "finished": (LATER, LATER)}, rows(lambda w: [])),
    Call(
        "task.create",
        lambda w: task(w, "noop", {}, [w.one], w.probe, collaboration=None, study=w.half["id"], description=None),
        lambda answer, w: answer["study"]["id"] == w.half["id"] and answer["description"] is None,
        keep="studied",
    ),
    Call("wait_for_results", lambda w: {"task_id": w.studied["id"]}, lambda answer, w: results(answer) == [{}]),
    Call("task.list", lambda w: {"study": w.half["id"]}, rows(lambda w: [w.studied["id"]])),
    Call("task.create", lambda w: task(w, "noop", {}, [w.two], w.probe, study=w.half["id"]), says("study")),
    Call(
        "task.create",
        lambda w: task(w, "noop", {}, [w.one], w.probe, store=w.shop["id"], **w.if_newest(server_url=f"{w.url}/api")),
        lambda answer, w: answer["algorithm_store"]["id"] == w.shop["id"] and answer["image"] == w.probe,
        keep="bought",
    ),
    Call("wait_for_results", lambda w: {"task_id": w.bought["id"]}, lambda answer, w: results(answer) == [{}]),
    Call("task.list", lambda w: {"store": w.shop["id"]}, rows(lambda w: [w.studied["id"], w.bought["id"]])),
    Call(
        "task.create",
        lambda w: task(w, "noop", {}, [w.one], "example.org/pinned", store=w.shop["id"]),
        has(image=f"example.org/pinned@sha256:{'ab' * 32}"),
        keep="pinned",
    ),
    Call(
        "task.create",
        lambda w: task(w, "noop", {}, [w.one], "example.org/unheard-of", store=w.shop["id"]),
        says("does not list"),
    ),
    Call(
        "task.create",
        lambda w: task(
            w, "noop", {}, [w.one], "example.org/closed", store=w.shop["id"], **w.if_newest(server_url=f"{w.url}/api")
        ),
        lambda answer, w: (
            answer["image"].startswith("example.org/closed@sha256:") if w.newest else "does not list" in answer["msg"]
        ),
    ),
    Call("task.delete", lambda w: {"id_": w.pinned["id"]}),
    Call("task.get", lambda w: {"id_": w.pinned["id"]}, says("no task")),
    Call(
        "task.create",
        lambda w: task(w, "echo", {"value": w.tag}, [w.one], w.probe),
        keep="first",
        check=has(name=lambda w: f"echo {w.tag}"),
        who="settled here",
    ),
    Call(
        "wait_for_results",
        lambda w: {"task_id": w.first["id"]},
        lambda answer, w: results(answer) == [w.tag],
        who="settled here",
    ),
]

ENDS = [
    Call("task.create", lambda w: nap(w, w.one), has(status="pending"), who="researcher", keep="nap"),
    Call(
        "run.from_task",
        lambda w: {"task_id": w.nap["id"]},
        lambda answer, w: statuses(answer) == ["active"],
        who="researcher",
        eventually=True,
    ),
    Call(
        "run.list", lambda w: {"task": w.nap["id"], "state": "open"}, lambda answer, w: statuses(answer) == ["active"]
    ),
    Call("task.kill", lambda w: {"id_": w.nap["id"]}, who="researcher of two"),
    Call("task.get", lambda w: {"id_": w.nap["id"]}, has(status="active")),
    Call("task.kill", lambda w: {"id_": w.nap["id"]}, who="researcher"),
    Call("task.get", lambda w: {"id_": w.nap["id"]}, has(status="killed by user")),
    Call("run.from_task", lambda w: {"task_id": w.nap["id"]}, lambda answer, w: statuses(answer) == ["killed by user"]),
    Call(
        "request",
        lambda w: {"endpoint": "kill/task", "method": "post", "json": {"id": w.nap["id"]}},
        says("already finished"),
    ),
    Call("task.create", lambda w: nap(w, w.two), has(status="pending"), keep="other"),
    Call(
        "run.from_task",
        lambda w: {"task_id": w.other["id"]},
        lambda answer, w: statuses(answer) == ["active"],
        eventually=True,
    ),
    Call("node.kill_tasks", lambda w: {"id_": w.nodes[1]}, says("permission"), who="researcher"),
    Call("node.kill_tasks", lambda w: {"id_": w.nodes[1]}, says("killed")),
    Call(
        "run.from_task", lambda w: {"task_id": w.other["id"]}, lambda answer, w: statuses(answer) == ["killed by user"]
    ),
    Call("task.delete", lambda w: {"id_": w.mean["id"]}, who="researcher of two"),
    Call("task.get", lambda w: {"id_": w.mean["id"]}, has(status="completed")),
    Call("task.delete", lambda w: {"id_": w.mean["id"]}, who="researcher"),
    Call("task.get", lambda w: {"id_": w.mean["id"]}, says("no task")),
    Call("run.get", lambda w: {"id_": w.run} | w.if_newest(decrypt_input=False), says("no run")),
    Call("task.get", lambda w: {"id_": w.children["data"][0]["id"]}, says("no task")),
]

FISH = range(12)

CROWD = [
    *(
        Call(
            "organization.create",
            lambda w, n=n: (
                dict.fromkeys(("address1", "address2", "zipcode", "country", "domain")) | {"name": f"Fish {n} {w.tag}"}
            ),
            has(name=lambda w, n=n: f"Fish {n} {w.tag}"),
            keep=f"fish{n}",
        )
        for n in FISH
    ),
    Call(
        "collaboration.create",
        lambda w: {"name": f"Shoal {w.tag}", "organizations": fish(w)},
        has(encrypted=False),
        keep="shoal",
    ),
    *(
        Call(
            "node.create",
            lambda w, n=n: {"collaboration": w.shoal["id"], "organization": fish(w)[n]},
            lambda answer, w, n=n: answer["organization"]["id"] == fish(w)[n],
        )
        for n in FISH
    ),
    Call(
        "node.list",
        lambda w: {"collaboration": w.shoal["id"], "per_page": 5},
        lambda answer, w: len(answer["data"]) == 5 and answer["links"]["last"].endswith("page=3"),
    ),
    Call(
        "collaboration.add_organization",
        lambda w: {"organization": w.one, "collaboration": w.shoal["id"]},
        rows(lambda w: [w.one, *fish(w)]),
    ),
    Call(
        "task.create",
        lambda w: task(w, "noop", {}, fish(w), w.probe, collaboration=w.shoal["id"]),
        has(status="pending"),
        who="settled",
        keep="many",
    ),
    Call(
        "run.from_task",
        lambda w: {"task_id": w.many["id"]},
        lambda answer, w: sorted(row["organization"]["id"] for row in answer["data"]) == fish(w),
        who="settled",
    ),
    Call(
        "result.from_task",
        lambda w: {"task_id": w.many["id"]},
        lambda answer, w: len(answer["data"]) == len(FISH),
        who="settled",
    ),
    Call("collaboration.delete", lambda w: {"id_": w.shoal["id"], "delete_dependents": True}),
    Call("task.get", lambda w: {"id_": w.many["id"]}, says("no task")),
    *(Call("organization.delete", lambda w, n=n: {"id_": fish(w)[n]}) for n in FISH),
    Call("organization.list", lambda w: {"name": f"Fish % {w.tag}"}, rows(lambda w: [])),
]
"""More organizations than a page has rows: the client never looks at the links."""


def fish(w):
    return [getattr(w, f"fish{n}")["id"] for n in FISH]


LEAVING = [
    Call("store.delete", lambda w: {"id_": w.shop["id"]}),
    Call("store.get", lambda w: {"id_": w.shop["id"]}, says("no algorithm store")),
    Call("task.get", lambda w: {"id_": w.bought["id"]}, has(algorithm_store=None)),
    Call("study.delete", lambda w: {"id_": w.half["id"]}),
    Call("task.get", lambda w: {"id_": w.studied["id"]}, has(study=None)),
    Call("collaboration.delete", lambda w: {"id_": w.reef["id"]}),
    Call("collaboration.get", lambda w: {"id_": w.reef["id"]}, has(name=lambda w: f"Atoll {w.tag}")),
    Call("study.get", lambda w: {"id_": w.tides["id"]}, has(name=lambda w: f"Currents {w.tag}")),
    Call("collaboration.delete", lambda w: {"id_": w.reef["id"], "delete_dependents": True}),
    Call("collaboration.get", lambda w: {"id_": w.reef["id"]}, says("no collaboration")),
    Call("study.get", lambda w: {"id_": w.tides["id"]}, says("no study")),
    Call("node.get", lambda w: {"id_": w.second["id"]}, says("no node")),
    Call("organization.delete", lambda w: {"id_": w.island["id"]}),
    Call("organization.get", lambda w: {"id_": w.island["id"]}, has(name=lambda w: f"Skerry {w.tag}")),
    Call("user.get", lambda w: {"id_": w.ann["id"]}, has(firstname="Anna")),
    Call("organization.delete", lambda w: {"id_": w.island["id"], "delete_dependents": True}),
    Call("organization.get", lambda w: {"id_": w.island["id"]}, says("no organization")),
    Call("user.get", lambda w: {"id_": w.ann["id"]}, says("no user")),
    Call("organization.delete", lambda w: {"id_": w.bare["id"]}),
    Call("organization.get", lambda w: {"id_": w.bare["id"]}, says("no organization")),
]

CALLS = [
    *SESSION, *ORGANIZATIONS, *ROLES, *USERS, *PASSWORDS, *SECOND_FACTOR, *COLLABORATIONS, *STUDIES, *NODES, *STORES,
    *TASKS, *ENDS, *CROWD, *LEAVING,
]  # fmt: skip
