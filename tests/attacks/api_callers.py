"""Genuine callers who ask for more than they may, or send what should break something."""

from __future__ import annotations

import base64
import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy
from attack import Attack, Ground, Struck, claimed_run, fresh, judge, lift_the_lock
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import request
from server_federation import PASSWORD, Api
from sqlalchemy.orm import object_session
from werkzeug.exceptions import HTTPException

from skerry.wire import Format
from skerry_server import app as application
from skerry_server import webcalls
from skerry_server.doors import fields, handling
from skerry_server.doors.vantage6 import paging, stores
from skerry_server.errors import NotKnown
from skerry_server.models import Node, Organization, Task, User
from skerry_server.policy import Actor
from skerry_server.services import collaborations, inputs, login, organizations, runs, tasks, users

_ME = "token/user/validate"
_ENOUGH = 4
"""Tasks of one job, at a server that is configured so."""


def _id(api: Api) -> int:
    return int(api.post(_ME)["user_id"])


def _foreign_task(ground: Ground) -> tuple[int, int]:
    """A task, and its run, of a collaboration in which organization 1 has no part."""
    federation = ground.federation
    home = federation.collaborate([3], encrypted=False)
    federation.make_node(3, home)
    asking = federation.make_user("Researcher", 3)
    task = federation.make_task(asking, 3, collaboration_id=home, name=fresh())
    return task["id"], asking.get("run", task_id=task["id"])["data"][0]["id"]


# --- more rights ----------------------------------------------------------------------------------------


def _viewer_creates_a_task(ground: Ground) -> Struck:
    return judge(ground.federation.make_user("Viewer").ask("POST", "task", ground.federation.task_body(name=fresh())))


def _gives_itself_root(ground: Ground) -> Struck:
    api = ground.federation.make_user("Researcher")
    return judge(api.ask("PATCH", f"user/{_id(api)}", {"roles": [ground.federation.roles["Root"]]}))


def _hands_out_more_than_it_has(ground: Ground) -> Struck:
    api = ground.federation.make_user("Organization Admin")
    body = {
        "username": fresh(), "email": f"{fresh()}@example.org", "password": PASSWORD, "firstname": "a", "lastname": "b",
        "organization_id": 1, "roles": [ground.federation.roles["Root"]],
    }  # fmt: skip
    return judge(api.ask("POST", "user", body))


def _makes_a_role_with_more(ground: Ground) -> Struck:
    api = ground.federation.make_user("Organization Admin")
    rules = [rule["id"] for rule in ground.federation.root.get("rule", no_pagination=1)["data"]]
    return judge(api.ask("POST", "role", {"name": fresh(), "rules": rules, "organization_id": 1}))


def _user_in_another_organization(ground: Ground) -> Struck:
    api = ground.federation.make_user("Organization Admin")
    body = {
        "username": fresh(), "email": f"{fresh()}@example.org", "password": PASSWORD, "firstname": "a", "lastname": "b",
        "organization_id": 3,
    }  # fmt: skip
    return judge(api.ask("POST", "user", body))


def _changes_a_stronger_user(ground: Ground) -> Struck:
    api = ground.federation.make_user("Organization Admin")
    return judge(api.ask("PATCH", "user/1", {"email": f"{fresh()}@example.org"}))


def _sets_protected_fields(ground: Ground) -> Struck:
    """Columns that no form has: sent along in the hope that they are simply copied."""
    api = ground.federation.make_user("Viewer")
    hidden = {"firstname": "a", "organization": 3, "otp_secret": None, "failed_logins": 0, "epoch": 7, "is_admin": True}
    return judge(api.ask("PATCH", f"user/{_id(api)}", hidden | {"otp_secret": "A" * 32}))


def _reads_a_foreign_task(ground: Ground) -> Struck:
    return judge(ground.federation.make_user("Researcher").ask("GET", f"task/{_foreign_task(ground)[0]}"))


