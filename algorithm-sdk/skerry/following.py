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
    """Tells each line once."""

    def __init__(self, client: UserClient, task: Mapping[str, Any]) -> None:
        self._client, self._task = client, task
        self._ended: set[int] = set()

    def lines(self, states: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """What is new since the last call, after each line's organization; of runs in these states."""
        for state in states:
            id_, organization = int(state["id"]), int(state["organization_id"])
            if id_ in self._ended or not outcomes.ended(str(state["status"])):
                continue
            self._ended.add(id_)
            yield from (f"organization {organization} | {line}" for line in self._rest(id_))

    def _rest(self, run_id: int) -> list[str]:
        try:
            log = self._client.run.log_of(self._client.request(f"run/{run_id}"), self._task) or ""
        except SkerryError as error:
            return [f"(its log can't be read: {error})"]
        return [printable(line) for line in log.splitlines()]
