"""All that a container can call: one table. What is not in it does not exist."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from urllib.parse import parse_qsl

from skerry_proxy.messages import BLOBS_PATH, Refusal

_MOST_PARAMETERS = 64
_NUMBER = re.compile(r"[0-9]{1,18}")
_WORDS = re.compile(r"[a-z]{1,32}(,[a-z]{1,32}){0,7}")
_FLAG = re.compile(r"0|1|[Tt]rue|[Ff]alse")
_LABEL = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_UNTIL = re.compile(r"finished")
_PAGE = {"page": _NUMBER, "per_page": _NUMBER}
_ADDRESSES = ("only_children", "only_parent", "only_siblings", "only_self", "include_children", "include_parent")


class Action(Enum):
    """What the gate does with a call."""

    FORWARD = auto()
    """One object: asked of the server, its answer handed on."""
    LIST = auto()
    """A list: all of the server's pages as one."""
    OWN_NODE = auto()
    """As FORWARD, for the run's own node only."""
    ADDRESSES = auto()
    """As FORWARD; of the addresses, those that their organizations signed."""
    GET_RUN = auto()
    """As FORWARD; the log of a child's run is opened."""
    LIST_RUNS = auto()
    """As LIST; the logs of children's runs are opened."""
    GET_RESULT = auto()
    """The result of a child's run, opened."""
    LIST_RESULTS = auto()
    """The results of a child task, opened."""
    CREATE_TASK = auto()
    """A child task, its inputs sealed."""
    KEEP_BLOB = auto()
    """The input of a child task, sent ahead of it."""


@dataclass(frozen=True, slots=True)
class Route:
    """``<id>`` in a path is a number. ``parameters``: those of the query that are handed on, and how they look."""

    method: str
    path: str
    action: Action
    parameters: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    public: bool = False

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def _get(path: str, action: Action, *numbers: str) -> Route:
    return Route("GET", path, action, {"include": _WORDS} | dict.fromkeys(numbers, _NUMBER))


ROUTES = (
    Route("GET", "/version", Action.FORWARD, public=True),
    _get("/organization", Action.LIST, "collaboration_id", "study_id", "ids"),
    _get("/organization/<id>", Action.FORWARD),
    _get("/collaboration/<id>", Action.FORWARD),
    _get("/node/<id>", Action.OWN_NODE),
    _get("/study", Action.LIST, "collaboration_id", "organization_id"),
    _get("/study/<id>", Action.FORWARD),
    _get("/task/<id>", Action.FORWARD),
    _get("/task/<id>/status", Action.FORWARD),
    _get("/run", Action.LIST_RUNS, "task_id"),
    _get("/run/<id>", Action.GET_RUN),
    _get("/result", Action.LIST_RESULTS, "task_id"),
    _get("/result/<id>", Action.GET_RESULT),
    Route("GET", "/vpn/algorithm/addresses", Action.ADDRESSES, {"label": _LABEL} | dict.fromkeys(_ADDRESSES, _FLAG)),
    _get("/blobstream/status", Action.FORWARD),
    Route("GET", "/skerry/task/<id>/wait", Action.FORWARD, {"seen": _LABEL, "timeout": _NUMBER, "until": _UNTIL}),
    Route("POST", "/task", Action.CREATE_TASK),
    Route("POST", BLOBS_PATH, Action.KEEP_BLOB),
)

_PATTERNS = tuple((route, re.compile(re.escape(route.path).replace("<id>", "([1-9][0-9]{0,17})"))) for route in ROUTES)


@dataclass(frozen=True, slots=True)
class Match:
    """A call that the table knows. ``number``: the id in its path; ``query``: what is handed on of its query."""

    route: Route
    number: int | None
    query: tuple[tuple[str, str], ...] = ()
    page: int = 1

    @property
    def path(self) -> str:
        """The path at the server, made of the table's own text and a number."""
        return self.route.path.replace("<id>", str(self.number))

    def require_id(self) -> int:
        """The id in the path, of a route that has one."""
        if self.number is None:
            raise ValueError(f"{self.route.name} has no id")
        return self.number

    def require_number(self, name: str) -> int:
        """A number of the query; raises Refusal (400) when it is not there."""
        value = dict(self.query).get(name)
        if value is None:
            raise Refusal(400, f'The call needs the parameter "{name}".')
        return int(value)


def find_route(method: str, path: str) -> Match:
    """Raises Refusal (403) for a call that is not in the table."""
    for route, pattern in _PATTERNS:
        found = pattern.fullmatch(path)
        if route.method == method and found is not None:
            return Match(route, int(found[1]) if pattern.groups else None)
    raise Refusal(403, "An algorithm may not make this call.")


def parse_query(match: Match, query: str) -> Match:
    """The match with its query. Raises Refusal (400) for a parameter that the route does not know.

    ``page`` and ``per_page`` are known everywhere and never handed on: the gate's lists have one page.
    """
    known = {**match.route.parameters, **_PAGE}
    pairs = _split(query)
    for name, value in pairs:
        if name not in known or not known[name].fullmatch(value):
            raise Refusal(400, f'The parameter "{name[:64]}" of this call is unknown or malformed.')
    handed_on = tuple((name, value) for name, value in pairs if name not in _PAGE)
    return replace(match, query=handed_on, page=int(dict(pairs).get("page", "1")))


def _split(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=_MOST_PARAMETERS)
    except ValueError as error:
        raise Refusal(400, "The query of the call is malformed.") from error
