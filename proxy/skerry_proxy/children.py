"""What a run does with its child tasks: creating them, and reading their results and logs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from skerry.errors import CryptoError, NotFound
from skerry.wire import Format, Status, unb64
from skerry_proxy.blobs import Blob, Blobs
from skerry_proxy.envelopes import CHILD_LIFE, Part, Protection
from skerry_proxy.fields import Fields
from skerry_proxy.forwarding import Forwarder
from skerry_proxy.ledger import Child, Ledger
from skerry_proxy.messages import Refusal, Request, Response
from skerry_proxy.runs import Run
from skerry_proxy.spools import filled_spool
from skerry_proxy.upstream import Call, Upload, Upstream

_MOST_ORGANIZATIONS = 1000
_PIECE = 192 * 1024
"""A multiple of 3, so that pieces of base64 can be joined."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_KEYED = uuid.UUID("3a1c5b0e-9f0d-4b59-8a55-5c8c9c1f6d27")
_DATABASE_KEYS = ("label", "arguments", "preprocessing", "query", "sheet_name")


@dataclass(frozen=True, slots=True)
class Wish:
    """A child task as the container asked for it, parsed. An input is its plaintext, or the name of a blob."""

    name: str | None
    description: str | None
    inputs: dict[int, bytes | str]
    databases: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Created:
    """A child task, as the server describes it. ``child``: its UUID, to be given back once the container was told."""

    child: str
    task: Any


@dataclass(frozen=True, slots=True)
class ChildRun:
    id: int
    organization: int
    completed: bool