def _reads_a_foreign_result(ground: Ground) -> Struck:
    return judge(ground.federation.make_user("Researcher").ask("GET", f"result/{_foreign_task(ground)[1]}"))


def _lists_a_foreign_collaboration(ground: Ground) -> Struck:
    task, _ = _foreign_task(ground)
    viewer = ground.federation.make_user("Viewer")
    answer = viewer.ask("GET", "run", query_string={"task_id": task})
    found = answer.get_json().get("data") or []
    return Struck(bool(found), f"{answer.status_code} {answer.get_data(as_text=True)}")


def _kills_a_strangers_task(ground: Ground) -> Struck:
    federation = ground.federation
    task = federation.make_task(federation.make_user("Researcher", 2), 2, name=fresh())
    return judge(federation.make_user("Researcher").ask("POST", "kill/task", {"id": task["id"]}))


def _deletes_a_strangers_task(ground: Ground) -> Struck:
    federation = ground.federation
    task = federation.make_task(federation.make_user("Researcher", 2), 2, name=fresh())
    return judge(federation.make_user("Researcher").ask("DELETE", f"task/{task['id']}"))


def _widens_a_collaboration(ground: Ground) -> Struck:
    admin = ground.federation.make_user("Collaboration Admin")
    return judge(admin.ask("POST", f"collaboration/{ground.federation.collaboration}/organization", {"id": 3}))


def _adds_by_a_nested_address(ground: Ground) -> Struck:
    viewer = ground.federation.make_user("Viewer")
    role = ground.federation.root.post("role", {"name": fresh(), "rules": [1], "organization_id": 1})["id"]
    return judge(viewer.ask("POST", f"role/{role}/rule/2"))


def _keys_of_another_organization(ground: Ground) -> Struck:
    admin = ground.federation.make_user("Organization Admin")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return judge(admin.ask("PATCH", "organization/2", {"public_key": base64.b64encode(pem).decode()}))


def _node_takes_anothers_key(ground: Ground) -> Struck:
    admin = ground.federation.make_user("Organization Admin", 1)
    return judge(admin.ask("POST", "recover/node", {"id": ground.federation.node_ids[2]}))


def _outsider_asks_a_collaboration(ground: Ground) -> Struck:
    outsider = ground.federation.make_user("Researcher", 3)
    return judge(outsider.ask("POST", "task", ground.federation.task_body(name=fresh())))


def _asks_an_organization_outside(ground: Ground) -> Struck:
    federation = ground.federation
    home = federation.collaborate([3], encrypted=False)
    federation.make_node(3, home)
    return judge(federation.make_user().ask("POST", "task", federation.task_body(3, name=fresh())))


# --- runs -----------------------------------------------------------------------------------------------


def _run_asks_for_another_image(ground: Ground) -> Struck:
    _, run = claimed_run(ground)
    return judge(run.ask("POST", "task", ground.federation.task_body(1, image="evil/other", name=fresh())))


def _run_asks_elsewhere(ground: Ground) -> Struck:
    federation = ground.federation
    elsewhere = federation.collaborate([1, 2], encrypted=False)
    federation.make_node(1, elsewhere)
    _, run = claimed_run(ground)
    return judge(run.ask("POST", "task", federation.task_body(1, collaboration_id=elsewhere, name=fresh())))


def _run_asks_without_end(ground: Ground) -> Struck:
    """A child task after the other, as a run whose children do the same could."""
    _, run = claimed_run(ground)
    answers = [run.ask("POST", "task", ground.federation.task_body(name=fresh())) for _ in range(_ENOUGH)]
    return judge(answers[-1])


def _run_reads_another_job(ground: Ground) -> Struck:
    order, _ = claimed_run(ground)
    _, other = claimed_run(ground)
    return judge(other.ask("GET", f"task/{order['task']['id']}"))


