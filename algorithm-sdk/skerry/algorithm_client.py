"""What an algorithm talks to the rest of the world with: its gate, and through it the server.

The names and shapes are those of vantage6 4.x's AlgorithmClient. The gate encrypts and decrypts; this module sees
plain JSON and needs no cryptography.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NoReturn, Protocol, cast

from skerry import forms, outcomes, values
from skerry.calls import KEY, Call
from skerry.contract import read_claims
from skerry.errors import AlgorithmError, AuthenticationError, ChildTaskFailed, InputError, NotFound, ServerError
from skerry.wire import Format, Status, b64, detect_format, unb64

_BLOBS = "blobstream"
"""Where an input is sent ahead of its task. What is sent twice only waits for a task that never comes."""
_MOST_INLINE = 48 << 20
"""Characters of the inputs that a task carries itself; a gate takes a body of up to 64 MiB."""
_WAIT = 25
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0
_PEER_SECONDS = 0.25
_LOOKS = 8  # at the addresses, for each look at the runs that should have one
_NO_PEER = "Do their nodes allow it (policies.vpn), and does the image declare its ports (EXPOSE)?"
_PATIENCE = 3600.0
"""Seconds for which a call goes on trying when the gate is away, or waits for a gate whose server is."""


class Gate(Protocol):
    """What the client needs of its transport."""

    def json(self, call: Call) -> Any: ...


@dataclass(frozen=True, slots=True)
class Claims:
    """What the run's token says of the run. It is read, not verified: the gate verifies it."""

    task_id: int
    node_id: int
    organization_id: int
    collaboration_id: int
    study_id: int | None
    store_id: int | None
    image: str
    databases: list[dict[str, Any]]

    @classmethod
    def of(cls, token: str) -> Claims:
        """Raises InputError when the token has not the form that the container contract gives it."""
        try:
            subject = read_claims(token)["sub"]
            ids = {name: int(subject[name]) for name in ("task_id", "node_id", "organization_id", "collaboration_id")}
            return cls(
                **ids,
                study_id=subject.get("study_id"),
                store_id=subject.get("store_id"),
                image=str(subject["image"]),
                databases=list(subject.get("databases") or []),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError("The run's token is not one that a node makes.") from error


class AlgorithmClient:
    """An algorithm's calls. The entry point makes one and gives it to a function marked ``@central``.

    ``socket``: the gate's unix socket, where the runtime shares no loopback with it.
    """

    def __init__(
        self, token: str, host: str, port: int, path: str = "", *, socket: str | None = None, gate: Gate | None = None
    ) -> None:
        self._token = token
        self._host, self._port, self._path = host, port, path
        self._claims = claims = Claims.of(token)
        self.image, self.databases = claims.image, claims.databases
        self.organization_id, self.collaboration_id = claims.organization_id, claims.collaboration_id
        self.node_id, self.study_id, self.store_id = claims.node_id, claims.study_id, claims.store_id
        self._gate = gate or _transport(self.base_path, socket)
        self.newest_child: int | None = None  # the task that this run created last
        self.task = Task(self)
        self.run = Run(self)
        self.result = Result(self)
        self.organization = Organization(self)
        self.collaboration = Collaboration(self)
        self.study = Study(self)
        self.node = Node(self)
        self.vpn = VPN(self)

    @property
    def claims(self) -> Claims:
        return self._claims

    @property
    def token(self) -> str:
        return self._token

    @property
    def host(self) -> str:
        return self._host

    @property
    def port(self) -> int:
        return self._port

    @property
    def path(self) -> str:
        return self._path

    @property
    def base_path(self) -> str:
        return f"{self._host}:{self._port}{self._path}"

    @property
    def name(self) -> str:
        return f"task {self._claims.task_id} at organization {self._claims.organization_id}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def generate_path_to(self, endpoint: str, is_for_algorithm_store: bool = False) -> str:
        """The URL of a path below the gate; raises InputError for a store's, which no gate leads to."""
        if is_for_algorithm_store:
            raise InputError("An algorithm can't reach an algorithm store.")
        return f"{self.base_path}/{endpoint.lstrip('/')}"

    def request(
        self,
        endpoint: str,
        json: Any = None,
        method: str = "get",
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        data: Iterable[bytes] | None = None,
    ) -> Any:
        """One call, answered as JSON; raises ServerError or a subclass. The gate lets few calls through.

        ``data``: the body, piece by piece, in place of ``json``.
        """
        return self._call(method.upper(), endpoint, json=json, params=params, headers=headers, data=data)

    def wait_for_results(self, task_id: int, interval: float = 1) -> list[Any]:  # noqa: ARG002 - vantage6's; a push needs none
        """The results of a child task, once all its runs have ended, in the order of its organizations.

        Raises ChildTaskFailed, with each failed run's own words, when there is not one from each of them.
        """
        if any(map(outcomes.failed, self._wait(task_id))):
            raise _child_failed(task_id, self.run.from_task(task_id))
        return self.result.from_task(task_id)

    def authenticate(self, credentials: object = None, path: object = None) -> NoReturn:
        """Always raises: the node gave the container its token."""
        raise NotImplementedError("An algorithm does not log in: its node gave it a token.")

    def refresh_token(self) -> NoReturn:
        """Always raises: the token is valid as long as the run."""
        raise NotImplementedError("An algorithm's token is valid as long as its run and is not refreshed.")

    def setup_encryption(self, private_key_file: object = None) -> NoReturn:
        """Always raises: the gate encrypts, and the key stays with it."""
        raise NotImplementedError("An algorithm does not encrypt: its gate does.")

    def _call(self, method: str, path: str, **details: Any) -> Any:
        repeatable = method in {"GET", "HEAD"} or path == _BLOBS or KEY in (details.get("headers") or {})
        call = Call(
            method, path, token=self._token, repeatable=repeatable, patience=_PATIENCE, timeout=_PATIENCE, **details
        )
        return self._gate.json(call)

    def _wait(self, task_id: int) -> list[str]:
        """The statuses of its runs, once they have ended."""
        try:
            return self._wait_for_push(task_id)
        except (NotFound, AuthenticationError):
            return self._ask_again(task_id)

    def _wait_for_push(self, task_id: int) -> list[str]:
        params = {"timeout": _WAIT, "until": "finished"}
        while True:
            answer = self._call("GET", f"skerry/task/{task_id}/wait", params=params)
            if answer["finished"]:
                return [str(run["status"]) for run in answer["runs"]]

    def _ask_again(self, task_id: int) -> list[str]:
        """For a gate of vantage6, which has no push: asks, ever less often. Raises NotFound for an unknown task."""
        self.task.get(task_id)
        pause = _FIRST_PAUSE
        while not all(map(outcomes.ended, statuses := self._statuses(task_id))):
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return statuses

    def _statuses(self, task_id: int) -> list[str]:
        return [str(run["status"]) for run in self.run.from_task(task_id)]


@dataclass(frozen=True, slots=True)
class SubClient:
    """A group of an algorithm's calls."""

    parent: AlgorithmClient

    def _get(self, path: str, **params: Any) -> dict[str, Any]:
        return cast("dict[str, Any]", self.parent.request(path, params=params or None))

    def _list(self, path: str, **params: Any) -> list[dict[str, Any]]:
        return list(self._get(path, **params)["data"])


class Task(SubClient):
    def get(self, task_id: int) -> dict[str, Any]:
        return self._get(f"task/{int(task_id)}")

    def create(
        self,
        input_: Mapping[str, Any],
        organizations: Sequence[int] | None = None,
        name: str = "subtask",
        description: str | None = None,
    ) -> dict[str, Any]:
        """The child task: this image again, with the same databases, at these organizations.

        Without ``organizations`` it is all of the collaboration, or of the study. ``input_`` names the function as
        ``method`` and its ``args`` and ``kwargs``. Raises InputError when it can't be JSON.
        """
        claims, raw = self.parent.claims, _dump_input(input_)
        targets = self._all() if organizations is None else list(organizations)
        body: dict[str, Any] = {
            "name": name,
            "image": claims.image,
            "collaboration_id": claims.collaboration_id,
            "organizations": self._inputs(raw, targets),
            "databases": claims.databases,
        }
        optional = {"description": description, "study_id": claims.study_id, "store_id": claims.store_id}
        body |= {key: value for key, value in optional.items() if value is not None}
        headers = {KEY: str(uuid.uuid4())}
        task = cast("dict[str, Any]", self.parent.request("task", json=body, method="post", headers=headers))
        self.parent.newest_child = int(task["id"])
        return task

    def _inputs(self, raw: bytes, targets: Sequence[int]) -> list[dict[str, Any]]:
        """As the task names them: themselves, or where they wait when together they are too large for it."""
        if len(raw) * 4 // 3 * len(targets) > _MOST_INLINE:
            return [{"id": one, "input": self._send_ahead(raw, one)} for one in targets]
        text = b64(raw)
        return [{"id": one, "input": text} for one in targets]

    def _send_ahead(self, raw: bytes, organization: int) -> str:
        """Leaves the input at the gate, which holds the key that is shown against the one that it knows. Its name."""
        key = self.parent.organization.get(organization).get("public_key")
        headers = {"Content-Length": str(len(raw))} | ({"X-Public-Key": str(key)} if key else {})
        return str(self.parent.request(_BLOBS, method="post", headers=headers, data=[raw])["uuid"])

    def _all(self) -> list[int]:
        return [int(organization["id"]) for organization in self.parent.organization.list()]


class Run(SubClient):
    def get(self, id_: int) -> dict[str, Any]:
        return self._get(f"run/{int(id_)}")

    def from_task(self, task_id: int) -> list[dict[str, Any]]:
        """The runs of a child task, in the order of its organizations."""
        return _in_order(self._list("run", task_id=int(task_id)))


class Result(SubClient):
    def get(self, id_: int) -> Any:
        """The result of one run; raises AlgorithmError when there is none, or it is not JSON."""
        return _value(self._get(f"result/{int(id_)}"))

    def from_task(self, task_id: int) -> list[Any]:
        """The results that there are of a child task, in the order of its organizations."""
        rows = _in_order(self._list("result", task_id=int(task_id)))
        return [_value(row) for row in rows if row.get("result")]


class Organization(SubClient):
    def get(self, id_: int) -> dict[str, Any]:
        return self._get(f"organization/{int(id_)}")

    def list(self) -> list[dict[str, Any]]:
        """The organizations of the collaboration, or of the study that the task is for."""
        claims = self.parent.claims
        if claims.study_id is not None:
            return self._list("organization", study_id=claims.study_id)
        return self._list("organization", collaboration_id=claims.collaboration_id)


class Collaboration(SubClient):
    def get(self) -> dict[str, Any]:
        return self._get(f"collaboration/{self.parent.claims.collaboration_id}")


class Study(SubClient):
    def get(self, id_: int) -> dict[str, Any]:
        return self._get(f"study/{int(id_)}")

    def list(self) -> list[dict[str, Any]]:
        """The studies of the collaboration."""
        return self._list("study", collaboration_id=self.parent.claims.collaboration_id)


class Node(SubClient):
    def get(self) -> dict[str, Any]:
        """The node that this run is on."""
        return self._get(f"node/{self.parent.claims.node_id}")


class VPN(SubClient):
    """Where the peers of this run listen: one entry for each port, with ip, port, label, organization and task."""

    def get_addresses(  # noqa: PLR0917 - vantage6's order
        self,
        only_children: bool = False,
        only_parent: bool = False,
        only_siblings: bool = False,
        only_self: bool = False,
        include_children: bool = False,
        include_parent: bool = False,
        label: str | None = None,
    ) -> list[dict[str, Any]] | dict[str, str]:
        """The addresses; a dict with a ``message``, as in vantage6, when they can't be had."""
        flags = {
            "only_children": only_children,
            "only_parent": only_parent,
            "only_siblings": only_siblings,
            "only_self": only_self,
            "include_children": include_children,
            "include_parent": include_parent,
        }
        params: dict[str, Any] = {name: 1 for name, is_set in flags.items() if is_set}
        if label is not None:
            params["label"] = label
        try:
            answer = self._get("vpn/algorithm/addresses", **params)
        except ServerError as error:
            return {"message": f"Obtaining VPN addresses failed! {error}"}
        return cast("list[dict[str, Any]]", answer["addresses"])

    def get_child_addresses(self) -> list[dict[str, Any]] | dict[str, str]:
        return self.get_addresses(only_children=True)

    def get_parent_address(self) -> list[dict[str, Any]] | dict[str, str]:
        return self.get_addresses(only_parent=True)

    def get_sibling_addresses(self) -> list[dict[str, Any]] | dict[str, str]:
        return self.get_addresses(only_siblings=True)

    def get_own_address(self) -> list[dict[str, Any]] | dict[str, str]:
        return self.get_addresses(only_self=True)

    def wait_for(
        self,
        organizations: Collection[int] | None = None,
        *,
        label: str | None = None,
        children: bool = False,
        timeout: float = 300.0,
    ) -> dict[int, list[dict[str, Any]]]:
        """The addresses of the runs of this task (or of its child tasks) at these organizations, once all have one.

        A run has its address before its first instruction, so it may not listen yet: see ``connect``.

        By organization; without ``organizations``, all that this task was sent to. A run has its address for as long
        as it runs: raises AlgorithmError when one is not there after ``timeout`` seconds, or before that, when its
        run of this task (or of the child task created last) has ended.
        """
        wanted = set(organizations) if organizations is not None else self._organizations_of_task()
        end, looks = time.monotonic() + timeout, 0
        while True:
            found: dict[int, list[dict[str, Any]]] = {}
            for address in self._require_addresses(only_children=children, label=label):
                found.setdefault(address["organization_id"], []).append(address)
            absent = sorted(wanted - found.keys())
            if not absent:
                return {organization: found[organization] for organization in sorted(wanted)}
            if time.monotonic() > end:
                raise AlgorithmError(
                    f"Organizations {', '.join(map(str, absent))} are not in the VPN after {timeout:g} s. {_NO_PEER}"
                )
            looks += 1
            if looks % _LOOKS == 0:
                self._refuse_the_ended(absent, self.parent.newest_child if children else self.parent.claims.task_id)
            time.sleep(_PEER_SECONDS)

    @staticmethod
    def connect(address: Mapping[str, Any], timeout: float = 300.0) -> socket.socket:
        """A TCP connection to one of the addresses, tried again while that run does not listen yet.

        Raises AlgorithmError after ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while True:
            try:
                return socket.create_connection(
                    (address["ip"], address["port"]), max(_PEER_SECONDS, end - time.monotonic())
                )
            except OSError as error:
                if time.monotonic() > end:
                    raise AlgorithmError(f"Nobody answers at {address['ip']}:{address['port']} in the VPN.") from error
            time.sleep(_PEER_SECONDS)

    def _require_addresses(self, *, only_children: bool, label: str | None) -> list[dict[str, Any]]:
        found = self.get_addresses(only_children=only_children, label=label)
        if isinstance(found, dict):
            raise AlgorithmError(found["message"])
        return found

    def _refuse_the_ended(self, absent: Iterable[int], task_id: int | None) -> None:
        """Raises AlgorithmError for an organization whose run of the task has ended, if the gate tells."""
        try:
            runs = self._get(f"skerry/task/{task_id}/wait", timeout=0)["runs"] if task_id is not None else []
        except ServerError:
            return
        statuses = {int(run["organization_id"]): str(run["status"]) for run in runs}
        for organization in absent:
            if organization in statuses and outcomes.ended(statuses[organization]):
                raise AlgorithmError(
                    f"Organization {organization} is not in the VPN: its run ended ({statuses[organization]}). "
                    + _NO_PEER
                )

    def _organizations_of_task(self) -> set[int]:
        runs = self.parent.run.from_task(self.parent.claims.task_id)
        return {int(run["organization"]["id"]) for run in runs}


def _transport(base_url: str, socket_path: str | None) -> Gate:
    """Imported late: HTTP is most of what an import costs, and partial functions call nobody."""
    from skerry.gate import GateTransport  # noqa: PLC0415

    return GateTransport(base_url, socket_path)


def _in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The server lists the newest first; runs are numbered in the order of the organizations asked."""
    return sorted(rows, key=lambda row: int(row["id"]))


def _dump_input(input_: Mapping[str, Any]) -> bytes:
    if not isinstance(input_, Mapping) or not isinstance(input_.get("method"), str):
        raise InputError('The input of a child task must be a dict with the function\'s name as "method".')
    try:
        return values.dump(dict(input_), "input_")
    except ValueError as error:
        raise InputError(f"The input of a child task can't be written as JSON: {error}.") from error


def _value(row: Mapping[str, Any]) -> Any:
    try:
        return forms.load(BytesIO(unb64(row["result"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AlgorithmError(f"The result of run {row.get('id')} is missing or not JSON, arrays or a table.") from error


def _child_failed(task_id: int, runs: list[dict[str, Any]]) -> ChildTaskFailed:
    plain = [
        {
            "id": run["id"],
            "organization_id": run["organization"]["id"],
            "status": run["status"],
            "log": _readable(run.get("log")),
        }
        for run in runs
        if run["status"] != Status.COMPLETED
    ]
    return ChildTaskFailed(f"Child task {task_id} failed. {'; '.join(outcomes.lines(plain))}")


def _readable(log: str | None) -> str:
    """The log, when the gate could open it."""
    return log if log and detect_format(log) is not Format.NATIVE else ""
