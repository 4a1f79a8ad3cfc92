"""Passwords, tokens, API keys: who is let in, and for how long."""

from __future__ import annotations

import time
from datetime import UTC
from typing import Any

import jwt
import pytest
from argon2 import PasswordHasher
from flask.testing import FlaskClient
from server_federation import PASSWORD, SECRET, Api, Federation

from skerry_server import passwords, tokens
from skerry_server.errors import InvalidRequest, LoginFailed
from skerry_server.models import User
from skerry_server.server import Server

pytestmark = pytest.mark.unit


def claims(token: str | None) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token or "", options={"verify_signature": False})
    return found


def forged(client: FlaskClient, token: str | None, secret: str = SECRET, **changes: Any) -> Api:
    """The same token with other claims, signed with the real secret unless another is given."""
    return Api(client, jwt.encode({**claims(token), **changes}, secret, algorithm="HS256"))


def test_what_a_login_gives(federation: Federation) -> None:
    answer = federation.anybody.ask("POST", "token/user", {"username": "root", "password": PASSWORD})
    body = answer.get_json()
    assert set(body) == {"access_token", "refresh_token", "refresh_url", "user_url"}
    assert (body["refresh_url"], body["user_url"]) == ("/api/token/refresh", "/api/user/1")
    assert answer.headers["jwt-token"] == body["access_token"]
    access = claims(body["access_token"])
    assert {"fresh", "iat", "jti", "type", "sub", "nbf", "csrf", "exp", "client_type", "roles"} <= set(access)
    assert (access["sub"], access["type"], access["client_type"], access["roles"]) == (1, "access", "user", ["Root"])
    assert access["exp"] - access["iat"] == 6 * 3600
    assert claims(body["refresh_token"])["exp"] - access["iat"] == 48 * 3600


def test_what_a_nodes_login_gives(federation: Federation) -> None:
    access = claims(federation.nodes[1].token)
    assert (access["sub"], access["client_type"], access["roles"]) == (federation.node_ids[1], "node", [])


def test_refreshing(federation: Federation) -> None:
    pair = federation.anybody.post("token/user", {"username": "root", "password": PASSWORD})
    fresh = Api(federation.client, pair["refresh_token"]).post("token/refresh")
    assert Api(federation.client, fresh["access_token"]).get("user/1")["username"] == "root"
    assert {"access_token", "refresh_token"} <= set(fresh)


@pytest.mark.parametrize("password", ["wrong", "", "x" * 129, "Aa1-correct-horse "])
def test_wrong_passwords(federation: Federation, password: str) -> None:
    answer = federation.anybody.ask("POST", "token/user", {"username": "root", "password": password})
    assert answer.status_code == (401 if 0 < len(password) < 129 else 400)


def test_unknown_and_known_names_are_answered_alike(federation: Federation) -> None:
    """GHSA-45gq-q4xh-cp53, GHSA-5h3x-6gwf-73jm."""
    bodies = [{"username": name, "password": "wrong"} for name in ("root", "nobody")]
    answers = {federation.anybody.ask("POST", "token/user", body).data for body in bodies}
    assert answers == {b'{"msg":"Failed to login"}\n'}


def test_an_unknown_name_costs_as_much_as_a_known_one(monkeypatch: pytest.MonkeyPatch, federation: Federation) -> None:
    verified = []
    original = passwords.verify_password
    monkeypatch.setattr(passwords, "verify_password", lambda *a: verified.append(a) or original(*a))
    federation.anybody.ask("POST", "token/user", {"username": "nobody", "password": "wrong"})
    assert len(verified) == 1
    passwords._nobodys.cache_clear()
    real = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
    monkeypatch.setattr(passwords, "_HASHER", real)
    assert not original(None, "wrong")
    assert passwords._nobodys().split("$")[3] == "m=19456,t=2,p=1"
    passwords._nobodys.cache_clear()


