"""Tokens that are forged, old, stolen, or used for what they were not made for."""

from __future__ import annotations

import base64
import json
import time
from datetime import timedelta
from typing import Any

import flask_jwt_extended
import jwt
import pyotp
import pytest
from attack import Attack, Ground, Struck, claimed_run, judge, lift_the_lock
from flask import request
from server_federation import PASSWORD, SECRET, Api

from skerry_server import codes, tokens
from skerry_server.doors import handling
from skerry_server.models import Run, User, utcnow
from skerry_server.services import actors, login, recovery, runs
from skerry_server.tokens import Purpose

_ME = "token/user/validate"


def _claims(ground: Ground) -> dict[str, Any]:
    """What an attacker reads in a token of its own."""
    token = ground.federation.make_user("Viewer").token or ""
    return dict(jwt.decode(token, options={"verify_signature": False}))


def _as(ground: Ground, token: str, method: str = "POST", path: str = _ME) -> Struck:
    return judge(Api(ground.federation.client, token).ask(method, path, {} if method == "POST" else None))


def _b64(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _root(ground: Ground) -> dict[str, Any]:
    """Root's claims; the epoch is a small number, which an attacker would soon have guessed."""
    return {**_claims(ground), "sub": 1, "roles": ["Root"], "epoch": _epoch(ground, 1)}


def _no_algorithm(ground: Ground) -> Struck:
    return _as(ground, f"{_b64({'alg': 'none', 'typ': 'JWT'})}.{_b64(_root(ground))}.")


def _foreign_secret(ground: Ground) -> Struck:
    return _as(ground, jwt.encode(_root(ground), "x" * 64, "HS256"))


def _own_key_in_the_header(ground: Ground) -> Struck:
    key = "y" * 64
    header = {"jwk": {"kty": "oct", "k": base64.urlsafe_b64encode(key.encode()).decode()}, "kid": "../../dev/null"}
    return _as(ground, jwt.encode(_root(ground), key, "HS256", headers=header))


def _empty_secret_by_kid(ground: Ground) -> Struck:
    return _as(ground, jwt.encode(_root(ground), "\0" * 64, "HS256", headers={"kid": "/dev/null"}))


def _claims_swapped(ground: Ground) -> Struck:
    head, _, signature = (ground.federation.make_user("Viewer").token or "").split(".")
    return _as(ground, f"{head}.{_b64(_root(ground))}.{signature}")


def _public_key_as_secret(ground: Ground) -> Struck:
    """The classic confusion: signing with HMAC under something public, here an organization's key."""
    public = ground.federation.root.get("organization/1").get("public_key") or "no key"
    return _as(ground, jwt.encode(_root(ground), str(public) * 8, "HS256"))


def _another_algorithm(ground: Ground) -> Struck:
    """The secret is right; but no other algorithm than the one in use may be chosen by whoever sends."""
    return _as(ground, jwt.encode(_root(ground), SECRET, "HS512"))


def _epoch(ground: Ground, user: int) -> int:
    with ground.server.database.reading() as session:
        return session.get_one(User, user).epoch


def _pair(ground: Ground) -> dict[str, str]:
    return ground.federation.anybody.post("token/user", {"username": "root", "password": PASSWORD})  # type: ignore[no-any-return]


def _refresh_as_access(ground: Ground) -> Struck:
    return _as(ground, _pair(ground)["refresh_token"])


def _access_as_refresh(ground: Ground) -> Struck:
    return _as(ground, _pair(ground)["access_token"], "POST", "token/refresh")


def _node_as_user(ground: Ground) -> Struck:
    return judge(ground.federation.nodes[1].ask("GET", "algorithmstore"))


def _run_as_user(ground: Ground) -> Struck:
    return judge(claimed_run(ground)[1].ask("GET", "collaboration"))


def _user_as_node(ground: Ground) -> Struck:
    return judge(ground.federation.root.ask("POST", "skerry/node/work", {"capacity": 5, "wait": 0}), wins={200, 500})


def _expired(ground: Ground) -> Struck:
    past = int(time.time()) - 60
    claims = {**_claims(ground), "exp": past, "iat": past - 600, "nbf": past - 600}
    return _as(ground, jwt.encode(claims, SECRET, "HS256"))


def _not_yet(ground: Ground) -> Struck:
    later = int(time.time()) + 3600
    return _as(ground, jwt.encode({**_claims(ground), "nbf": later}, SECRET, "HS256"))


def _reset_as_access(ground: Ground) -> Struck:
    return _as(ground, _letter(ground, Purpose.PASSWORD)[0])


def _letter(ground: Ground, purpose: Purpose) -> tuple[str, int]:
    """The token that a user finds in its mail."""
    me = ground.federation.make_user("Viewer").post(_ME)["user_id"]
    with ground.server.database.reading() as session:
        user = session.get_one(User, me)
        return tokens.for_reset(SECRET, user, purpose, utcnow()), me


def _reset_with_access(ground: Ground) -> Struck:
    token = ground.federation.make_user("Viewer").token
    return judge(_reset(ground, token))


def _reset(ground: Ground, token: str | None) -> Any:
    body = {"reset_token": token, "password": "Cc3-a-new-password"}
    return ground.federation.anybody.ask("POST", "recover/reset", body)


def _reset_twice(ground: Ground) -> Struck:
    token, _ = _letter(ground, Purpose.PASSWORD)
    assert _reset(ground, token).status_code == 200
    return judge(_reset(ground, token))


def _reset_for_the_other_purpose(ground: Ground) -> Struck:
    return judge(_reset(ground, _letter(ground, Purpose.SECOND_FACTOR)[0]))


def _reset_when_old(ground: Ground) -> Struck:
    me = ground.federation.make_user("Viewer").post(_ME)["user_id"]
    with ground.server.database.reading() as session:
        token = tokens.for_reset(SECRET, session.get_one(User, me), Purpose.PASSWORD, utcnow() - timedelta(hours=2))
    return judge(_reset(ground, token))


def _after_the_password_changed(ground: Ground) -> Struck:
    stolen = ground.federation.make_user("Viewer")
    changed = {"current_password": PASSWORD, "new_password": "Dd4-another-word"}
    stolen.patch("password/change", changed)
    return judge(stolen.ask("POST", _ME, {}))


def _after_the_key_changed(ground: Ground) -> Struck:
    federation = ground.federation
    home = federation.collaborate([1], encrypted=False)
    made = federation.root.post("node", {"collaboration_id": home, "organization_id": 1})
    stolen = federation.anybody.post("token/node", {"api_key": made["api_key"]})["access_token"]
    federation.root.post("recover/node", {"id": made["id"]})
    return judge(Api(federation.client, stolen).ask("POST", "token/node/validate", {}))


def _of_a_deleted_user(ground: Ground) -> Struck:
    api = ground.federation.make_user("Viewer")
    me = api.post(_ME)["user_id"]
    ground.federation.root.delete(f"user/{me}")
    return judge(api.ask("GET", "organization"))


def _of_an_ended_run(ground: Ground) -> Struck:
    order, run = claimed_run(ground)
    ground.federation.finish(order)
    return judge(run.ask("GET", f"task/{order['task']['id']}"))


def _of_an_earlier_attempt(ground: Ground) -> Struck:
    order, run = claimed_run(ground)
    with ground.server.database.writing() as session:
        session.get_one(Run, order["run"]).attempt += 1
    return judge(run.ask("GET", f"task/{order['task']['id']}"))


def _for_another_run(ground: Ground) -> Struck:
    """Two runs of one organization: the one may not speak for the other."""
    (order, _), (_, other) = claimed_run(ground), claimed_run(ground)
    body = {"attempt": order["attempt"], "status": "failed", "log": "ended by another"}
    return judge(other.ask("POST", f"skerry/run/{order['run']}/finish", body))


def _by_another_organizations_node(ground: Ground) -> Struck:
    order, _ = claimed_run(ground)
    body = {"attempt": order["attempt"], "status": "failed", "log": "ended by another"}
    return judge(ground.federation.nodes[1].ask("POST", f"skerry/run/{order['run']}/finish", body))


def _in_the_address(ground: Ground) -> Struck:
    token = ground.federation.root.token
    answer = ground.raw("POST", f"{_ME}?jwt={token}&access_token={token}", json={})
    return Struck(answer.ok, f"{answer.status_code} {answer.text}")


def _in_a_cookie(ground: Ground) -> Struck:
    answer = ground.raw("POST", _ME, json={}, cookies={"access_token_cookie": ground.federation.root.token})
    return Struck(answer.ok, f"{answer.status_code} {answer.text}")


def _guess_the_code(ground: Ground) -> Struck:
    """Goes on guessing codes with a stolen password; at the end the right one, as a long search would find it."""
    secret = _enrol(ground)
    wrong = next(code for code in ("000000", "000001") if code != pyotp.TOTP(secret).now())
    for _ in range(login.ATTEMPTS):
        _log_in(ground, wrong)
    return judge(_log_in(ground, pyotp.TOTP(secret).now()))


def _repeat_the_code(ground: Ground) -> Struck:
    code = pyotp.TOTP(_enrol(ground)).now()
    assert _log_in(ground, code).status_code == 200
    return judge(_log_in(ground, code))


def _without_the_code(ground: Ground) -> Struck:
    _enrol(ground)
    answer = _log_in(ground, None)
    text = answer.get_data(as_text=True)
    return Struck("access_token" in text or "otp_secret" in text, f"{answer.status_code} {text}")


def _enrol(ground: Ground) -> str:
    with ground.server.database.writing() as session:
        user = session.get_one(User, 1)
        user.otp_secret, user.otp_step, user.failed_logins, user.locked_until = codes.new_secret(), 0, 0, None
        return user.otp_secret


def _log_in(ground: Ground, code: str | None) -> Any:
    body = {"username": "root", "password": PASSWORD} | ({"mfa_code": code} if code else {})
    return ground.federation.anybody.ask("POST", "token/user", body)


# --- the controls: each takes one defence away ---------------------------------------------------------


def _unsigned(patch: pytest.MonkeyPatch) -> None:
    """Claims are believed without a look at the signature, the audience and the times."""

    def claims() -> dict[str, Any]:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        return dict(jwt.decode(token, options={"verify_signature": False}))

    patch.setattr(tokens, "verify_jwt_in_request", lambda **_: None)
    patch.setattr(tokens, "get_jwt", claims)


def _any_algorithm(patch: pytest.MonkeyPatch) -> None:
    install = tokens.install

    def lax(app: Any, *arguments: Any) -> Any:
        manager = install(app, *arguments)
        app.config["JWT_DECODE_ALGORITHMS"] = ["HS256", "HS512"]
        return manager

    patch.setattr(tokens, "install", lax)


def _any_purpose(patch: pytest.MonkeyPatch) -> None:
    """Types and audiences are not looked at."""
    verify = flask_jwt_extended.verify_jwt_in_request
    patch.setattr(tokens, "verify_jwt_in_request", lambda refresh=False: verify(verify_type=False))
    patch.setattr(tokens, "_audience", lambda *_, **__: get_jwt_audience())


def get_jwt_audience() -> Any:
    """The audience that the presented token itself names."""
    try:
        return flask_jwt_extended.get_jwt().get("aud")
    except RuntimeError:
        return "skerry:user"


def _any_kind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handling, "present", lambda *_: tokens.presented())


