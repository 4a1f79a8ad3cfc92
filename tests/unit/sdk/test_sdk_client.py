"""A user's script against a scripted server: logging in, creating, waiting, reading."""

from __future__ import annotations

import json
import re
import time

import pytest

from skerry import TaskHandle, UserClient, crypto
from skerry.errors import (
    AuthenticationError,
    ConfigurationError,
    ContextError,
    DecryptionError,
    InputError,
    InvalidInput,
    KeyChanged,
    KeyFileError,
    MissingKey,
    NotFound,
    SkerryError,
    TaskFailed,
    WaitInterrupted,
    WaitTimeout,
)
from skerry.wire import Context, b64, unb64

pytestmark = pytest.mark.unit
UUID = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def script(server, make_token):
    """A server with a user (9) of organization 1 and a plain collaboration 1 of organizations 1 to 3."""
    refresh = make_token(9, 99999.0)
    server.on("POST", "token/user", {"access_token": make_token(9), "refresh_token": refresh})
    server.on("GET", "user/9", {"id": 9, "organization": {"id": 1}})
    server.on("GET", "collaboration/1", {"id": 1, "name": "c", "encrypted": False, "accept": "native"})
    server.on("GET", "organization", {"data": [{"id": i} for i in (1, 2, 3)], "links": {}})
    server.on("POST", "task", lambda asked: (201, described(asked.json)))
    return server


@pytest.fixture
def client(script) -> UserClient:
    client = UserClient("http://127.0.0.1", script.port)
    client.authenticate("root", "secret")
    client.setup_encryption(None)
    return client


@pytest.fixture
def sealing(script, client, identities, tmp_path) -> UserClient:
    """The same user, with keys, in an encrypted collaboration."""
    identities[1].save(tmp_path / "key.pem")
    script.on("GET", "collaboration/1", {"id": 1, "name": "c", "encrypted": True, "accept": "native"})
    script.on("GET", "organization/1", {"id": 1, "public_key": ""})
    script.on("PUT", "skerry/organization/1/keys", lambda asked: asked.json)
    script.on("GET", "skerry/keys", {"data": [one.organization_keys(i) for i, one in identities.items()]})
    client.setup_encryption(tmp_path / "key.pem")
    return client


def described(body: dict, task_id: int = 5) -> dict:
    names = ("uuid", "image", "databases")
    return {
        "id": task_id,
        "name": body.get("name"),
        "status": "pending",
        "collaboration": {"id": body["collaboration_id"]},
        **{name: body[name] for name in names},
    }


def state(*statuses: str, online: bool = True, seen: str = "s1") -> dict:
    runs = [
        {"id": 10 + i, "organization_id": i, "node_id": i, "status": status, "node_online": online}
        for i, status in enumerate(statuses, 1)
    ]
    ended = all(status not in {"pending", "initializing", "active"} for status in statuses)
    return {"id": 5, "status": "pending", "finished": ended, "seen": seen, "runs": runs[::-1]}


def create(client: UserClient, **changes) -> TaskHandle:
    task = {
        "organizations": [1, 2],
        "name": "mean",
        "image": "image:1",
        "input_": {"method": "mean", "kwargs": {"column": "age"}},
        "collaboration": 1,
        "databases": [{"label": "default"}],
    }
    return client.task.create(**{**task, **changes})


def results(script, *contents: bytes) -> None:
    for i, content in enumerate(contents, 1):
        script.on("GET", f"skerry/run/{10 + i}/result", (200, content))


