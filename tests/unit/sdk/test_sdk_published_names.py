"""The names and arguments of vantage6 4.x's clients, written down by hand, against ours.

A method's arguments are listed in their order; "+" marks one whose answer a part can be kept of, "*" one whose rows
can be filtered too.
"""

from __future__ import annotations

import base64
import inspect
import json

import pytest

from skerry import AlgorithmClient, UserClient

pytestmark = pytest.mark.unit

CLIENT = {
    "authenticate": "username password mfa_code",
    "check_if_blob_store_enabled": "",
    "generate_path_to": "endpoint is_for_algorithm_store",
    "refresh_token": "",
    "request": "endpoint json method params headers",
    "setup_collaboration": "collaboration_id",
    "setup_encryption": "private_key_file",
    "wait_for_results": "task_id interval",
}
ATTRIBUTES = ("base_path", "headers", "host", "name", "path", "port", "token")
LEFT_OUT = {
    # Waits with a request function of the client's own; task.get(id).wait() does it.
    "wait_for_task_completion",
}

ADDRESS = "name address1 address2 zipcode country domain public_key"
ALGORITHM = "name description image partitioning"
STATES = "awaiting_reviewer_assignment under_review in_review_process invalidated"
TASK_LIST = (
    "initiating_org initiating_user collaboration study store image parent job name include_results description "
    "database run status user_created page per_page"
)
CALLS = {
    "util.change_my_password": "current_password new_password",
    "util.generate_private_key": "file_",
    "util.get_server_health": "",
    "util.get_server_version": "attempts_on_timeout",
    "util.reset_my_password": "email username",
    "util.reset_two_factor_auth": "password email username",
    "util.set_my_password": "token password",
    "util.set_two_factor_auth": "token",
    "collaboration.add_organization": "organization collaboration",
    "collaboration.create": "+ name organizations encrypted",
    "collaboration.delete": "id_ delete_dependents",
    "collaboration.get": "+ id_",
    "collaboration.list": "* scope name encrypted organization algorithm_store page per_page",
    "collaboration.remove_organization": "organization collaboration",
    "collaboration.update": "+ id_ name encrypted organizations",
    "organization.create": f"+ {ADDRESS}",
    "organization.delete": "id_ delete_dependents",
    "organization.get": "+ id_",
    "organization.list": "* name country collaboration study page per_page",
    "organization.update": f"+ id_ {ADDRESS}",
    "study.add_organization": "organization study",
    "study.create": "+ name organizations collaboration",
    "study.delete": "id_",
    "study.get": "+ id_",
    "study.list": "* name organization collaboration include_organizations page per_page",
    "study.remove_organization": "organization study",
    "study.update": "+ id_ name organizations",
    "node.create": "+ collaboration organization name",
    "node.delete": "id_",
    "node.get": "+ id_",
    "node.kill_tasks": "id_",
    "node.list": "* name organization collaboration study is_online ip last_seen_from last_seen_till page per_page",
    "node.update": "+ id_ name clear_ip",
    "user.create": "+ username firstname lastname password email organization roles rules",
    "user.delete": "id_",
    "user.get": "+ id_",
    "user.list": (
        "* username organization firstname lastname email role rule last_seen_from last_seen_till page per_page"
    ),
    "user.update": "+ id_ firstname lastname organization rules roles email",
    "role.create": "+ name description rules organization",
    "role.delete": "role",
    "role.get": "+ id_",
    "role.list": "* name description organization rule user include_root page per_page",
    "role.update": "+ role name description rules",
    "rule.get": "+ id_",
    "rule.list": "* name operation scope role page per_page",
    "task.create": ("+ organizations name image description input_ collaboration study store server_url databases"),
    "task.delete": "id_",
    "task.get": "+ id_ include_results",
    "task.kill": "id_",
    "task.list": f"* {TASK_LIST}",
    "run.from_task": "* task_id include_task",
    "run.get": "+ id_ include_task decrypt_input",
    "run.list": ("* task organization state node include_task started assigned finished port page per_page"),
    "result.from_task": "task_id",
    "result.get": "id_",
    "store.create": "+ algorithm_store_url name collaboration all_collaborations force",
    "store.delete": "id_",
    "store.get": "+ id_",
    "store.list": "* name url collaboration page per_page",
    "store.set": "id_",
    "store.update": "+ id_ name collaboration all_collaborations",
    "store.policy.get": "+ public",
    "store.review.approve": "id_ comment",
    "store.review.create": "+ algorithm reviewer",
    "store.review.delete": "id_",
    "store.review.get": "+ id_",
    "store.review.list": "* algorithm reviewer under_review reviewed approved rejected page per_page",
    "store.review.reject": "id_ comment",
    "store.role.create": "+ name description rules",
    "store.role.delete": "role_id",
    "store.role.edit": "+ role_id name description rules",
    "store.role.list": "* name description user page per_page",
    "store.rule.list": "* name operation role username serverUrl page per_page",
    "store.user.delete": "id_",
    "store.user.get": "+ id_",
    "store.user.list": "* username role page per_page",
    "store.user.register": "+ username roles",
    "store.user.update": "+ id_ roles",
    "algorithm.create": f"+ {ALGORITHM} vantage6_version code_url functions documentation_url",
    "algorithm.delete": "id_",
    "algorithm.get": "+ id_",
    "algorithm.invalidate": "+ id_",
    "algorithm.list": f"* {ALGORITHM} v6_version {STATES} page per_page",
    "algorithm.update": (f"+ id_ {ALGORITHM} vantage6_version code_url documentation_url functions refresh_digest"),
}
"""By hand from the published client 4.15.2."""

