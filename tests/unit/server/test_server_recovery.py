"""Passwords, letters, second factors: who gets back in, and who does not."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import pyotp
import pytest
from flask.testing import FlaskClient
from postoffice import PostOffice, open_office, token_in
from server_federation import PASSWORD, Api, Clock, Federation

from skerry_server.app import create_app
from skerry_server.mail import Mailer
from skerry_server.models import User
from skerry_server.server import Server
from skerry_server.settings import Mail

pytestmark = pytest.mark.unit
NEW = "Bb2-another-horse"


@pytest.fixture
def office() -> Iterator[PostOffice]:
    with open_office() as office:
        yield office


def configured(server: Server, **settings: Any) -> Server:
    changes = {field: getattr(server, field) for field in server.__dataclass_fields__}
    return Server(**{**changes, "settings": server.settings.model_copy(update=settings)})


@pytest.fixture
def mailing(server: Server, office: PostOffice) -> Iterator[Server]:
    mail = Mail(host="127.0.0.1", port=office.server_address[1], sender="skerry@example.org", security="none")
    changes = {field: getattr(server, field) for field in server.__dataclass_fields__}
    mailing = Server(**{**changes, "mailer": Mailer(mail)})
    yield mailing
    mailing.mailer.close()


def by(server: Server) -> Api:
    return Api(create_app(server).test_client())


def a_user(server: Server) -> tuple[int, str]:
    name = f"user-{uuid.uuid4().hex[:12]}"
    with server.database.writing() as session:
        hashed = session.get_one(User, 1).password
        user = User(username=name, email=f"{name}@example.org", password=hashed, organization_id=1)
        session.add(user)
        session.flush()
        return user.id, name


def test_changing_the_password(federation: Federation) -> None:
    user = federation.make_user()
    name = user.get("user?sort=-id")["data"][0]["username"]
    body = {"current_password": PASSWORD, "new_password": NEW}
    user.refused(401, "PATCH", "password/change", {**body, "current_password": "wrong"})
    user.refused(400, "PATCH", "password/change", {**body, "new_password": PASSWORD})
    assert "a digit" in user.refused(400, "PATCH", "password/change", {**body, "new_password": "Aa-weakweak"})
    user.patch("password/change", body)
    user.refused(401, "GET", "user")
    federation.log_in(name, NEW)
    federation.anybody.refused(401, "POST", "token/user", {"username": name, "password": PASSWORD})


def test_guessing_at_change_password_locks_the_user_out(federation: Federation, clock: Clock) -> None:
    """GHSA-j6g5-p62x-58hw."""
    user = federation.make_user()
    body = {"current_password": "wrong", "new_password": NEW}
    for _ in range(5):
        user.refused(401, "PATCH", "password/change", body)
    user.refused(401, "PATCH", "password/change", {**body, "current_password": PASSWORD})
    clock.turn(minutes=16)
    user.patch("password/change", {**body, "current_password": PASSWORD})


@pytest.mark.parametrize("way", ["username", "email"])
def test_a_lost_password(mailing: Server, office: PostOffice, way: str) -> None:
    _, name = a_user(mailing)
    api = by(mailing)
    old = api.post("token/user", {"username": name, "password": PASSWORD})["access_token"]
    api.post("recover/lost", {way: name if way == "username" else f"{name}@example.org"})
    mailing.mailer.settle()
    [letter] = office.letters
    assert f"To: {name}@example.org" in letter
    body = {"reset_token": token_in(letter), "password": NEW}
    assert "too weak" in api.refused(400, "POST", "recover/reset", {**body, "password": "weak"})
    api.post("recover/reset", body)
    assert api.refused(400, "POST", "recover/reset", body) == "Invalid recovery token!"
    api.post("token/user", {"username": name, "password": NEW})
    Api(api.client, old).refused(401, "GET", "user")


def test_a_recovery_token_is_good_for_its_purpose_only(mailing: Server, office: PostOffice) -> None:
    _, name = a_user(mailing)
    api = by(mailing)
    api.post("recover/lost", {"username": name})
    mailing.mailer.settle()
    token = token_in(office.letters[0])
    Api(api.client, token).refused(422, "GET", "user")
    Api(api.client, token).refused(422, "POST", "token/refresh", {})
    api.refused(400, "POST", "recover/2fa/reset", {"reset_token": token})
    session = api.post("token/user", {"username": name, "password": PASSWORD})["access_token"]
    for other in (session, "", "garbage", token[:-2] + "xx"):
        api.refused(400, "POST", "recover/reset", {"reset_token": other, "password": NEW})


def test_a_recovery_token_gets_old(mailing: Server, office: PostOffice, clock: Clock) -> None:
    _, name = a_user(mailing)
    api = by(mailing)
    api.post("recover/lost", {"username": name})
    mailing.mailer.settle()
    clock.turn(minutes=61)
    api.refused(400, "POST", "recover/reset", {"reset_token": token_in(office.letters[0]), "password": NEW})


def test_one_letter_an_hour(mailing: Server, office: PostOffice, clock: Clock) -> None:
    _, name = a_user(mailing)
    for minutes, letters in ((0, 1), (59, 1), (2, 2)):
        clock.turn(minutes=minutes)
        by(mailing).post("recover/lost", {"username": name})
        mailing.mailer.settle()
        assert len(office.letters) == letters


def test_asking_tells_nothing_about_users(mailing: Server, office: PostOffice) -> None:
    """GHSA-45gq-q4xh-cp53, GHSA-5h3x-6gwf-73jm: one text, and the user is looked up after the answer."""
    _, name = a_user(mailing)
    answers = [by(mailing).post("recover/lost", {"username": who}) for who in (name, "nobody")]
    answers += [by(mailing).post("recover/lost", {"email": "nobody@example.org", "username": None})]
    assert answers == [answers[0]] * 3
    mailing.mailer.settle()
    assert len(office.letters) == 1


def test_a_letter_that_can_not_go_out_harms_nobody(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    closed = Mail(host="127.0.0.1", port=1, sender="skerry@example.org", security="none")
    changes = {field: getattr(server, field) for field in server.__dataclass_fields__}
    mailing = Server(**{**changes, "mailer": Mailer(closed)})
    _, name = a_user(mailing)
    for _ in range(2):
        by(mailing).post("recover/lost", {"username": name})
    mailing.mailer.close()
    assert "could not be sent" in caplog.text


def test_without_mail_a_lost_second_factor_is_refused(federation: Federation) -> None:
    body = {"username": "root", "password": PASSWORD, "email": None}
    assert "no mail" in federation.anybody.refused(400, "POST", "recover/2fa/lost", body)
    federation.anybody.refused(401, "POST", "recover/2fa/lost", {**body, "password": "wrong"})
    federation.anybody.refused(400, "POST", "recover/lost", {})


def code(secret: str, clock: Clock) -> str:
    return pyotp.TOTP(secret).at(int(clock().replace(tzinfo=UTC).timestamp()))


@pytest.fixture
def two_factors(mailing: Server) -> FlaskClient:
    return create_app(configured(mailing, two_factor_auth=True)).test_client()


def test_a_second_factor(two_factors: FlaskClient, mailing: Server, clock: Clock) -> None:
    _, name = a_user(mailing)
    api, body = Api(two_factors), {"username": name, "password": PASSWORD}
    first = api.post("token/user", body)
    assert set(first) == {"qr_uri", "otp_secret", "msg"}
    assert api.post("token/user", body) == {"msg": "Please include your two-factor authentication code"}
    assert "incorrect" in api.refused(401, "POST", "token/user", {**body, "mfa_code": "abcdef"})
    right = {**body, "mfa_code": code(first["otp_secret"], clock)}
    token = api.post("token/user", right)["access_token"]
    me = Api(two_factors, token).get("user")["data"][0]
    assert me["otp_secret"] is None
    api.refused(401, "POST", "token/user", right)
    clock.turn(seconds=30)
    api.post("token/user", {**body, "mfa_code": code(first["otp_secret"], clock)})


def test_guessing_codes_locks_the_user_out(two_factors: FlaskClient, mailing: Server, clock: Clock) -> None:
    """A right password without a code in between does not help."""
    _, name = a_user(mailing)
    api, body = Api(two_factors), {"username": name, "password": PASSWORD}
    secret = api.post("token/user", body)["otp_secret"]
    for _ in range(5):
        api.refused(401, "POST", "token/user", {**body, "mfa_code": "no code"})
        api.ask("POST", "token/user", body)
    right = {**body, "mfa_code": code(secret, clock)}
    assert api.refused(401, "POST", "token/user", right) == "Failed to login"
    clock.turn(minutes=16)
    api.post("token/user", {**body, "mfa_code": code(secret, clock)})


def test_a_lost_second_factor(two_factors: FlaskClient, mailing: Server, office: PostOffice, clock: Clock) -> None:
    _, name = a_user(mailing)
    api, body = Api(two_factors), {"username": name, "password": PASSWORD}
    old = api.post("token/user", body)["otp_secret"]
    api.post("recover/2fa/lost", {**body, "email": None})
    mailing.mailer.settle()
    token = token_in(office.letters[0])
    api.refused(400, "POST", "recover/reset", {"reset_token": token, "password": NEW})
    new = api.post("recover/2fa/reset", {"reset_token": token})["otp_secret"]
    api.refused(400, "POST", "recover/2fa/reset", {"reset_token": token})
    api.refused(401, "POST", "token/user", {**body, "mfa_code": code(old, clock)})
    api.post("token/user", {**body, "mfa_code": code(new, clock)})


def test_containers_get_no_token_from_the_door(federation: Federation) -> None:
    body = {"task_id": 1, "image": "x"}
    assert "hands a run's token" in federation.nodes[1].refused(404, "POST", "token/container", body)
    federation.root.refused(401, "POST", "token/container", body)