def test_five_failures_lock_for_a_quarter_of_an_hour(federation: Federation) -> None:
    wrong, right = [{"username": "root", "password": word} for word in ("wrong", PASSWORD)]
    for _ in range(4):
        federation.anybody.refused(401, "POST", "token/user", wrong)
    federation.anybody.post("token/user", right)
    for _ in range(5):
        federation.anybody.refused(401, "POST", "token/user", wrong)
    assert federation.anybody.refused(401, "POST", "token/user", right) == "Failed to login"
    federation.clock.turn(minutes=14)
    federation.anybody.refused(401, "POST", "token/user", right)
    federation.clock.turn(minutes=2)
    federation.anybody.post("token/user", right)


@pytest.mark.parametrize(
    ("password", "lacks"),
    [
        ("Short-1", "characters"),
        ("lower-case-1", "upper-case"),
        ("UPPER-CASE-1", "lower-case"),
        ("No-Digits-Here", "digit"),
        ("NoSigns123", "sign"),
        ("A1-" + "a" * 126, "characters"),
    ],
)
def test_weak_passwords(password: str, lacks: str) -> None:
    with pytest.raises(InvalidRequest, match=lacks):
        passwords.check_strength(password)


def test_passwords_are_kept_as_slow_hashes(server: Server) -> None:
    with server.database.reading() as session:
        assert session.get_one(User, 1).password.startswith("$argon2id$")


def test_api_keys(federation: Federation) -> None:
    federation.anybody.refused(400, "POST", "token/node", {"api_key": "no uuid"})
    unknown = "11111111-1111-4111-8111-111111111111"
    message = federation.anybody.refused(401, "POST", "token/node", {"api_key": unknown})
    assert message == "Api key is not recognized!"


def test_a_new_api_key_ends_the_old_one_and_its_tokens(federation: Federation) -> None:
    node, id_ = federation.nodes[1], federation.node_ids[1]
    key = federation.root.post("recover/node", {"id": id_})["api_key"]
    node.refused(401, "GET", "skerry/node/self")
    answer = federation.anybody.post("token/node", {"api_key": key})
    assert Api(federation.client, answer["access_token"]).get("skerry/node/self")["id"] == id_


def test_api_keys_are_not_kept(federation: Federation) -> None:
    key = federation.root.post("recover/node", {"id": 1})["api_key"]
    files = federation.server.settings.state.rglob("*")
    assert not any(key.encode() in path.read_bytes() for path in files if path.is_file())


def test_a_deleted_users_token_is_dead(federation: Federation, researcher: Api) -> None:
    pair_user = researcher.post("token/user/validate")["user_id"]
    federation.root.delete(f"user/{pair_user}")
    researcher.refused(401, "GET", "task")


def test_a_token_dies_with_the_password(federation: Federation, researcher: Api) -> None:
    """CVE-2023-23929: tokens that live for ever."""
    id_ = researcher.post("token/user/validate")["user_id"]
    with federation.server.database.writing() as session:
        session.get_one(User, id_).epoch += 1
    researcher.refused(401, "GET", "task")


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "skerry:node"},
        {"aud": "skerry:user:refresh"},
        {"aud": ["skerry:user", "skerry:node"]},
        {"client_type": "node"},
        {"client_type": "run"},
        {"client_type": "nonsense"},
        {"client_type": None},
        {"sub": "x"},
        {"sub": {"id": 1}},
        {"sub": 999},
        {"epoch": 2},
        {"epoch": None},
        {"exp": 1},
        {"nbf": 2**33},
        {"type": "refresh"},
    ],
    ids=str,
)
def test_a_token_with_a_changed_claim_is_worth_nothing(federation: Federation, changes: dict[str, Any]) -> None:
    """Even when it is signed well: each kind is refused in place of another."""
    caller = forged(federation.client, federation.root.token, **changes)
    assert caller.ask("GET", "user/1").status_code in {401, 422}


def test_a_token_of_another_secret(federation: Federation) -> None:
    for secret in ("another secret of at least thirty-two characters", "secret" * 6):
        caller = forged(federation.client, federation.root.token, secret)
        caller.refused(422, "GET", "user/1")


def test_no_other_algorithm(federation: Federation) -> None:
    payload = claims(federation.root.token)
    for algorithm in ("HS384", "HS512"):
        token = jwt.encode(payload, SECRET, algorithm=algorithm)
        Api(federation.client, token).refused(422, "GET", "user/1")
    Api(federation.client, jwt.encode(payload, None, algorithm="none")).refused(422, "GET", "user/1")


