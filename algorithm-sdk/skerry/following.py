"""The lines that a task's runs tell their logs, as a waiting user gets to see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from skerry import outcomes
from skerry.errors import SkerryError
from skerry.output import printable

if TYPE_CHECKING:
    from skerry.client import UserClient


class Follower:
    """Tells each line once: those of active runs as far as their nodes show them, the rest when they end."""

    def __init__(self, client: UserClient, task: Mapping[str, Any]) -> None:
        self._client, self._task = client, task
        self._seen: dict[int, Any] = {}
        self._shown: dict[int, str] = {}

    def lines(self, states: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """What is new since the last call, after each line's organization; of runs in these states."""
        for state in states:
            id_, whole = int(state["id"]), outcomes.ended(str(state["status"]))
            version = "whole" if whole else state.get("live_log") or 0
            if version != self._seen.get(id_, 0):
                self._seen[id_] = version
                who = f"organization {int(state['organization_id'])}"
                yield from (f"{who} | {line}" for line in self._read(id_, whole=whole))

    def _read(self, run_id: int, *, whole: bool) -> list[str]:
        try:
            log = self._client.run.log_of(self._client.request(f"run/{run_id}"), self._task) or ""
        except SkerryError as error:
            return [f"(its log can't be read: {error})"]
        return [printable(line) for line in self._new(run_id, log, whole=whole).splitlines()]

    def _new(self, run_id: int, log: str, *, whole: bool) -> str:
        """What comes after the last line that was shown; a long log may have been cut before it."""
        before, now = self._shown.get(run_id, ""), log if whole else log[: log.rfind("\n") + 1]
        self._shown[run_id] = now
        if now.startswith(before):
            return now[len(before) :]
        return now.rpartition(before.rstrip("\n").rpartition("\n")[2] + "\n")[2]
