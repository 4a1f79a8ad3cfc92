"""What an attacker meets before any permission: headers, origins, bodies, guessing, addresses, exposure."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from server_federation import PASSWORD, Api, Clock, Federation, make_settings

from skerry.errors import ConfigurationError
from skerry_server import addresses, passwords
from skerry_server.app import create_app
from skerry_server.models import Failure, User
from skerry_server.settings import Settings, check_exposure, parse

pytestmark = pytest.mark.unit
UNKNOWN_KEY = "11111111-1111-4111-8111-111111111111"
WRONG = {"username": "nobody", "password": "wrong"}


def rebuilt(federation: Federation, **changes: object) -> Federation:
    """The same federation at a server with other settings."""
    server = federation.server
    settings = make_settings(server.settings.folder, database=server.settings.database, **changes)
    again = replace(server, settings=settings)
    return Federation(again, create_app(again).test_client(), federation.clock, **federation.facts)


# --- headers and origins ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/version", "/api/user", "/api/nothing", "/robots.txt", "/api/openapi.json"])
def test_every_answer_has_the_headers(federation: Federation, path: str) -> None:
    headers = federation.client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Server" not in headers
    assert "Strict-Transport-Security" not in headers


def test_browsers_are_kept_to_tls_where_there_is_tls(federation: Federation) -> None:
    for changes in (
        {"tls": {"certificate": "c", "private_key": "k"}},
        {"trusted_proxies": ["10.0.0.1"]},
    ):
        headers = rebuilt(federation, **changes).client.get("/api/version").headers
        assert headers["Strict-Transport-Security"] == "max-age=31536000"


def test_other_origins_are_shut_out_unless_they_are_named(federation: Federation) -> None:
    there = {"Origin": "https://evil.example"}
    assert "Access-Control-Allow-Origin" not in federation.client.get("/api/version", headers=there).headers
    named = rebuilt(federation, cors_allowed_origins=["https://ui.example"])
    assert "Access-Control-Allow-Origin" not in named.client.get("/api/version", headers=there).headers
    answer = named.client.options("/api/version", headers={"Origin": "https://ui.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://ui.example"
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_the_host_header_is_in_no_answer(federation: Federation) -> None:
    answer = federation.client.get("/api/user", headers={"Host": "evil.example", **bearer(federation.root)})
    assert answer.status_code == 200
    assert b"evil.example" not in answer.data
    assert "evil.example" not in str(answer.headers)


def bearer(api: Api) -> dict[str, str]:
    return {"Authorization": f"Bearer {api.token}"}


# --- bodies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP, identity"])
def test_a_compressed_body_is_not_unpacked(federation: Federation, encoding: str) -> None:
    answer = federation.client.post("/api/token/user", data=b"\x1f\x8b", headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.get_json()["msg"][:10]) == (415, "A compress")


# --- guessing --------------------------------------------------------------------------------------------


GUESSES = [
    ("POST", "token/user", WRONG, 401),
    ("POST", "token/node", {"api_key": UNKNOWN_KEY}, 401),
    ("POST", "skerry/join", {"secret": "guessed"}, 401),
    ("POST", "recover/reset", {"reset_token": "a.b.c", "password": PASSWORD}, 400),
    ("POST", "recover/2fa/reset", {"reset_token": "a.b.c"}, 400),
    ("POST", "recover/2fa/lost", WRONG, 401),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), GUESSES)
def test_guessing_is_bounded_for_each_address(
    federation: Federation, method: str, path: str, body: dict[str, str], status: int
) -> None:
    limited = rebuilt(federation, limits={"failures": 3})
    for _ in range(3):
        limited.anybody.refused(status, method, path, body)
    assert "quarter of an hour" in limited.anybody.refused(429, method, path, body)
    right = {"username": "root", "password": PASSWORD}
    limited.anybody.refused(429, "POST", "token/user", right)
    elsewhere = {"environ_base": {"REMOTE_ADDR": "192.0.2.7"}}
    assert limited.anybody.ask("POST", "token/user", right, **elsewhere).status_code == 200
    limited.clock.turn(minutes=16)
    assert limited.anybody.ask("POST", "token/user", right).status_code == 200


def test_a_wrong_current_password_counts_too(federation: Federation) -> None:
    limited = rebuilt(federation, limits={"failures": 2})
    body = {"current_password": "wrong", "new_password": "Bb2-another-one"}
    for _ in range(2):
        limited.root.refused(401, "PATCH", "password/change", body)
    limited.root.refused(429, "PATCH", "password/change", body)


def test_a_wrong_second_factor_counts_too(federation: Federation) -> None:
    limited = rebuilt(federation, limits={"failures": 2}, two_factor_auth=True)
    login = {"username": "root", "password": PASSWORD}
    limited.anybody.post("token/user", login)
    for _ in range(2):
        limited.anybody.refused(401, "POST", "token/user", {**login, "mfa_code": "000000"})
    limited.anybody.refused(429, "POST", "token/user", {**login, "mfa_code": "000000"})


def test_what_goes_well_is_not_counted_and_old_counts_go(federation: Federation) -> None:
    limited = rebuilt(federation, limits={"failures": 2})
    for _ in range(5):
        limited.log_in("root")
    limited.anybody.refused(401, "POST", "token/user", WRONG)
    limited.clock.turn(minutes=16)
    limited.server.sweep()
    with limited.server.database.reading() as session:
        assert session.query(Failure).count() == 0


@pytest.mark.parametrize("username", ["root", "nobody", "locked"])
def test_each_login_hashes_once_whoever_it_is(
    monkeypatch: pytest.MonkeyPatch, federation: Federation, username: str
) -> None:
    """An answer for a name that nobody has, or that is locked, costs the same work as a wrong password."""
    with federation.server.database.writing() as session:
        root = session.get_one(User, 1)
        name, later = "locked", federation.clock().replace(year=2099)
        session.add(User(username=name, email="l@x.org", password=root.password, organization_id=1, locked_until=later))
    passwords.verify_password(None, "warm")  # the stand-in hash is made once, when it is first needed
    hashed, original = [], passwords._HASHER.verify

    class Counting:
        def verify(self, kept: str, given: str) -> bool:
            hashed.append(kept.split("$")[3])
            return original(kept, given)

    monkeypatch.setattr(passwords, "_HASHER", Counting())
    assert federation.anybody.refused(401, "POST", "token/user", {"username": username, "password": "wrong"})
    assert len(hashed) == 1


# --- addresses -------------------------------------------------------------------------------------------


PROXIES = [ip_network("10.0.0.0/24"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["198.51.100.9"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.9"], "198.51.100.9"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.9, 10.0.0.2"], "198.51.100.9"),
        ("10.0.0.1", ["nonsense"], "unknown"),
        ("10.0.0.1", [], "10.0.0.1"),
        (None, ["198.51.100.9"], "unknown"),
        ("2001:db8::17", [], "2001:db8::/64"),
        ("::ffff:192.0.2.1", [], "192.0.2.1"),
        ("fd00::1", ["2001:db8::17"], "2001:db8::/64"),
    ],
)
def test_whose_word_about_an_address_counts(peer: str | None, forwarded: list[str], caller: str) -> None:
    assert addresses.of_caller(peer, forwarded, PROXIES) == caller


def test_behind_a_proxy_each_caller_is_counted_alone(federation: Federation) -> None:
    limited = rebuilt(federation, limits={"failures": 2}, trusted_proxies=["10.0.0.1"])

    def guess(caller: str) -> int:
        options = {"environ_base": {"REMOTE_ADDR": "10.0.0.1"}, "headers": {"X-Forwarded-For": f"6.6.6.6, {caller}"}}
        return limited.client.post("/api/token/user", json=WRONG, **options).status_code  # type: ignore[arg-type]

    assert [guess("192.0.2.1") for _ in range(3)] == [401, 401, 429]
    assert guess("192.0.2.2") == 401


def test_behind_a_proxy_nobody_comes_past_it(federation: Federation) -> None:
    limited = rebuilt(federation, trusted_proxies=["10.0.0.1"])
    for peer, status in (("192.0.2.1", 403), ("10.0.0.1", 200), ("127.0.0.1", 200)):
        assert limited.client.get("/api/version", environ_base={"REMOTE_ADDR": peer}).status_code == status


# --- exposure --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("host: 0.0.0.0", False),
        ("host: 192.0.2.1", False),
        ('host: "::"', False),
        ("host: server.example.org", False),
        ("host: 127.0.0.1", True),
        ('host: "::1"', True),
        ("host: localhost", True),
        ('host: 0.0.0.0\ntrusted_proxies: ["10.0.0.1"]', True),
    ],
)
def test_other_machines_are_not_served_in_the_clear(tmp_path: Path, text: str, right: bool) -> None:
    settings = parse(text, tmp_path / "server.yaml")
    if right:
        check_exposure(settings)
    else:
        with pytest.raises(ConfigurationError, match="trusted_proxies"):
            check_exposure(settings)


def test_a_private_key_that_is_not_private(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    settings = make_settings(tmp_path, tls={"certificate": "c.pem", "private_key": "key.pem"})
    with pytest.raises(ConfigurationError, match="can't be read"):
        check_exposure(settings)
    key.touch()
    key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        check_exposure(settings)
    key.chmod(0o600)
    check_exposure(settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('trusted_proxies: ["nonsense"]', "trusted_proxies"),
        ("trusted_proxies: [5]", "trusted_proxies"),
        ("cors_allowed_origins: [ui.example]", "cors_allowed_origins"),
        ("tls: {certificate: a}", "tls.private_key"),
        ("tls: {certificate: a, private_key: b, certificates: c}", 'did you mean "certificate"'),
        ("limits: {failures: 0}", "limits.failures"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse(text, tmp_path / "server.yaml")


def test_secrets_are_in_no_settings_text(tmp_path: Path) -> None:
    assert "a secret of the tests" not in repr(make_settings(tmp_path))
    mail = {"host": "h", "sender": "a@b", "password": "mail-secret"}
    assert "mail-secret" not in repr(Settings(folder=tmp_path, mail=mail))  # type: ignore[arg-type]


def test_a_fresh_server_has_no_account(tmp_path: Path) -> None:
    from skerry_server.server import open_server  # noqa: PLC0415 - a server of its own

    server = open_server(make_settings(tmp_path / "fresh"), Clock())
    with server.database.reading() as session:
        assert session.query(User).count() == 0
    server.database.close()