def _run_reads_anothers_input(ground: Ground) -> Struck:
    order, _ = claimed_run(ground)
    _, other = claimed_run(ground)
    return judge(other.ask("GET", f"skerry/run/{order['run']}/input"))


def _result_changed_afterwards(ground: Ground) -> Struck:
    federation = ground.federation
    order, _ = claimed_run(ground)
    federation.finish(order)
    body = {"attempt": order["attempt"], "status": "failed", "log": "never mind"}
    answer = federation.nodes[2].ask("POST", f"skerry/run/{order['run']}/finish", body)
    return judge(answer)


def _uuid_of_somebody_else(ground: Ground) -> Struck:
    """A task's UUID is its idempotency key: whoever else names it must not get the task."""
    federation = ground.federation
    first = federation.make_task(federation.make_user(), 2, name=fresh())
    again = federation.make_user().ask("POST", "task", federation.task_body(2, uuid=first["uuid"], name=fresh()))
    return judge(again)


def _plain_text_where_sealed(ground: Ground) -> Struck:
    federation = ground.federation
    home = federation.collaborate([1, 2], encrypted=True)
    federation.make_node(2, home)
    return judge(
        federation.make_user().ask("POST", "task", federation.task_body(2, collaboration_id=home, name=fresh()))
    )


# --- guessing -------------------------------------------------------------------------------------------


def _guess_a_password(ground: Ground) -> Struck:
    """Goes on guessing; at the end the right one, as a long search would find it."""
    name = _named(ground)
    for guess in range(login.ATTEMPTS):
        _log_in(ground, name, f"guess-{guess}")
    return judge(_log_in(ground, name, PASSWORD))


def _guess_at_the_change(ground: Ground) -> Struck:
    api = ground.federation.make_user("Viewer")
    for guess in range(login.ATTEMPTS):
        api.ask("PATCH", "password/change", {"current_password": f"guess-{guess}", "new_password": "Ee5-something-new"})
    body = {"current_password": PASSWORD, "new_password": "Ee5-something-new"}
    return judge(api.ask("PATCH", "password/change", body))


def _who_is_there(ground: Ground) -> Struck:
    there, gone = _log_in(ground, _named(ground), "wrong"), _log_in(ground, fresh(), "wrong")
    texts = [answer.get_data(as_text=True) for answer in (there, gone)]
    return Struck(texts[0] != texts[1] or there.status_code != gone.status_code, f"{there.status_code} {texts[0]}")


def _who_is_there_by_letter(ground: Ground) -> Struck:
    ask = ground.federation.anybody.ask
    there, gone = (ask("POST", "recover/lost", {"username": name}) for name in (_named(ground), fresh()))
    texts = [answer.get_data(as_text=True) for answer in (there, gone)]
    return Struck(texts[0] != texts[1] or there.status_code != gone.status_code, f"{there.status_code} {texts[0]}")


def _named(ground: Ground) -> str:
    return str(ground.federation.make_user("Viewer").post(_ME)["username"])


def _log_in(ground: Ground, name: str, password: str) -> Any:
    return ground.federation.anybody.ask("POST", "token/user", {"username": name, "password": password})


# --- what should break something ------------------------------------------------------------------------


def _order_by_a_query(ground: Ground) -> Struck:
    query = {"sort": "(SELECT password FROM user WHERE id = 1)"}
    return judge(ground.federation.make_user("Viewer").ask("GET", "organization", query_string=query))


def _filter_by_a_query(ground: Ground) -> Struck:
    """All rows, where the condition should be none."""
    answer = ground.federation.make_user("Viewer").ask("GET", "organization", query_string={"name": "' OR '1'='1"})
    return Struck(bool(answer.get_json().get("data")), f"{answer.status_code} {answer.get_data(as_text=True)}")


def _huge_body(ground: Ground) -> Struck:
    body = b'{"username": "' + b"a" * (2 << 20) + b'", "password": "b"}'
    answer = ground.raw("POST", "token/user", data=body, headers={"Content-Type": "application/json"})
    return Struck(answer.status_code != 413, f"{answer.status_code} {answer.text[:300]}")


