"""A federation in memory: an algorithm on a few data frames, in a unit test, without server, node or container.

    federation = Federation(my_algorithm, [hospital_a, hospital_b])
    assert federation.run("mean", column="age") == {"mean": 51.5}

The algorithm gets the real AlgorithmClient. Inputs and results take the way through JSON that they take in a
federation of machines, so what can't take it fails here too. A run happens when its task is created.
"""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any

from skerry import contract, databases, forms, functions, outcomes
from skerry.algorithm_client import AlgorithmClient
from skerry.databases import Database
from skerry.entrypoint import sentence, take
from skerry.errors import AlgorithmError, ConfigurationError, DataError, InvalidInput, NotFound
from skerry.output import ERROR_MARK
from skerry.wire import Input, Status, b64, canonical, unb64

if TYPE_CHECKING:
    from skerry.calls import Call

_IMAGE = "in-memory"
_SUBNET = ipaddress.IPv4Network("10.76.0.0/16")


@dataclass
class _Run:
    id: int
    task_id: int
    organization_id: int
    status: Status = Status.ACTIVE
    result: bytes = b""
    log: str = ""

    def fail(self, problem: BaseException) -> None:
        self.status, self.log = Status.CRASHED, ERROR_MARK + sentence(problem)


@dataclass
class _Task:
    id: int
    parent_id: int | None
    name: str
    runs: list[_Run] = field(default_factory=list)

    @property
    def status(self) -> Status:
        return next((run.status for run in self.runs if run.status.failed), Status.COMPLETED)


class Federation:
    """Organizations 1 to n, each with its own tables, all with the same algorithm."""

    def __init__(
        self,
        algorithm: ModuleType,
        tables: Sequence[Any],
        *,
        organizations: Sequence[int] | None = None,
        nodes: Sequence[int] | None = None,
        collaboration: int = 1,
        ports: Mapping[int, str | None] | None = None,
    ) -> None:
        """``tables``: for each organization a data frame, a file's path, a Database, or several of them by label.

        ``organizations``: their ids, instead of 1 to n; ``nodes``: those of their nodes, instead of the same.
        ``ports``: what the image declares, each with its label or None; the client then knows addresses of the runs.
        Runs follow each other here, so nobody listens there.
        """
        if not tables:
            raise ConfigurationError("A federation needs at least one organization: give one table for each.")
        if getattr(algorithm, "__file__", "") is None:  # a namespace package
            name = algorithm.__name__
            raise ConfigurationError(f'"{name}" is a folder without __init__.py, not the package: run inside of it.')
        self._algorithm = algorithm
        self.organizations = list(organizations or range(1, len(tables) + 1))
        for what, ids in (("organizations", self.organizations), ("nodes", nodes or self.organizations)):
            if len(ids) != len(tables) or len(set(ids)) != len(tables):
                raise ConfigurationError(
                    f"There are tables for {len(tables)} organizations: give as many ids of {what}."
                )
        self.collaboration = collaboration
        self.ports = dict(ports or {})
        self.nodes = dict(zip(self.organizations, nodes or self.organizations, strict=True))
        by_label = [table if isinstance(table, Mapping) else {"default": table} for table in tables]
        self._tables = dict(zip(self.organizations, by_label, strict=True))
        self.blobs: dict[str, bytes] = {}
        self._tasks: list[_Task] = []
        self._runs: list[_Run] = []

    def run(self, method: str, /, *args: Any, at: int | None = None, **kwargs: Any) -> Any:
        """The result of a function at one organization, by default the first.

        Raises AlgorithmError with its own words when it fails.
        """
        return self._results(method, [self.organizations[0] if at is None else at], args, kwargs)[0]

    def run_all(self, method: str, /, *args: Any, **kwargs: Any) -> list[Any]:
        """The results of a function at each organization, in their order. Raises as ``run`` does."""
        return self._results(method, self.organizations, args, kwargs)

    def client(self, organization: int | None = None) -> AlgorithmClient:
        """The client that a central function at that organization, by default the first, would get."""
        here = self.organizations[0] if organization is None else organization
        return self.client_of(self.add_task(None, "task"), here)

    def tables(self, organization: int) -> Mapping[str, Any]:
        """By label. Raises NotFound when there is no such organization."""
        if organization not in self._tables:
            raise NotFound(f"There is no organization {organization} in this federation.", 404)
        return self._tables[organization]

    def create(self, parent_id: int | None, name: str, inputs: Mapping[int, bytes]) -> _Task:
        """A task with all its runs, which have ended. Raises NotFound when there is no such organization."""
        for organization in inputs:
            self.tables(organization)
        task = self.add_task(parent_id, name)
        for organization in inputs:
            run = _Run(len(self._runs) + 1, task.id, organization)
            self._runs.append(run)
            task.runs.append(run)
        for run in task.runs:
            self._execute(task, run, inputs[run.organization_id])
        return task

    def children_of(self, id_: int) -> list[_Task]:
        return [task for task in self._tasks if task.parent_id == id_]

    def task_of(self, id_: int) -> _Task:
        if not 1 <= id_ <= len(self._tasks):
            raise NotFound(f"There is no task {id_} in this federation.", 404)
        return self._tasks[id_ - 1]

    def run_of(self, id_: int) -> _Run:
        if not 1 <= id_ <= len(self._runs):
            raise NotFound(f"There is no run {id_} in this federation.", 404)
        return self._runs[id_ - 1]

    def client_of(self, task: _Task, organization: int) -> AlgorithmClient:
        gate = InMemoryGate(self, task, organization)
        return AlgorithmClient(gate.token(), contract.GATE_HOST, contract.GATE_PORT, gate=gate)

    def add_task(self, parent_id: int | None, name: str) -> _Task:
        task = _Task(len(self._tasks) + 1, parent_id, name)
        self._tasks.append(task)
        return task

    def _execute(self, task: _Task, run: _Run, raw: bytes) -> None:
        """One run, from its input to its end; what the algorithm raises ends the run, as in a container."""
        place = _Place(self, task, run.organization_id)
        try:
            asked = Input.parse(raw)
            value = functions.call(functions.find(self._algorithm, asked.method), asked, place)
            run.result = functions.dump(value, asked.method)
            run.status = Status.COMPLETED
        except Exception as problem:  # noqa: BLE001 - see above
            run.fail(problem)

    def _results(self, method: str, organizations: list[int], args: Any, kwargs: Any) -> list[Any]:
        raw = functions.dump({"method": method, "args": args, "kwargs": kwargs}, method)
        task = self.create(None, method, dict.fromkeys(organizations, raw))
        if task.status.failed:
            raise AlgorithmError("\n".join(outcomes.lines(_run_as_told(run) for run in task.runs)))
        return [forms.load(BytesIO(run.result)) for run in task.runs]


