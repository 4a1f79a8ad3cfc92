"""Calls that the gate hands on: asked anew with the run's upstream token, and answered in one page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, TypeVar

from skerry.errors import AuthenticationError, ServerError, ServerUnreachable
from skerry_proxy.access import Access
from skerry_proxy.messages import Refusal
from skerry_proxy.routes import Match
from skerry_proxy.upstream import Call, Upstream, patiently

_PAGE_SIZE = 100
_MOST_PAGES = 100
_PATIENCE = 3600.0
"""Seconds for which a container's call waits for a server that is away: longer than most restarts and repairs."""

_EXPIRED = "expired"
T = TypeVar("T")


class Forwarder:
    """What one gate asks of the server. Idempotent calls wait while the server is away, until the gate closes."""

    def __init__(self, upstream: Upstream, access: Access, closing: threading.Event) -> None:
        self._upstream = upstream
        self._access = access
        self._closing = closing

    @property
    def token(self) -> str:
        return self._access.token

    def get(self, match: Match) -> Any:
        """The server's answer to the same call."""
        token = None if match.route.public else self.token
        return self.repeat(Call("GET", match.path, token, match.query))

    def get_all(self, match: Match) -> dict[str, Any]:
        """The server's list with all its pages as one, and no link to a next one."""
        rows: list[Any] = []
        if match.page == 1:
            for number in range(1, _MOST_PAGES + 1):
                page = self._get_page(match, number)
                rows += page["data"]
                if not _has_next(page):
                    break
            else:
                raise Refusal(502, f"The list is longer than {_PAGE_SIZE * _MOST_PAGES} rows.")
        return one_page(match.path, rows)

    def repeat(self, call: Call) -> Any:
        """Makes a call that may be repeated, each time with the token of the moment. Raises as the upstream does."""
        return self.patiently(lambda: self._answer(call))

    def patiently(self, action: Callable[[], T]) -> T:
        """Does what may be done twice, and again while the server is away, until the gate closes."""
        return patiently(lambda: _await_token(action), self._closing, _PATIENCE)

    def download(self, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """The bytes of a stored payload; as patient, once the first of them are there. Raises as the upstream does."""
        return self._upstream.download(path, lambda: self.token, self._closing, _PATIENCE)

    def _answer(self, call: Call) -> Any:
        return self._upstream.answer(call if call.token is None else replace(call, token=self.token))

    def _get_page(self, match: Match, number: int) -> dict[str, Any]:
        query: list[tuple[str, str | int]] = [*match.query, ("page", number), ("per_page", _PAGE_SIZE)]
        page = self.repeat(Call("GET", match.path, self.token, query))
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            raise ServerError("The server's answer is not a list.", 200)
        return page


def _await_token(action: Callable[[], T]) -> T:
    """While the server was away the token may have expired; the renewer or the node gets a new one."""
    try:
        return action()
    except AuthenticationError as error:
        if _EXPIRED in str(error):
            raise ServerUnreachable("The run's token is being renewed.") from error
        raise


def one_page(path: str, rows: list[Any]) -> dict[str, Any]:
    return {"data": rows, "links": {"first": path, "self": path, "last": path}}


def _has_next(page: dict[str, Any]) -> bool:
    links = page.get("links")
    return isinstance(links, dict) and bool(links.get("next"))
