"""Which functions of a package a task may call, and how one is called with what it wants to be given."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, Protocol

from skerry import decorators
from skerry.decorators import Declaration, Injection, declaration
from skerry.errors import AlgorithmError, InputError, MethodNotFound
from skerry.wire import Input

_DEPTH = 20


@dataclass(frozen=True, slots=True)
class RunMetadata:
    """What a run may know of itself."""

    task_id: int
    node_id: int
    collaboration_id: int
    organization_id: int
    temporary_directory: str
    output_file: str
    input_file: str
    token_file: str


class Surroundings(Protocol):
    """Where a function runs: a container, or a federation in memory."""

    def client(self) -> Any: ...

    def frames(self, count: int) -> Sequence[Any]: ...

    def databases(self, count: int) -> Sequence[Any]: ...

    def metadata(self) -> RunMetadata: ...


def offered(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions that a task may call, by name.

    A package that marks functions with decorators offers those and no others. One that marks none offers its public
    functions: its own, not what it imports, and only those in ``__all__`` where there is one.
    """
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    marked = {name: value for name, value in public.items() if declaration(value) is not None}
    return marked or {name: value for name, value in public.items() if _is_own(value, name, module)}


def find(module: ModuleType, name: str) -> Callable[..., Any]:
    """Raises MethodNotFound, naming those that there are."""
    functions = offered(module)
    if name not in functions:
        names = ", ".join(sorted(functions)) or "none"
        raise MethodNotFound(f'The algorithm "{module.__name__}" has no function "{name}"; it has: {names}.')
    return functions[name]


def call(function: Callable[..., Any], asked: Input, surroundings: Surroundings) -> Any:
    """The function's value. Raises InputError, before any data is loaded, when the arguments don't fit."""
    marks = declaration(function) or Declaration()
    _check_arguments(function, marks, asked)
    injected = [value for injection in marks.injections for value in _gather(injection, surroundings)]
    return function(*injected, *asked.args, **asked.kwargs)


def dump(value: Any, method: str) -> bytes:
    """The result as JSON. Raises AlgorithmError, saying where, for nothing and for what can't be JSON."""
    if value is None:
        raise AlgorithmError(f'The function "{method}" returned nothing; it must return what can be written as JSON.')
    try:
        return json.dumps(value).encode()
    except TypeError as error:
        cause: Exception = error
        reason = _misfit(value, "result", _DEPTH) or str(error)
    except (ValueError, RecursionError) as error:
        cause, reason = error, "it holds itself, or is nested too deeply"
    raise AlgorithmError(f'The function "{method}" returned what can\'t be written as JSON: {reason}.') from cause


def _is_own(value: object, name: str, module: ModuleType) -> bool:
    if not isinstance(value, FunctionType) or name not in getattr(module, "__all__", [name]):
        return False
    return f"{value.__module__}.".startswith(f"{module.__name__}.")


def _check_arguments(function: Callable[..., Any], marks: Declaration, asked: Input) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(*[None] * marks.count, *asked.args, **asked.kwargs)
    except TypeError as error:
        names = ", ".join(list(signature.parameters)[marks.count :]) or "none"
        given = ", ".join([*(f"{len(asked.args)} without name" for _ in asked.args[:1]), *asked.kwargs]) or "none"
        raise InputError(
            f'The function "{asked.method}" can\'t be called so: {error}. Its arguments are: {names}; given: {given}.'
        ) from error


def _gather(injection: Injection, surroundings: Surroundings) -> Sequence[Any]:
    if injection.what == decorators.CLIENT:
        return [surroundings.client()]
    if injection.what == decorators.METADATA:
        return [surroundings.metadata()]
    if injection.what == decorators.FRAMES:
        return surroundings.frames(injection.count)
    return surroundings.databases(injection.count)


def _misfit(value: object, path: str, depth: int) -> str:
    """Where in a value, down to some depth, the first thing sits that JSON has no word for."""
    if isinstance(value, str | int | float | bool | None) or depth == 0:
        return ""
    if isinstance(value, dict):
        wrong = next((key for key in value if not isinstance(key, str | int | float | bool | None)), None)
        if wrong is not None:
            return f"{path} has a key of type {type(wrong).__name__}"
        parts = [(f"{path}[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{path}[{index}]", part) for index, part in enumerate(value)]
    else:
        return f"{path} is of type {type(value).__name__}; make it a number, a text, a list or a dict first"
    return next(filter(None, (_misfit(part, where, depth - 1) for where, part in parts)), "")
