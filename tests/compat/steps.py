"""A tour as a table: calls to make, in order, each with what it must give; one that fails does not stop the others.

Stands by itself, so that it runs where nothing but a published client is installed.
"""

import contextlib
import inspect
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PATIENCE = 180


class World:
    """What the calls know: the facts that the tour was given, and the answers that steps keep under a name."""

    printed = ""
    """What the last call wrote to the standard output."""


@dataclass(frozen=True)
class Step:
    """One call: of which method of whose client, with what, and what is true of its answer (or of its exception)."""

    method: str
    arguments: Callable[[World], dict[str, Any]] = lambda _: {}
    check: Callable[[Any, World], bool] = lambda answer, _: answer is None
    who: str = "root"
    keep: str = ""
    raises: str = ""
    eventually: bool = False


@dataclass(frozen=True)
class Outcome:
    calls: int
    failed: list[str]


def tour(steps: list[Step], world: World, client_of: Callable[[str], Any]) -> Outcome:
    """Makes all calls that ``client_of(who)`` has; gives how many there were and which failed, with the reason."""
    outcomes = [(step, take(step, world, client_of)) for step in steps]
    failed = [f"{number}. {step.method}: {why}" for number, (step, why) in enumerate(outcomes, start=1) if why]
    return Outcome(len(outcomes), failed)


def take(step: Step, world: World, client_of: Callable[[str], Any]) -> str:
    """Why the step failed; empty when it did not."""
    end = time.monotonic() + (PATIENCE if step.eventually else 0)
    while True:
        why = _try(step, world, client_of)
        if not why or time.monotonic() >= end:
            return why
        time.sleep(0.2)


def _try(step: Step, world: World, client_of: Callable[[str], Any]) -> str:
    answer: Any = None
    try:
        answer = _call(step, world, client_of)
        if step.raises:
            return f"expected an exception with {step.raises!r}, not {_short(answer)}"
        if not step.check(answer, world):
            return f"answered {_short(answer)}"
    except Exception as error:  # noqa: BLE001 - the tour goes on
        if step.raises and step.raises in str(error):
            return ""
        return f"{type(error).__name__}: {error}; the answer was {_short(answer)}"
    if step.keep:
        setattr(world, step.keep, answer)
    return ""


def _call(step: Step, world: World, client_of: Callable[[str], Any]) -> Any:
    arguments, told = step.arguments(world), io.StringIO()
    with contextlib.redirect_stdout(told):
        member = attribute(client_of(step.who), step.method)
        answer = member(**arguments) if callable(member) else member
    world.printed = told.getvalue()
    return answer


def attribute(client: Any, path: str) -> Any:
    for name in path.split("."):
        client = getattr(client, name)
    return client


def public_members(client: Any) -> set[str]:
    """All that a client offers: its own public names and those of its groups of calls, however deep."""
    return _members(client, "", type(client).__module__.partition(".")[0])


def _members(thing: Any, prefix: str, package: str) -> set[str]:
    names = {
        prefix + name
        for name, member in inspect.getmembers_static(type(thing))
        if not name.startswith("_") and not inspect.isclass(member) and _is_call(member)
    }
    for name, group in vars(thing).items():
        theirs = type(group).__module__.partition(".")[0] == package and hasattr(group, "parent")
        if theirs and not name.startswith("_") and name not in {"parent", "base_client"}:
            names |= _members(group, f"{prefix}{name}.", package)
    return names


def _is_call(member: Any) -> bool:
    return inspect.isfunction(member) or isinstance(member, (property, staticmethod, classmethod))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 2000 else f"{text[:2000]}…"


# --- what may be true of an answer -----------------------------------------------------------------------


def has(**fields: Any) -> Callable[[Any, World], bool]:
    """These fields with these values; a function is given the world and gives the value."""

    def check(answer: Any, world: World) -> bool:
        return all(answer[name] == (value(world) if callable(value) else value) for name, value in fields.items())

    return check


def rows(wanted: Callable[[World], list[Any]], by: str = "id") -> Callable[[Any, World], bool]:
    """A list of exactly these, whatever their order."""

    def check(answer: Any, world: World) -> bool:
        found = answer["data"] if isinstance(answer, dict) else answer
        return sorted(row[by] for row in found) == sorted(wanted(world))

    return check


def among(wanted: Callable[[World], Any], by: str = "id") -> Callable[[Any, World], bool]:
    """A list with this one in it."""
    return lambda answer, world: wanted(world) in [row[by] for row in answer["data"]]


def says(*words: str) -> Callable[[Any, World], bool]:
    """Only a message, with these words."""
    return lambda answer, _: set(answer) <= {"msg", "errors"} and all(word in answer["msg"] for word in words)
