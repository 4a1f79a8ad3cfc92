"""What was recorded while things broke, and whether it keeps the promises: rules without I/O.

A history is what clients, the server, nodes and the counter inside the algorithm recorded; a violation is a sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

TERMINAL = frozenset(
    {
        "completed",
        "failed",
        "start_failed",
        "no_image",
        "crashed",
        "killed",
        "not_allowed",
        "unknown_error",
        "lost",
        "timed_out",
    }
)
_LENT = 8
"""A place is lent to a child, and by that to a child of its own, so deep at most."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The server told a client that this task exists. ``name`` is the client's own, used once."""

    task: int
    name: str
    runs: int


@dataclass(frozen=True, slots=True)
class Told:
    """What a client was told of a run: its status, and the digest of the result that it could open."""

    run: int
    status: str
    digest: str | None


@dataclass(frozen=True, slots=True)
class Start:
    """The algorithm itself said that it runs; the nonce is new at each start of a process.

    ``at``: when, in seconds of one clock for all starts and ends.
    """

    run: int
    nonce: str
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class End:
    """The algorithm itself said what it is about to answer."""

    run: int
    nonce: str
    digest: str
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskRow:
    """As it lies in the server's database at the end. ``parent``: the task whose run asked for it."""

    task: int
    name: str
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class RunRow:
    """As it lies in the server's database at the end. ``has_result``: a result is recorded."""

    run: int
    task: int
    state: str
    attempt: int
    has_result: bool


@dataclass(frozen=True, slots=True)
class Step:
    """A change of a run's state in the server's audit chain; ``attempt`` where it says so."""

    run: int
    state: str


@dataclass(frozen=True, slots=True)
class NodeStart:
    """A node's audit journal: its engine said that this attempt was started."""

    node: str
    run: int
    attempt: int


@dataclass(frozen=True, slots=True)
class History:
    """``plaintext``: where a canary was seen that should have been ciphertext. ``broken``: chains that don't verify.

    ``left``: containers, mounts and files that nobody needs any more. ``places``: how many runs each node may have go
    on at a time.
    """

    acknowledged: Sequence[Acknowledged] = ()
    told: Sequence[Told] = ()
    starts: Sequence[Start] = ()
    ends: Sequence[End] = ()
    tasks: Sequence[TaskRow] = ()
    runs: Sequence[RunRow] = ()
    steps: Sequence[Step] = ()
    node_starts: Sequence[NodeStart] = ()
    plaintext: Sequence[str] = ()
    broken: Sequence[str] = ()
    left: Sequence[str] = field(default=())
    places: Mapping[str, int] = field(default_factory=dict)


def check(history: History, attempts_allowed: int = 1) -> list[str]:
    """The violations, in no order that means anything."""
    found = [sentence for rule in _RULES for sentence in rule(history)]
    return [*found, *_starts(history, attempts_allowed)]


def _lost_tasks(history: History) -> Iterator[str]:
    there = {row.task for row in history.tasks}
    runs = Counter(row.task for row in history.runs)
    for one in history.acknowledged:
        if one.task not in there:
            yield f"task {one.task} was acknowledged and is lost"
        elif runs[one.task] != one.runs:
            yield f"task {one.task} was acknowledged with {one.runs} runs and has {runs[one.task]}"


def _doubled_tasks(history: History) -> Iterator[str]:
    for name, count in Counter(row.name for row in history.tasks).items():
        if count > 1:
            yield f"{count} tasks were made of the one that its asker called {name}"


def _ends(history: History) -> Iterator[str]:
    steps = Counter(step.run for step in history.steps if step.state in TERMINAL)
    for row in history.runs:
        if row.state not in TERMINAL:
            yield f"run {row.run} did not end: it is {row.state}"
        elif history.steps and steps[row.run] != 1:
            yield f"run {row.run} entered {steps[row.run]} terminal states"


def _after_the_end(history: History) -> Iterator[str]:
    over: dict[int, str] = {}
    for step in history.steps:
        if step.run in over:
            yield f"run {step.run} was {over[step.run]} and became {step.state}"
        if step.state in TERMINAL:
            over[step.run] = step.state


