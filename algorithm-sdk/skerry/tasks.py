"""Tasks as a user's script sees them: created, waited for, their results as Python objects."""

# ruff: noqa: PLR0917 - the arguments are vantage6's, in its order
from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import TYPE_CHECKING, Any, Self, Unpack

from skerry import forms, outcomes, streams, tables, values
from skerry.calls import Call
from skerry.errors import (
    ContextError,
    InputError,
    MissingKey,
    ServerUnreachable,
    SkerryError,
    TaskFailed,
    WaitInterrupted,
    WaitTimeout,
)
from skerry.following import Follower
from skerry.payloads import Collaboration, TaskFacts
from skerry.picking import Fields, Filters, picks_fields, picks_rows
from skerry.progress import describe, moving, offline, showing
from skerry.subclients import Ids, Row, Rows, SubClient
from skerry.wire import INLINE_LIMIT

if TYPE_CHECKING:
    from skerry.client import UserClient

_WAIT = 25.0
_IN_MEMORY = 16 << 20
_FOR_EVER = float("inf")
_ANSWER_MARGIN = 30.0
_TOLD = ("id", "organization_id", "status", "reason", "log")


class TaskHandle(dict[str, Any]):
    """A task as the server describes it, with what one does with it."""

    def __init__(self, client: UserClient, answer: Mapping[str, Any], asked: Sequence[int] = ()) -> None:
        """``asked``: the organizations, where they are known better than by the server's word."""
        super().__init__(answer)
        self._client = client
        self._asked = tuple(asked)
        self._states: list[dict[str, Any]] = []

    def wait(self, timeout: float | None = None, progress: bool | None = None) -> Self:
        """Returns the handle when all runs have ended, whether well or not.

        Ends by the server's push, and goes on through restarts of the server. Raises WaitTimeout after ``timeout``
        seconds, with the runs that are missing and the nodes that are offline; the task itself goes on. So it does
        after Ctrl-C, which raises WaitInterrupted. ``progress``: whether to show a bar and, above it, what the runs
        tell their logs; by default on a terminal and in a notebook. Elsewhere a line on standard error says for which
        nodes it stands still: those that are offline, and those that take no runs.
        """
        try:
            with showing(f"task {self['id']}", wanted=progress) as show:
                follower = Follower(self._client, self) if show.wants_lines else None
                for answer in self._answers(timeout, changes=show.wants_changes):
                    self["status"], self._states = answer["status"], list(answer["runs"])
                    show.runs(self._states)
                    for line in follower.lines(self._states) if follower else ():
                        show.line(line)
        except KeyboardInterrupt as error:
            raise WaitInterrupted(
                f"Stopped waiting; task {self['id']} goes on. `skerry task wait {self['id']}` or wait() waits again, "
                f"`skerry task kill {self['id']}` or kill() ends it."
            ) from error
        return self

    def check(self, *, progress: bool | None = None) -> None:
        """Waits if need be; raises TaskFailed when a run has failed, with a line for each that has.

        ``progress`` as in ``wait``.
        """
        if not self._states or not all(outcomes.ended(str(run["status"])) for run in self._states):
            self.wait(progress=progress)
        if any(outcomes.failed(str(run["status"])) for run in self._states):
            raise self._failure()

    def results(self, *, frames: bool = False, progress: bool | None = None) -> list[Any]:
        """What each organization's run returned, in the order of the organizations; waits for them if need be.

        With ``frames`` as data frames: from lists of records, columns, or what data frames write as JSON. Raises
        TaskFailed when a run has failed, and CryptoError when a result is not what its organization made for this
        task. ``progress``: whether to show a bar, while it waits and for a large result; by default on a terminal and
        in a notebook.
        """
        self.check(progress=progress)
        found = [self._result(run, progress) for run in self._in_order(self._states)]
        return [tables.frame(one) for one in found] if frames else found

    def download(self, folder: str | Path, *, progress: bool | None = None) -> list[Path]:
        """Writes what each organization's run returned into a file of the folder, in constant memory.

        In the order of the organizations; waits for them if need be. Raises as ``results`` does. ``progress``:
        whether to show a bar; by default on a terminal and in a notebook.
        """
        self.check(progress=progress)
        home = Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        return [self._save(run, home, progress) for run in self._in_order(self._states)]

    def _save(self, run: Mapping[str, Any], home: Path, progress: bool | None) -> Path:
        organization = int(run["organization_id"])
        file = home / f"task-{self['id']}-organization-{organization}"
        return self._client.result.save(self, int(run["id"]), organization, file, progress=progress)

    def runs(self) -> list[dict[str, Any]]:
        """The task's runs in the order of the organizations, each with its log in the clear."""
        return self._in_order([self._readable(run) for run in self._client.run.all_of(self["id"])])

    def logs(self) -> list[str]:
        """What each run told its log, in the order of the organizations."""
        return [str(run["log"] or "") for run in self.runs()]

    def kill(self) -> None:
        """Asks for the end of the task and of all its child tasks; the runs then end as "killed by user"."""
        self._client.task.kill(self["id"])

    def _answers(self, timeout: float | None, *, changes: bool) -> Iterator[dict[str, Any]]:
        """Where the task stands, until it has ended: at each of its ``changes``, or only when a call has to end."""
        end = time.monotonic() + (_FOR_EVER if timeout is None else timeout)
        seen, finished = "", False
        while not finished:
            left = end - time.monotonic()
            if left <= 0:
                raise WaitTimeout(self._say_what_is_missing(timeout))
            try:
                news = {"seen": seen} if changes else {"until": "finished"}
                answer = self._wait_call(news, min(_WAIT, left), left)
            except ServerUnreachable as error:
                raise WaitTimeout(f"Task {self['id']} was not done after {timeout:g} s, and {error}") from error
            seen, finished = str(answer["seen"]), bool(answer["finished"])
            yield answer

    def _wait_call(self, news: Mapping[str, str], wait: float, patience: float) -> dict[str, Any]:
        params = {"timeout": max(1, round(wait)), **news}
        path = f"skerry/task/{self['id']}/wait"
        timeout = wait + _ANSWER_MARGIN
        call = Call("GET", path, params=params, repeatable=True, patience=patience, timeout=timeout)
        answer: dict[str, Any] = self._client.session.json(call)
        return answer

    def _say_what_is_missing(self, timeout: float | None) -> str:
        sentence = f"Task {self['id']} was not done after {timeout:g} s: {describe(self._states)}"
        since = [self._last_seen(run) for run in offline(self._states)]
        return ". ".join([sentence, *since, "The task goes on; call wait() again."])

    def _last_seen(self, run: Mapping[str, Any]) -> str:
        try:
            last = self._client.node.get(run["node_id"])["last_seen"]
        except (SkerryError, KeyError):
            last = None
        words = f"was last seen {last} UTC" if last else "has never been seen"
        return f"The node of organization {run['organization_id']} {words}"

    def _failure(self) -> TaskFailed:
        runs = [run for run in self.runs() if outcomes.failed(str(run["status"]))]
        told = [{name: run.get(name) for name in _TOLD} for run in runs]
        return TaskFailed(outcomes.describe(f"Task {self['id']}", told), told)

    def _result(self, run: Mapping[str, Any], progress: bool | None) -> Any:
        organization = int(run["organization_id"])
        with SpooledTemporaryFile(max_size=_IN_MEMORY) as whole:
            self._client.result.write(self, int(run["id"]), organization, whole, progress=progress)
            whole.seek(0)
            try:
                return forms.load(whole)
            except ValueError as error:
                reason = (
                    f"The result of organization {organization} can't be read: {error}; download() gives it as it is."
                )
                raise SkerryError(reason) from error

    def _readable(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """The run with its organization's id, and its log in the clear."""
        log = self._client.run.log_of(run, self)
        return {**run, "organization_id": int(run["organization"]["id"]), "log": log}

    def _in_order(self, runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """In the order of the organizations asked, which is that of the runs' numbers where it is not known."""
        if not self._asked:
            return sorted(runs, key=lambda run: int(run["id"]))
        by_organization = {int(run["organization_id"]): run for run in runs}
        if len(runs) != len(self._asked) or by_organization.keys() != set(self._asked):
            raise ContextError(f"The server shows other runs of task {self['id']} than those that were asked for.")
        return [by_organization[organization] for organization in self._asked]


class Task(SubClient):
    """What nodes are asked to do."""

    @picks_fields
    def get(self, id_: int, include_results: bool = False, **_pick: Unpack[Fields]) -> TaskHandle:
        """One task. ``include_results``: with the rows of its results, as the server keeps them."""
        return TaskHandle(self.parent, self._get(f"task/{int(id_)}", include="results" if include_results else None))

    @picks_rows
    def list(
        self,
        initiating_org: int | None = None,
        initiating_user: int | None = None,
        collaboration: int | None = None,
        study: int | None = None,
        store: int | None = None,
        image: str | None = None,
        parent: int | None = None,
        job: int | None = None,
        name: str | None = None,
        include_results: bool = False,
        description: str | None = None,
        database: str | None = None,
        run: int | None = None,
        status: str | None = None,
        user_created: bool | None = None,
        page: int = 1,
        per_page: int = 20,
        **_pick: Unpack[Filters],
    ) -> Row:
        """The newest first. ``job``: a top-level task and all that came of it; ``user_created=False``: child tasks."""
        words = {"image": image, "name": name, "description": description, "database": database, "status": status}
        return self._get(
            "task",
            **words,
            init_org_id=initiating_org,
            init_user_id=initiating_user,
            collaboration_id=self.parent.collaboration_or_default(collaboration),
            study_id=study,
            store_id=store,
            parent_id=parent,
            job_id=job,
            run_id=run,
            include="results" if include_results else None,
            is_user_created=None if user_created is None else int(user_created),
            page=page,
            per_page=per_page,
        )

    @picks_fields
    def create(
        self,
        organizations: Sequence[int] | None,
        name: str = "",
        image: str = "",
        description: str = "",
        input_: Mapping[str, Any] | None = None,
        collaboration: int | None = None,
        study: int | None = None,
        store: int | None = None,
        server_url: str | None = None,
        databases: Sequence[Mapping[str, Any]] | str | None = None,
        **_pick: Unpack[Fields],
    ) -> TaskHandle:
        """Has these organizations' nodes run a function of the image: ``{"method": …, "args": […], "kwargs": {…}}``.

        The input is encrypted and signed here, once for each organization. When no answer comes the call is
        repeated; the task's UUID, made here, keeps it from being created twice. ``store``: the algorithm store that
        the image is looked up in; by default the one of ``client.store.set``, if there is one. Raises InputError,
        ServerError, CryptoError or ConfigurationError.
        """
        if not image:
            raise InputError("Say which algorithm: image=….")
        where = self._collaboration(collaboration, study)
        raw, targets = _dump_input(input_), [int(organization) for organization in organizations or ()]
        facts = TaskFacts(str(uuid.uuid4()), where, image, _databases(databases))
        store = store or self.parent.store.store_id
        optional = {"name": name, "description": description, "study_id": study, "store_id": store}
        body: dict[str, Any] = {
            "uuid": facts.uuid,
            "image": image,
            "collaboration_id": where.id,
            "databases": list(facts.databases),
            "organizations": self._inputs(raw, facts, targets),
            **{key: value for key, value in {**optional, "server_url": server_url}.items() if value},
        }
        answer = self.parent.session.json(Call("POST", "task", json=body, repeatable=True))
        # Results are held against what was asked for, not against what the server says of it.
        own = {
            "uuid": facts.uuid,
            "image": image,
            "format": self.parent.payloads.format_for(where),
            "collaboration": {**(answer.get("collaboration") or {}), "id": where.id},
        }
        return TaskHandle(self.parent, {**answer, **own}, tuple(targets))

    def delete(self, id_: int) -> None:
        """With its child tasks, runs and results."""
        self._delete(f"task/{int(id_)}")

    def kill(self, id_: int) -> Row:
        """Asks for the end of a task and of all its child tasks."""
        return self._post("kill/task", {"id": int(id_)})

    def _collaboration(self, collaboration: int | None, study: int | None) -> Collaboration:
        id_ = self.parent.collaboration_or_default(collaboration)
        if id_ is None and study is not None:
            id_ = int(self.parent.study.get(study)["collaboration"]["id"])
        if id_ is None:
            raise InputError("Say in which collaboration: collaboration=…, study=…, or setup_collaboration(…) before.")
        return self.parent.facts_of(id_)

    def _inputs(self, raw: bytes, facts: TaskFacts, organizations: Ids) -> Rows:
        if not organizations or len(set(organizations)) < len(organizations):
            raise InputError("Name at least one organization, and each of them once.")
        try:
            if len(raw) > INLINE_LIMIT:
                return [{"id": one, "input": self._send_ahead(raw, facts, one)} for one in organizations]
            sealed = self.parent.payloads.seal_input(raw, facts, organizations)
        except MissingKey as error:
            raise self._explain(error, facts.collaboration.id, organizations) from error
        return [{"id": organization, "input": sealed[organization]} for organization in organizations]

    def _send_ahead(self, raw: bytes, facts: TaskFacts, organization: int) -> str:
        """Uploads a large input; the name by which the task takes it. It is sealed once, so that it can go on."""
        name = str(uuid.uuid4())
        with TemporaryFile() as sealed, moving(f"input of organization {organization}", wanted=None) as show:
            for piece in self.parent.payloads.seal_stream([raw], facts, organization):
                sealed.write(piece)
            streams.upload(self.parent.session, f"skerry/blob/{name}", sealed, show)
        return name

    def _explain(self, error: MissingKey, collaboration: int, organizations: Ids) -> SkerryError:
        """Why an organization has no key: most often it is not a member, or has no node yet."""
        members = [int(one["id"]) for one in self.parent.organization.all_of(collaboration)]
        strangers = [str(one) for one in organizations if one not in members]
        if strangers:
            known = ", ".join(map(str, sorted(members)))
            return InputError(
                f"Organization {', '.join(strangers)} is not in collaboration {collaboration}; these are: {known}."
            )
        return MissingKey(f"{error} It gets one when its node starts, or when one of its users sets up encryption.")


def _databases(databases: Sequence[Mapping[str, Any]] | str | None) -> tuple[dict[str, Any], ...]:
    """As they are posted and signed: each a dict with a label, without empty parameters."""
    given = [{"label": databases}] if isinstance(databases, str) else list(databases or [])
    if not all(isinstance(one, Mapping) and isinstance(one.get("label"), str) for one in given):
        raise InputError('Databases are given as a list of dicts, each with a "label".')
    return tuple({key: value for key, value in one.items() if value is not None} for one in given)


def _dump_input(input_: Mapping[str, Any] | None) -> bytes:
    if not isinstance(input_, Mapping) or not isinstance(input_.get("method"), str):
        raise InputError('The input must be a dict with the name of a function: input_={"method": …, "kwargs": {…}}.')
    try:
        return values.dump(dict(input_), "input_")
    except ValueError as error:
        raise InputError(f"The input can't be written as JSON: {error}.") from error