# --- connecting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "words"),
    [("localhost", "lacks its scheme"), ("ftp://x", "lacks its scheme"), ("http://10.0.0.1", "use https")],
)
def test_an_address_that_is_refused(host, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        UserClient(host, 80)


def test_http_to_another_machine_only_on_demand() -> None:
    assert UserClient("http://10.0.0.1", 80, "api/", allow_http=True).base_path == "http://10.0.0.1:80/api"


def test_before_the_log_in(server) -> None:
    client = UserClient("http://127.0.0.1", server.port)
    for call in (lambda: client.task.get(1), lambda: client.setup_encryption(None), lambda: create(client)):
        with pytest.raises(AuthenticationError, match="call authenticate"):
            call()
    assert server.asked == []


def test_a_log_in_is_resumed(script, make_token) -> None:
    script.on("POST", "token/refresh", {"access_token": make_token(9), "refresh_token": make_token(9)})
    client = UserClient("http://127.0.0.1", script.port)
    client.resume("earlier")
    assert (client.user_id, client.organization_id) == (9, 1)
    assert script.calls("POST", "token/refresh")[0].token == "earlier"


# --- creating --------------------------------------------------------------------------------------------


def test_a_plain_task(script, client) -> None:
    task = create(client, description="why")
    body = script.calls("POST", "task")[0].json
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", body["uuid"])
    inputs = body.pop("organizations")
    assert [one["id"] for one in inputs] == [1, 2]
    assert json.loads(unb64(inputs[0]["input"])) == {"method": "mean", "kwargs": {"column": "age"}}
    assert body == {
        "uuid": body["uuid"],
        "name": "mean",
        "description": "why",
        "image": "image:1",
        "collaboration_id": 1,
        "databases": [{"label": "default"}],
    }
    assert task["id"] == 5


def test_a_task_is_not_created_twice_when_the_answer_is_lost(script, client) -> None:
    script.on("POST", "task", None, (502, b"<html>"), lambda asked: (201, described(asked.json)))
    create(client)
    calls = script.calls("POST", "task")
    assert len(calls) == 3
    assert len({call.body for call in calls}) == 1


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (lambda c: c.organization.create(name="x"), "organization"),
        (lambda c: c.collaboration.create("x", [1, 2]), "collaboration"),
        (lambda c: c.collaboration.add_organization(2, 1), "collaboration/1/organization"),
        (lambda c: c.study.create("s", [1], 1), "study"),
        (lambda c: c.node.create(1), "node"),
        (lambda c: c.user.create("u", "f", "l", "p", "e@x"), "user"),
        (lambda c: c.role.create("r", "d", [1]), "role"),
        (lambda c: c.store.create("https://store/api", "s", 1), "algorithmstore"),
    ],
)
def test_what_is_created_is_asked_for_under_one_key_until_the_answer_comes(script, client, call, path) -> None:
    script.on("POST", path, None, (502, b"<html>"), (201, {"id": 1}))
    for _ in range(2):
        call(client)
    keys = [one.headers["Idempotency-Key"] for one in script.calls("POST", path)]
    assert len(keys) == 4
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]


def test_what_is_created_in_a_store_is_asked_for_once(script, client) -> None:
    """Stores know of no keys."""
    script.on("GET", "algorithmstore/1", {"id": 1, "url": f"http://127.0.0.1:{script.port}/store"})
    script.on("POST", "/store/role", None)
    client.store.set(1)
    with pytest.raises(SkerryError):
        client.store.role.create("r", "d", [1])
    [asked] = script.calls("POST", "/store/role")
    assert "Idempotency-Key" not in asked.headers