@dataclass(frozen=True, slots=True)
class _Place:
    """The surroundings of one run."""

    federation: Federation
    task: _Task
    organization: int

    def client(self) -> AlgorithmClient:
        return self.federation.client_of(self.task, self.organization)

    def frames(self, count: int) -> Sequence[Any]:
        tables = self.federation.tables(self.organization)
        return [_frame(label, tables[label]) for label in take(list(tables), count)]

    def databases(self, count: int) -> Sequence[Database]:
        tables = self.federation.tables(self.organization)
        return [_database(label, tables[label]) for label in take(list(tables), count)]

    def connections(self, count: int) -> Sequence[tuple[Any, Callable[[], Any]]]:
        raise DataError(f"A federation in memory has no {count} database connection(s): call the function itself.")

    def metadata(self) -> functions.RunMetadata:
        federation, organization = self.federation, self.organization
        ids = (self.task.id, federation.nodes[organization], federation.collaboration, organization)
        return functions.RunMetadata(*ids, "", "", "", "")


@dataclass(frozen=True, slots=True)
class InMemoryGate:
    """Answers the calls of one run as its gate would."""

    federation: Federation
    task: _Task
    run_organization: int

    def token(self) -> str:
        """With the claims that a run's token has; no one verifies it."""
        organization = self.run_organization
        subject = {
            "client_type": "container",
            "task_id": self.task.id,
            "node_id": self.federation.nodes[organization],
            "organization_id": organization,
            "collaboration_id": self.federation.collaboration,
            "study_id": None,
            "store_id": None,
            "image": _IMAGE,
            "databases": [{"label": label} for label in self.federation.tables(organization)],
        }
        return f"e30.{b64(canonical({'sub': subject})).rstrip('=')}.e30"

    def json(self, call: Call) -> Any:
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, call.path)
            if match is not None and method == call.method:
                return json.loads(canonical(answer(self, call, *map(int, match.groups()))))
        raise NotFound(f"A federation in memory has no answer to {call.method} {call.path}.", 404)

    def organizations(self, _: Call) -> Any:
        return {"data": [_organization(id_) for id_ in self.federation.organizations]}

    def organization(self, _: Call, id_: int) -> Any:
        self.federation.tables(id_)
        return _organization(id_)

    def collaboration(self, _: Call, id_: int) -> Any:
        return {"id": id_, "name": "in memory", "encrypted": False}

    def node(self, _: Call, id_: int) -> Any:
        return {"id": id_, "name": f"node {id_}", "type": "node", "organization": {"id": id_}}

    def studies(self, _: Call) -> Any:
        return {"data": []}

    def get_task(self, _: Call, id_: int) -> Any:
        return _task_as_told(self.federation.task_of(id_))

    def create_task(self, call: Call) -> Any:
        blobs = self.federation.blobs
        inputs = {
            int(target["id"]): blobs.pop(target["input"], b"") or unb64(target["input"])
            for target in call.json["organizations"]
        }
        if not inputs:
            raise InvalidInput("A child task needs at least one organization.", 400)
        return _task_as_told(self.federation.create(self.task.id, str(call.json["name"]), inputs))

    def keep_blob(self, call: Call) -> Any:
        name = str(uuid.uuid4())
        self.federation.blobs[name] = b"".join(call.data or ())
        return {"uuid": name}

    def wait(self, _: Call, id_: int) -> Any:
        task = self.federation.task_of(id_)
        runs = [{"id": run.id, "status": run.status} for run in task.runs]
        return {"id": id_, "status": task.status, "finished": True, "seen": "all", "runs": runs}

    def runs(self, call: Call) -> Any:
        return {"data": [_run_as_told(run) for run in self._runs_of(call)]}

    def get_run(self, _: Call, id_: int) -> Any:
        return _run_as_told(self.federation.run_of(id_))

    def results(self, call: Call) -> Any:
        return {"data": [_result_as_told(run) for run in self._runs_of(call)]}

    def result(self, _: Call, id_: int) -> Any:
        return _result_as_told(self.federation.run_of(id_))

    def addresses(self, call: Call) -> Any:
        """As section 7.4 of the contract has it. Raises InvalidInput."""
        params = call.params or {}
        only = {name for name in params if name.startswith("only_")}
        if len(only) > 1:
            raise InvalidInput("You can only specify one of the only_<...> parameters!", 400)
        runs = [run for task in self._tasks_asked_for(params, only) for run in task.runs]
        if "only_self" in only:
            runs = [run for run in runs if run.organization_id == self.run_organization]
        if "only_siblings" in only:
            runs = [run for run in runs if run.organization_id != self.run_organization]
        rows = [row for run in runs for row in self._places_of(run)]
        return {"addresses": [row for row in rows if params.get("label") in {None, row["label"]}]}

    def _tasks_asked_for(self, params: Mapping[str, Any], only: set[str]) -> list[_Task]:
        federation, own = self.federation, self.task
        parents = [] if own.parent_id is None else [federation.task_of(own.parent_id)]
        children = federation.children_of(own.id)
        if "only_children" in only:
            return children
        if "only_parent" in only:
            return parents or [own]
        if only:
            return [own]
        more = parents if "include_parent" in params else []
        return [own, *more, *(children if "include_children" in params else [])]

    def _places_of(self, run: _Run) -> list[dict[str, Any]]:
        task = self.federation.task_of(run.task_id)
        whose = {"organization_id": run.organization_id, "task_id": task.id, "parent_id": task.parent_id}
        address = str(_SUBNET[run.id])
        return [{"ip": address, "port": port, "label": label, **whose} for port, label in self.federation.ports.items()]

    def _runs_of(self, call: Call) -> list[_Run]:
        return self.federation.task_of(int((call.params or {})["task_id"])).runs


