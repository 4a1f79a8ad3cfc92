"""What went wrong elsewhere: one test for each published advisory that concerns a server and its tokens."""

from __future__ import annotations

import base64
import pickle
from typing import Any

import jwt
import pytest
from server_federation import PASSWORD, SECRET, Api, Clock, Federation, make_settings

from skerry.errors import ConfigurationError
from skerry_server import passwords
from skerry_server.settings import jwt_secret

pytestmark = pytest.mark.unit


class _Planted:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("it was unpickled",))


def test_cve_2023_23930_pickled_input_is_refused_and_never_opened(federation: Federation) -> None:
    text = base64.b64encode(pickle.dumps(_Planted())).decode()
    body = federation.task_body(organizations=[{"id": 2, "input": text}])
    assert "UTF-8" in federation.make_user().refused(400, "POST", "task", body)


@pytest.mark.parametrize("path", ["organization/1", "collaboration/1", "role/1"])
def test_cve_2023_28635_no_name_becomes_a_number(federation: Federation, path: str) -> None:
    federation.root.refused(400, "PATCH", path, {"name": "2"})


def test_cve_2023_41882_what_hangs_on_a_thing_has_a_rule_of_its_own(federation: Federation) -> None:
    federation.make_task(federation.make_user("Researcher", 2), 2)
    stranger = federation.make_user("Viewer", 3)
    for path in ("run", "node", "study"):
        assert stranger.get(path, collaboration_id=federation.collaboration)["data"] == []
    stranger.refused(401, "GET", "task", query_string={"collaboration_id": federation.collaboration})
    for path in ("task/1", "task/1?include=runs,results", "task/1/status", "run/1", "run/1?include=task", "result/1"):
        stranger.refused(401, "GET", path)
    viewer = federation.make_user("Viewer")
    for path in (
        f"collaboration/{federation.collaboration}/organization",
        f"collaboration/{federation.collaboration}/node",
    ):
        viewer.refused(401, "POST", path, {"id": 2})
        viewer.refused(401, "DELETE", path, {"id": 2})
    federation.root.post("role", {"name": "of one", "rules": []})
    viewer.refused(401, "POST", f"role/{max(r['id'] for r in federation.root.get('role')['data'])}/rule/1")


def test_cve_2023_41881_nobody_inherits_from_the_deleted(federation: Federation) -> None:
    first = federation.collaborate([1], encrypted=False)
    federation.make_node(1, first)
    federation.make_task(federation.make_user(), 1, collaboration_id=first)
    federation.root.delete(f"collaboration/{first}", delete_dependents=1)
    second = federation.collaborate([1], encrypted=False)
    assert second > first
    for path in ("task", "node", "run", "study"):
        assert federation.root.get(path, collaboration_id=second)["data"] == []