def test_a_sealed_task(script, sealing, identities) -> None:
    create(sealing, organizations=[2, 3])
    body = script.calls("POST", "task")[0].json
    for one in body["organizations"]:
        opened = crypto.unseal([unb64(one["input"])], identities[one["id"]])
        assert json.loads(b"".join(opened.chunks))["method"] == "mean"
        assert opened.header.context.task == body["uuid"]
        assert list(opened.header.context.databases) == body["databases"]
    assert b"mean" not in script.calls("POST", "task")[0].body.replace(b'"name": "mean"', b"")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"organizations": []}, "at least one organization"),
        ({"organizations": None}, "at least one organization"),
        ({"image": ""}, "Say which algorithm"),
        ({"input_": {"method": "f", "kwargs": {"x": [1, float("inf")]}}}, r"input_\['kwargs'\]\['x'\]\[1\] is inf"),
        ({"organizations": [2, 2]}, "each of them once"),
        ({"input_": None}, "name of a function"),
        ({"input_": {"kwargs": {}}}, "name of a function"),
        ({"input_": {"method": "f", "kwargs": {"x": {1, 2}}}}, "can't be written as JSON"),
        ({"databases": ["default"]}, '"label"'),
        ({"collaboration": None}, "setup_collaboration"),
    ],
)
def test_a_task_that_is_refused_before_anything_is_sent(script, client, changes, words) -> None:
    with pytest.raises(InputError, match=words):
        create(client, **changes)
    assert script.calls("POST", "task") == []


def test_the_store_that_was_set(script, client) -> None:
    script.on("GET", "algorithmstore/4", {"id": 4, "url": "https://store.example.org/api"})
    create(client)
    client.store.set(4)
    create(client)
    create(client, store=5)
    assert [call.json.get("store_id") for call in script.calls("POST", "task")] == [None, 4, 5]


def test_databases_in_short(script, client) -> None:
    create(client, databases="default")
    create(client, databases=[{"label": "a", "query": None, "sheet_name": "x"}])
    create(client, databases=None)
    sent = [call.json["databases"] for call in script.calls("POST", "task")]
    assert sent == [[{"label": "default"}], [{"label": "a", "sheet_name": "x"}], []]


def test_the_collaboration_of_a_study_and_the_default_one(script, client) -> None:
    script.on("GET", "study/4", {"id": 4, "collaboration": {"id": 1}})
    create(client, collaboration=None, study=4)
    client.setup_collaboration(1)
    create(client, collaboration=None)
    first, second = [call.json for call in script.calls("POST", "task")]
    assert (first["collaboration_id"], first["study_id"]) == (1, 4)
    assert second["collaboration_id"] == 1
    assert "study_id" not in second


def test_unknown_collaborations_and_organizations(script, client, sealing) -> None:
    script.on("GET", "collaboration/99", (404, {"msg": "There is no collaboration 99."}))
    with pytest.raises(NotFound, match="99"):
        create(client, collaboration=99)
    with pytest.raises(InputError, match="Organization 99 is not in collaboration 1; these are: 1, 2, 3"):
        create(sealing, organizations=[2, 99])


def test_an_organization_without_a_key(script, sealing, identities) -> None:
    script.on("GET", "skerry/keys", {"data": [identities[1].organization_keys(1)]})
    with pytest.raises(MissingKey, match=r"organization 2.*node starts"):
        create(sealing, organizations=[1, 2])


def test_the_servers_refusal(script, client) -> None:
    script.on("POST", "task", (400, {"msg": "Organization 2 has no node."}))
    with pytest.raises(InvalidInput, match="Organization 2 has no node"):
        create(client)


# --- encryption ------------------------------------------------------------------------------------------


def test_setting_up_encryption_registers_the_keys(script, sealing, identities) -> None:
    [registered] = script.calls("PUT", "skerry/organization/1/keys")
    assert registered.json == identities[1].organization_keys(1)


def test_other_keys_are_registered(script, client, identities, tmp_path) -> None:
    identities[2].save(tmp_path / "other.pem")
    script.on("GET", "organization/1", {"id": 1, "public_key": "x"})
    script.on("PUT", "skerry/organization/1/keys", (409, {"msg": "Other keys are registered."}))
    with pytest.raises(KeyChanged, match=r"registered other keys.*other\.pem"):
        client.setup_encryption(str(tmp_path / "other.pem"))


def test_a_key_file_that_is_not_there(client, tmp_path) -> None:
    with pytest.raises(KeyFileError, match=r"none\.pem"):
        client.setup_encryption(tmp_path / "none.pem")