_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "organization", InMemoryGate.organizations),
    ("GET", r"organization/(\d+)", InMemoryGate.organization),
    ("GET", r"collaboration/(\d+)", InMemoryGate.collaboration),
    ("GET", r"node/(\d+)", InMemoryGate.node),
    ("GET", "study", InMemoryGate.studies),
    ("GET", r"task/(\d+)", InMemoryGate.get_task),
    ("POST", "task", InMemoryGate.create_task),
    ("POST", "blobstream", InMemoryGate.keep_blob),
    ("GET", r"skerry/task/(\d+)/wait", InMemoryGate.wait),
    ("GET", "run", InMemoryGate.runs),
    ("GET", r"run/(\d+)", InMemoryGate.get_run),
    ("GET", "result", InMemoryGate.results),
    ("GET", r"result/(\d+)", InMemoryGate.result),
    ("GET", "vpn/algorithm/addresses", InMemoryGate.addresses),
]


def _organization(id_: int) -> dict[str, Any]:
    return {"id": id_, "name": f"organization {id_}", "country": "", "domain": "", "public_key": ""}


def _task_as_told(task: _Task) -> dict[str, Any]:
    parent = None if task.parent_id is None else {"id": task.parent_id}
    return {"id": task.id, "name": task.name, "image": _IMAGE, "status": task.status, "parent": parent}


def _run_as_told(run: _Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "status": run.status,
        "log": run.log,
        "organization_id": run.organization_id,
        "organization": {"id": run.organization_id},
        "task": {"id": run.task_id},
    }


def _result_as_told(run: _Run) -> dict[str, Any]:
    result = b64(run.result) if run.result else None
    return {"id": run.id, "result": result, "run": {"id": run.id}, "task": {"id": run.task_id}}


def _frame(label: str, table: Any) -> Any:
    """A copy, so that one run can't change the next one's data."""
    is_file = isinstance(table, str | PurePath | Database)
    return databases.load(_database(label, table)) if is_file else table.copy()


def _database(label: str, table: Any) -> Database:
    if isinstance(table, Database):
        return table
    if not isinstance(table, str | PurePath):
        raise DataError(f'The database "{label}" is a data frame of the test; give the path of a file instead.')
    suffix = PurePath(table).suffix
    return Database(label, str(table), databases.FILE_TYPES.get(suffix, suffix.removeprefix(".")))