def test_cve_2023_23929_refresh_tokens_end(federation: Federation) -> None:
    token = federation.anybody.post("token/user", {"username": "root", "password": PASSWORD})["refresh_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] <= 48 * 3600
    old = jwt.encode({**claims, "exp": claims["iat"] - 1, "iat": claims["iat"] - 2}, SECRET, "HS256")
    Api(federation.client, old).refused(401, "POST", "token/refresh")


def test_cve_2022_39228_guessing_a_password_ends_soon(federation: Federation, clock: Clock) -> None:
    for _ in range(5):
        federation.anybody.refused(401, "POST", "token/user", {"username": "root", "password": "wrong"})
    body = {"username": "root", "password": PASSWORD}
    assert federation.anybody.refused(401, "POST", "token/user", body) == "Failed to login"
    clock.turn(minutes=16)
    federation.anybody.post("token/user", body)


def test_ghsa_45gq_q4xh_cp53_a_login_says_nothing_about_who_there_is(federation: Federation) -> None:
    messages = {
        federation.anybody.refused(401, "POST", "token/user", {"username": name, "password": "wrong"})
        for name in ("root", "nobody-of-this-name")
    }
    assert messages == {"Failed to login"}


def test_ghsa_5h3x_6gwf_73jm_an_unknown_name_costs_a_hash_too(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str | None] = []
    verify = passwords.verify_password

    def noted(hashed: str | None, password: str) -> bool:
        looked_at.append(hashed)
        return verify(hashed, password)

    monkeypatch.setattr(passwords, "verify_password", noted)
    for path in ("token/user", "recover/2fa/lost"):
        federation.anybody.refused(401, "POST", path, {"username": "nobody-of-this-name", "password": "wrong"})
    assert looked_at == [None, None]


def test_cve_2023_22738_nobody_moves_with_their_roles(federation: Federation) -> None:
    admin = federation.make_user("Organization Admin")
    me = admin.post("token/user/validate")["user_id"]
    federation.root.ask("PATCH", f"user/{me}", {"organization_id": 2})
    assert federation.root.get(f"user/{me}")["organization"]["id"] == 1
    role = federation.root.post("role", {"name": "of one", "rules": [], "organization_id": 1})
    other = federation.make_user("Viewer", 2).post("token/user/validate")["user_id"]
    federation.root.refused(400, "PATCH", f"user/{other}", {"roles": [role["id"]]})


def test_cve_2024_22193_no_plain_text_in_an_encrypted_collaboration(federation: Federation) -> None:
    where = federation.collaborate([1, 2], encrypted=True, accept="both")
    federation.make_node(2, where)
    body = federation.task_body(2, collaboration_id=where)
    assert "is encrypted" in federation.make_user().refused(400, "POST", "task", body)


def test_cve_2024_32969_no_administrator_widens_a_collaboration(federation: Federation) -> None:
    admin, path = federation.make_user("Collaboration Admin"), f"collaboration/{federation.collaboration}"
    admin.refused(401, "PATCH", path, {"organization_ids": [1, 2, 3]})
    admin.refused(401, "POST", f"{path}/organization", {"id": 3})
    assert len(federation.root.get(path, include="organizations")["organizations"]) == 2


@pytest.mark.parametrize("secret", ["short", "a" * 64, "constant_secret!"])
def test_ghsa_m3mq_f375_5vgh_a_weak_secret_is_refused(tmp_path: Any, secret: str) -> None:
    settings = make_settings(tmp_path)
    weak = settings.model_copy(update={"tokens": settings.tokens.model_copy(update={"secret": secret})})
    with pytest.raises(ConfigurationError, match="too weak"):
        jwt_secret(weak)


def test_ghsa_j6g5_p62x_58hw_guessing_at_change_password_ends_soon(federation: Federation) -> None:
    user = federation.make_user()
    for _ in range(5):
        user.refused(401, "PATCH", "password/change", {"current_password": "wrong", "new_password": "Bb2-another"})
    body = {"current_password": PASSWORD, "new_password": "Bb2-another"}
    assert user.refused(401, "PATCH", "password/change", body) == "Failed to login"


def test_cve_2023_47631_a_run_names_no_parent_but_its_own_task(federation: Federation) -> None:
    federation.make_task(federation.make_user(), 2)
    run = federation.as_run(federation.claim(2))
    body = federation.task_body(2, parent_id=99)
    assert "parent_id" in run.refused(400, "POST", "task", body)
    run.refused(401, "POST", "task", federation.task_body(2, image="other/image"))
    assert federation.make_task(run, 2)["parent"]["id"] == 1


def test_cve_2024_21649_a_database_brings_no_names_of_its_own(federation: Federation) -> None:
    body = federation.task_body(2, databases=[{"label": "default", "LD_PRELOAD": "x"}])
    assert "LD_PRELOAD" in federation.make_user().refused(400, "POST", "task", body)


def test_other_sites_web_pages_are_not_let_in(federation: Federation) -> None:
    answer = federation.client.get("/api/version", headers={"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_secret_never_shows(federation: Federation) -> None:
    text = federation.root.ask("GET", "user/1?include_permissions=1").get_data(as_text=True)
    assert "argon2" not in text
    assert federation.root.get("user/1")["otp_secret"] is None


def test_the_algorithm_of_a_token_is_not_the_senders_choice(federation: Federation) -> None:
    claims = jwt.decode(federation.root.token or "", options={"verify_signature": False})
    for forged in (
        jwt.encode(claims, "", "none"),
        jwt.encode(claims, SECRET, "HS512"),
        jwt.encode(claims, "x" * 64, "HS256"),
    ):
        Api(federation.client, forged).refused(422, "GET", "user")


# --- where published clients send what their users do not mean (contract, section 10.4) -------------------


def test_nulls_of_a_client_count_as_absent(federation: Federation) -> None:
    role = federation.root.post("role", {"name": "a role", "rules": [], "organization_id": None})
    assert federation.root.patch(f"role/{role['id']}", {"name": "b role", "rules": None})["name"] == "b role"
    user = {"username": "newcomer", "email": "n@example.org", "password": PASSWORD, "organization_id": None}
    assert federation.root.post("user", user)["organization"]["id"] == 1
    assert federation.make_task(federation.make_user(), 2, description=None, name=None)["description"] is None


def test_a_researcher_kills_their_own_task(federation: Federation) -> None:
    mine, other = federation.make_user(), federation.make_user()
    task = federation.make_task(mine, 2)
    other.refused(401, "POST", "kill/task", {"id": task["id"]})
    mine.post("kill/task", {"id": task["id"]})


def test_a_user_stays_where_they_are(federation: Federation) -> None:
    me = federation.make_user().post("token/user/validate")["user_id"]
    assert federation.root.patch(f"user/{me}", {"organization_id": 2})["organization"]["id"] == 1


def test_a_repeated_post_makes_one_task(federation: Federation) -> None:
    researcher, body = federation.make_user(), federation.task_body(2)
    del body["uuid"]
    assert researcher.post("task", body)["id"] == researcher.post("task", body)["id"]