def test_a_new_private_key(script, client, tmp_path, monkeypatch, identities) -> None:
    monkeypatch.setattr("skerry.subclients.Identity.generate", lambda: identities[1])
    script.on("GET", "organization/1", {"id": 1, "public_key": ""})
    script.on("PUT", "skerry/organization/1/keys", lambda asked: asked.json)
    client.util.generate_private_key(str(tmp_path / "new.pem"))
    assert (tmp_path / "new.pem").stat().st_mode & 0o777 == 0o600
    assert len(script.calls("PUT", "skerry/organization/1/keys")) == 1


# --- waiting and reading ---------------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_organizations(script, client) -> None:
    script.on(
        "GET",
        "skerry/task/5/wait",
        state("pending", "pending", "pending"),
        state("completed", "active", "completed", seen="s2"),
        state("completed", "completed", "completed", seen="s3"),
    )
    results(script, b"[1]", b'{"two": 2}', b"3")
    assert create(client, organizations=[1, 2, 3]).wait(progress=False).results() == [[1], {"two": 2}, 3]
    waits = script.calls("GET", "skerry/task/5/wait")
    assert [call.params.get("until") for call in waits] == ["finished"] * 3


def test_who_shows_how_it_goes_hears_of_each_change(script, client) -> None:
    script.on("GET", "skerry/task/5/wait", state("active"), state("completed", seen="s2"))
    create(client, organizations=[1]).wait()
    waits = script.calls("GET", "skerry/task/5/wait")
    assert [(call.params.get("seen"), call.params.get("until")) for call in waits] == [(None, None), ("s1", None)]


def test_a_bar_shows_how_a_large_result_comes(script, client, capsys) -> None:
    script.on("GET", "skerry/task/5/wait", state("completed"))
    results(script, b'"' + b"x" * 5_000_000 + b'"')
    task = create(client, organizations=[1])
    assert task.results(progress=True) == ["x" * 5_000_000]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "result of organization 1" in shown.err
    task.results()
    task.results(progress=False)
    assert capsys.readouterr() == ("", "")


def test_results_wait_by_themselves(script, client) -> None:
    script.on("GET", "skerry/task/5/wait", state("active"), state("completed", seen="s2"))
    results(script, b"1")
    assert create(client, organizations=[1]).results() == [1]


def test_wait_for_results_as_vantage6_gives_them(script, client) -> None:
    script.on("GET", "task/5", described({"uuid": UUID, "image": "i", "databases": [], "collaboration_id": 1}))
    script.on("GET", "skerry/task/5/wait", state("completed"))
    rows = [{"id": 11, "status": "completed", "log": "", "organization": {"id": 1}, "task": {"id": 5}}]
    script.on("GET", "run", {"data": rows, "links": {}})
    results(script, b'{"a": 1}')
    answer = client.wait_for_results(5)
    assert [row["result"] for row in answer["data"]] == ['{"a": 1}']


def test_results_as_data_frames(script, client) -> None:
    script.on("GET", "skerry/task/5/wait", state("completed", "completed"))
    results(script, b'[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]', b'{"a": [3], "b": ["z"]}')
    frames = create(client).wait().results(frames=True)
    assert [frame.to_dict("list") for frame in frames] == [{"a": [1, 2], "b": ["x", "y"]}, {"a": [3], "b": ["z"]}]


def test_ctrl_c_says_what_goes_on(script, client, monkeypatch) -> None:
    task = create(client)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(client.session.transport, "json", interrupted)
    with pytest.raises(WaitInterrupted, match=r"task 5 goes on.*skerry task kill 5"):
        task.wait()


