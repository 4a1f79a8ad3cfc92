"""What an algorithm's functions say of themselves: that they may be called, and what they want to be given.

The decorators only mark: a marked function is called in a unit test like any other, with a client or data frames
of the test's own. In a container the entry point reads the marks and puts what they ask for before the arguments
of the task, in the order of the decorators from top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
_MARK = "__skerry__"

CLIENT = "client"
FRAMES = "frames"
DATABASES = "databases"
CONNECTIONS = "connections"
DESCRIBED_CONNECTIONS = "connections, each with its OHDSIMetaData"
METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Injection:
    """``count`` arguments of one kind."""

    what: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Declaration:
    """The marks of one function. ``role`` is ``central``, ``partial``, or empty where only data was asked for."""

    role: str = ""
    injections: tuple[Injection, ...] = ()

    @property
    def count(self) -> int:
        """How many arguments come before the task's own."""
        return sum(injection.count for injection in self.injections)


def declaration(function: object) -> Declaration | None:
    """The marks of a function; None when it has none."""
    mark = getattr(function, _MARK, None)
    return mark if isinstance(mark, Declaration) else None


def central(function: FunctionT) -> FunctionT:
    """A function that coordinates: its first argument is the AlgorithmClient."""
    return _mark(function, "central", Injection(CLIENT))


algorithm_client = central
"""vantage6's name for it."""


def partial(function: FunctionT) -> FunctionT:
    """A function that works on the data of one organization."""
    return _mark(function, "partial")


def data(number_of_databases: int = 1) -> Callable[[FunctionT], FunctionT]:
    """Puts that many of the task's databases as pandas data frames before the arguments, in the task's order."""
    return _inject(FRAMES, number_of_databases, "data")


def database(number_of_databases: int = 1) -> Callable[[FunctionT], FunctionT]:
    """The same with ``skerry.databases.Database`` values, for functions that read their data themselves."""
    return _inject(DATABASES, number_of_databases, "database")


def database_connection(types: Sequence[str], include_metadata: bool = True) -> Callable[[FunctionT], FunctionT]:
    """Puts connections to the task's first databases before the arguments, one for each of ``types``.

    Each must be ``"OMOP"``. With ``include_metadata`` an ``skerry.omop.OHDSIMetaData`` follows each connection.
    """
    if isinstance(types, str) or not types or any(str(one).upper() != "OMOP" for one in types):
        raise TypeError('The decorator is written with a list of types, each "OMOP": @database_connection(["OMOP"])')
    what, each = (DESCRIBED_CONNECTIONS, 2) if include_metadata else (CONNECTIONS, 1)

    def decorate(function: FunctionT) -> FunctionT:
        return _mark(function, "", Injection(what, each * len(types)))

    return decorate


def metadata(function: FunctionT) -> FunctionT:
    """Puts the RunMetadata before the arguments."""
    return _mark(function, "", Injection(METADATA))


def _inject(what: str, count: int, name: str) -> Callable[[FunctionT], FunctionT]:
    if not isinstance(count, int) or count < 1:
        raise TypeError(f"The decorator is written with a number of databases: @{name}(1)")

    def decorate(function: FunctionT) -> FunctionT:
        return _mark(function, "", Injection(what, count))

    return decorate


def _mark(function: FunctionT, role: str, *injections: Injection) -> FunctionT:
    before = declaration(function) or Declaration()
    mark = replace(before, role=role or before.role, injections=(*injections, *before.injections))
    setattr(function, _MARK, mark)
    return function