def _starts(history: History, attempts_allowed: int) -> Iterator[str]:
    nonces: dict[int, set[str]] = {}
    for start in history.starts:
        nonces.setdefault(start.run, set()).add(start.nonce)
    attempts = {row.run: row.attempt for row in history.runs}
    for run, different in nonces.items():
        if len(different) > max(attempts.get(run, 0), 0):
            yield f"run {run} started {len(different)} times in {attempts.get(run, 0)} attempts"
    for run, attempt in attempts.items():
        if attempt > attempts_allowed:
            yield f"run {run} had {attempt} attempts, and {attempts_allowed} is allowed"
    for one, count in Counter(history.node_starts).items():
        if count > 1:
            yield f"node {one.node} saw attempt {one.attempt} of run {one.run} start {count} times"


def _results(history: History) -> Iterator[str]:
    written: dict[int, set[str]] = {}
    for end in history.ends:
        written.setdefault(end.run, set()).add(end.digest)
    rows = {row.run: row for row in history.runs}
    for row in history.runs:
        if (row.state == "completed") != row.has_result:
            yield f"run {row.run} is {row.state} and has {'a' if row.has_result else 'no'} result"
        if row.state == "completed" and row.run not in written:
            yield f"run {row.run} is completed, and its algorithm never came to its end"
    for one in history.told:
        if one.digest is not None and one.digest not in written.get(one.run, ()):
            yield f"run {one.run} gave its asker another result than its algorithm wrote"
        if one.run not in rows:
            yield f"run {one.run} was told to a client and is lost"
        elif one.status == "completed" and rows[one.run].state != "completed":
            yield f"run {one.run} was told as completed and is {rows[one.run].state}"


def _told_twice(history: History) -> Iterator[str]:
    first: dict[int, tuple[str, str | None]] = {}
    for one in history.told:
        seen = (one.status, one.digest)
        if first.setdefault(one.run, seen) != seen:
            yield f"run {one.run} was told as {first[one.run][0]} and then as {one.status}, or with another result"


def _crowds(history: History) -> Iterator[str]:
    """A run that has asked for children may wait for them, and lends its place meanwhile: to one of any parent's."""
    children = {row.task for row in history.tasks if row.parent is not None}
    parents = {row.parent for row in history.tasks}
    task_of = {row.run: row.task for row in history.runs}
    for node, together in _together(history):
        tasks, places = [task_of[run] for run in together], history.places[node]
        if (own := sum(task not in children for task in tasks)) > places:
            yield f"node {node} ran {own} tasks that are nobody's children at a time, and has {places} places"
        elif len(tasks) > (most := min(places + sum(task in parents for task in tasks), _LENT * places)):
            yield f"node {node} ran {len(tasks)} algorithms at a time, and had places for {most}"


def _together(history: History) -> Iterator[tuple[str, set[int]]]:
    """At each start, the runs that then went on at its node: of those that came to their end, which is when they say.

    Another one may be dead by the time that what it said is heard.
    """
    node_of = {one.run: one.node for one in history.node_starts if one.node in history.places}
    completed = {row.run for row in history.runs if row.state == "completed"}
    known = completed & node_of.keys()
    moments = [(one.at, isinstance(one, Start), one.run) for one in (*history.starts, *history.ends)]
    going: dict[str, set[int]] = {node: set() for node in history.places}
    over: set[int] = set()
    for _, begins, run in sorted(moment for moment in moments if moment[2] in known):
        there = going[node_of[run]]
        if begins and run not in over:
            there.add(run)
            yield node_of[run], there
        elif not begins:
            over.add(run)
            there.discard(run)


def _rest(history: History) -> Iterator[str]:
    yield from (f"plaintext in {where}" for where in history.plaintext)
    yield from (f"the audit chain of {who} is broken" for who in history.broken)
    yield from (f"left over: {what}" for what in history.left)


_RULES: tuple[Callable[[History], Iterator[str]], ...] = (
    _lost_tasks,
    _doubled_tasks,
    _ends,
    _after_the_end,
    _results,
    _told_twice,
    _crowds,
    _rest,
)
