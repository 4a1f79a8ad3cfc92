"""The runs of tasks and their results, as a user's script calls them, with vantage6 4.x's names and arguments."""

# ruff: noqa: PLR0917 - the arguments are vantage6's, in its order
from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Unpack

from skerry import streams
from skerry.errors import ConfigurationError, CryptoError, DecryptionError, InputError
from skerry.picking import Fields, Filters, picks_fields, picks_rows
from skerry.progress import moving
from skerry.subclients import Row, Rows, SubClient
from skerry.uncached import Writer
from skerry.wire import Format, detect_format, to_stored

Span = tuple[str | None, str | None]
"""From and till, in UTC such as ``2026-11-21T08:30:00``; None leaves an end open."""

_CACHED = 1 << 26
"""Bytes of a downloaded file that its user, who may want it next, finds in the page cache."""


class Run(SubClient):
    """What a task does at one organization each.

    ``input`` and ``log`` come in the clear where they are for your organization; else as the server keeps them.
    """

    @picks_fields
    def get(self, id_: int, include_task: bool = False, decrypt_input: bool = True, **_pick: Unpack[Fields]) -> Row:
        """``include_task``: with the task itself instead of a link to it."""
        run = self._get(f"run/{int(id_)}", include="task" if include_task else None)
        return self._opened([run], inputs=decrypt_input)[0]

    @picks_rows
    def list(
        self,
        task: int | None = None,
        organization: int | None = None,
        state: str | None = None,
        node: int | None = None,
        include_task: bool = False,
        started: Span | None = None,
        assigned: Span | None = None,
        finished: Span | None = None,
        port: int | None = None,
        page: int = 1,
        per_page: int = 20,
        **_pick: Unpack[Filters],
    ) -> Row:
        """``state="open"``: only those that have not ended. ``started``, ``assigned``, ``finished``: (from, till)."""
        filters = {"task_id": task, "organization_id": organization, "state": state, "node_id": node, "port": port}
        times = {**_span("started", started), **_span("assigned", assigned), **_span("finished", finished)}
        include = "task" if include_task else None
        answer = self._get("run", include=include, page=page, per_page=per_page, **filters, **times)
        return {**answer, "data": self._opened(answer["data"])}

    @picks_rows
    def from_task(self, task_id: int, include_task: bool = False, **_pick: Unpack[Filters]) -> Row:
        """All runs of a task."""
        rows = self._all("run", task_id=int(task_id), include="task" if include_task else None)
        return {"data": self._opened(rows), "links": {}}

    def all_of(self, task_id: int) -> Rows:
        """All runs of a task, as the server keeps them."""
        return self._all("run", task_id=int(task_id))

    def log_of(self, run: Mapping[str, Any], task: Mapping[str, Any]) -> str | None:
        """A run's log in the clear. Raises CryptoError when it is not what its organization wrote for this task."""
        log: str | None = run.get("log")
        if not log or detect_format(log) is not Format.NATIVE:
            return log
        stored, organization = to_stored(log, Format.NATIVE), int(run["organization"]["id"])
        return self.parent.open(stored, "log", task, organization).decode("utf-8", "replace")

    def _opened(self, rows: Rows, *, inputs: bool = True) -> Rows:
        tasks: dict[int, Row] = {}
        for id_ in {int(row["task"]["id"]) for row in rows if _is_sealed(row)}:
            tasks[id_] = self._get(f"task/{id_}")
        return [self._open(row, tasks.get(int(row["task"]["id"])), inputs=inputs) for row in rows]

    def _open(self, run: Row, task: Row | None, *, inputs: bool) -> Row:
        """What is for others stays as it is."""
        opened = dict(run)
        with suppress(CryptoError, ConfigurationError):
            if task is not None:
                opened["log"] = self.log_of(run, task)
        with suppress(CryptoError, ConfigurationError, ValueError):
            if inputs and run.get("input"):
                opened["input"] = self._input_of(run, task).decode()
        return opened

    def _input_of(self, run: Row, task: Row | None) -> bytes:
        fmt = detect_format(run["input"])
        stored = to_stored(run["input"], fmt)
        if fmt is Format.PLAIN or task is None:
            return stored
        return self.parent.open_input(stored, task)