def _huge_body_in_pieces(ground: Ground) -> Struck:
    """Chunked, so that no length is announced."""

    def pieces() -> Iterator[bytes]:
        yield b'{"username": "'
        for _ in range(32):
            yield b"a" * (1 << 16)
        yield b'", "password": "b"}'

    answer = ground.raw("POST", "token/user", data=pieces(), headers={"Content-Type": "application/json"})
    return Struck(answer.status_code != 413, f"{answer.status_code} {answer.text[:300]}")


def _compressed_bomb(ground: Ground) -> Struck:
    """A thousand times its size when it is inflated; whoever inflates it answers about the name in it."""
    bomb = gzip.compress(b'{"username": "root", "password": "x", "y": "' + b"a" * (1 << 22) + b'"}')
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = ground.raw("POST", "token/user", data=bomb, headers=headers)
    return Struck(
        "Unknown field" in answer.text or answer.status_code == 413, f"{answer.status_code} {answer.text[:300]}"
    )


def _deep_json(ground: Ground) -> Struck:
    nested: dict[str, Any] = {}
    for _ in range(100):
        nested = {"a": nested}
    body = ground.federation.task_body(2, databases=[{"label": "default", "arguments": nested}], name=fresh())
    return judge(ground.federation.make_user().ask("POST", "task", body))


def _bottomless_json(ground: Ground) -> Struck:
    """Deep enough for a parser that recurses."""
    text = '{"databases":' + "[" * 100_000 + "]" * 100_000 + "}"
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {ground.federation.root.token}"}
    answer = ground.raw("POST", "task", data=text, headers=headers)
    return Struck(answer.status_code >= 500, f"{answer.status_code} {answer.text[:300]}")


def _a_page_of_everything(ground: Ground) -> Struck:
    return judge(ground.federation.root.ask("GET", "organization", query_string={"per_page": 10**9}))


def _a_number_beyond(ground: Ground) -> Struck:
    answer = ground.federation.root.ask("GET", f"organization/{2**70}")
    return Struck(answer.status_code >= 500, f"{answer.status_code} {answer.get_data(as_text=True)}")


def _another_host(ground: Ground) -> Struck:
    """Links and letters must not be made from a header that the caller writes."""
    headers = {"Host": "evil.example.org", "X-Forwarded-Host": "evil.example.org"}
    headers["Authorization"] = f"Bearer {ground.federation.root.token}"
    answer = ground.raw("GET", "organization?per_page=1", headers=headers)
    seen = answer.text + str(dict(answer.headers))
    return Struck("evil.example.org" in seen, f"{answer.status_code} {seen}")


def _from_another_site(ground: Ground) -> Struck:
    answer = ground.raw("OPTIONS", "task", headers={"Origin": "https://evil.example.org"})
    allowed = answer.headers.get("Access-Control-Allow-Origin")
    return Struck(allowed is not None, f"{answer.status_code} allowed: {allowed}")


def _sniffed_script(ground: Ground) -> Struck:
    """What a user wrote must never be a web page."""
    name = f"<script>alert('{fresh()}')</script>"
    made = ground.federation.root.post("organization", {"name": name})
    headers = {"Authorization": f"Bearer {ground.federation.root.token}"}
    answer = ground.raw("GET", f"organization/{made['id']}", headers=headers)
    kind, sniff = answer.headers["Content-Type"], answer.headers.get("X-Content-Type-Options")
    return Struck(kind != "application/json" or sniff != "nosniff", f"{answer.status_code} {kind} {sniff}")


def _script_in_an_error(ground: Ground) -> Struck:
    answer = ground.raw("GET", "<script>alert(1)</script>")
    kind = answer.headers["Content-Type"]
    return Struck(kind.startswith("text/html"), f"{answer.status_code} {kind}")