def test_a_run_token_of_another_attempt(federation: Federation, researcher: Api) -> None:
    federation.make_task(researcher)
    token = federation.claim()["token"]
    assert Api(federation.client, token).get("organization")["data"]
    forged(federation.client, token, attempt=2).refused(401, "GET", "organization")
    forged(federation.client, token, sub=99).refused(401, "GET", "organization")


def test_a_token_that_was_taken_before_expires_all_the_same(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its signature is not looked at again; its times and its holder are, at each call."""
    caller = forged(federation.client, federation.root.token, exp=int(time.time()) + 5)
    assert caller.get("user/1")["id"] == 1
    assert forged(federation.client, caller.token, epoch=7).refused(401, "GET", "user/1").startswith("This token is no")
    monkeypatch.setattr(tokens, "verify_jwt_in_request", _verified_anew)
    assert caller.get("user/1")["id"] == 1
    for seconds in (6, -3600):
        federation.clock.turn(seconds=seconds)
        assert caller.refused(401, "GET", "user/1") == "verified anew"


def _verified_anew(**_: object) -> None:
    raise LoginFailed("verified anew")


@pytest.mark.parametrize("hours", [-3, 3])
def test_times_go_by_the_servers_clock(federation: Federation, hours: int) -> None:
    """Which is the database's: the machines of two processes may differ."""
    federation.clock.turn(hours=hours)
    pair = federation.anybody.post("token/user", {"username": "root", "password": PASSWORD})
    user = Api(federation.client, pair["access_token"])
    assert user.get("user/1")["id"] == 1
    now = int(federation.clock().replace(tzinfo=UTC).timestamp())
    assert claims(user.token)["iat"] == claims(user.token)["nbf"] == now
    assert Api(federation.client, pair["refresh_token"]).post("token/refresh")["access_token"]
    federation.clock.turn(hours=6, seconds=1)
    assert user.refused(401, "GET", "user/1") == "Token has expired"


def test_a_process_that_read_the_clock_a_moment_ago_takes_a_token_of_one_that_did_just_now(
    federation: Federation,
) -> None:
    root = federation.log_in("root")
    federation.clock.turn(seconds=-50)
    assert root.get("user/1")["id"] == 1
    federation.clock.turn(seconds=-50)
    assert root.refused(401, "GET", "user/1") == "Token has expired"


def test_expired(federation: Federation) -> None:
    caller = forged(federation.client, federation.root.token, exp=10)
    assert caller.refused(401, "GET", "user/1") == "Token has expired"
    early = forged(federation.client, federation.root.token, iat=1 << 33, nbf=1 << 33, exp=1 << 34)
    assert early.refused(401, "GET", "user/1") == "Token has expired"
    assert federation.anybody.refused(401, "GET", "user/1") == "Missing Authorization Header"
    assert Api(federation.client, "garbage").refused(422, "GET", "user/1") == "Not enough segments"


def test_a_run_tokens_claims(federation: Federation, researcher: Api) -> None:
    task = federation.make_task(researcher)
    order = federation.claim()
    found = claims(order["token"])
    expected = {
        "sub": order["run"],
        "attempt": 1,
        "job": task["job_id"],
        "task": task["id"],
        "organization": 2,
        "collaboration": federation.collaboration,
        "node": federation.node_ids[2],
        "image": "example/mean",
        "aud": "skerry:run",
    }
    assert {name: found[name] for name in expected} == expected
    assert found["exp"] - found["iat"] == 900


def test_validation_for_stores(federation: Federation) -> None:
    user = federation.root.post("token/user/validate")
    assert (user["user_id"], user["username"], user["organization_id"]) == (1, "root", 1)
    node = federation.nodes[2].post("token/node/validate")
    assert (node["node_id"], node["organization_id"]) == (federation.node_ids[2], 2)
    federation.nodes[2].refused(401, "POST", "token/user/validate", {})
    federation.root.refused(401, "POST", "token/node/validate", {})