def _no_times(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tokens, "_is_timely", lambda *_: True)


def _resets_are_any_token(patch: pytest.MonkeyPatch) -> None:
    def read(token: str, *_: Any) -> tuple[int, int]:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_aud": False, "verify_sub": False})
        return int(claims["sub"]), int(claims["epoch"])

    patch.setattr(tokens, "read_reset", read)


def _resets_stay(patch: pytest.MonkeyPatch) -> None:
    def keep(user: User, password: str) -> None:
        epoch = user.epoch
        original(user, password)
        user.epoch = epoch

    original = login.set_password
    patch.setattr(login, "set_password", keep)
    patch.setattr(recovery, "set_password", keep, raising=False)


def _resets_never_expire(patch: pytest.MonkeyPatch) -> None:
    def read(token: str, purpose: Purpose, _now: Any) -> tuple[int, int]:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience=purpose, options={"verify_exp": False})
        return int(claims["sub"]), int(claims["epoch"])

    patch.setattr(tokens, "read_reset", read)


def _any_epoch(patch: pytest.MonkeyPatch) -> None:
    """The token's own word is taken for the present one."""

    class Same(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = int.__hash__

    load = actors.load_actor
    lax = lambda session, kind, claims: load(session, kind, {**claims, "epoch": Same(), "attempt": Same()})  # noqa: E731
    patch.setattr(handling, "load_actor", lax)


def _ended_runs_speak(patch: pytest.MonkeyPatch) -> None:
    open_ = handling.open_actor
    patch.setattr(handling, "open_actor", lambda session, kind, claims, **_: open_(session, kind, claims, ended=True))


def _anybody_speaks(patch: pytest.MonkeyPatch) -> None:
    """Whose run it is, is not looked at."""
    patch.setattr(runs, "_own_run", lambda session, _actor, run_id, *_: session.get_one(Run, run_id))


def _tokens_anywhere(patch: pytest.MonkeyPatch) -> None:
    install = tokens.install

    def lax(app: Any, *arguments: Any) -> Any:
        manager = install(app, *arguments)
        app.config.update(JWT_TOKEN_LOCATION=["headers", "query_string", "cookies"], JWT_COOKIE_CSRF_PROTECT=False)
        return manager

    patch.setattr(tokens, "install", lax)


def _codes_stay(patch: pytest.MonkeyPatch) -> None:
    used = codes.used_step
    patch.setattr(codes, "used_step", lambda secret, code, now, _after: used(secret, code, now, 0))


def _codes_do_not_matter(patch: pytest.MonkeyPatch) -> None:
    log_in = login.log_in
    patch.setattr(login, "log_in", lambda *args, **more: log_in(*args, **{**more, "two_factors": False}))


_TWO = {"two_factor_auth": True}
_GONE = "401 .*(no longer valid|log in again)"
ATTACKS = [
    Attack("token-alg-none", "a token that says it needs no signature", "4(01|22)", _no_algorithm, _unsigned),
    Attack(
        "token-foreign-secret", "a token signed with another secret", "422 .*[Ss]ignature", _foreign_secret, _unsigned
    ),
    Attack("token-own-key", "a token that brings its own key in its header", "422", _own_key_in_the_header, _unsigned),
    Attack("token-kid-path", "a key id that names a file with a known content", "422", _empty_secret_by_kid, _unsigned),
    Attack("token-claims-swapped", "other claims under a genuine signature", "422", _claims_swapped, _unsigned),
    Attack("token-public-key", "HMAC under a public key", "422", _public_key_as_secret, _unsigned),
    Attack("token-other-algorithm", "the sender chooses the algorithm", "4(01|22)", _another_algorithm, _any_algorithm),
    Attack(
        "token-refresh-as-access",
        "a refresh token in place of an access token",
        "422",
        _refresh_as_access,
        _any_purpose,
    ),
    Attack("token-access-as-refresh", "an access token that refreshes itself", "422", _access_as_refresh, _any_purpose),
    Attack("token-node-as-user", "a node's token where users are asked", "401 .*node", _node_as_user, _any_kind),
    Attack("token-run-as-user", "a run's token where users are asked", "401 .*run", _run_as_user, _any_kind),
    Attack("token-user-as-node", "a user's token at the node's call", "401 .*user", _user_as_node, _any_kind),
    Attack("token-expired", "a token after its time", "401 .*expired", _expired, _no_times),
    Attack("token-early", "a token before its time", "4(01|22)", _not_yet, _no_times),
    Attack(
        "token-reset-as-access",
        "the token of a letter as a log-in",
        "4(01|22)",
        _reset_as_access,
        None,
        "such a token names no kind of caller, so no single defence that could be left out keeps it away",
    ),
    Attack(
        "token-access-as-reset",
        "an access token sets a new password",
        "400 .*recovery token",
        _reset_with_access,
        _resets_are_any_token,
    ),
    Attack(
        "token-reset-twice", "the token of a letter a second time", "400 .*recovery token", _reset_twice, _resets_stay
    ),
    Attack(
        "token-reset-other-purpose",
        "the second factor's letter sets a password",
        "400 .*recovery token",
        _reset_for_the_other_purpose,
        _resets_are_any_token,
    ),
    Attack(
        "token-reset-old", "the token of an old letter", "400 .*recovery token", _reset_when_old, _resets_never_expire
    ),
    Attack(
        "token-after-password",
        "a stolen token after the password changed",
        _GONE,
        _after_the_password_changed,
        _any_epoch,
    ),
    Attack("token-after-key", "a node's stolen token after its key changed", _GONE, _after_the_key_changed, _any_epoch),
    Attack(
        "token-deleted-user",
        "the token of somebody who is gone",
        _GONE,
        _of_a_deleted_user,
        None,
        "rules are read from the user's row: without the row there is nobody to act as",
    ),
    Attack("token-ended-run", "a run's token after the run", "401 .*ended", _of_an_ended_run, _ended_runs_speak),
    Attack(
        "token-earlier-attempt",
        "the token of an attempt that was given up",
        "401 .*attempt",
        _of_an_earlier_attempt,
        _any_epoch,
    ),
    Attack("token-other-run", "one run ends another", "401 .*another run", _for_another_run, _anybody_speaks),
    Attack(
        "token-other-node",
        "another organization's node ends a run",
        "401",
        _by_another_organizations_node,
        _anybody_speaks,
    ),
    Attack(
        "token-in-address",
        "a token in the address, where logs keep it",
        "401 .*Authorization",
        _in_the_address,
        _tokens_anywhere,
    ),
    Attack(
        "token-in-cookie",
        "a token in a cookie, which browsers send by themselves",
        "401 .*Authorization",
        _in_a_cookie,
        _tokens_anywhere,
    ),
    Attack(
        "code-guess",
        "guessing the second factor with a stolen password",
        "401",
        _guess_the_code,
        lift_the_lock,
        settings=_TWO,
    ),
    Attack(
        "code-replay",
        "a second factor's code that was looked at",
        "401 .*code",
        _repeat_the_code,
        _codes_stay,
        settings=_TWO,
    ),
    Attack(
        "code-left-out",
        "a log-in without the second factor",
        "200 .*include your two-factor",
        _without_the_code,
        _codes_do_not_matter,
        settings=_TWO,
    ),
]