def test_log_lines_while_waiting(script, client, capsys) -> None:
    runs = {
        "run/11": {"id": 11, "status": "completed", "log": "info > a\ninfo > b\n", "organization": {"id": 1}},
        "run/12": (401, {"msg": "You lack the permission to do that!"}),
    }
    for path, answer in runs.items():
        script.on("GET", path, answer)
    first, second = state("completed", "active"), state("completed", "crashed", seen="s2")
    script.on("GET", "skerry/task/5/wait", first, second)
    create(client).wait(progress=True)
    shown = capsys.readouterr().err
    assert shown.index("organization 1 | info > a") < shown.index("organization 1 | info > b")
    assert "organization 2 | (its log can't be read: You lack the permission to do that!)" in shown
    assert len(script.calls("GET", "run/11")) == 1


def test_log_lines_of_active_runs(script, client, capsys) -> None:
    def active(version: int) -> dict:
        answer = state("active", seen=f"s{version}")
        return {**answer, "runs": [{**answer["runs"][0], "live_log": version}]}

    def row(log: str) -> dict:
        return {"id": 11, "status": "active", "log": log, "organization": {"id": 1}}

    script.on("GET", "skerry/task/5/wait", *map(active, (1, 1, 2, 3)), state("completed", seen="end"))
    cut = "info > one\n[… 9 bytes are left out …]\ninfo > two\ninfo > three\ninfo > fi"
    logs = ["info > one\ninfo > tw", "info > one\ninfo > two\n", cut, f"{cut}ve\nlast"]
    script.on("GET", "run/11", *map(row, logs))
    create(client, organizations=[1]).wait(progress=True)
    lines = [line.partition(" | ")[2] for line in capsys.readouterr().err.splitlines() if " | " in line]
    assert [line.strip() for line in lines] == ["info > one", "info > two", "info > three", "info > five", "last"]
    assert len(script.calls("GET", "run/11")) == 4


def test_waiting_goes_on_through_a_restart_of_the_server(script, client) -> None:
    script.on("GET", "skerry/task/5/wait", state("active"), None, (502, b""), None, state("completed", seen="s2"))
    results(script, b"1")
    assert create(client, organizations=[1]).wait(timeout=60).results() == [1]


def test_a_wait_that_is_too_short_names_the_node_that_is_offline(script, client) -> None:
    def slowly(asked):
        time.sleep(0.2)
        return state("completed", "pending", online=False)

    script.on("GET", "skerry/task/5/wait", slowly)
    script.on("GET", "node/2", {"id": 2, "last_seen": "2026-01-02T03:04:05"})
    with pytest.raises(WaitTimeout) as caught:
        create(client).wait(timeout=0.3)
    assert "1 of 2 runs ended; offline: the node of organization 2." in str(caught.value)
    assert "The node of organization 2 was last seen 2026-01-02T03:04:05 UTC" in str(caught.value)
    assert "call wait() again" in str(caught.value)


def test_a_wait_while_the_server_is_away(script, client) -> None:
    task = create(client)
    script.on("GET", "skerry/task/5/wait", None)
    with pytest.raises(WaitTimeout, match=r"not done after 0\.3 s.*is the server running"):
        task.wait(timeout=0.3)


def test_a_failed_run_is_told_in_a_sentence(script, client) -> None:
    script.on("GET", "skerry/task/5/wait", state("completed", "crashed"))
    rows = [
        {"id": 12, "status": "crashed", "log": "info > x\nerror > no column age\n", "organization": {"id": 2}},
        {"id": 11, "status": "completed", "log": "fine", "organization": {"id": 1}},
    ]
    script.on("GET", "run", {"data": rows, "links": {}})
    task = create(client).wait()
    with pytest.raises(TaskFailed) as caught:
        task.results()
    assert str(caught.value) == "Task 5 failed. Organization 2: crashed: no column age"
    [run] = caught.value.runs
    assert (run["organization_id"], run["status"]) == (2, "crashed")
    assert "no column age" in run["log"]
    assert task.logs() == ["fine", rows[0]["log"]]