class Result(SubClient):
    """What runs returned."""

    def get(self, id_: int) -> str:
        """The text of one run's result, decrypted; JSON as a rule. The id is the run's."""
        run = self._get(f"run/{int(id_)}")
        task = self._get(f"task/{int(run['task']['id'])}")
        return self._text(task, run)

    def from_task(self, task_id: int) -> Row:
        """What there is, as rows with the decrypted text in ``result``; None where a run has none."""
        task, runs = self._get(f"task/{int(task_id)}"), self.parent.run.all_of(task_id)
        rows = [{"id": run["id"], "run": {"id": run["id"]}, "result": self._text_or_none(task, run)} for run in runs]
        return {"data": rows, "links": {}}

    def download(self, id_: int, file: str | Path, *, progress: bool | None = None) -> Path:
        """Writes the result of a run, decrypted, into a file, in constant memory; the file is there when all is well.

        ``progress``: whether to show a bar; by default on a terminal and in a notebook. Raises CryptoError when the
        result is not what that organization made, NotFound where there is none.
        """
        run = self._get(f"run/{int(id_)}")
        task = self._get(f"task/{int(run['task']['id'])}")
        return self.save(task, int(id_), int(run["organization"]["id"]), Path(file), progress=progress)

    def save(
        self, task: Mapping[str, Any], run_id: int, organization: int, file: Path, *, progress: bool | None = None
    ) -> Path:
        """The same for a run that one knows."""
        part = file.with_name(f"{file.name}.part")
        try:
            with part.open("w+b") as opened, Writer(opened.fileno(), 0, cached=_CACHED) as out:
                self.write(task, run_id, organization, out, progress=progress)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        return file

    def write(
        self, task: Mapping[str, Any], run_id: int, organization: int, out: IO[bytes] | Writer, *, progress: bool | None
    ) -> None:
        """The same into an open file: to be believed only when this returns."""
        with moving(f"result of organization {organization}", wanted=progress) as show:
            for piece in self.pieces(task, run_id, organization, show):
                out.write(piece)

    def plaintext(self, task: Mapping[str, Any], run_id: int, organization: int) -> bytes:
        """The bytes of one run's result. Raises CryptoError when they are not what that organization made."""
        return b"".join(self.pieces(task, run_id, organization))

    def pieces(
        self,
        task: Mapping[str, Any],
        run_id: int,
        organization: int,
        show: streams.Show = lambda _have, _size: None,
    ) -> Iterator[bytes]:
        """The same, piece by piece: to be believed only when it has ended without raising."""
        stored = streams.download(self.parent.session, f"skerry/run/{run_id}/result", show)
        return self.parent.open_result(stored, task, organization)

    def _text_or_none(self, task: Mapping[str, Any], run: Mapping[str, Any]) -> str | None:
        return self._text(task, run) if run["status"] == "completed" else None

    def _text(self, task: Mapping[str, Any], run: Mapping[str, Any]) -> str:
        organization = int(run["organization"]["id"])
        try:
            return self.plaintext(task, int(run["id"]), organization).decode()
        except UnicodeDecodeError as error:
            raise DecryptionError(f"The result of organization {organization} is not text.") from error


def _is_sealed(run: Mapping[str, Any]) -> bool:
    return any(run.get(name) and detect_format(run[name]) is not Format.PLAIN for name in ("input", "log"))


def _span(name: str, span: Span | None) -> dict[str, Any]:
    if span is None:
        return {}
    if isinstance(span, str) or len(span) != 2:  # noqa: PLR2004
        raise InputError(f'"{name}" takes two times: ({name}_from, {name}_till), either may be None.')
    return {f"{name}_from": span[0], f"{name}_till": span[1]}