class Children:
    """The child tasks of one run and attempt. A run reads the results of its own children only."""

    def __init__(
        self,
        *,
        run: Run,
        protection: Protection,
        forwarder: Forwarder,
        upstream: Upstream,
        ledger: Ledger,
        folder: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._run = run
        self._protection = protection
        self._forwarder = forwarder
        self._upstream = upstream
        self._ledger = ledger
        self._folder = folder
        self._clock = clock
        self._blobs = Blobs(folder)
        self._under_way: set[str] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        """What was sent ahead and not used is gone."""
        self._blobs.close()

    def keep_blob(self, request: Request) -> str:
        """Takes the input of a child task ahead of it. Raises Refusal (400) without the key that it is for."""
        key = None
        if self._run.format is not Format.PLAIN:
            try:
                key = unb64(request.public_key or "!")
            except ValueError as error:
                raise Refusal(400, "The header X-Public-Key must be the public key of an organization.") from error
        return self._blobs.keep(request.body, request.size, key)

    def create(self, body: Any, key: str | None = None) -> Created:
        """Creates a child task once, however often the call to the server has to be repeated, or the container's own.

        ``key`` is the container's own name for this wish. Without one, a wish in the same words is a repetition as long
        as the container was not answered: also by an earlier proxy. Raises Refusal (400) for a malformed wish or key,
        CryptoError for keys that are missing or changed.
        """
        wish = parse_wish(body, self._run)
        words = _digest(wish)
        child = Child(self._take_uuid(_parse_key(key), words), wish.databases, frozenset(wish.inputs))
        try:
            return Created(child.uuid, self._plan_and_create(wish, words, child))
        except BaseException:
            self.leave_open(child.uuid)
            raise

    def note_answered(self, child: str) -> None:
        """The container has the whole answer that names this child."""
        self._ledger.answer_child(child, self._clock())
        self.leave_open(child)

    def leave_open(self, child: str) -> None:
        """The container was told nothing of this child: it may ask again."""
        with self._lock:
            self._under_way.discard(child)

    def _take_uuid(self, key: str | None, words: str) -> str:
        """That of the wish's earlier telling. Without a key, one whose call is still under way is another wish."""
        with self._lock:
            if key is not None:
                return str(uuid.uuid5(_KEYED, f"{self._run.uuid} {self._run.id} {self._run.attempt} {key}"))
            known = self._ledger.find_unanswered(self._run.key, words)
            taken = next((one for one in known if one not in self._under_way), None) or str(uuid.uuid4())
            self._under_way.add(taken)
            return taken

    def _plan_and_create(self, wish: Wish, words: str, child: Child) -> Any:
        names = [given for given in wish.inputs.values() if isinstance(given, str)]
        if len(set(names)) != len(names):
            raise Refusal(400, "Two organizations of the task name the same blob: send one for each.")
        with self._blobs.taken(names) as blobs:
            return self._create(wish, words, child, blobs)

    def _create(self, wish: Wish, words: str, child: Child, blobs: Mapping[str, Blob]) -> Any:
        sealed = [
            {"id": organization, "input": self._seal(child, organization, given, blobs)}
            for organization, given in wish.inputs.items()
        ]
        now = self._clock()
        self._ledger.plan_child(self._run.key, child, words, int(now) + CHILD_LIFE, now)
        task = self._forwarder.repeat(
            Call("POST", "/task", self._forwarder.token, json=self._request(wish, child, sealed))
        )
        self._ledger.name_child(child.uuid, _fields(task).identifier("id"), now)
        return task

    def list_results(self, task: int) -> Response:
        """The opened results of all runs of a child task as one list; null for a run that has none.

        Raises Refusal (403) for a task that this run did not create, Refusal (502) when one can't be opened.
        """
        child = self._find(task)
        runs = self._runs(task, child)
        with filled_spool(self._folder) as body:
            body.write(b'{"data": [')
            for index, run in enumerate(runs):
                body.write(b", " if index else b"")
                self._write_result(body, task, child, run)
            body.write(b'], "links": {"first": "/result", "self": "/result", "last": "/result"}}')
        return _respond(body)

    def get_result(self, run_id: int) -> Response:
        """The opened result of one run of a child task; raises as ``list_results``."""
        run, task = self._get_run(run_id)
        child = self._find(task)
        with filled_spool(self._folder) as body:
            self._write_result(body, task, child, run)
        return _respond(body)

    def open_log(self, row: Any) -> Any:
        """A run object of the server, its log as text: opened when it is a child's, else empty."""
        if not isinstance(row, dict) or not row.get("log"):
            return row
        run, task = _parse_run(row)
        child = self._ledger.find_child(self._run.key, task)
        return {**row, "log": None if child is None else self._open_log(child, run.organization, str(row["log"]))}

    def _open_log(self, child: Child, organization: int, log: str) -> str:
        try:
            return self._protection.open_log(self._run, self._part(child, organization), log)
        except (CryptoError, ValueError) as error:
            return f"(The log of this run can't be read: {error})"

    def _seal(self, child: Child, organization: int, given: bytes | str, blobs: Mapping[str, Blob]) -> str:
        """The input as the server takes it in the task; of a blob, the name that the server gives it."""
        if isinstance(given, bytes):
            return self._protection.seal_child(self._run, self._part(child, organization), given)
        if given not in blobs:
            raise Refusal(400, f"The input of organization {organization} names a blob that this run has not sent.")
        return self._send_blob(self._part(child, organization), blobs[given])

    def _send_blob(self, part: Part, blob: Blob) -> str:
        """Sealed once, so that an upload that broke off can go on. Its name."""
        name = str(uuid.uuid4())
        to = Upload(f"/skerry/blob/{name}", f"/skerry/blob/{name}")
        with filled_spool(self._folder) as sealed, sealed:
            for piece in self._protection.seal_blob(self._run, part, blob.pieces(), blob.key):
                sealed.write(piece)
            self._forwarder.patiently(lambda: self._upstream.upload(to, self._forwarder.token, sealed))
        return name

    def _part(self, child: Child, organization: int) -> Part:
        return Part(child, organization, self._forwarder.token)

    def _find(self, task: int) -> Child:
        child = self._ledger.find_child(self._run.key, task)
        if child is None:
            raise Refusal(403, f"Task {task} is not a child task of this run: a run reads its own children's results.")
        return child

    def _runs(self, task: int, child: Child) -> list[ChildRun]:
        """The runs of a child task, newest first; raises Refusal when they are not those that were asked for."""
        call = Call("GET", f"/skerry/task/{task}/wait", self._forwarder.token, [("timeout", 0)])
        runs = [_parse_child_run(row) for row in _fields(self._forwarder.repeat(call)).objects("runs")]
        organizations = [run.organization for run in runs]
        if len(set(organizations)) != len(organizations) or not child.organizations.issuperset(organizations):
            raise Refusal(502, f"The server shows runs of task {task} that this run did not ask for.")
        return sorted(runs, key=lambda run: run.id, reverse=True)

    def _get_run(self, run_id: int) -> tuple[ChildRun, int]:
        return _parse_run(self._forwarder.repeat(Call("GET", f"/run/{run_id}", self._forwarder.token)))

    def _write_result(self, body: IO[bytes], task: int, child: Child, run: ChildRun) -> None:
        opened = self._open_result(child, run) if run.completed else None
        row = {
            "id": run.id,
            "cleanup_at": None,
            "blob_storage_used": False,
            "run": {"id": run.id, "link": f"/run/{run.id}", "methods": ["GET"]},
            "task": {"id": task, "link": f"/task/{task}", "methods": ["GET"]},
        }
        body.write(json.dumps(row).encode()[:-1] + b', "result": ')
        _write_base64(body, opened)
        body.write(b"}")

    def _open_result(self, child: Child, run: ChildRun) -> IO[bytes] | None:
        """The verified plaintext, at its start; None where the server has none."""
        try:
            return self._forwarder.patiently(lambda: self._download_result(child, run))
        except NotFound:
            return None
        except (CryptoError, ValueError) as error:
            raise Refusal(502, f"The result of run {run.id} can't be opened: {error}") from error

    def _download_result(self, child: Child, run: ChildRun) -> IO[bytes]:
        part = self._part(child, run.organization)
        with (
            filled_spool(self._folder) as plaintext,
            self._forwarder.download(f"/skerry/run/{run.id}/result") as stored,
        ):
            for piece in self._protection.open_result(self._run, part, stored):
                plaintext.write(piece)
            plaintext.seek(0)
        return plaintext

    def _request(self, wish: Wish, child: Child, sealed: list[dict[str, Any]]) -> dict[str, Any]:
        """The body for the server. Of the run's own things, nothing is taken from the container's word."""
        run = self._run
        body = {
            "uuid": child.uuid,
            "name": wish.name,
            "description": wish.description,
            "image": run.image,
            "collaboration_id": run.collaboration,
            "study_id": run.study,
            "store_id": run.store,
            "organizations": sealed,
            "databases": list(wish.databases),
        }
        return {name: value for name, value in body.items() if value is not None}


def parse_wish(body: Any, run: Run) -> Wish:
    """Raises Refusal (400) for what is not a child task of that run. Unknown fields are let pass and dropped."""
    try:
        fields = Fields(body, "The task")
        _check_same(fields.optional_text("image"), run.image, "image")
        _check_same(fields.optional_identifier("collaboration_id"), run.collaboration, "collaboration_id")
        return Wish(
            fields.optional_text("name", 128),
            fields.optional_text("description", 1024),
            _parse_organizations(fields.objects("organizations")),
            tuple(_parse_database(entry) for entry in fields.objects("databases")),
        )
    except ValueError as error:
        raise Refusal(400, str(error)) from error


def _parse_key(text: str | None) -> str | None:
    """Raises Refusal (400)."""
    if text is not None and not _UUID.fullmatch(text):
        raise Refusal(400, "The header Idempotency-Key must be a UUID.")
    return text.lower() if text is not None else None


def _digest(wish: Wish) -> str:
    """The same for the same wish, and for no other."""
    whole = hashlib.sha256()
    for part in (wish.name, wish.description, wish.databases, sorted(wish.inputs)):
        whole.update(hashlib.sha256(json.dumps(part, sort_keys=True).encode()).digest())
    for _, given in sorted(wish.inputs.items()):
        whole.update(hashlib.sha256(given if isinstance(given, bytes) else f"blob {given}".encode()).digest())
    return whole.hexdigest()


def _check_same(value: object, own: object, name: str) -> None:
    if value is not None and value != own:
        raise ValueError(f'The task: the field "{name}" must be that of the run that creates it.')


def _parse_organizations(entries: list[dict[str, Any]]) -> dict[int, bytes | str]:
    """The plaintext input of each organization, or the name of its blob."""
    if not 0 < len(entries) <= _MOST_ORGANIZATIONS:
        raise ValueError("Organizations missing from input: name those that are to run the task.")
    inputs: dict[int, bytes | str] = {}
    for entry in entries:
        fields = Fields(entry, "An organization of the task")
        organization, text = fields.identifier("id"), fields.any("input")
        if organization in inputs:
            raise ValueError(f"The task names organization {organization} twice.")
        inputs[organization] = _decode_input(text)
    return inputs


def _decode_input(text: Any) -> bytes | str:
    """A UUID has hyphens, which base64 has not."""
    if isinstance(text, str) and _UUID.fullmatch(text):
        return text.lower()
    try:
        return unb64(text) if isinstance(text, str) else unb64("!")
    except ValueError as error:
        raise ValueError('The field "input" of an organization of the task must be base64.') from error


def _parse_database(entry: dict[str, Any]) -> dict[str, Any]:
    """The known keys of a database. Nulls are left out as the server does, since the envelope is bound to them."""
    fields = Fields(entry, "A database of the task")
    fields.text("label", 128)
    database = {name: entry[name] for name in _DATABASE_KEYS if entry.get(name) is not None}
    if steps := fields.objects("preprocessing"):
        database["preprocessing"] = [
            {name: value for name, value in step.items() if value is not None} for step in steps
        ]
    return database


def _parse_child_run(row: dict[str, Any]) -> ChildRun:
    fields = _fields(row)
    completed = fields.text("status") == Status.COMPLETED
    return ChildRun(fields.identifier("id"), fields.identifier("organization_id"), completed)


def _parse_run(row: Any) -> tuple[ChildRun, int]:
    """A run of the vantage6 dialect, and the task that it belongs to."""
    fields = _fields(row)
    completed = fields.text("status") == Status.COMPLETED
    organization = fields.nested("organization").identifier("id")
    return ChildRun(fields.identifier("id"), organization, completed), fields.nested("task").identifier("id")


def _fields(answer: Any) -> Fields:
    return Fields(answer, "The server's answer")


def _respond(body: IO[bytes]) -> Response:
    size = body.tell()
    body.seek(0)
    return Response(200, body, size)


def _write_base64(body: IO[bytes], opened: IO[bytes] | None) -> None:
    if opened is None:
        body.write(b"null")
        return
    body.write(b'"')
    with opened:
        while piece := opened.read(_PIECE):
            body.write(base64.b64encode(piece))
    body.write(b'"')