def test_failures_of_several_organizations_are_a_line_each(script, client) -> None:
    script.on("GET", "skerry/task/5/wait", state("crashed", "killed by user"))
    rows = [
        {"id": 12, "status": "killed by user", "log": None, "organization": {"id": 2}},
        {"id": 11, "status": "crashed", "log": "error > no column age", "organization": {"id": 1}},
    ]
    script.on("GET", "run", {"data": rows, "links": {}})
    with pytest.raises(TaskFailed) as caught:
        create(client).results()
    assert str(caught.value).splitlines() == [
        "Task 5 failed.",
        "Organization 1: crashed: no column age",
        "Organization 2: killed by user.",
    ]


def test_all_pages_of_runs(script, client) -> None:
    pages = [
        {"data": [{"id": i, "status": "completed", "log": str(i), "organization": {"id": i}}], "links": {"next": "x"}}
        for i in (3, 2)
    ]
    last = {"data": [{"id": 1, "status": "completed", "log": None, "organization": {"id": 1}}], "links": {}}
    script.on("GET", "run", *pages, last)
    assert create(client, organizations=[2, 1, 3]).logs() == ["2", "", "3"]
    assert [call.params["page"] for call in script.calls("GET", "run")] == ["1", "2", "3"]


def test_a_result_that_is_not_json(script, client) -> None:
    script.on("GET", "skerry/task/5/wait", state("completed"))
    results(script, b"\xff\xfe not json")
    with pytest.raises(SkerryError, match="result of organization 1 can't be read: it is not JSON"):
        create(client, organizations=[1]).results()


def test_sealed_results_and_logs(script, sealing, identities) -> None:
    task = create(sealing, organizations=[2])

    def sealed(direction: str, raw: bytes) -> bytes:
        now = int(time.time())
        databases = ({"label": "default"},)
        context = Context(direction, task["uuid"], None, 1, 2, None, 1, "image:1", databases, 1, now, now + 9)
        return b"".join(crypto.seal([raw], context, recipients=[identities[1].public_pem], identity=identities[2]))

    waiting = state("completed")
    waiting["runs"][0]["organization_id"] = 2
    script.on("GET", "skerry/task/5/wait", waiting)
    results(script, sealed("result", b"[7]"))
    row = {"id": 11, "status": "completed", "log": b64(sealed("log", b"it went well")), "organization": {"id": 2}}
    script.on("GET", "run", {"data": [row], "links": {}})
    assert task.results() == [[7]]
    assert task.logs() == ["it went well"]
    row["log"] = b64(sealed("result", b"it went well"))
    with pytest.raises(SkerryError):
        task.logs()


def test_a_signed_task_takes_no_unsigned_result(script, sealing, identities) -> None:
    """Even where the server says that the collaboration accepts vantage6's format too: anybody could have made it."""
    script.on("GET", "collaboration/1", {"id": 1, "name": "c", "encrypted": True, "accept": "both"})
    task = create(sealing, organizations=[2])
    waiting = state("completed")
    waiting["runs"][0]["organization_id"] = 2
    script.on("GET", "skerry/task/5/wait", waiting)
    results(script, crypto.vantage6_encrypt(b'"forged"', identities[1].public_pem).encode())
    with pytest.raises(DecryptionError, match="not encrypted as it should be"):
        task.results()


def test_results_are_held_against_what_was_asked_for(script, client) -> None:
    """Whatever the server numbers its runs, and whatever it calls the task."""
    script.on("POST", "task", lambda asked: (201, {**described(asked.json), "uuid": UUID, "image": "other"}))
    task = create(client, organizations=[2, 1])
    assert task["uuid"] == script.calls("POST", "task")[0].json["uuid"]
    assert task["image"] == "image:1"
    script.on("GET", "skerry/task/5/wait", state("completed", "completed"))
    results(script, b'"of 1"', b'"of 2"')
    assert task.results() == ["of 2", "of 1"]


