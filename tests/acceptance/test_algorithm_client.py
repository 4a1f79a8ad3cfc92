"""Every public member of the AlgorithmClient, used inside a real container, through its gate."""

from __future__ import annotations

import inspect
import json

import pytest
from devfederation import ALGORITHMS, build

from skerry import algorithm_client
from skerry.algorithm_client import AlgorithmClient, SubClient
from skerry.contract import read_claims

pytestmark = pytest.mark.acceptance
NOT_VANTAGE6S = {"claims"}


@pytest.fixture(scope="module")
def members_image(images) -> str:
    return build(ALGORITHMS / "members", "skerry-tests/members")


@pytest.fixture(params=[["--accept", "native"], ["--plain"]], ids=["encrypted", "plain"])
def accept(request) -> list[str]:
    return request.param


@pytest.fixture(params=["tcp", "unix"])
def way(request, tmp_path) -> list[str]:
    """How algorithms reach their gate."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"docker": {"gate": request.param}}))
    return ["--node-settings", str(settings)]


@pytest.fixture
def asked(accept, way, dev, members_image):
    """The federation, the study, the task, and what each member gave."""
    with dev("--nodes", "2", *accept, *way) as federation:
        client = federation.client()
        body = {
            "name": "half",
            "collaboration_id": federation.collaboration_id,
            "organization_ids": federation.organization_ids[:1],
        }
        study = client.request("study", json=body, method="post")["id"]
        task = client.task.create(
            organizations=federation.organization_ids[:1],
            name="members",
            image=members_image,
            input_={"method": "use_all", "kwargs": {"study": study}},
            collaboration=federation.collaboration_id,
        )
        [seen] = task.wait().results()
        yield federation, study, task, seen


def members() -> set[str]:
    """All public names of the client and of its groups of calls."""
    groups = {name for name, one in inspect.getmembers(algorithm_client, inspect.isclass) if issubclass(one, SubClient)}
    names = {
        f"{group.lower()}.{name}"
        for group in groups - {"SubClient"}
        for name in vars(getattr(algorithm_client, group))
        if not name.startswith("_")
    }
    return names | {name for name in vars(AlgorithmClient) if not name.startswith("_")} - NOT_VANTAGE6S


def test_every_member(asked) -> None:
    federation, study, task, seen = asked
    assert set(seen) == members()
    check_calls(federation, study, seen)
    check_child(federation, task["id"], seen)
    check_attributes(federation, task["id"], seen)


def check_calls(federation, study: int, seen: dict) -> None:
    ids = federation.organization_ids
    assert sorted(one["id"] for one in seen["organization.list"]) == ids
    assert seen["organization.get"] in seen["organization.list"]
    assert seen["collaboration.get"]["id"] == federation.collaboration_id
    assert (seen["study.get"]["id"], seen["study.get"]["name"]) == (study, "half")
    assert [one["id"] for one in seen["study.list"]] == [study]
    assert seen["node.get"]["id"] == federation.facts["nodes"][0]["id"]
    assert set(seen["request"]) >= {"version"}
    assert all(seen[name] for name in ("authenticate", "refresh_token", "setup_encryption"))
    assert "not in the VPN" in seen["vpn.wait_for"]
    assert "Nobody answers" in seen["vpn.connect"]
    assert all(value == [] for name, value in seen.items() if name.startswith("vpn.get_"))


def check_child(federation, parent: int, seen: dict) -> None:
    child = seen["task.create"]["id"]
    got = seen["task.get"]
    assert (got["id"], got["name"], got["description"]) == (child, "a child", "with words")
    assert (got["parent"]["id"], got["status"]) == (parent, "completed")
    assert [run["status"] for run in seen["run.from_task"]] == ["completed", "completed"]
    assert seen["run.get"]["id"] == seen["run.from_task"][0]["id"]
    assert seen["wait_for_results"] == seen["result.from_task"] == [{"of": "all"}] * 2
    assert seen["result.get"] == {"of": "all"}


def check_attributes(federation, task: int, seen: dict) -> None:
    claims = read_claims(seen["token"])["sub"]
    assert claims["task_id"] == task
    assert claims["organization_id"] == federation.organization_ids[0]
    assert seen["headers"] == {"Authorization": f"Bearer {seen['token']}"}
    assert (seen["host"], seen["port"], seen["path"]) == ("http://127.0.0.1", 8642, "")
    assert seen["base_path"] == "http://127.0.0.1:8642"
    assert seen["generate_path_to"] == "http://127.0.0.1:8642/task/1"
    assert str(task) in seen["name"]
