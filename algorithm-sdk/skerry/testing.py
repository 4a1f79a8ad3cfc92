"""A federation in memory: an algorithm on a few data frames, in a unit test, without server, node or container.

    federation = Federation(my_algorithm, [hospital_a, hospital_b])
    assert federation.run("mean", column="age") == {"mean": 51.5}

The algorithm gets the real AlgorithmClient. Inputs and results take the way through JSON that they take in a
federation of machines, so what can't take it fails here too. A run happens when its task is created.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any

from skerry import contract, databases, functions, outcomes
from skerry.algorithm_client import AlgorithmClient
from skerry.databases import Database
from skerry.entrypoint import sentence, take
from skerry.errors import AlgorithmError, ConfigurationError, DataError, InvalidInput, NotFound
from skerry.output import ERROR_MARK
from skerry.wire import Input, Status, b64, canonical, unb64

if TYPE_CHECKING:
    from skerry.transport import Call

_COLLABORATION = 1
_IMAGE = "in-memory"


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

    def __init__(self, algorithm: ModuleType, tables: Sequence[Any]) -> None:
        """``tables``: for each organization a data frame, the path of a file, or several of them by label."""
        if not tables:
            raise ConfigurationError("A federation needs at least one organization: give one table for each.")
        if getattr(algorithm, "__file__", "") is None:  # a namespace package
            name = algorithm.__name__
            raise ConfigurationError(f'"{name}" is a folder without __init__.py, not the package: run inside of it.')
        self._algorithm = algorithm
        self._tables = [table if isinstance(table, Mapping) else {"default": table} for table in tables]
        self._tasks: list[_Task] = []
        self._runs: list[_Run] = []

    @property
    def organizations(self) -> list[int]:
        return list(range(1, len(self._tables) + 1))

    def run(self, method: str, /, *args: Any, at: int = 1, **kwargs: Any) -> Any:
        """The result of a function at one organization. Raises AlgorithmError with its own words when it fails."""
        return self._results(method, [at], args, kwargs)[0]

    def run_all(self, method: str, /, *args: Any, **kwargs: Any) -> list[Any]:
        """The results of a function at each organization, in their order. Raises as ``run`` does."""
        return self._results(method, self.organizations, args, kwargs)

    def client(self, organization: int = 1) -> AlgorithmClient:
        """The client that a central function at that organization would get."""
        return self.client_of(self._add_task(None, "task"), organization)

    def tables(self, organization: int) -> Mapping[str, Any]:
        """By label. Raises NotFound when there is no such organization."""
        if organization not in self.organizations:
            raise NotFound(f"There is no organization {organization} in this federation.", 404)
        return self._tables[organization - 1]

    def create(self, parent_id: int | None, name: str, inputs: Mapping[int, bytes]) -> _Task:
        """A task with all its runs, which have ended. Raises NotFound when there is no such organization."""
        for organization in inputs:
            self.tables(organization)
        task = self._add_task(parent_id, name)
        for organization, raw in inputs.items():
            self._execute(task, organization, raw)
        return task

    def task_of(self, id_: int) -> _Task:
        if not 1 <= id_ <= len(self._tasks):
            raise NotFound(f"There is no task {id_} in this federation.", 404)
        return self._tasks[id_ - 1]

    def run_of(self, id_: int) -> _Run:
        if not 1 <= id_ <= len(self._runs):
            raise NotFound(f"There is no run {id_} in this federation.", 404)
        return self._runs[id_ - 1]

    def client_of(self, task: _Task, organization: int) -> AlgorithmClient:
        token = _token(task.id, organization, self.tables(organization))
        return AlgorithmClient(token, contract.GATE_HOST, contract.GATE_PORT, gate=_Gate(self, task))

    def _add_task(self, parent_id: int | None, name: str) -> _Task:
        task = _Task(len(self._tasks) + 1, parent_id, name)
        self._tasks.append(task)
        return task

    def _execute(self, task: _Task, organization: int, raw: bytes) -> None:
        """One run, from its input to its end; what the algorithm raises ends the run, as in a container."""
        place = _Place(self, task, organization)
        run = _Run(len(self._runs) + 1, task.id, organization)
        self._runs.append(run)
        task.runs.append(run)
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
        return [json.loads(run.result) for run in task.runs]


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

    def metadata(self) -> functions.RunMetadata:
        ids = (self.task.id, self.organization, _COLLABORATION, self.organization)
        return functions.RunMetadata(*ids, "", "", "", "")


@dataclass(frozen=True, slots=True)
class _Gate:
    """Answers the calls of one run as its gate would."""

    federation: Federation
    task: _Task

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
        inputs = {int(target["id"]): unb64(target["input"]) for target in call.json["organizations"]}
        if not inputs:
            raise InvalidInput("A child task needs at least one organization.", 400)
        return _task_as_told(self.federation.create(self.task.id, str(call.json["name"]), inputs))

    def wait(self, _: Call, id_: int) -> Any:
        task = self.federation.task_of(id_)
        return {"id": id_, "status": task.status, "finished": True, "seen": "all"}

    def runs(self, call: Call) -> Any:
        return {"data": [_run_as_told(run) for run in self._runs_of(call)]}

    def get_run(self, _: Call, id_: int) -> Any:
        return _run_as_told(self.federation.run_of(id_))

    def results(self, call: Call) -> Any:
        return {"data": [_result_as_told(run) for run in self._runs_of(call)]}

    def result(self, _: Call, id_: int) -> Any:
        return _result_as_told(self.federation.run_of(id_))

    def _runs_of(self, call: Call) -> list[_Run]:
        return self.federation.task_of(int((call.params or {})["task_id"])).runs


_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "organization", _Gate.organizations),
    ("GET", r"organization/(\d+)", _Gate.organization),
    ("GET", r"collaboration/(\d+)", _Gate.collaboration),
    ("GET", r"node/(\d+)", _Gate.node),
    ("GET", "study", _Gate.studies),
    ("GET", r"task/(\d+)", _Gate.get_task),
    ("POST", "task", _Gate.create_task),
    ("GET", r"skerry/task/(\d+)/wait", _Gate.wait),
    ("GET", "run", _Gate.runs),
    ("GET", r"run/(\d+)", _Gate.get_run),
    ("GET", "result", _Gate.results),
    ("GET", r"result/(\d+)", _Gate.result),
]


def _token(task_id: int, organization: int, labels: Mapping[str, Any]) -> str:
    """A token with the claims that a gate's has; no one verifies it."""
    subject = {
        "client_type": "container",
        "task_id": task_id,
        "node_id": organization,
        "organization_id": organization,
        "collaboration_id": _COLLABORATION,
        "study_id": None,
        "store_id": None,
        "image": _IMAGE,
        "databases": [{"label": label} for label in labels],
    }
    return f"e30.{b64(canonical({'sub': subject})).rstrip('=')}.e30"


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
    return databases.load(_database(label, table)) if isinstance(table, str | PurePath) else table.copy()


def _database(label: str, table: Any) -> Database:
    if not isinstance(table, str | PurePath):
        raise DataError(f'The database "{label}" is a data frame of the test; give the path of a file instead.')
    suffix = PurePath(table).suffix
    return Database(label, str(table), databases.FILE_TYPES.get(suffix, suffix.removeprefix(".")))