@pytest.mark.parametrize("statuses", [("completed",), ("completed", "completed", "completed")])
def test_runs_that_were_not_asked_for(script, client, statuses) -> None:
    script.on("GET", "skerry/task/5/wait", state(*statuses))
    results(script, b"1", b"2", b"3")
    with pytest.raises(ContextError, match="other runs of task 5"):
        create(client, organizations=[1, 2]).results()


def test_killing_a_task(script, client) -> None:
    script.on("POST", "kill/task", {"msg": "ok"})
    create(client).kill()
    assert script.calls("POST", "kill/task")[0].json == {"id": 5}


def test_the_text_of_results_as_vantage6_gives_it(script, client) -> None:
    task = described({"uuid": UUID, "image": "i", "databases": [], "collaboration_id": 1})
    rows = [
        {"id": 11, "status": "completed", "log": "", "organization": {"id": 1}, "task": {"id": 5}},
        {"id": 12, "status": "crashed", "log": "", "organization": {"id": 2}, "task": {"id": 5}},
    ]
    script.on("GET", "task/5", task)
    script.on("GET", "run", {"data": rows, "links": {}})
    script.on("GET", "run/11", rows[0])
    results(script, b'{"a": 1}')
    assert [row["result"] for row in client.result.from_task(5)["data"]] == ['{"a": 1}', None]
    assert client.result.get(11) == '{"a": 1}'


# --- the other resources ---------------------------------------------------------------------------------

ANSWER = {"id": 3, "collaboration": {"id": 1}}