def _a_traceback(ground: Ground) -> Struck:
    headers = {"Content-Type": "application/json"}
    answers = [
        ground.raw("POST", "token/user", data=data, headers=headers) for data in (b"\xff\xfe", b"[]", b"null", b"{")
    ]
    seen = " ".join(f"{answer.status_code} {answer.text}" for answer in answers)
    return Struck("Traceback" in seen or any(answer.status_code >= 500 for answer in answers), seen)


def _name_like_an_id(ground: Ground) -> Struck:
    return judge(ground.federation.root.ask("POST", "organization", {"name": "12"}))


def _stopped_by_a_word(ground: Ground) -> Struck:
    """``False`` as text is not empty, and must still mean no."""
    federation = ground.federation
    home = federation.collaborate([1], encrypted=False)
    federation.make_node(1, home)
    return judge(federation.root.ask("DELETE", f"collaboration/{home}", query_string={"delete_dependents": "False"}))


# --- inside, by the server's own hand -------------------------------------------------------------------


@contextmanager
def _inner_service() -> Iterator[tuple[int, list[bytes]]]:
    """Something on this machine that only the server could reach; and what it has heard."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    heard.append(b"connected")
                    connection.settimeout(5)
                    body = b'{"version": "1"}'
                    try:
                        heard.append(connection.recv(1024))
                        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                        connection.sendall(head + str(len(body)).encode() + b"\r\n\r\n" + body)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], heard
        finally:
            stop.set()
            thread.join()


def _store_at(template: str) -> Any:
    def strike(ground: Ground) -> Struck:
        with _inner_service() as (port, heard):
            body = {"name": fresh(), "algorithm_store_url": template.format(port=port), "force": True}
            answer = ground.federation.root.ask("POST", "algorithmstore", body)
            return Struck(bool(heard), f"{answer.status_code} {answer.get_data(as_text=True)}")

    return strike


# --- the controls: each takes one defence away ----------------------------------------------------------


def _all_may(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Actor, "may", lambda *_, **__: True)


def _edits_widen(patch: pytest.MonkeyPatch) -> None:
    """Whoever may edit a collaboration may widen it."""
    edit = collaborations.editable_collaboration
    patch.setattr(collaborations, "editable_collaboration", lambda *args, **_: edit(*args, widen=False))


def _all_hand_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Actor, "may_hand_out", lambda *_: True)


def _all_may_and_hand_out(patch: pytest.MonkeyPatch) -> None:
    _all_may(patch)
    _all_hand_out(patch)


def _their_own_roles(patch: pytest.MonkeyPatch) -> None:
    """Everybody may give everything to everybody, to themselves too."""
    _all_may_and_hand_out(patch)

    def change(session: Any, actor: Actor, id_: int, _fields: Any, powers: Any, _now: Any) -> User:
        user = session.get_one(User, id_)
        users._empower(session, actor, user, powers)
        return user

    patch.setattr(users, "change_user", change)


def _keys_of_all(patch: pytest.MonkeyPatch) -> None:
    _all_may(patch)
    patch.setattr(organizations, "_check_key_change", lambda *_: None)


def _all_inputs(patch: pytest.MonkeyPatch) -> None:
    _all_visible(patch)
    patch.setattr(runs, "check_speaker", lambda *_: None)


def _all_visible(patch: pytest.MonkeyPatch) -> None:
    everything = lambda *_: sqlalchemy.true()  # noqa: E731
    patch.setattr(tasks, "visible_tasks", everything)
    for name in ("visible_runs", "visible_results"):
        patch.setattr(runs, name, everything)
    patch.setattr("skerry_server.doors.vantage6.runs.runs.visible_runs", everything)


def _members_do_not_matter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tasks, "_check_permission", lambda *_: None)


def _jobs_are_endless(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tasks, "_check_room", lambda *_: None)


def _targets_do_not_matter(patch: pytest.MonkeyPatch) -> None:
    def found(spec: Any, place: Any) -> dict[int, Any]:
        session = object_session(place.collaboration)
        wanted = [target.organization_id for target in spec.targets]
        rows = session.scalars(sqlalchemy.select(Node).where(Node.organization_id.in_(wanted)))
        return {node.organization_id: node for node in rows}

    patch.setattr(tasks, "_nodes", found)


def _ends_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runs, "_repeat", lambda *_: None)


def _anybodys_uuid(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        tasks, "_repeated", lambda session, _actor, spec, _now: session.scalar(
            sqlalchemy.select(Task).where(Task.uuid == spec.uuid)
        )
    )  # fmt: skip


def _any_format(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inputs, "_ACCEPTED", {kind: set(Format) for kind in inputs._ACCEPTED})


def _talkative_login(patch: pytest.MonkeyPatch) -> None:
    find = login.find_user

    def loud(session: Any, **by: Any) -> Any:
        user = find(session, **by)
        if user is None:
            raise NotKnown("user", 0)
        return user

    patch.setattr(login, "find_user", loud)


def _talkative_letters(patch: pytest.MonkeyPatch) -> None:
    def loud(server: Any, whom: Any, _purpose: Any) -> None:
        with server.database.reading() as session:
            if login.find_user(session, username=whom.username, email=whom.email) is None:
                raise NotKnown("user", 0)

    patch.setattr("skerry_server.doors.vantage6.recovery._write_later", loud)


def _any_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(paging, "_order", lambda sort, _sorts: [sqlalchemy.text(sort)] if sort else [])


def _raw_filters(patch: pytest.MonkeyPatch) -> None:
    """The condition is put together as text."""
    original = paging.paged

    def loosely(call: Any, statement: Any, *args: Any, **more: Any) -> Any:
        if request.args.get("name"):
            condition = sqlalchemy.text(f"organization.name LIKE '{request.args['name']}'")
            statement = sqlalchemy.select(Organization).where(condition)
        return original(call, statement, *args, **more)

    patch.setattr("skerry_server.doors.vantage6.organizations.paged", loosely)


def _no_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handling, "read_body", lambda _limit: request.stream.read())


def _inflating(patch: pytest.MonkeyPatch) -> None:
    read = handling.read_body

    def inflate(limit: int) -> bytes:
        raw = read(limit)
        return gzip.decompress(raw) if request.headers.get("Content-Encoding") == "gzip" else raw

    patch.setattr(handling, "read_body", inflate)
    patch.setattr(application, "_refuse_unsafe", lambda _settings: lambda: None)


def _any_depth(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fields, "_DEEPEST", 10**6)


def _links_with_the_host(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(handling.Call, "link", lambda _self, path: f"{request.host_url}api/{path}")


def _all_origins(patch: pytest.MonkeyPatch) -> None:
    headers = application._headers
    patch.setattr(
        application, "_headers", lambda given: headers(given.model_copy(update={"cors_allowed_origins": ["*"]}))
    )


def _no_headers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(application, "_headers", lambda _origins: lambda response: response)


def _html_errors(patch: pytest.MonkeyPatch) -> None:
    def page(error: HTTPException) -> Any:
        return error.get_response()

    patch.setattr(handling, "_http_error", page)


def _any_address(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(webcalls, "is_public", lambda _address: True)


def _no_check_of_addresses(patch: pytest.MonkeyPatch) -> None:
    check = webcalls.check
    patch.setattr(stores.webcalls, "check", lambda url, _allowed: check(url, [urlsplit(url).hostname or ""]))


def _words_are_true(patch: pytest.MonkeyPatch) -> None:
    parse = handling.parse_query

    def truthy(model: Any) -> Any:
        found = parse(model)
        if "delete_dependents" in type(found).model_fields:
            return found.model_copy(update={"delete_dependents": bool(request.args.get("delete_dependents"))})
        return found

    patch.setattr(handling, "parse_query", truthy)


_SCHEMA = "the request's form itself is the defence: another form would be another interface"
ATTACKS = [
    Attack("rights-viewer-task", "a viewer creates a task", "401", _viewer_creates_a_task, _all_may),
    Attack(
        "rights-self-root",
        "a researcher makes itself Root",
        "401",
        _gives_itself_root,
        _their_own_roles,
    ),
    Attack(
        "rights-hand-out",
        "an administrator creates a user who may do more",
        "401 .*hand out",
        _hands_out_more_than_it_has,
        _all_hand_out,
    ),
    Attack(
        "rights-role-with-more",
        "an administrator makes a role with every rule",
        "401 .*hand out",
        _makes_a_role_with_more,
        _all_hand_out,
    ),
    Attack(
        "rights-user-elsewhere",
        "an administrator creates a user in another organization",
        "401",
        _user_in_another_organization,
        _all_may,
    ),
    Attack(
        "rights-stronger-user",
        "an administrator changes Root's mail address",
        "401 .*more than you",
        _changes_a_stronger_user,
        _all_hand_out,
    ),
    Attack(
        "rights-mass-assignment",
        "columns that no form has are sent along",
        "400 .*Unknown field",
        _sets_protected_fields,
        None,
        _SCHEMA,
    ),
    Attack(
        "rights-foreign-task", "a task of another collaboration is read", "401", _reads_a_foreign_task, _all_visible
    ),
    Attack(
        "rights-foreign-result",
        "a result of another collaboration is read",
        "401",
        _reads_a_foreign_result,
        _all_visible,
    ),
    Attack(
        "rights-foreign-runs",
        "the runs of another collaboration are listed",
        '(200 .*"data":\\[\\]|40[01])',
        _lists_a_foreign_collaboration,
        _all_visible,
    ),
    Attack("rights-kill", "a researcher kills another's task", "401", _kills_a_strangers_task, _all_may),
    Attack(
        "rights-delete", "a researcher deletes another organization's task", "401", _deletes_a_strangers_task, _all_may
    ),
    Attack(
        "rights-widen",
        "a collaboration's administrator takes another organization in",
        "401",
        _widens_a_collaboration,
        _edits_widen,
    ),
    Attack(
        "rights-nested",
        "a rule is added by the nested address",
        "401",
        _adds_by_a_nested_address,
        _all_may_and_hand_out,
    ),
    Attack(
        "rights-foreign-key",
        "an administrator replaces another organization's key",
        "401",
        _keys_of_another_organization,
        _keys_of_all,
    ),
    Attack(
        "rights-foreign-node",
        "an administrator takes over another organization's node",
        "401",
        _node_takes_anothers_key,
        _all_may,
    ),
    Attack(
        "rights-outsider",
        "somebody from outside creates a task in a collaboration",
        "401",
        _outsider_asks_a_collaboration,
        _members_do_not_matter,
    ),
    Attack(
        "rights-target-outside",
        "a task for an organization outside of the collaboration",
        "400 .*not in collaboration",
        _asks_an_organization_outside,
        _targets_do_not_matter,
    ),
    Attack(
        "run-other-image",
        "a run creates a child of another image",
        "401 .*Container-token",
        _run_asks_for_another_image,
        _members_do_not_matter,
    ),
    Attack(
        "run-other-collaboration",
        "a run creates a child in another collaboration",
        "401 .*Container-token",
        _run_asks_elsewhere,
        _members_do_not_matter,
    ),
    Attack(
        "run-many-children",
        "a run creates children without end",
        "400 .*no more for one job",
        _run_asks_without_end,
        _jobs_are_endless,
        settings={"limits": {"tasks_per_job": _ENOUGH}},
    ),
    Attack("run-other-job", "a run reads another job's task", "401", _run_reads_another_job, _all_visible),
    Attack(
        "run-other-input",
        "a run reads another run's input",
        "401",
        _run_reads_anothers_input,
        _all_inputs,
    ),
    Attack("run-result-changed", "a result is replaced after the end", "409", _result_changed_afterwards, _ends_again),
    Attack("task-uuid-of-another", "another's idempotency key", "409", _uuid_of_somebody_else, _anybodys_uuid),
    Attack(
        "task-plain-text",
        "plain text in an encrypted collaboration",
        "400 .*encrypted",
        _plain_text_where_sealed,
        _any_format,
    ),
    Attack("guess-password", "guessing a password", "401 .*Failed to login", _guess_a_password, lift_the_lock),
    Attack("guess-change", "guessing a password where it is changed", "401", _guess_at_the_change, lift_the_lock),
    Attack(
        "who-login", "finding out by log-ins who there is", "401 .*Failed to login", _who_is_there, _talkative_login
    ),
    Attack("who-letter", "finding out by letters who there is", "200", _who_is_there_by_letter, _talkative_letters),
    Attack("sql-order", "a query in place of an order", "400 .*sort", _order_by_a_query, _any_order),
    Attack("sql-filter", "a condition inside of a filter", "200", _filter_by_a_query, _raw_filters),
    Attack("size-body", "a body without end", "413", _huge_body, _no_limit),
    Attack("size-chunks", "a body without end and without a length", "413", _huge_body_in_pieces, _no_limit),
    Attack("size-compressed", "a body that explodes when it is inflated", "4(00|15)", _compressed_bomb, _inflating),
    Attack("size-depth", "nested without end", "400 .*nested", _deep_json, _any_depth),
    Attack(
        "size-parser",
        "nested deeper than a parser's stack",
        "400",
        _bottomless_json,
        None,
        "the parser that is used has the bound built in",
    ),
    Attack("size-page", "a page of everything", "400 .*per_page", _a_page_of_everything, None, _SCHEMA),
    Attack("size-id", "an id beyond what a database holds", "404", _a_number_beyond, None, _SCHEMA),
    Attack("web-host", "links to a host of the caller's choice", "200", _another_host, _links_with_the_host),
    Attack("web-origin", "another site's page calls the server", "allowed: None", _from_another_site, _all_origins),
    Attack(
        "web-sniffed",
        "a stored script that a browser could take for a page",
        "200 application/json nosniff",
        _sniffed_script,
        _no_headers,
    ),
    Attack(
        "web-error",
        "a script that comes back in an error page",
        "404 application/json",
        _script_in_an_error,
        _html_errors,
    ),
    Attack(
        "web-traceback",
        "a traceback by broken bodies",
        "^400",
        _a_traceback,
        None,
        "there is no single place that could be weakened: each body takes another way",
    ),
    Attack("name-like-id", "a name that is taken for an id", "400", _name_like_an_id, None, _SCHEMA),
    Attack("flag-false", "the word False deletes everything", "400", _stopped_by_a_word, _words_are_true),
    Attack(
        "inside-loopback",
        "a store at the server's own address",
        "400 .*(https|private)",
        _store_at("http://127.0.0.1:{port}/api"),
        _no_check_of_addresses,
    ),
    Attack("inside-tls", "the same by https", "400 .*private", _store_at("https://127.0.0.1:{port}/api"), _any_address),
    Attack(
        "inside-number",
        "the same as one number",
        "400 .*private",
        _store_at("https://2130706433:{port}/api"),
        _any_address,
    ),
    Attack(
        "inside-mapped",
        "the same as an IPv6 address",
        "400 .*private",
        _store_at("https://[::ffff:127.0.0.1]:{port}/api"),
        _any_address,
    ),
    Attack(
        "inside-name", "the same by its name", "400 .*private", _store_at("https://localhost:{port}/api"), _any_address
    ),
    Attack(
        "inside-credentials",
        "an address that hides the host behind a name",
        "400",
        _store_at("https://example.org@127.0.0.1:{port}/api"),
        None,
        _SCHEMA,
    ),
]
