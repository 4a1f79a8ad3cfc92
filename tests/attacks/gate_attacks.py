"""What a run does to its gate. Each call goes out from inside a container; the control's gate is of this process."""

from __future__ import annotations

import re
from typing import Any

import gates
import h11
import pytest
from attack import Attack, Weaken
from sandbox_attacks import Inside

from skerry_proxy import children, gate, messages, office
from skerry_proxy.children import Child, Children
from skerry_proxy.envelopes import NativeProtection
from skerry_proxy.messages import Connection, Limits
from skerry_proxy.routes import Action, Match, Route


def heads_unchecked(patch: pytest.MonkeyPatch) -> None:
    """What h11 lets pass is let pass."""
    patch.setattr(messages, "_check_head", lambda _: None)


def targets_unchecked(patch: pytest.MonkeyPatch) -> None:
    """As frameworks do that serve proxies too: of an address, its path."""

    def check(request: Any) -> tuple[str, str, str]:
        path = re.sub(r"^https?://[^/]*", "", request.target.decode("latin-1"))
        return request.method.decode(), path, ""

    patch.setattr(messages, "_check_request", check)


def large_heads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(messages, "_LARGEST_HEAD", 1 << 20)


def any_length(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(messages, "_check_length", lambda _: None)


def all_paths(patch: pytest.MonkeyPatch) -> None:
    """The table of routes lets everything through."""
    patch.setattr(gate, "find_route", lambda method, path: Match(Route(method, path, Action.FORWARD), None))


def all_queries(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gate, "parse_query", lambda match, _: match)


def all_tokens(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gate.Desk, "_check_token", lambda *_: None)


def many_connections(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gate, "MOST_CONNECTIONS", 64)


def endless_patience(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(office, "Limits", lambda: Limits(head=3600))


def one_after_the_other(patch: pytest.MonkeyPatch) -> None:
    """What came before its predecessor was answered is served all the same."""

    def start_next(connection: Connection) -> bool:
        connection._buffer = connection._http.trailing_data[0] + connection._buffer
        connection._http = h11.Connection(h11.SERVER)
        return True

    patch.setattr(Connection, "_start_next", start_next)


def shared_port(patch: pytest.MonkeyPatch) -> None:
    """The gate's listener is bound as one that lets others in beside it."""
    patch.setattr(gates, "REUSE_PORT", True)


def any_node(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gate.Desk, "_get_own_node", lambda desk, match: desk.forwarder.get(match))


def any_child(patch: pytest.MonkeyPatch) -> None:
    """The ledger takes every task for a child of the run."""
    found = Child("11111111-1111-4111-8111-111111111111", (), frozenset(range(100)))
    patch.setattr(Children, "_find", lambda *_: found)


def any_image_and_collaboration(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(children, "_check_same", lambda *_: None)


def keys_unneeded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(NativeProtection, "seal_child", lambda *_: "e30=")


def blobs_unneeded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Children, "_seal", lambda *_: "e30=")


def _rows(refusal: str, weaken: Weaken | None, excuse: str = "", /, **tries: str) -> list[Attack]:
    rows = {name.replace("__", "-"): what for name, what in tries.items()}
    return [Attack(f"gate-{name}", what, refusal, Inside(name), weaken, excuse) for name, what in rows.items()]


_BAD_HEAD = r"HTTP/1.1 400 .*(two \S+ headers|both a content-length|folded|bare line end|change protocols)"
_NO_CALL = "403 .*may not make this call"
_NO_TOKEN = "401 .*does not carry this run's token"
_TWICE = "a second parser behind it refuses that too"

ATTACKS: list[Attack] = [
    *_rows(
        _BAD_HEAD,
        heads_unchecked,
        smuggle__both__lengths="have a body's end read in two ways (content-length and transfer-encoding)",
        smuggle__two__lengths="say a body's length twice",
        smuggle__folded__line="fold a header over two lines",
        smuggle__bare__line__feed="end a header by a bare line feed",
        smuggle__two__tokens="show two tokens at once",
        upgrade="change to another protocol",
    ),
    *_rows("400 .*bare line end or a control", None, _TWICE, smuggle__null="put a null byte into a header"),
    *_rows(
        "400 .*not an HTTP/1.1 request", None, "h11 itself refuses it", smuggle__space__before__colon="hide a length"
    ),
    *_rows(
        "^HTTP/1.1 200 (?!.*HTTP/1.1 200)",
        one_after_the_other,
        smuggle__pipeline="have a second request served behind the first",
    ),
    *_rows(
        "400 .*must be a path", targets_unchecked, absolute__form="be led to the cloud's metadata by a whole address"
    ),
    *_rows("505 ", targets_unchecked, **{"http-1.0": "speak a version without hosts and lengths"}),
    *_rows("405 ", None, "the gate has no code that opens tunnels", connect="open a tunnel to the host"),
    *_rows("431 ", large_heads, huge__head="fill the gate's memory by a head"),
    *_rows("400 .*content-length .* not a number", any_length, endless__length="say a length of eighteen digits"),
    *_rows("503 .*16 connections", many_connections, many__connections="use up the gate's threads"),
    *_rows("refused: closed", endless_patience, slow__head="send half a head and wait for ever"),
    *_rows("Address already in use", shared_port, gate__taken__over="take its place"),
    *_rows(
        _NO_CALL,
        all_paths,
        call__users="list the users",
        call__log__in="log in as somebody",
        call__kill="kill tasks",
        call__node__protocol="speak as the node",
        call__node__work="take the node's work",
        call__delete="delete a task",
        call__patch="replace an organization's key",
        traversal="climb out of a path",
        traversal__encoded="climb out of a path, encoded",
        traversal__after__number="climb out of a path behind a number",
        path__parameter="hide a path behind a semicolon",
        path__null="cut a path by a null",
        path__case="write a path in capitals",
        path__slash="end a path by a slash",
        number__negative="ask for a negative number",
    ),
    *_rows(
        "400 .*unknown or malformed",
        all_queries,
        query__line__end="put a header into a query",
        query__unknown="ask for fields that aren't offered",
        query__encoded__amp="put a second parameter into a first",
    ),
    *_rows(
        _NO_TOKEN,
        all_tokens,
        token__none="call without a token",
        token__of__another__run="show another run's token",
        token__without__signature="show its own claims, unsigned",
        token__other__scheme="show a token by another scheme",
    ),
    *_rows("403 .*its own node only", any_node, other__node="look at another organization's node"),
    *_rows("403 .*not a child task of this run", any_child, other__results="read the results of another task"),
    *_rows(
        "40[134] ",
        None,
        "without the ledger's word there is no key that would open it",
        other__result="read another run",
    ),
    *_rows("50[02] |40[034] ", keys_unneeded, child__of__outsider="start a task at an organization outside"),
    *_rows(
        "400 .*must be that of the run",
        any_image_and_collaboration,
        child__other__image="start a child task with another image",
        child__other__collaboration="start a child task in another collaboration",
    ),
    *_rows(
        "400 .*twice", None, "the inputs are kept by organization", child__twice="have one organization asked twice"
    ),
    *_rows("400 .*has not sent", blobs_unneeded, child__of__blob__of__others="hand on an input that another run sent"),
]