@pytest.mark.parametrize(
    ("call", "method", "path", "params", "body"),
    [
        (lambda c: c.organization.list(collaboration=1), "GET", "organization", {"collaboration_id": "1"}, None),
        (lambda c: c.organization.get(), "GET", "organization/1", {}, None),
        (lambda c: c.organization.create(name="x"), "POST", "organization", {}, {"name": "x"}),
        (lambda c: c.organization.update(name="y"), "PATCH", "organization/1", {}, {"name": "y"}),
        (lambda c: c.organization.delete(3), "DELETE", "organization/3", {"delete_dependents": "false"}, None),
        (lambda c: c.collaboration.list(), "GET", "collaboration", {"organization_id": "1"}, None),
        (lambda c: c.collaboration.list(scope="global", name="x"), "GET", "collaboration", {"name": "x"}, None),
        (lambda c: c.collaboration.get(3), "GET", "collaboration/3", {}, None),
        (
            lambda c: c.collaboration.create("x", [1, 2], encrypted=True, accept="both"),
            "POST",
            "collaboration",
            {},
            {"name": "x", "organization_ids": [1, 2], "encrypted": True, "accept": "both"},
        ),
        (lambda c: c.collaboration.update(3, name="y"), "PATCH", "collaboration/3", {}, {"name": "y"}),
        (
            lambda c: c.collaboration.delete(3, delete_dependents=True),
            "DELETE",
            "collaboration/3",
            {"delete_dependents": "true"},
            None,
        ),
        (lambda c: c.collaboration.add_organization(2, 3), "POST", "collaboration/3/organization", {}, {"id": 2}),
        (lambda c: c.collaboration.remove_organization(2, 3), "DELETE", "collaboration/3/organization", {}, {"id": 2}),
        (lambda c: c.study.list(collaboration=1), "GET", "study", {"collaboration_id": "1"}, None),
        (lambda c: c.study.get(3), "GET", "study/3", {}, None),
        (
            lambda c: c.study.create("s", [1], 1),
            "POST",
            "study",
            {},
            {"name": "s", "organization_ids": [1], "collaboration_id": 1},
        ),
        (lambda c: c.study.update(3, name="t"), "PATCH", "study/3", {}, {"name": "t"}),
        (lambda c: c.study.delete(3), "DELETE", "study/3", {}, None),
        (lambda c: c.study.add_organization(2, 3), "POST", "study/3/organization", {}, {"id": 2}),
        (lambda c: c.study.remove_organization(2, 3), "DELETE", "study/3/organization", {}, {"id": 2}),
        (lambda c: c.node.list(is_online=True), "GET", "node", {"status": "online"}, None),
        (lambda c: c.node.get(3), "GET", "node/3", {}, None),
        (lambda c: c.node.create(1), "POST", "node", {}, {"collaboration_id": 1, "organization_id": 1}),
        (lambda c: c.node.update(3, name="n"), "PATCH", "node/3", {}, {"name": "n"}),
        (lambda c: c.node.delete(3), "DELETE", "node/3", {}, None),
        (lambda c: c.user.list(username="r"), "GET", "user", {"username": "r"}, None),
        (lambda c: c.user.get(), "GET", "user/9", {}, None),
        (
            lambda c: c.user.create("u", "f", "l", "p", "e@x", roles=[2]),
            "POST",
            "user",
            {},
            {
                "username": "u",
                "firstname": "f",
                "lastname": "l",
                "password": "p",
                "email": "e@x",
                "roles": [2],
                "rules": [],
                "organization_id": 1,
            },
        ),
        (lambda c: c.user.update(3, email="e"), "PATCH", "user/3", {}, {"email": "e"}),
        (lambda c: c.user.delete(3), "DELETE", "user/3", {}, None),
        (lambda c: c.role.list(name="x"), "GET", "role", {"name": "x"}, None),
        (lambda c: c.role.get(3), "GET", "role/3", {}, None),
        (lambda c: c.role.create("r", "d", [1]), "POST", "role", {}, {"name": "r", "description": "d", "rules": [1]}),
        (lambda c: c.role.update(3, rules=[2]), "PATCH", "role/3", {}, {"rules": [2]}),
        (lambda c: c.role.delete(3), "DELETE", "role/3", {}, None),
        (lambda c: c.rule.list(operation="VIEW"), "GET", "rule", {"operation": "VIEW"}, None),
        (lambda c: c.rule.get(3), "GET", "rule/3", {}, None),
        (lambda c: c.task.list(collaboration=1, user_created=False), "GET", "task", {"is_user_created": "0"}, None),
        (lambda c: c.task.get(3, include_results=True), "GET", "task/3", {"include": "results"}, None),
        (lambda c: c.task.delete(3), "DELETE", "task/3", {}, None),
        (lambda c: c.util.get_server_version(), "GET", "version", {}, None),
        (lambda c: c.util.get_server_health(), "GET", "health", {}, None),
    ],
)
def test_what_is_asked_of_the_server(script, client, call, method, path, params, body) -> None:  # noqa: PLR0917
    script.on(method, path, ANSWER)
    before = len(script.asked)
    answer = call(client)
    [asked] = script.asked[before:]
    assert (asked.method, asked.path) == (method, path)
    assert params.items() <= asked.params.items()
    assert "None" not in asked.params.values()
    assert (asked.json if asked.body else None) == body
    assert answer in (ANSWER, None)


def test_a_changed_collaboration_is_asked_for_again(script, client) -> None:
    create(client)
    script.on("PATCH", "collaboration/1", {})
    client.collaboration.update(1, encrypted=True)
    script.on("GET", "collaboration/1", {"id": 1, "encrypted": True, "accept": "native"})
    with pytest.raises(ConfigurationError, match="setup_encryption"):
        create(client)


@pytest.mark.parametrize("call", [lambda c: c.collaboration.get(), lambda c: c.collaboration.delete()])
def test_which_collaboration(client, call) -> None:
    with pytest.raises(InputError, match="which collaboration"):
        call(client)


def test_a_request_of_ones_own(script, client) -> None:
    script.on("POST", "anything/else", None)
    with pytest.raises(SkerryError):
        client.request("anything/else", json={"a": 1}, method="post")
    assert len(script.calls("POST", "anything/else")) == 1
