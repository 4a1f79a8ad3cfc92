"""An algorithm that uses every public member of its AlgorithmClient once, and says what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skerry import AlgorithmClient, central, partial
from skerry.exceptions import AlgorithmError


@partial
def echo(value: Any) -> Any:
    return value


@central
def use_all(client: AlgorithmClient, study: int) -> dict[str, Any]:
    """What each member gave, by its name."""
    organizations = client.organization.list()
    ids = [organization["id"] for organization in organizations]
    task = client.task.create({"method": "echo", "args": [{"of": "all"}]}, ids, "a child", "with words")
    results = client.wait_for_results(task["id"], interval=0.5)
    runs = client.run.from_task(task["id"])
    return {
        "organization.list": organizations,
        "organization.get": client.organization.get(ids[0]),
        "task.create": task,
        "task.get": client.task.get(task["id"]),
        "wait_for_results": results,
        "run.from_task": runs,
        "run.get": client.run.get(runs[0]["id"]),
        "result.from_task": client.result.from_task(task["id"]),
        "result.get": client.result.get(runs[0]["id"]),
        "collaboration.get": client.collaboration.get(),
        "study.get": client.study.get(study),
        "study.list": client.study.list(),
        "node.get": client.node.get(),
        "request": client.request("version"),
        **_addresses(client),
        **_attributes(client),
        "authenticate": _refused(client.authenticate),
        "refresh_token": _refused(client.refresh_token),
        "setup_encryption": _refused(lambda: client.setup_encryption("key.pem")),
    }


def _addresses(client: AlgorithmClient) -> dict[str, Any]:
    return {
        "vpn.get_addresses": client.vpn.get_addresses(include_children=True, include_parent=True, label="http"),
        "vpn.get_child_addresses": client.vpn.get_child_addresses(),
        "vpn.get_parent_address": client.vpn.get_parent_address(),
        "vpn.get_sibling_addresses": client.vpn.get_sibling_addresses(),
        "vpn.get_own_address": client.vpn.get_own_address(),
        "vpn.wait_for": _failed(lambda: client.vpn.wait_for(timeout=0)),
        "vpn.connect": _failed(lambda: client.vpn.connect({"ip": "127.0.0.1", "port": 9}, timeout=0)),
    }


def _failed(call: Callable[[], object]) -> str:
    """What is said where there is no VPN."""
    try:
        call()
    except AlgorithmError as error:
        return str(error)
    return ""


def _attributes(client: AlgorithmClient) -> dict[str, Any]:
    return {
        "base_path": client.base_path,
        "host": client.host,
        "port": client.port,
        "path": client.path,
        "name": client.name,
        "token": client.token,
        "headers": client.headers,
        "generate_path_to": client.generate_path_to("task/1", is_for_algorithm_store=False),
    }


def _refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except NotImplementedError:
        return True
    return False