IN_CONTAINER = {
    "authenticate": "credentials path",
    "generate_path_to": "endpoint is_for_algorithm_store",
    "refresh_token": "",
    "request": "",
    "setup_encryption": "private_key_file",
    "wait_for_results": "task_id interval",
    "collaboration.get": "",
    "node.get": "",
    "organization.get": "id_",
    "organization.list": "",
    "result.from_task": "task_id",
    "result.get": "id_",
    "run.from_task": "task_id",
    "run.get": "id_",
    "study.get": "id_",
    "study.list": "",
    "task.create": "input_ organizations name description",
    "task.get": "task_id",
    "vpn.get_addresses": ("only_children only_parent only_siblings only_self include_children include_parent label"),
    "vpn.get_child_addresses": "",
    "vpn.get_own_address": "",
    "vpn.get_parent_address": "",
    "vpn.get_sibling_addresses": "",
}
"""By hand from the documentation of its algorithm client."""


def reach(client, name: str):
    for part in name.split("."):
        client = getattr(client, part)
    return client


def arguments(method) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values())


@pytest.fixture(scope="module")
def client() -> UserClient:
    return UserClient("http://127.0.0.1", 1)


@pytest.mark.parametrize("name", CALLS | CLIENT)
def test_arguments(client, name) -> None:
    words = (CALLS | CLIENT)[name].split()
    kind, wanted = (words[0], words[1:]) if words[:1] in (["+"], ["*"]) else ("", words)
    given = arguments(reach(client, name))
    assert [one.name for one in given][: len(wanted)] == wanted
    picks = {one.name for one in given if one.kind is one.KEYWORD_ONLY} & {"field", "fields", "filter_", "filters"}
    assert picks == {"": set(), "+": {"field", "fields"}, "*": {"field", "fields", "filter_", "filters"}}[kind]
    more = [one for one in given[len(wanted) :] if one.default is one.empty]
    assert more == [], "what vantage6 does not ask for must not be needed"


def test_attributes(make_token, server) -> None:
    server.on("POST", "token/user", {"access_token": make_token(9), "refresh_token": make_token(9)})
    server.on("GET", "user/9", {"id": 9, "username": "root", "organization": {"id": 1}})
    client = UserClient("http://127.0.0.1/", server.port, "api")
    client.authenticate("root", "secret")
    values = {name: getattr(client, name) for name in ATTRIBUTES}
    assert values == {
        "base_path": f"http://127.0.0.1:{server.port}/api",
        "headers": {"Authorization": f"Bearer {make_token(9)}"},
        "host": "http://127.0.0.1",
        "name": "root",
        "path": "/api",
        "port": server.port,
        "token": make_token(9),
    }
    assert client.generate_path_to("/task/1") == f"{client.base_path}/task/1"


def test_an_argument_that_there_is_not_is_refused_before_anything_is_sent(client) -> None:
    for call in (client.node.list, client.organization.create, client.task.get):
        with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
            call(colour="red")


def test_arguments_in_a_container() -> None:
    body = {
        "task_id": 1,
        "node_id": 1,
        "organization_id": 1,
        "collaboration_id": 1,
        "image": "x",
    }
    token = base64.urlsafe_b64encode(json.dumps({"sub": body}).encode()).decode().rstrip("=")
    client = AlgorithmClient(f"e30.{token}.e30", "http://127.0.0.1", 8642, "")
    for name, words in IN_CONTAINER.items():
        wanted = words.split()
        given = arguments(reach(client, name))
        assert [one.name for one in given][: len(wanted)] == wanted, name
        if name != "request":
            assert all(one.default is not one.empty for one in given[len(wanted) :]), name
    assert all(hasattr(client, name) for name in ATTRIBUTES)
